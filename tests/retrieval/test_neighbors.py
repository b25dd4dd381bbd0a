"""The retriever's contract: what goes in and what comes out."""

import re

import numpy as np
import pytest
from fixtures.distances import METRICS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.neighbors import KNeighborsTransformer, NearestNeighbors

from skretrieval.retrieval import NearestNeighborsRetriever


@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_scikit_learn(gallery, queries, metric):
    ours = NearestNeighborsRetriever(7, metric=metric).fit(gallery)
    theirs = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(gallery)
    for X in (queries, None):
        distances, indices = ours.kneighbors(X)
        expected_distances, expected_indices = theirs.kneighbors(X)
        assert_array_equal(indices, expected_indices)
        assert_allclose(distances, expected_distances, rtol=1e-12, atol=1e-14)
        assert_array_equal(ours.kneighbors(X, return_distance=False), expected_indices)
    distances, indices = ours.kneighbors(queries, n_neighbors=30)
    assert_array_equal(indices, theirs.kneighbors(queries, 30)[1])


@pytest.mark.parametrize("metric", METRICS)
def test_without_x_every_item_queries_the_others(slow, metric):
    # With duplicates the own item need not come first, and with more of them than neighbours not come at all.
    rows = np.random.default_rng(2).normal(size=(5, 3))
    gallery = rows[[0, 1, 0, 2, 0, 0, 3, 4, 1, 0]]
    retriever = NearestNeighborsRetriever(metric=metric).fit(gallery)
    expected = slow.distances(gallery, gallery, metric)
    for k in (1, 2, 9):
        distances, indices = retriever.kneighbors(n_neighbors=k)
        for i, row in enumerate(expected):
            order = [j for j in slow.rank(row) if j != i][:k]
            assert_array_equal(indices[i], order)
            assert_allclose(distances[i], row[order], atol=1e-12)
    assert retriever.kneighbors()[0].shape == (10, 9)


def test_predict_and_transform_say_what_kneighbors_says(gallery, queries):
    retriever = NearestNeighborsRetriever(6).fit(gallery)
    distances, indices = retriever.kneighbors(queries)
    assert_array_equal(retriever.predict(queries), indices)
    graph = retriever.transform(queries)
    assert isinstance(graph, csr_matrix)
    assert graph.shape == (4, 30)
    assert_array_equal(graph.indices.reshape(4, 6), indices)
    assert_array_equal(graph.data.reshape(4, 6), distances)


def test_the_graph_is_that_of_kneighbors_transformer(gallery):
    # That one adds a neighbour, because the query is its own.
    ours = NearestNeighborsRetriever(5, metric="euclidean").fit_transform(gallery)
    theirs = KNeighborsTransformer(n_neighbors=4, algorithm="brute").fit_transform(gallery)
    assert ours.nnz == theirs.nnz == 150
    assert (ours.data == 0).sum() == 30  # the distance to itself is stored
    ours, theirs = ours.toarray(), theirs.toarray()
    others = ~np.eye(30, dtype=bool)
    assert_allclose(ours[others], theirs[others], atol=1e-12)
    # Scikit-learn subtracts squared lengths, whose rounding, of about 1e-15, it takes the root of.
    assert not ours.diagonal().any()
    assert theirs.diagonal().max() < 1e-6


def test_feature_names_of_the_graph(gallery):
    retriever = NearestNeighborsRetriever().fit(gallery)
    names = retriever.get_feature_names_out()
    assert len(names) == 30
    assert names[0] == "nearestneighborsretriever0"
    retriever.remove([0])
    assert len(retriever.get_feature_names_out()) == retriever.transform(gallery).shape[1] == 29


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_precision_is_kept(gallery, metric, dtype):
    X = gallery.astype(dtype)
    retriever = NearestNeighborsRetriever(3, metric=metric).fit(X)
    assert retriever.gallery_.dtype == dtype
    assert retriever.kneighbors(X)[0].dtype == dtype
    assert retriever.transform(X).dtype == dtype
    other = np.float64 if dtype == np.float32 else np.float32
    assert retriever.kneighbors(X.astype(other))[0].dtype == dtype
    assert retriever.partial_fit(X.astype(other)).gallery_.dtype == dtype


def test_gallery_holds_the_rows_as_searched(gallery):
    gallery[3] = 0
    cosine = NearestNeighborsRetriever().fit(gallery)
    lengths = np.ones(30)
    lengths[3] = 0
    assert_allclose(np.linalg.norm(cosine.gallery_, axis=1), lengths)
    assert_array_equal(NearestNeighborsRetriever(metric="manhattan").fit(gallery).gallery_, gallery)


def test_metric_takes_effect_at_fit(gallery, queries):
    retriever = NearestNeighborsRetriever(5).fit(gallery)
    before = retriever.kneighbors(queries)
    retriever.set_params(metric="euclidean")
    assert_array_equal(retriever.kneighbors(queries)[0], before[0])
    assert retriever.fit(gallery).metric_ == "euclidean"
    assert not np.array_equal(retriever.kneighbors(queries)[0], before[0])


# ---------------------------------------------------------------- how many neighbours


def test_untouched_default_is_cut_to_a_small_gallery(gallery, queries):
    retriever = NearestNeighborsRetriever().fit(gallery)
    assert retriever.predict(queries).shape == (4, 30)
    assert retriever.kneighbors()[1].shape == (30, 29)
    large = NearestNeighborsRetriever().fit(np.tile(gallery, (4, 1)))
    assert large.predict(queries).shape == (4, 100)


def test_more_neighbours_than_the_gallery_has(gallery, queries):
    small = NearestNeighborsRetriever(31).fit(gallery)
    for call in (small.predict, small.transform, small.kneighbors):
        with pytest.raises(ValueError, match=r"n_neighbors=31 is larger than the gallery of 30"):
            call(queries)
    fitted = NearestNeighborsRetriever().fit(gallery)
    with pytest.raises(ValueError, match=r"n_neighbors=100 is larger than the gallery of 30"):
        fitted.kneighbors(queries, n_neighbors=100)
    with pytest.raises(ValueError, match=r"n_neighbors=30 is larger than the gallery of 30.*29 besides"):
        fitted.kneighbors(n_neighbors=30)
    with pytest.raises(ValueError, match="0 besides the query"):
        NearestNeighborsRetriever().fit(gallery[:1]).kneighbors()


@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_impossible_numbers_of_neighbours(gallery, queries, k, error):
    with pytest.raises(error, match=f"n_neighbors.*{k}"):
        NearestNeighborsRetriever().fit(gallery).kneighbors(queries, n_neighbors=k)


def test_numpy_integers_are_integers(gallery, queries):
    assert NearestNeighborsRetriever(np.int64(3)).fit(gallery).predict(queries).shape == (4, 3)


# ---------------------------------------------------------------- region sets


@pytest.mark.parametrize("metric", METRICS)
def test_region_sets_as_lists_tuples_and_object_arrays(slow, make_regions, metric):
    X = make_regions(12, 3, seed=8)
    Q = make_regions(3, 3, seed=9)
    retriever = NearestNeighborsRetriever(12, metric=metric).fit(X)
    assert retriever.n_samples_fit_ == 12
    assert retriever.n_features_in_ == 3
    assert_array_equal(np.diff(retriever.region_offsets_), [len(item) for item in X])
    expected = retriever.kneighbors(Q)
    slow.assert_ranking(expected, slow.distances(Q, X, metric), 12, 1e-12)
    objects = np.empty(3, dtype=object)
    objects[:] = Q
    for same in (tuple(Q), objects, [item.tolist() for item in Q]):
        assert_array_equal(retriever.predict(same), expected[1])


def test_one_region_each_is_the_same_as_rows(gallery, queries):
    rows = NearestNeighborsRetriever(9).fit(gallery)
    regions = NearestNeighborsRetriever(9).fit([row[None] for row in gallery])
    for X in (queries, [row[None] for row in queries]):
        for found, expected in zip(regions.kneighbors(X), rows.kneighbors(queries)):
            assert_array_equal(found, expected)


def test_float32_regions_stay_float32(make_regions):
    X = make_regions(9, 4, seed=10, dtype=np.float32)
    assert NearestNeighborsRetriever().fit(X).gallery_.dtype == np.float32
    assert NearestNeighborsRetriever().fit([*X, np.ones((1, 4))]).gallery_.dtype == np.float64


@pytest.mark.parametrize("metric", METRICS)
def test_best_regions_of_every_result(slow, make_regions, metric):
    X, Q = make_regions(9, 4, seed=11), make_regions(5, 4, seed=12)
    retriever = NearestNeighborsRetriever(3, metric=metric).fit(X)
    indices = retriever.predict(Q)
    query_regions, gallery_regions = retriever.best_regions(Q, indices)
    for i, j in np.ndindex(5, 3):
        pair = slow.best_pair(slow_sets(Q[i]), slow_sets(X[indices[i, j]]), metric)[1:]
        assert (query_regions[i, j], gallery_regions[i, j]) == pair
    rows = NearestNeighborsRetriever(2).fit(np.eye(4))
    assert not np.any(rows.best_regions(np.eye(4), rows.predict(np.eye(4))))
    with pytest.raises(ValueError, match=r"shape \(5, k\)"):
        retriever.best_regions(Q, indices[:2])
    with pytest.raises(IndexError, match="Index 9 is outside the gallery of 9"):
        retriever.best_regions(Q, indices * 0 + 9)


def slow_sets(item):
    return np.atleast_2d(item)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 60),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 5),
)
def test_engine_params_change_nothing(n, sizes, metric, seed):
    X = np.random.default_rng(seed).integers(-2, 3, size=(n, 3)).astype(np.float32)
    params = {"block_size": sizes[0], "query_block_size": sizes[1]}
    plain = NearestNeighborsRetriever(metric=metric).fit(X)
    blocked = NearestNeighborsRetriever(metric=metric, engine_params=params).fit(X)
    for k in (1, n - 1):
        assert_array_equal(blocked.kneighbors(None, k)[1], plain.kneighbors(None, k)[1])
        assert_array_equal(blocked.kneighbors(X, k)[1], plain.kneighbors(X, k)[1])


def test_the_docstring_names_every_parameter():
    names = NearestNeighborsRetriever().get_params()
    assert all(
        re.search(rf"^    {name} : ", NearestNeighborsRetriever.__doc__, re.MULTILINE) for name in names
    )
