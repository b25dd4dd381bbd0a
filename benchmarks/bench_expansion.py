"""Query expansion and database augmentation against one plain search, and against plain NumPy.

Descriptors are those of bench_search: clustered float32 unit vectors of 512 features. "One search" is a plain search of
the same queries with the same k. Plain NumPy is the formula written out for a gallery of unit vectors: product,
``argpartition``, mean, product.
"""

from functools import cache

import numpy as np
import pytest

from skretrieval.postprocessing import DatabaseAugmentation
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion

N_FEATURES = 512
N_NEIGHBORS = 100
N_QUERIES = 70
PER_CLUSTER = 50
SIZES = [5_000, 100_000]

#: name -> parameters of QueryExpansion
EXPANSIONS = {
    "AQE, n=10": {"n_expand": 10},
    "alpha QE, n=50, alpha=3": {"n_expand": 50, "alpha": 3.0},
}


@cache
def make_collection(n):
    """Gallery and queries."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n // PER_CLUSTER, N_FEATURES), dtype=np.float32)
    X = centres[rng.integers(len(centres), size=n + N_QUERIES)]
    X += rng.standard_normal(X.shape, dtype=np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X[:n], X[n:]


@cache
def plain(n):
    return NearestNeighborsRetriever(N_NEIGHBORS).fit(make_collection(n)[0])


def size_of(n):
    return f"{n:,} x {N_FEATURES}"


def top(scores, k):
    """The k best of each row, best first."""
    nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, nearest, axis=1), axis=1)
    return np.take_along_axis(nearest, order, axis=1)


def bare_expansion(queries, gallery, n_expand, alpha=0.0):
    """Product, first results, weighted sum, product, results."""
    scores = queries @ gallery.T
    nearest = top(scores, n_expand)
    weights = np.maximum(np.take_along_axis(scores, nearest, axis=1), 0) ** alpha
    expanded = queries + np.einsum("qk,qkd->qd", weights, gallery[nearest])
    expanded /= np.linalg.norm(expanded, axis=1, keepdims=True)
    return top(expanded @ gallery.T, N_NEIGHBORS)


def bare_augmentation(X, n_neighbors, block=512):
    """Product, nearest others, sum; block by block."""
    augmented = X.copy()
    for start in range(0, len(X), block):
        part = slice(start, start + block)
        scores = X[part] @ X.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
        augmented[part] += X[np.argpartition(-scores, n_neighbors - 1, axis=1)[:, :n_neighbors]].sum(axis=1)
    return augmented / np.linalg.norm(augmented, axis=1, keepdims=True)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", EXPANSIONS)
def test_expansion(against, name, n):
    gallery, queries = make_collection(n)
    ours = QueryExpansion(NearestNeighborsRetriever(N_NEIGHBORS), **EXPANSIONS[name]).fit(gallery)
    against(
        lambda: ours.kneighbors(queries),
        lambda: plain(n).kneighbors(queries),
        table=f"Query expansion, {N_QUERIES} queries, k={N_NEIGHBORS}",
        row=name,
        column=size_of(n),
        to="one search",
    )


@pytest.mark.parametrize("n", SIZES)
def test_nested_expansion(against, n):
    gallery, queries = make_collection(n)
    once = QueryExpansion(NearestNeighborsRetriever(N_NEIGHBORS), **EXPANSIONS["AQE, n=10"])
    ours = QueryExpansion(once, **EXPANSIONS["alpha QE, n=50, alpha=3"]).fit(gallery)
    against(
        lambda: ours.kneighbors(queries),
        lambda: plain(n).kneighbors(queries),
        table=f"Query expansion, {N_QUERIES} queries, k={N_NEIGHBORS}",
        row="alpha QE of AQE (four searches)",
        column=size_of(n),
        to="one search",
    )


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", EXPANSIONS)
def test_expansion_against_numpy(against, name, n):
    gallery, queries = make_collection(n)
    ours = QueryExpansion(NearestNeighborsRetriever(N_NEIGHBORS), **EXPANSIONS[name]).fit(gallery)
    assert (ours.predict(queries) == bare_expansion(queries, gallery, **EXPANSIONS[name])).mean() > 0.99
    against(
        lambda: ours.kneighbors(queries),
        lambda: bare_expansion(queries, gallery, **EXPANSIONS[name]),
        table=f"Query expansion against plain NumPy, {N_QUERIES} queries, k={N_NEIGHBORS}",
        row=name,
        column=size_of(n),
        to="search, mean and search in plain NumPy",
    )


@pytest.mark.parametrize("n", [5_000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("to", ["one search of all by all", "product, partition and mean in plain NumPy"])
def test_augmentation(against, to, n):
    X, _ = make_collection(n)
    np.testing.assert_allclose(
        DatabaseAugmentation(n_neighbors=10).fit_transform(X), bare_augmentation(X, 10), atol=1e-6
    )
    searcher = NearestNeighborsRetriever(10).fit(X)
    against(
        lambda: DatabaseAugmentation(n_neighbors=10).fit_transform(X),
        (lambda: searcher.kneighbors()) if "search" in to else (lambda: bare_augmentation(X, 10)),
        table="Database augmentation of the whole gallery, n=10",
        row=size_of(n),
        column=f"to {to}",
        to=to,
        rounds=3,
        warm=n < 10_000,
    )
