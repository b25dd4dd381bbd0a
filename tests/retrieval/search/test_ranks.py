"""Ranks counted block by block are those of the rankings."""

import tracemalloc

import numpy as np
import pytest
from fixtures.distances import METRICS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from skretrieval._linalg import unit_rows
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion, _label_ranks
from skretrieval.retrieval._descriptors import DescriptorSet
from skretrieval.retrieval._search import _ranks, _scorer
from skretrieval.retrieval._search._exact import search
from skretrieval.retrieval._search._ranks import count_ranks


def positions(ranking, query, item):
    return np.argsort(ranking, axis=1)[query, item]


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 60),
    m=st.integers(1, 6),
    d=st.integers(1, 5),
    blocks=st.tuples(st.one_of(st.none(), st.integers(1, 20)), st.integers(1, 4)),
    metric=st.sampled_from(METRICS),
    dtype=st.sampled_from([np.float32, np.float64]),
    small=st.booleans(),
    way=st.sampled_from([{}, {"_EXACT_PAIRS": 10**6}, {"_EXACT_PAIRS": 0}, {"_SORTED": 0}]),
    seed=st.integers(0, 50),
)
def test_any_shape_with_ties_and_zeros(n, m, d, blocks, metric, dtype, small, way, seed):
    rng = np.random.default_rng(seed)
    G, Q = rng.integers(-2, 3, size=(n, d)).astype(dtype), rng.integers(-2, 3, size=(m, d)).astype(dtype)
    prepare = unit_rows if metric == "cosine" else np.asarray
    queries, gallery = DescriptorSet(prepare(Q)), DescriptorSet(prepare(G))
    query = np.sort(rng.integers(0, m, size=15))
    item = rng.integers(0, n, size=15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_scorer, "_SMALL_GALLERY", 1024 if small else 0)
        for name, value in way.items():
            patch.setattr(_ranks, name, value)
        options = {"metric": metric, "block_size": blocks[0], "query_block_size": blocks[1]}
        ranks = count_ranks(queries, gallery, query, item, **options)
        ranking = search(queries, gallery, n, metric=metric)[1]
    assert_array_equal(ranks, positions(ranking, query, item))


@pytest.mark.parametrize("exact_pairs", [0, 10**6])  # all blocks in float64, and none
@pytest.mark.parametrize("kind", ["rows", "offset", "regions", "same", "sparse", "half"])
@pytest.mark.parametrize("metric", METRICS)
def test_large_galleries_with_duplicates(monkeypatch, metric, kind, exact_pairs):
    monkeypatch.setattr(_ranks, "_EXACT_PAIRS", exact_pairs)
    # More rows than a small gallery has, in several blocks; near ties and duplicates among them.
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 6)).astype(np.float32)
    X[1000:1400] = X[:400]
    X[2000:2100] = X[:100] * np.float32(1 + 3e-7)
    params = {"region_pairs": "same" if kind == "same" else "all", "accept_sparse": kind == "sparse"}
    Q = X[[0, 50, 1300, 2050]]
    if kind == "offset":
        X, Q = X + np.float32(100), Q + np.float32(100)
    elif kind in ("regions", "same"):
        X, Q = list(X.reshape(-1, 2, 6)), list(Q.reshape(-1, 2, 6))
    elif kind == "sparse":
        X, Q = (sparse.csr_array(np.where(rows > 0.5, rows, 0)) for rows in (X, Q))
    elif kind == "half":
        X = X.astype(np.float16)
    retriever = NearestNeighborsRetriever(metric=metric, **params).fit(X)
    queries = retriever._check_queries(Q)
    n = retriever.n_samples_fit_
    query, item = (
        np.repeat(np.arange(queries.n_items), 300),
        np.tile(np.arange(0, n, n // 300)[:300], queries.n_items),
    )
    ranking = retriever.kneighbors(Q, n, return_distance=False)
    for sizes in ({}, {"block_size": 700, "query_block_size": 3}):
        retriever.set_params(engine_params=sizes)
        assert_array_equal(retriever._ranks(queries, query, item, None), positions(ranking, query, item))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_with_and_without_rankings(monkeypatch, metric, wrapped):
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(1500, 5)), rng.integers(-1, 300, size=1500)
    X[700:800] = X[:100]
    weights = rng.random(200)
    retriever = NearestNeighborsRetriever(metric=metric)
    if wrapped:
        retriever = QueryExpansion(QueryExpansion(retriever, 2), 3, exclude_self=True)
    retriever.fit(X, y)
    scores, calls = [], []
    search_of = type(retriever)._search
    monkeypatch.setattr(
        type(retriever), "_search", lambda self, q, k, own=None: calls.append(k) or search_of(self, q, k, own)
    )
    for share, expected in ((0, False), (10**9, True)):
        monkeypatch.setattr(_label_ranks, "_COUNTED_SHARE", share)
        calls.clear()
        scores.append(retriever.score(X[:200], y[:200], sample_weight=weights))
        assert (1500 in calls) == expected
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)
    assert 0 < scores[0] < 1


def test_many_ties_are_sorted(monkeypatch):
    X, y = np.repeat(np.eye(3), 500, axis=0), np.arange(1500) % 100
    retriever = NearestNeighborsRetriever().fit(X, y)
    expected = retriever.score(X[:20], y[:20])
    monkeypatch.setattr(_ranks, "_MAX_TIES", 100)
    queries = retriever._check_queries(X[:2])
    assert retriever._ranks(queries, np.array([0, 1]), np.array([7, 900]), None) is None
    assert (
        QueryExpansion(retriever).fit(X)._ranks(queries, np.array([0, 1]), np.array([7, 900]), None) is None
    )
    assert retriever.score(X[:20], y[:20]) == pytest.approx(expected, abs=1e-12)


def test_scores_need_no_matrix_of_all_pairs():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(40000, 8)).astype(np.float32), np.arange(40000) // 4
    params = {"block_size": 1024, "query_block_size": 128}
    retriever = NearestNeighborsRetriever(engine_params=params).fit(X, y)
    tracemalloc.start()
    try:
        retriever.score(X[:400], y[:400])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All scores would take 128 MB in float64.
    assert peak < 16e6


def test_threads_change_nothing(monkeypatch):
    X = np.random.default_rng(4).normal(size=(3000, 40)).astype(np.float32)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(NearestNeighborsRetriever(50, metric="manhattan").fit(X).kneighbors(X[:70]))
    for left, right in zip(*found):
        assert_array_equal(left, right)
