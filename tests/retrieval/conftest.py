"""Slow float64 references of search and query expansion, written from the formulas; small galleries."""

import math
from types import SimpleNamespace

import numpy as np
import pytest


def as_sets(X):
    """One float64 region array per item."""
    return [np.atleast_2d(np.asarray(item, dtype=np.float64)) for item in X]


def l2(vector):
    norm = math.sqrt(math.fsum(v * v for v in vector))
    return np.array([v / norm for v in vector]) if norm > 0 else np.zeros(len(vector))


def row_distance(a, b, metric):
    if metric == "cosine":
        return 1 - math.fsum(x * y for x, y in zip(l2(a), l2(b)))
    if metric == "euclidean":
        return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b)))
    return math.fsum(abs(x - y) for x, y in zip(a, b))


def best_pair(query, item, metric):
    """Distance, query region and gallery region of the best pair of rows, the first one of equals."""
    return min((row_distance(a, b, metric), i, j) for i, a in enumerate(query) for j, b in enumerate(item))


def distances(queries, gallery, metric="cosine"):
    """Distance of every query to every gallery item, (n_queries, n_gallery)."""
    return np.array(
        [[best_pair(q, g, metric)[0] for g in as_sets(gallery)] for q in as_sets(queries)], dtype=np.float64
    )


def rank(row):
    """Gallery indices by rising distance; distances that differ by rounding alone count as equal."""
    return sorted(range(len(row)), key=lambda i: (round(row[i], 10), i))


def expand(query, gallery, metric="cosine", *, n, alpha=0.0, include_query=True, own=None):
    """Expanded query: one vector, or the query as it is when there is nothing to add."""
    query, gallery = as_sets([query])[0], as_sets(gallery)
    unit = l2 if metric == "cosine" else np.asarray
    pairs = [best_pair(query, item, metric) for item in gallery]
    order = [i for i in rank([pair[0] for pair in pairs]) if i != own][:n]
    total, weight_sum = np.zeros(query.shape[1]), 0.0
    for i in order:
        distance, _, region = pairs[i]
        similarity = 1 - distance if metric == "cosine" else 1 / (1 + distance)
        weight = 1.0 if alpha == 0 else max(similarity, 0.0) ** alpha
        total, weight_sum = total + weight * unit(gallery[i][region]), weight_sum + weight
    if include_query:
        first = rank([pair[0] for pair in pairs])[0] if own is None or not order else order[0]
        total, weight_sum = total + unit(query[pairs[first][1]]), weight_sum + 1
    if metric == "cosine":
        return l2(total)[None] if np.any(total) else query
    return total[None] / weight_sum if weight_sum else query


def average_precision(relevant):
    """Trapezoid average precision of a ranking."""
    ap, hits, total = 0.0, 0, sum(relevant)
    for rank_, is_hit in enumerate(relevant):
        if is_hit:
            before = hits / rank_ if rank_ else 1.0
            hits += 1
            ap += (before + hits / (rank_ + 1)) / 2 / total
    return ap


def assert_ranking(found, expected, k, tolerance):
    """``found`` = (distances, indices) holds k nearest items of ``expected`` (n_queries, n_gallery)."""
    found_distances, indices = found
    assert found_distances.shape == indices.shape == (len(expected), k)
    picked = np.take_along_axis(expected, indices, axis=1)
    np.testing.assert_allclose(found_distances, picked, rtol=tolerance, atol=tolerance)
    assert (np.diff(found_distances, axis=1) >= 0).all()
    np.testing.assert_allclose(picked, np.sort(expected, axis=1)[:, :k], rtol=tolerance, atol=tolerance)
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.fixture(scope="session")
def slow():
    """The references of this module."""
    return SimpleNamespace(
        l2=l2,
        best_pair=best_pair,
        distances=distances,
        rank=rank,
        expand=expand,
        average_precision=average_precision,
        assert_ranking=assert_ranking,
    )


@pytest.fixture(scope="session")
def make_regions():
    """Random region sets with 1 to ``largest`` regions an image."""

    def make(n, d, seed, largest=4, dtype=np.float64):
        rng = np.random.default_rng(seed)
        return [rng.normal(size=(m, d)).astype(dtype) for m in rng.integers(1, largest + 1, size=n)]

    return make


@pytest.fixture
def gallery():
    return np.random.default_rng(0).normal(size=(30, 5))


@pytest.fixture
def queries():
    return np.random.default_rng(1).normal(size=(4, 5))
