"""N-S of UKBench against a loop."""

import numpy as np
import pytest

from skretrieval.metrics import evaluate_ukbench, recall_at_k, ukbench_score


def loop(ranks, groups, owners):
    """Images of the object of the query among the first four, one at a time."""
    counts = []
    for ranking, own in zip(ranks, owners, strict=True):
        counts.append(sum(int(item) < len(groups) and groups[item] == groups[own] for item in ranking[:4]))
    return np.array(counts)


@pytest.mark.parametrize("queries", ["all", "first"])
def test_equals_the_loop_on_thousands_of_rankings(queries):
    rng = np.random.default_rng(0)
    for case in range(100):
        n_objects, n_distractors = rng.integers(1, 11), rng.integers(0, 4)
        groups = np.repeat(np.arange(n_objects), 4)
        if case % 3:
            groups = rng.permutation(groups) if case % 3 == 1 else rng.permutation(groups.astype(str))
        owners = np.arange(4 * n_objects)
        if queries == "first":
            owners = np.array([i for i in owners if groups[i] not in groups[:i]])
        n_gallery = 4 * n_objects + n_distractors
        width = rng.integers(4, n_gallery + 1)
        ranks = np.stack([rng.permutation(n_gallery)[:width] for _ in owners])
        expected = loop(ranks, groups, owners)
        found = evaluate_ukbench(ranks, groups, queries=queries)
        np.testing.assert_array_equal(found["per_query"], expected)
        assert found["score"] == pytest.approx(expected.mean(), rel=1e-14)
        assert ukbench_score(ranks, groups, queries=queries) == found["score"]
        positives = [np.flatnonzero(groups == groups[own]) for own in owners]
        assert found["score"] == pytest.approx(4 * recall_at_k(ranks, positives, 4), rel=1e-12)
        entries = [{"positives": rng.permutation(ids)} for ids in positives]
        np.testing.assert_array_equal(evaluate_ukbench(ranks, entries)["per_query"], expected)
        if case % 3 == 0:
            assert ukbench_score(ranks, queries=queries) == found["score"]


def test_perfect_and_worst():
    groups = np.arange(10200) // 4
    first = 4 * groups[:, None]
    assert ukbench_score(first + np.arange(4)) == 4.0
    assert ukbench_score((first + np.arange(4))[::4], queries="first") == 4.0
    assert ukbench_score((first + 4 + np.arange(4)) % 10200) == 0.0
    assert ukbench_score(np.tile([10200, 10201, 10202, 20000], (10200, 1)), groups) == 0.0


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint64])
def test_integer_types(dtype):
    ranks = np.array([[0, 1, 5, 2], [1, 0, 6, 7], [2, 3, 1, 4], [3, 2, 1, 0]], dtype=dtype)
    np.testing.assert_array_equal(evaluate_ukbench(ranks)["per_query"], [3, 2, 3, 4])


def test_errors():
    ranks = np.tile(np.arange(8), (8, 1))
    groups = np.repeat([0, 1], 4)
    with pytest.raises(ValueError, match="queries must be one of 'all', 'first', got 'some'"):
        ukbench_score(ranks, queries="some")
    with pytest.raises(ValueError, match="groups of four images, but 1 has 3"):
        ukbench_score(ranks[:7], groups[:7])
    with pytest.raises(ValueError, match="has 7 rows, but"):
        ukbench_score(ranks[:7])
    with pytest.raises(ValueError, match="Query 1: N-S is defined for four positives, got 3"):
        ukbench_score(ranks[:2], [{"positives": [0, 1, 2, 3]}, {"positives": [4, 5, 6, 6]}])
    with pytest.raises(ValueError, match="Query 0: the ground truth has no 'positives'"):
        ukbench_score(ranks[:1], [{"query": 0}])
    with pytest.raises(ValueError, match=r"shape \(8, 8\), for 2 queries"):
        ukbench_score(ranks, groups, queries="first")
    with pytest.raises(ValueError, match=r"pass ranks\.T"):
        ukbench_score(np.zeros((20, 8), dtype=int), groups)
    with pytest.raises(ValueError, match="needs the first four images of each ranking, got 3"):
        ukbench_score(ranks[:, :3])
    with pytest.raises(ValueError, match="Query 0: id 1 is ranked more than once"):
        ukbench_score(ranks[:, [0, 1, 2, 1]])
    with pytest.raises(ValueError, match="Query 0: ranks holds the negative index -1"):
        ukbench_score(ranks - 1)
    with pytest.raises(TypeError, match="got dtype float64"):
        ukbench_score(ranks * 1.0)
    with pytest.raises(ValueError, match="There is no query"):
        ukbench_score(np.empty((0, 4), dtype=int))
