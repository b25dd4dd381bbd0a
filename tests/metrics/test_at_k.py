"""Precision and recall of the first k results against loops."""

import numpy as np
import pytest
from references.rankings import recall_loop, revisitop_precision_loop, standard_precision_loop
from sklearn.exceptions import UndefinedMetricWarning

from skretrieval.metrics import precision_at_k, recall_at_k


def loops(*query):
    """Standard precision, that of the revisited protocol, and recall of both kinds, one image at a time."""
    recall = recall_loop(*query)
    return standard_precision_loop(*query), revisitop_precision_loop(*query), recall, float(recall > 0)


def random_queries(n_queries=500, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n_queries):
        ids = rng.permutation(60)[: rng.integers(4, 40)]
        n_positives = rng.integers(1, 4)
        junk = ids[n_positives : n_positives + rng.integers(0, 10)]
        ranking = rng.permutation(ids)[: rng.integers(0, len(ids) + 1)]
        yield ranking, set(ids[:n_positives].tolist()), set(junk.tolist())


@pytest.mark.parametrize("k", [1, 5, 10, 50])
def test_equal_the_loops(k):
    queries = list(random_queries())
    expected = np.array([loops(*query, k) for query in queries])
    rankings, positives, junk = zip(*queries, strict=True)
    found = [
        [
            precision_at_k(*query[:2], k, query[2]),
            precision_at_k(*query[:2], k, query[2], mode="revisitop"),
            recall_at_k(*query[:2], k, query[2]),
            recall_at_k(*query[:2], k, query[2], mode="any"),
        ]
        for query in queries
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    means = [
        precision_at_k(rankings, positives, k, junk),
        precision_at_k(rankings, positives, k, junk, mode="revisitop"),
        recall_at_k(rankings, positives, k, junk),
        recall_at_k(rankings, positives, k, junk, mode="any"),
    ]
    np.testing.assert_allclose(means, expected.mean(axis=0), rtol=1e-12)


def test_revisited_precision_by_hand():
    """Two positives at places 1 and 3: precision at 10 is 2/3, not 2/10."""
    ranking, positives = [5, 0, 6, 1, 2, 3, 4, 7, 8, 9], [5, 6]
    assert precision_at_k(ranking, positives, 10) == 0.2
    assert precision_at_k(ranking, positives, 10, mode="revisitop") == pytest.approx(2 / 3)
    assert precision_at_k(ranking, positives, 2, mode="revisitop") == 0.5
    assert precision_at_k(ranking, positives, 10, [0], mode="revisitop") == 1.0
    assert precision_at_k([0, 1], positives, 10, mode="revisitop") == 0.0


def test_queries_without_positives_are_left_out():
    assert np.isnan(precision_at_k([1, 2], [], 1))
    assert np.isnan(recall_at_k([1, 2], [], 1))
    rankings = np.array([[0, 1], [0, 1], [1, 0]])
    assert precision_at_k(rankings, [[0], [], [0]], 1) == 0.5
    assert recall_at_k(rankings, [[0], [], [0]], 2) == 1.0
    with pytest.warns(UndefinedMetricWarning, match="No query has a positive"):
        assert np.isnan(recall_at_k(rankings, [[], [], []], 1))


def test_one_query_or_several():
    for one in ([3, 1], (3, 1), np.array([3, 1]), ["3", "1"]):
        positives = ["3"] if isinstance(one[0], str) else [3]
        assert precision_at_k(one, positives, 1) == 1.0
        assert precision_at_k([one, one[::-1]], [positives, positives], 1) == 0.5
    assert precision_at_k([], [3], 1) == 0.0


@pytest.mark.parametrize("score", [precision_at_k, recall_at_k])
def test_errors(score):
    for k in (0, -1, 1.5, True, "1"):
        with pytest.raises(ValueError, match="k must be an integer of at least 1"):
            score([1, 2], [1], k)
    with pytest.raises(ValueError, match="mode must be one of"):
        score([1, 2], [1], 1, mode="oxford")
    with pytest.raises(ValueError, match="ranked more than once"):
        score([1, 1], [1], 1)
    with pytest.raises(ValueError, match="Query 1: id 3 is both positive and junk"):
        score([[1, 2], [3, 1]], [[1], [3]], 1, [[], [3]])
    with pytest.raises(ValueError, match="positives has 1 entries"):
        score([[1, 2], [3, 1]], [[1]], 1)
