"""One call for every protocol, and ground truth from labels."""

import numpy as np
import pytest

from skretrieval.metrics import (
    evaluate,
    evaluate_holidays,
    evaluate_labels,
    evaluate_oxford,
    evaluate_rankings,
    evaluate_revisited,
    evaluate_ukbench,
    ground_truth_from_labels,
    standard_error,
)

RNG = np.random.default_rng(0)
RANKS = RNG.permuted(np.tile(np.arange(12), (12, 1)), axis=1)
GROUPS = np.repeat(np.arange(3), 4)
LABELS = ground_truth_from_labels(GROUPS)


@pytest.mark.parametrize(
    ("protocol", "function", "ground_truth", "options"),
    [
        ("labels", evaluate_labels, LABELS, {"method": "finite"}),
        ("holidays", evaluate_holidays, LABELS[:2], {"database": "non_queries", "kappas": (2,)}),
        (
            "oxford",
            evaluate_oxford,
            [{"good": [1], "ok": [2, 3], "junk": [0]}] * 12,
            {"precision": "revisitop"},
        ),
        (
            "oxford",
            evaluate_oxford,
            [{"good": [], "ok": [], "junk": [0]}, {"good": [1], "ok": [2], "junk": []}],
            {},
        ),
    ],
)
def test_protocols_of_one_level(protocol, function, ground_truth, options):
    ranks = RANKS[: len(ground_truth)]
    expected = function(ranks, ground_truth, **options)
    figures = evaluate_rankings(ranks, ground_truth, protocol, **options)
    assert list(figures) == ["map"]
    figures = figures["map"]
    assert set(figures) == {"score", "standard_error", "n_queries", "per_query", "precision_at"}
    assert figures["score"] == expected["map"]
    np.testing.assert_array_equal(figures["per_query"], expected["ap"])
    np.testing.assert_array_equal(figures["precision_at"], expected["precision_at"])
    assert figures["n_queries"] == np.sum(expected["ap"] == expected["ap"])
    np.testing.assert_equal(figures["standard_error"], standard_error(expected["ap"]))


def test_revisited():
    gnd = {"gnd": [{"easy": [0], "hard": [4, 5], "junk": [1]}, {"easy": [], "hard": [2], "junk": []}]}
    expected = evaluate_revisited(RANKS[:2], gnd, (3,))
    figures = evaluate_rankings(RANKS[:2], gnd, "revisited", kappas=(3,))
    assert list(figures) == ["easy", "medium", "hard"]
    assert [figure["n_queries"] for figure in figures.values()] == [1, 2, 2]
    for level, figure in figures.items():
        assert figure["score"] == expected[level]["map"]
        np.testing.assert_array_equal(figure["per_query"], expected[level]["ap"])
    assert np.isnan(figures["easy"]["standard_error"])


def test_ukbench():
    figures = evaluate_rankings(RANKS, GROUPS, "ukbench")
    expected = evaluate_ukbench(RANKS, GROUPS)
    assert list(figures) == ["ns"]
    assert set(figures["ns"]) == {"score", "standard_error", "n_queries", "per_query"}
    assert figures["ns"]["score"] == expected["score"]
    assert figures["ns"]["n_queries"] == 12
    first = evaluate_rankings(RANKS[::4], GROUPS, "ukbench", queries="first")["ns"]
    np.testing.assert_array_equal(first["per_query"], expected["per_query"][::4])


def test_unknown_protocols_and_options():
    with pytest.raises(ValueError, match=r"protocol must be one of 'oxford', 'revisited', .* got 'roxford'"):
        evaluate_rankings(RANKS, LABELS, "roxford")
    with pytest.raises(TypeError, match="database"):
        evaluate_rankings(RANKS, LABELS, "labels", database="all")


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("kind", [int, str, object])
def test_ground_truth_equals_the_loop(kind):
    rng = np.random.default_rng(0)
    for _ in range(50):
        gallery, outside = rng.integers(0, 6, 20), rng.integers(0, 8, 5)
        queries = rng.permutation(20)[:5]
        typed = (
            [gallery.astype(str).astype(object), outside.astype(str)]
            if kind is object
            else [gallery.astype(kind), outside.astype(kind)]
        )
        same(
            ground_truth_from_labels(*typed),
            [{"positives": [i for i in range(20) if gallery[i] == label]} for label in outside],
        )
        expected = [
            {"query": own, "positives": [i for i in range(20) if gallery[i] == gallery[own] and i != own]}
            for own in range(20)
        ]
        same(ground_truth_from_labels(typed[0]), expected)
        same(ground_truth_from_labels(typed[0].tolist(), queries=queries), [expected[own] for own in queries])


def test_distractors_are_nobodys_positives():
    same(
        ground_truth_from_labels([-1, 0, -1, 0]),
        [
            {"query": 0, "positives": []},
            {"query": 1, "positives": [3]},
            {"query": 2, "positives": []},
            {"query": 3, "positives": [1]},
        ],
    )
    same(
        ground_truth_from_labels(["-1", "-1"]),
        [{"query": 0, "positives": [1]}, {"query": 1, "positives": [0]}],
    )
    assert ground_truth_from_labels([0, 1], []) == []


def test_errors_of_labels():
    with pytest.raises(ValueError, match=r"either query_labels .* or queries"):
        ground_truth_from_labels([0, 1], [0], queries=[0])
    for queries in ([2], [-1]):
        with pytest.raises(ValueError, match="between 0 and 1, the last gallery index"):
            ground_truth_from_labels([0, 1], queries=queries)
    with pytest.raises(TypeError, match="queries must be gallery indices, got dtype float64"):
        ground_truth_from_labels([0, 1], queries=[0.0])
    with pytest.raises(TypeError, match="both strings or both numbers"):
        ground_truth_from_labels([0, 1], ["0"])


def test_the_former_name_still_works():
    with pytest.warns(FutureWarning, match="evaluate is now evaluate_rankings"):
        figures = evaluate(RANKS, LABELS, "labels", kappas=(2,))
    expected = evaluate_rankings(RANKS, LABELS, "labels", kappas=(2,))
    np.testing.assert_array_equal(figures["map"]["per_query"], expected["map"]["per_query"])
