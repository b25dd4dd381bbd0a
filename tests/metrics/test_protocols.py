"""The protocols of revisited Oxford and Paris, Oxford5k and Paris6k, Holidays, and labels, against loops."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.rankings import AP_LOOPS, PRECISION_LOOPS

from skretrieval.metrics import (
    evaluate_holidays,
    evaluate_labels,
    evaluate_oxford,
    evaluate_revisited,
    ground_truth_from_labels,
    mean_average_precision,
    precision_at_k,
)

KAPPAS = (1, 5, 10)


def loop_over_queries(ranks, queries, kappas, precision, method):
    """Scores of rankings by lists of (positives, junk), one query and one image at a time."""
    ap, at = [], []
    for ranking, (positives, junk) in zip(ranks.tolist(), queries, strict=True):
        if len(positives) == 0:
            ap.append(np.nan)
            continue
        ap.append(AP_LOOPS[method](ranking, set(positives), set(junk)))
        at.append([PRECISION_LOOPS[precision](ranking, set(positives), set(junk), k) for k in kappas])
    if not at:
        return {"map": np.nan, "ap": ap, "precision_at": [np.nan] * len(kappas)}
    return {
        "map": np.mean([score for score in ap if score == score]),
        "ap": ap,
        "precision_at": np.mean(at, axis=0),
    }


def assert_same_scores(found, expected):
    assert list(found) == ["map", "ap", "precision_at"]
    assert isinstance(found["map"], float)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-12, atol=1e-14)


def revisited_loop(ranks, gnd, kappas, precision, method):
    easy, hard, junk = ([list(map(int, entry[key])) for entry in gnd] for key in ("easy", "hard", "junk"))
    levels = {
        "easy": [(e, j + h) for e, h, j in zip(easy, hard, junk, strict=True)],
        "medium": [(e + h, j) for e, h, j in zip(easy, hard, junk, strict=True)],
        "hard": [(h, j + e) for e, h, j in zip(easy, hard, junk, strict=True)],
    }
    return {
        level: loop_over_queries(ranks, queries, kappas, precision, method)
        for level, queries in levels.items()
    }


def random_case(rng, n_queries=None):
    """Rankings of a gallery of 1 to 60 images, often cut off, and three disjoint groups, any of them empty."""
    n_queries = n_queries or rng.integers(1, 20)
    n_gallery = rng.integers(1, 61)
    n_ranked = rng.choice([n_gallery, rng.integers(0, n_gallery + 1)])
    ranks = np.stack([rng.permutation(n_gallery)[:n_ranked] for _ in range(n_queries)])
    groups = []
    for _ in range(n_queries):
        sizes = rng.integers(0, 2 + n_gallery // 3, size=3) * (rng.random(3) < 0.8)
        groups.append(np.split(rng.permutation(n_gallery), np.cumsum(sizes))[:3])
    return ranks, groups


@pytest.mark.parametrize("method", AP_LOOPS)
@pytest.mark.parametrize("precision", PRECISION_LOOPS)
def test_revisited_equals_the_loops_on_thousands_of_rankings(method, precision):
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(150):
        ranks, groups = random_case(rng)
        gnd = [dict(zip(("easy", "hard", "junk"), group, strict=True)) for group in groups]
        kappas = tuple(map(int, rng.integers(1, 30, size=rng.integers(0, 4))))
        found = evaluate_revisited(ranks, gnd, kappas, precision=precision, method=method)
        expected = revisited_loop(ranks, gnd, kappas, precision, method)
        assert list(found) == ["easy", "medium", "hard"]
        for level in found:
            assert_same_scores(found[level], expected[level])
            maps.append(found[level]["map"])
    assert np.nanstd(maps) > 0.05
    assert 0 < np.isnan(maps).sum() < 60


def test_oxford_and_labels_equal_loops_on_thousands_of_rankings():
    rng = np.random.default_rng(1)
    for _ in range(300):
        ranks, groups = random_case(rng)
        queries = [([*good, *ok], junk) for good, ok, junk in groups]
        for precision in PRECISION_LOOPS:
            expected = loop_over_queries(ranks, queries, KAPPAS, precision, "trapezoid")
            entries = [{"good": good, "ok": ok, "junk": junk} for good, ok, junk in groups]
            assert_same_scores(evaluate_oxford(ranks, entries, precision=precision), expected)
            entries = [{"positives": positives, "junk": junk} for positives, junk in queries]
            assert_same_scores(evaluate_labels(ranks, entries, precision=precision), expected)


@pytest.mark.parametrize("database", ["all", "non_queries"])
def test_holidays_equals_the_loops_on_thousands_of_rankings(database):
    rng = np.random.default_rng(2)
    maps = []
    for _ in range(200):
        n_gallery = rng.integers(2, 50)
        labels = rng.integers(0, 1 + n_gallery // 3, n_gallery)
        queries = np.sort(np.unique(labels, return_index=True)[1])
        ground_truth = ground_truth_from_labels(labels, queries=queries)
        ranks = np.stack([rng.permutation(n_gallery) for _ in queries])[:, : rng.integers(1, n_gallery + 1)]
        sets = []
        for own in queries:
            others = [i for i in range(n_gallery) if labels[i] == labels[own] and i != own]
            sets.append((others, [own] if database == "all" else queries))
        expected = loop_over_queries(ranks, sets, KAPPAS, "standard", "trapezoid")
        found = evaluate_holidays(ranks, ground_truth, database=database)
        assert_same_scores(found, expected)
        maps.append(found["map"])
        if database == "all":
            assert_same_scores(evaluate_labels(ranks, ground_truth), expected)
            as_junk = [{"positives": entry["positives"], "junk": [entry["query"]]} for entry in ground_truth]
            assert_same_scores(evaluate_holidays(ranks, as_junk), expected)
    assert np.nanstd(maps) > 0.05


def test_non_query_database_drops_queries_that_are_positives():
    """With two queries of one group, each is gone from the database of the other."""
    ground_truth = ground_truth_from_labels([0, 0, 0, 1], queries=[0, 1])
    ranks = [[0, 3, 2, 1], [0, 1, 2, 3]]
    np.testing.assert_array_equal(
        evaluate_holidays(ranks, ground_truth, database="non_queries")["ap"], [0.25, 1.0]
    )
    found = evaluate_holidays(ranks, ground_truth)["ap"]
    np.testing.assert_allclose(found, [(0 + 1 / 2 + 1 / 2 + 2 / 3) / 4, 1.0])


def test_revisited_by_hand():
    gnd = [{"easy": [4, 1], "hard": [2], "junk": [0]}, {"easy": [], "hard": [0], "junk": [1, 2]}]
    ranks = np.array([[0, 4, 2, 3, 1], [2, 3, 1, 4, 0]])
    scores = evaluate_revisited(ranks, gnd, kappas=(1, 2, 10))
    # Easy: 0 and 2 go, which leaves 4 3 1; the second query has no positive.
    assert scores["easy"]["map"] == pytest.approx((1 + 1 + 1 / 2 + 2 / 3) / 4)
    assert np.isnan(scores["easy"]["ap"][1])
    np.testing.assert_allclose(scores["easy"]["precision_at"], [1, 1 / 2, 2 / 3])
    # Medium: 4 2 3 1 and 3 4 0.
    np.testing.assert_allclose(scores["medium"]["ap"], [(1 + 1 + 1 + 1 + 2 / 3 + 3 / 4) / 6, 1 / 6])
    np.testing.assert_allclose(scores["medium"]["precision_at"], [1 / 2, 1 / 2, (3 / 4 + 1 / 3) / 2])
    # Hard: 2 3, and 3 4 0 as before.
    np.testing.assert_allclose(scores["hard"]["ap"], [1, 1 / 6])
    standard = evaluate_revisited(ranks, gnd, kappas=(1, 2, 10), precision="standard")
    np.testing.assert_allclose(standard["medium"]["precision_at"], [1 / 2, 1 / 2, (3 / 10 + 1 / 10) / 2])


@st.composite
def rankings(draw):
    n_gallery = draw(st.integers(1, 25))
    n_queries = draw(st.integers(1, 4))
    roles = draw(
        st.lists(
            st.lists(st.integers(0, 3), min_size=n_gallery, max_size=n_gallery),
            min_size=n_queries,
            max_size=n_queries,
        )
    )
    ranks = [draw(st.permutations(range(n_gallery))) for _ in range(n_queries)]
    gnd = [
        {key: np.flatnonzero(np.array(row) == code) for code, key in enumerate(("easy", "hard", "junk"))}
        for row in roles
    ]
    return np.array(ranks), gnd, n_gallery


@settings(max_examples=150, deadline=None)
@given(rankings(), st.integers(1, 30), st.data())
def test_invariances(case, n_distractors, data):
    ranks, gnd, n_gallery = case
    scores = evaluate_revisited(ranks, gnd)

    def same(other):
        for level, expected in scores.items():
            for key, value in expected.items():
                np.testing.assert_array_equal(other[level][key], value)

    # Distractors after all others change nothing; whether they are ranked at all neither.
    tail = np.tile(np.arange(n_gallery, n_gallery + n_distractors), (len(ranks), 1))
    same(evaluate_revisited(np.hstack([ranks, tail]), gnd))
    # What the images of the gallery are called does not matter.
    names = np.array(data.draw(st.permutations(range(n_gallery + n_distractors))))
    same(evaluate_revisited(names[ranks], [{key: names[ids] for key, ids in entry.items()} for entry in gnd]))
    # Queries do not influence each other.
    for query, entry in enumerate(gnd):
        alone = evaluate_revisited(ranks[[query]], [entry])
        for level in scores:
            np.testing.assert_array_equal(alone[level]["ap"], scores[level]["ap"][[query]])
    # Positives of the levels: with neither hard images nor junk, easy is medium.
    plain = evaluate_revisited(ranks, [{"easy": entry["easy"], "hard": [], "junk": []} for entry in gnd])
    np.testing.assert_array_equal(plain["easy"]["ap"], plain["medium"]["ap"])
    # Distractors in front never help.
    worse = evaluate_revisited(np.hstack([tail, ranks]), gnd)
    for level in scores:
        there = ~np.isnan(scores[level]["ap"])
        assert np.all(worse[level]["ap"][there] < scores[level]["ap"][there])


def test_agrees_with_the_functions_for_lists_of_ids():
    rng = np.random.default_rng(0)
    ranks, groups = random_case(rng, n_queries=40)
    positives, junk = [[*easy, *hard] for easy, hard, _ in groups], [group[2] for group in groups]
    entries = [dict(zip(("easy", "hard", "junk"), group, strict=True)) for group in groups]
    scores = evaluate_revisited(ranks, entries)["medium"]
    assert scores["map"] == pytest.approx(mean_average_precision(ranks, positives, junk), rel=1e-14)
    for k, precision in zip(KAPPAS, scores["precision_at"], strict=True):
        assert precision == pytest.approx(
            precision_at_k(ranks, positives, k, junk, mode="revisitop"), rel=1e-14
        )


def official_ground_truth(rng, n_gallery=4993, n_queries=70):
    """What the official file of revisited Oxford holds, lists for one half of the queries, arrays for the other."""
    gnd = []
    for query in range(n_queries):
        easy, hard, junk = np.split(rng.permutation(n_gallery)[:300], [40 * (query % 7 > 0), 120])
        entry = {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": easy, "hard": hard, "junk": junk}
        if query % 2:
            entry = {key: list(map(int, ids)) if key != "bbx" else ids for key, ids in entry.items()}
        gnd.append(entry)
    return {
        "gnd": gnd,
        "imlist": [f"gallery_{i:06}" for i in range(n_gallery)],
        "qimlist": [f"query_{i:06}" for i in range(n_queries)],
    }


def test_official_ground_truth_and_size():
    rng = np.random.default_rng(0)
    official = pickle.loads(pickle.dumps(official_ground_truth(rng)))
    ranks = rng.permuted(np.tile(np.arange(4993), (70, 1)), axis=1)
    found = evaluate_revisited(ranks, official)
    expected = revisited_loop(ranks, official["gnd"], KAPPAS, "revisitop", "trapezoid")
    for level in found:
        assert_same_scores(found[level], expected[level])
    assert np.isnan(found["easy"]["ap"]).sum() == 10
    for level, scores in evaluate_revisited(ranks, official["gnd"]).items():
        np.testing.assert_array_equal(scores["ap"], found[level]["ap"])


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.uint32, np.uint64, np.intp])
def test_integer_types_memory_orders_and_read_only_rankings(dtype):
    rng = np.random.default_rng(0)
    official = official_ground_truth(rng, n_gallery=400, n_queries=8)
    ranks = rng.permuted(np.tile(np.arange(400), (8, 1)), axis=1)
    expected = evaluate_revisited(ranks, official)["medium"]["ap"]
    typed = ranks.astype(dtype)
    typed.flags.writeable = False
    for array in (typed, np.asfortranarray(typed), np.ascontiguousarray(typed.T).T, typed.tolist()):
        np.testing.assert_array_equal(evaluate_revisited(array, official)["medium"]["ap"], expected)
    typed_gnd = [
        {key: np.asarray(entry[key], dtype=dtype) for key in ("easy", "hard", "junk")}
        for entry in official["gnd"]
    ]
    np.testing.assert_array_equal(evaluate_revisited(ranks, typed_gnd)["medium"]["ap"], expected)


def test_many_distractors():
    """Indices far beyond the ground truth, in whole and in short rankings of a large gallery."""
    rng = np.random.default_rng(0)
    gnd = official_ground_truth(rng, n_queries=2)
    ranks = rng.permuted(np.tile(np.arange(200_000, dtype=np.int32), (2, 1)), axis=1)
    for n_ranked in (200_000, 10_000, 100):
        found = evaluate_revisited(ranks[:, :n_ranked], gnd)
        expected = revisited_loop(ranks[:, :n_ranked], gnd["gnd"], KAPPAS, "revisitop", "trapezoid")
        for level in found:
            assert_same_scores(found[level], expected[level])


def test_no_positive_anywhere_is_nan_and_nothing_found_is_zero():
    gnd = [{"easy": [], "hard": [1], "junk": [0]}] * 2
    scores = evaluate_revisited([[0, 2], [2, 0]], gnd)
    assert np.isnan(scores["easy"]["map"])
    assert np.all(np.isnan(scores["easy"]["ap"]))
    assert np.all(np.isnan(scores["easy"]["precision_at"]))
    assert scores["hard"]["map"] == 0.0
    np.testing.assert_array_equal(scores["hard"]["precision_at"], [0, 0, 0])
    nothing = evaluate_revisited(np.empty((2, 0)), gnd)
    np.testing.assert_array_equal(nothing["medium"]["ap"], [0, 0])
    assert evaluate_revisited([[0, 2], [2, 0]], gnd, kappas=())["hard"]["precision_at"].shape == (0,)


GND = [{"easy": [0], "hard": [1], "junk": []}, {"easy": [1], "hard": [], "junk": [0]}]


@pytest.mark.parametrize(
    ("ranks", "error", "message"),
    [
        (np.arange(3), ValueError, r"shape \(n_queries, n_ranked\), got 1 dimensions"),
        ([[0, 1], [0]], ValueError, "all rows of the same length"),
        (np.zeros((3, 2), dtype=int), ValueError, r"shape \(3, 2\), for 2 queries. It may be transposed"),
        (
            np.zeros((3, 4), dtype=int),
            ValueError,
            r"one row per query: it has shape \(3, 4\), for 2 queries.$",
        ),
        (np.zeros((0, 2), dtype=int), ValueError, "There is no query"),
        ([[0.0, 1.0], [1.0, 0.0]], TypeError, "integers, got dtype float64"),
        ([[True, False], [True, False]], TypeError, "integers, got dtype bool"),
        ([["0", "1"], ["1", "0"]], TypeError, "integers, got dtype <U1"),
        ([[0, 1], [1, -1]], ValueError, "Query 1: ranks holds the negative index -1"),
        ([[0, 1], [1, 1]], ValueError, "Query 1: id 1 is ranked more than once"),
    ],
)
def test_errors_of_rankings(ranks, error, message):
    entries = ground_truth_from_labels([0, 0], queries=[0, 1])
    for call in (
        lambda: evaluate_revisited(ranks, GND),
        lambda: evaluate_oxford(ranks, [{"good": [0], "ok": [], "junk": []}] * 2),
        lambda: evaluate_holidays(ranks, entries),
        lambda: evaluate_labels(ranks, entries),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        (
            {"easy": [0], "hard": []},
            ValueError,
            r"Query 1: the ground truth has no 'junk', only \['easy', 'hard'\]",
        ),
        ({"easy": None, "hard": [], "junk": []}, ValueError, "Query 1: the ground truth has no 'easy'"),
        ({"easy": [0], "hard": [0], "junk": []}, ValueError, "Query 1: id 0 is both easy and hard"),
        ({"easy": [], "hard": [3], "junk": [3]}, ValueError, "Query 1: id 3 is both hard and junk"),
        (
            {"easy": [-1], "hard": [], "junk": []},
            ValueError,
            "Query 1: ground truth 'easy' holds the negative index",
        ),
        (
            {"easy": ["a"], "hard": [], "junk": []},
            TypeError,
            "Query 1: ground truth 'easy' must hold gallery indices",
        ),
        ({"easy": [0.5], "hard": [], "junk": []}, TypeError, "Query 1: ground truth 'easy' must hold ids"),
        (
            {"easy": [[0]], "hard": [], "junk": []},
            ValueError,
            "Query 1: ground truth 'easy' must be one-dimensional",
        ),
    ],
)
def test_errors_of_the_ground_truth(entry, error, message):
    with pytest.raises(error, match=message):
        evaluate_revisited([[0, 1], [1, 0]], [GND[0], entry])


def test_errors_of_the_form_and_of_options():
    ranks = [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match=r"gnd is a dict without the key 'gnd'; its keys are \['imlist'\]"):
        evaluate_revisited(ranks, {"imlist": []})
    with pytest.raises(ValueError, match="must be a sequence of dicts, one per query"):
        evaluate_revisited(ranks, [[0], [1]])
    with pytest.raises(ValueError, match="must be a sequence of dicts, one per query"):
        evaluate_oxford(ranks, {"good": [0], "ok": [], "junk": []})
    with pytest.raises(ValueError, match="mode must be one of 'standard', 'revisitop', got 'oxford'"):
        evaluate_revisited(ranks, GND, precision="oxford")
    with pytest.raises(ValueError, match="method must be one of"):
        evaluate_revisited(ranks, GND, method="area")
    for kappas in ((0,), (1, 2.5), (True,)):
        with pytest.raises(ValueError, match="k must be an integer of at least 1"):
            evaluate_revisited(ranks, GND, kappas)
    entries = [{"query": 0, "positives": [1]}, {"query": 1, "positives": [0]}]
    with pytest.raises(ValueError, match="database must be one of 'all', 'non_queries', got 'queries'"):
        evaluate_holidays(ranks, entries, database="queries")
    with pytest.raises(ValueError, match="Query 0: the ground truth has no 'query'"):
        evaluate_holidays(ranks, [{"positives": [1], "junk": [0]}] * 2, database="non_queries")
    with pytest.raises(ValueError, match="Query 0: neither 'query' nor 'junk' says which image is the query"):
        evaluate_holidays(ranks, [{"positives": [1]}] * 2)
    with pytest.raises(ValueError, match="Query 0: ground truth 'query' must be one gallery index"):
        evaluate_labels(ranks, [{"query": [0, 1], "positives": [1]}] * 2)
    with pytest.raises(ValueError, match="Query 0: id 0 is both positive and skipped"):
        evaluate_holidays(ranks, [{"query": 0, "positives": [0, 1]}] * 2)
    with pytest.raises(ValueError, match="There is no query"):
        evaluate_labels(np.empty((0, 0), dtype=int), [])
