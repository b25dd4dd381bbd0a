"""Average precision against loops over the ranking, and its invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.rankings import AP_LOOPS
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score

from skretrieval._average_precision import METHODS, ap_from_relevance
from skretrieval.metrics import average_precision, mean_average_precision


def random_queries(n_queries, seed=0):
    """Rankings of galleries of 1 to 40 images, some cut off, with positives and junk not all of which are ranked."""
    rng = np.random.default_rng(seed)
    for _ in range(n_queries):
        size = rng.integers(1, 41)
        ids = rng.permutation(1000)[: size + 6]
        n_positives = rng.integers(1, size + 3)
        positives, rest = ids[:n_positives], ids[n_positives:]
        junk = rest[: rng.integers(0, len(rest) + 1)]
        ranking = rng.permutation(ids)[: rng.integers(0, size + 1)]
        yield ranking, set(positives.tolist()), set(junk.tolist())


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_loop_on_thousands_of_rankings(method):
    queries = list(random_queries(3000))
    expected = [AP_LOOPS[method](*query) for query in queries]
    found = [average_precision(*query, method=method) for query in queries]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert np.std(expected) > 0.1
    total = mean_average_precision(*zip(*queries, strict=True), method=method)
    assert total == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_relevance_equals_the_loop(method):
    rng = np.random.default_rng(0)
    relevant = rng.random((500, 30)) < rng.random((500, 1))
    extra = rng.integers(0, 4, 500)
    found = ap_from_relevance(relevant, relevant.sum(axis=1) + extra, method)
    for row, missing, score in zip(relevant, extra, found, strict=True):
        positives = {*np.flatnonzero(row).tolist(), *range(100, 100 + missing)}
        if positives:
            assert score == pytest.approx(AP_LOOPS[method](range(30), positives, set()), rel=1e-12, abs=1e-14)
        else:
            assert np.isnan(score)
    found = ap_from_relevance(relevant, method=method)
    np.testing.assert_array_equal(found, [ap_from_relevance([row], method=method)[0] for row in relevant])


def test_golden_values():
    """Spec: positives at ranks 4 to 6 of 6."""
    ranking, positives = [0, 1, 2, 3, 4, 5], [3, 4, 5]
    assert average_precision(ranking, positives) == pytest.approx(0.3, abs=1e-15)
    assert average_precision(ranking, positives, method="finite") == pytest.approx(0.383333, abs=5e-7)
    assert average_precision(ranking, positives, method="printed") == 0.0
    # Worked by hand: hits at the first and third place.
    assert average_precision([1, 2, 3], [1, 3]) == pytest.approx((1 + 1 + 1 / 2 + 2 / 3) / 4)
    assert average_precision([1, 2, 3], [1, 3], method="finite") == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([1, 2, 3], [1, 3], method="printed") == pytest.approx((1 + 1 / 2) / 2)


def test_finite_equals_scikit_learn_on_whole_rankings():
    rng = np.random.default_rng(0)
    for _ in range(100):
        relevant = rng.random(20) < 0.3
        relevant[rng.integers(20)] = True
        expected = average_precision_score(relevant, -np.arange(20))
        assert ap_from_relevance([relevant], method="finite") == pytest.approx(expected)


relevance = st.lists(st.booleans(), min_size=1, max_size=30).filter(any)


@settings(max_examples=200, deadline=None)
@given(relevance, st.integers(0, 5))
def test_order_of_the_methods_and_range(row, missing):
    trapezoid, finite, printed = (
        ap_from_relevance([row], sum(row) + missing, method)[0] for method in METHODS
    )
    assert 0 < trapezoid <= finite + 1e-15
    assert finite <= 1
    assert 0 <= printed <= 1
    perfect = all(row[: sum(row)]) and not missing
    assert (trapezoid == pytest.approx(1.0)) == perfect == (finite == pytest.approx(1.0))


@settings(max_examples=200, deadline=None)
@given(relevance, st.data())
def test_moving_a_positive_forward_never_hurts(row, data):
    before = np.array(row)
    gaps = [i for i in range(1, len(row)) if row[i] and not row[i - 1]]
    if not gaps:
        return
    i = data.draw(st.sampled_from(gaps))
    after = before.copy()
    after[[i - 1, i]] = True, False
    for method in METHODS:
        scores = ap_from_relevance([before, after], method=method)
        assert scores[1] > scores[0] if method != "printed" else scores[1] >= scores[0]


@settings(max_examples=200, deadline=None)
@given(relevance, st.lists(st.integers(0, 30), max_size=8))
def test_junk_may_stand_anywhere(row, places):
    ranking = list(range(len(row)))
    positives = np.flatnonzero(row)
    for number, place in enumerate(places):
        ranking.insert(min(place, len(ranking)), 100 + number)
    junk = range(100, 100 + len(places))
    for method in METHODS:
        assert average_precision(ranking, positives, junk, method) == average_precision(
            list(range(len(row))), positives, method=method
        )


@pytest.mark.parametrize("method", METHODS)
def test_perfect_rankings_score_exactly_one(method):
    np.testing.assert_array_equal(ap_from_relevance(np.tri(299, dtype=bool), method=method), 1.0)


@pytest.mark.parametrize("offset", [0, -5, 40, 10**6, 2**62], ids=str)
def test_any_integers_are_ids(offset):
    """Indices are looked up in a table, negative and scattered ids by a sorted search: it must not matter."""
    queries = list(random_queries(200, seed=1))
    for ranking, positives, junk in queries:
        moved = ({item + offset for item in positives}, {item + offset for item in junk})
        assert average_precision(ranking + offset, *moved) == average_precision(ranking, positives, junk)
    with pytest.raises(ValueError, match=f"id {offset} is ranked more than once"):
        average_precision([offset, offset + 1, offset], [offset])


def test_ids_beyond_the_ranking():
    assert average_precision([0, 1], [1, -1, 10**9], [-2, 10**12]) == pytest.approx(0.25 / 3)


def test_missing_positives_contribute_nothing():
    assert average_precision([1, 2], [1, 9]) == 0.5
    assert average_precision([2, 3], [1]) == 0.0
    assert average_precision([], [1]) == 0.0


def test_ids_may_be_integers_or_strings_in_any_collection():
    expected = average_precision([7, 3, 9, 1], [7, 9], [3])
    for ranking, positives, junk in [
        (np.array([7, 3, 9, 1]), {7, 9}, (3,)),
        (np.array([7, 3, 9, 1], dtype=np.uint8), np.array([9, 7, 7]), frozenset({3})),
        (list("gcia"), {"g", "i"}, ["c"]),
        (np.array(["g", "c", "i", "a"], dtype=object), ["g", "i"], ["c"]),
        ((7, 3, 9, 1), range(7, 10, 2), [3, 3]),
    ]:
        assert average_precision(ranking, positives, junk) == expected
    assert average_precision(["a", "b"], [], ["b"]) != 0  # NaN, an empty collection fits both kinds


def test_mean_leaves_out_queries_without_positives():
    rankings = np.array([[0, 1, 2], [2, 1, 0], [0, 1, 2]])
    assert mean_average_precision(rankings, [[0], [], [1]]) == pytest.approx((1 + 0.25) / 2)
    assert mean_average_precision(rankings, [[0], [], [1]], sample_weight=[1, 5, 3]) == pytest.approx(
        (1 + 0.75) / 4
    )
    assert np.isnan(average_precision([1, 2], []))
    with pytest.warns(UndefinedMetricWarning, match="No query has a positive"):
        assert np.isnan(mean_average_precision(rankings, [[], [], []]))
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(mean_average_precision(rankings, [[0], [], [1]], sample_weight=[0, 1, 0]))


def test_mean_takes_ragged_rankings_and_junk_of_each_query():
    score = mean_average_precision([[0, 1, 2], [2]], [[1], [2]], junk=[[0], []])
    assert score == 1.0
    assert mean_average_precision([[0, 1, 2], [2]], [[1], [2]], junk=[]) == pytest.approx((0.25 + 1) / 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2, 1], [1]), ValueError, "id 1 is ranked more than once"),
        (([1, 2], [1], [1, 2]), ValueError, "id 1 is both positive and junk"),
        (([1, 2], ["1"]), TypeError, "all hold integers or all hold strings"),
        (([1, 2], [1], ["2"]), TypeError, "all hold integers or all hold strings"),
        ((["a", 1], ["a"]), TypeError, "ranking mixes strings"),
        (([1.5, 2.5], [1]), TypeError, "got dtype float64"),
        (([1, 2], [True, False]), TypeError, "got dtype bool"),
        (([[1, 2]], [1]), ValueError, "ranking must be one-dimensional"),
        (("abc", ["a"]), TypeError, "got the string 'abc'"),
        (([1, 2], [1], (), "area"), ValueError, "method must be one of 'trapezoid', 'finite', 'printed'"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        average_precision(*arguments)


def test_errors_of_several_queries():
    with pytest.raises(ValueError, match="Query 1: id 2 is ranked more than once"):
        mean_average_precision([[1, 2], [2, 2]], [[1], [2]])
    with pytest.raises(ValueError, match="There are 2 rankings, but positives has 1 entries"):
        mean_average_precision([[1, 2], [2, 1]], [[1]])
    with pytest.raises(ValueError, match="There are 2 rankings, but junk has 1 entries"):
        mean_average_precision([[1, 2], [2, 1]], [[1], [2]], [[2]])
    with pytest.raises(ValueError, match="rankings is empty"):
        mean_average_precision([], [])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        mean_average_precision([[1, 2], [2, 1]], [[1], [2]], sample_weight=[1])
    with pytest.raises(ValueError, match="not negative"):
        mean_average_precision([[1, 2], [2, 1]], [[1], [2]], sample_weight=[1, -1])


def test_errors_of_relevance():
    with pytest.raises(ValueError, match="Query 1 has 2 positives in its ranking, but n_positives=1"):
        ap_from_relevance([[True, False], [True, True]], [1, 1])
    with pytest.raises(ValueError, match="got 1 dimensions"):
        ap_from_relevance([True, False])
    with pytest.raises(ValueError, match=r"n_positives has shape \(3,\), but there are 2 queries"):
        ap_from_relevance([[True, False], [True, True]], [1, 1, 1])


def test_no_queries_and_nothing_ranked():
    assert ap_from_relevance(np.zeros((0, 4), dtype=bool)).shape == (0,)
    np.testing.assert_array_equal(ap_from_relevance(np.zeros((2, 0), dtype=bool), 3), [0, 0])
    assert np.isnan(ap_from_relevance(np.zeros((1, 0), dtype=bool))).all()
