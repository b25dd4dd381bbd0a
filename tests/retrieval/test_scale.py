"""Descriptors of any size: rankings as at size one, or an error that names the query."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from skretrieval.retrieval import NearestNeighborsRetriever

METRICS = ["cosine", "euclidean", "manhattan"]


def data(seed, n=60):
    return np.random.default_rng(seed).integers(-50, 51, size=(n, 8)).astype(float)


@settings(max_examples=60, deadline=None)
@given(metric=st.sampled_from(METRICS), exponent=st.integers(-990, 1000), is_sparse=st.booleans())
def test_any_power_of_two_gives_the_same_ranking(metric, exponent, is_sparse):
    gallery, queries = data(0), data(1, 5)
    usual = NearestNeighborsRetriever(7, metric=metric, accept_sparse=True).fit(gallery)
    distances, wanted = usual.kneighbors(queries)
    held = sparse.csr_array if is_sparse else np.asarray
    large = NearestNeighborsRetriever(7, metric=metric, accept_sparse=True)
    large.fit(held(np.ldexp(gallery, exponent)), np.arange(len(gallery)) % 3)
    found, indices = large.kneighbors(held(np.ldexp(queries, exponent)))
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_allclose(
        found, distances if metric == "cosine" else np.ldexp(distances, exponent), 1e-12
    )


@settings(max_examples=40, deadline=None)
@given(metric=st.sampled_from(METRICS), exponent=st.integers(-120, 110), size=st.sampled_from([60, 1500]))
def test_float32_of_any_size_ranks_the_same(metric, exponent, size):
    gallery, queries = data(0, size).astype(np.float32), data(1, 5).astype(np.float32)
    wanted = NearestNeighborsRetriever(7, metric=metric).fit(gallery).predict(queries)
    found = NearestNeighborsRetriever(7, metric=metric).fit(np.ldexp(gallery, exponent))
    np.testing.assert_array_equal(found.predict(np.ldexp(queries, exponent)), wanted)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_scores_and_best_rows_follow_the_scaled_rows(metric):
    gallery, labels = data(0), np.arange(60) % 4
    usual = NearestNeighborsRetriever(7, metric=metric).fit(gallery, labels)
    large = NearestNeighborsRetriever(7, metric=metric).fit(gallery * 2.0**900, labels)
    queries = data(1, 6)
    assert large.score(queries * 2.0**900, np.arange(6) % 4) == usual.score(queries, np.arange(6) % 4)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_float64_queries_keep_their_direction(scale):
    gallery, queries = data(0).astype(np.float32), data(1, 5)
    retriever = NearestNeighborsRetriever(7).fit(gallery)
    np.testing.assert_array_equal(retriever.predict(queries * scale), retriever.predict(queries))


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_faiss_ranks_numbers_of_any_size(scale):
    pytest.importorskip("faiss")
    gallery, queries = data(0, 500).astype(np.float32), data(1, 5).astype(np.float32)
    found = NearestNeighborsRetriever(7, metric="euclidean", engine="faiss").fit(gallery * np.float32(scale))
    exact = NearestNeighborsRetriever(7, metric="euclidean").fit(gallery * np.float32(scale))
    queries = queries * np.float32(scale)
    np.testing.assert_array_equal(found.predict(queries), exact.predict(queries))


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_a_distance_beyond_the_range_names_the_query(metric):
    retriever = NearestNeighborsRetriever(1, metric=metric).fit([[-1.7e308, 0.0], [-1.7e308, 1.0]])
    with pytest.raises(ValueError, match=r"Query 1: its distance to an item is beyond 1.8e\+308"):
        retriever.kneighbors([[-1.6e308, 0.0], [1.7e308, 0.0]])
