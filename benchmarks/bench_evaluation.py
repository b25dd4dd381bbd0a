"""Evaluation against sorting the scores, one pass over the rankings and a plain loop.

Ground truth is random: 160 easy, 240 hard and 200 junk images of the first 4,993 for each of 70 queries; rankings are
random, too. "argsort" is one sort of all scores, without which there is no ranking. "Plain loop" finds positives and
junk by ``np.isin``, level by level and query by query, which is what evaluation programs commonly do.
"""

from functools import lru_cache, partial

import numpy as np
import pytest

from skretrieval.metrics import (
    evaluate_holidays,
    evaluate_revisited,
    ground_truth_from_labels,
    leave_one_out_map,
    mean_average_precision,
    ukbench_score,
)
from skretrieval.retrieval import NearestNeighborsRetriever

N_QUERIES = 70
N_KNOWN = 4_993
SIZES = [N_KNOWN, pytest.param(1_001_001, marks=pytest.mark.slow)]
LEVELS = {
    "easy": (["easy"], ["junk", "hard"]),
    "medium": (["easy", "hard"], ["junk"]),
    "hard": (["hard"], ["junk", "easy"]),
}


@lru_cache(maxsize=1)
def make_rankings(n):
    """Rankings of n images."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(n) for _ in range(N_QUERIES)])


@lru_cache(maxsize=1)
def make_ground_truth():
    rng = np.random.default_rng(1)
    parts = [np.split(rng.permutation(N_KNOWN), np.cumsum([160, 240, 200])) for _ in range(N_QUERIES)]
    return [{"easy": easy, "hard": hard, "junk": junk} for easy, hard, junk, _ in parts]


def argsort(scores):
    for row in scores:
        np.argsort(row)


def read(rankings):
    """One pass: the largest index."""
    return rankings.max()


def loop(rankings, levels):
    """Average precisions of each level, each query for itself."""
    scores = {}
    for level, (positives, junk) in levels.items():
        ap = []
        for row, entry in zip(rankings, make_ground_truth(), strict=True):
            good = np.concatenate([entry[key] for key in positives])
            found = np.flatnonzero(np.isin(row, good))
            skipped = np.flatnonzero(np.isin(row, np.concatenate([entry[key] for key in junk])))
            at, j = found - np.searchsorted(skipped, found), np.arange(len(found))
            before = np.where(at == 0, 1.0, j / np.maximum(at, 1))
            ap.append(np.sum(before + (j + 1) / (at + 1)) / 2 / len(good))
        scores[level] = np.array(ap)
    return scores


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("to", ["argsort of the scores", "one pass over the rankings", "plain loop"])
@pytest.mark.parametrize("name", ["evaluate_revisited", "mean_average_precision"])
def test_protocol(against, n, to, name):
    rankings, gnd = make_rankings(n), make_ground_truth()
    levels = LEVELS if name == "evaluate_revisited" else {"medium": LEVELS["medium"]}
    if name == "evaluate_revisited":
        function = partial(evaluate_revisited, rankings, gnd)
        for level, ap in loop(rankings, levels).items():
            np.testing.assert_allclose(function()[level]["ap"], ap, rtol=1e-12)
    else:
        positives = [np.concatenate([entry["easy"], entry["hard"]]) for entry in gnd]
        function = partial(mean_average_precision, rankings, positives, [entry["junk"] for entry in gnd])
        assert function() == pytest.approx(loop(rankings, levels)["medium"].mean(), rel=1e-12)
    baseline = partial(loop, rankings, levels)
    if "pass" in to:
        baseline = partial(read, rankings)
    elif "argsort" in to:
        baseline = partial(argsort, np.random.default_rng(2).random(rankings.shape, dtype=np.float32))
    against(
        function,
        baseline,
        table=f"Evaluation against {to}, {N_QUERIES} queries",
        row=name + " (three levels)" * (name == "evaluate_revisited"),
        column=f"{n:,} images",
        to=to,
        rounds=5 if n == N_KNOWN else 2,
        warm=n == N_KNOWN,
    )


def product_and_argsort(X, block=512):
    for start in range(0, len(X), block):
        np.argsort(-(X[start : start + block] @ X.T), axis=1, kind="stable")


@pytest.mark.parametrize("n", [1_491, N_KNOWN])
def test_leave_one_out_map(against, n):
    rng = np.random.default_rng(3)
    y = np.arange(n) // 3
    X = rng.standard_normal((n // 3 + 1, 512), dtype=np.float32)[y]
    X += 2 * rng.standard_normal(X.shape, dtype=np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    against(
        lambda: leave_one_out_map(NearestNeighborsRetriever(), X, y),
        lambda: product_and_argsort(X),
        table="leave_one_out_map of descriptors of 512 features, three images an object",
        row="every image queries all others",
        column=f"{n:,} images",
        to="product and stable argsort",
        rounds=2,
        warm=n < 2_000,
    )


def test_holidays(against):
    labels = np.repeat(np.arange(500), 3)[:1491]
    truth = ground_truth_from_labels(labels, queries=np.unique(labels, return_index=True)[1])
    rng = np.random.default_rng(4)
    rankings = rng.permuted(np.tile(np.arange(len(labels)), (len(truth), 1)), axis=1)
    scores = rng.random(rankings.shape, dtype=np.float32)
    against(
        lambda: evaluate_holidays(rankings, truth),
        lambda: argsort(scores),
        table="Other protocols",
        row="evaluate_holidays",
        column="500 queries, 1,491 images",
        to="argsort of the scores",
    )


def test_ukbench(against):
    rankings = np.argsort(np.random.default_rng(5).random((10_200, 50)), axis=1)
    objects = np.arange(10_200) // 4

    def bare():
        return (rankings[:, :4] // 4 == objects[:, None]).sum(axis=1).mean()

    assert ukbench_score(rankings) == pytest.approx(bare())
    against(
        lambda: ukbench_score(rankings),
        bare,
        table="Other protocols",
        row="ukbench_score",
        column="10,200 queries, 50 ranked",
        to="one comparison, without checks",
    )
