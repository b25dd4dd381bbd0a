"""Regions compared only with those of the same number, against loops in float64."""

import numpy as np
import pytest
from fixtures.distances import METRICS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist

from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion
from skretrieval.retrieval._search import _scorer


@pytest.fixture(params=["small", "large"])
def gallery_kind(request, monkeypatch):
    """Treat the galleries as small ones and as large ones (see ``_scorer``)."""
    if request.param == "large":
        monkeypatch.setattr(_scorer, "_SMALL_GALLERY", 0)


def make_sets(n, n_regions, d, seed, dtype=np.float64):
    return list(np.random.default_rng(seed).normal(size=(n, n_regions, d)).astype(dtype))


def same_pairs(query, item, metric, slow):
    """Distances of the regions of the same number."""
    return [slow.best_pair([a], [b], metric)[0] for a, b in zip(query, item, strict=True)]


def distances(Q, X, metric, slow):
    return np.array(
        [[min(same_pairs(q, x, metric, slow)) for x in np.float64(X)] for q in np.float64(Q)],
    )


def ranked(rows, slow):
    return [slow.rank(row) for row in rows]


def test_the_smaller_of_global_and_local_distance():
    # Seddati et al. (2017): d = min(||g_q - g_i||_1, ||l_q - l_i||_1), never global with local.
    rng = np.random.default_rng(0)
    (g, local), (gq, lq) = rng.normal(size=(2, 40, 6)), rng.normal(size=(2, 5, 6))
    local[3] = gq[0]  # a local descriptor equal to a global one means nothing
    retriever = NearestNeighborsRetriever(40, metric="manhattan", region_pairs="same")
    retriever.fit(list(np.stack([g, local], axis=1)))
    expected = np.minimum(cdist(gq, g, "cityblock"), cdist(lq, local, "cityblock"))
    found, indices = retriever.kneighbors(list(np.stack([gq, lq], axis=1)))
    assert_array_equal(indices, np.argsort(expected, axis=1, kind="stable"))
    assert_allclose(found, np.sort(expected, axis=1), rtol=1e-12)
    mixed = NearestNeighborsRetriever(1, metric="manhattan").fit(list(np.stack([g, local], axis=1)))
    assert mixed.kneighbors(list(np.stack([gq, lq], axis=1)))[0][0] == 0


@pytest.mark.parametrize("k", [1, 4, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_regions", [1, 2, 5])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("gallery_kind")
def test_equals_loops(slow, metric, n_regions, dtype, k):
    X, Q = make_sets(40, n_regions, 6, 1, dtype), make_sets(7, n_regions, 6, 2, dtype)
    X[9] = X[20]
    Q[1] = X[9]
    expected = distances(Q, X, metric, slow)
    for params in (None, {"block_size": 7, "query_block_size": 3}, {"block_size": 1, "query_block_size": 1}):
        retriever = NearestNeighborsRetriever(k, metric=metric, region_pairs="same", engine_params=params)
        found = retriever.fit(X).kneighbors(Q)
        slow.assert_ranking(found, expected, k, 3e-6 if dtype == np.float32 else 1e-12)
        assert_array_equal(found[1], [row[:k] for row in ranked(expected, slow)])
    everything = retriever.fit(X).kneighbors(None, 39, return_distance=False)
    order = ranked(distances(X, X, metric, slow), slow)
    assert_array_equal(everything, [[j for j in row if j != i] for i, row in enumerate(order)])


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 30),
    n_regions=st.integers(1, 4),
    d=st.integers(1, 4),
    k=st.integers(1, 30),
    blocks=st.tuples(st.integers(1, 9), st.integers(1, 5)),
    metric=st.sampled_from(METRICS),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 50),
)
def test_any_shape_with_ties_and_zeros(slow, n, n_regions, d, k, blocks, metric, dtype, seed):
    rng = np.random.default_rng(seed)
    X = list(rng.integers(-2, 3, size=(n, n_regions, d)).astype(dtype))
    Q, k = X[:3], min(k, n)
    expected = distances(Q, X, metric, slow)
    for params in (None, dict(zip(("block_size", "query_block_size"), blocks))):
        retriever = NearestNeighborsRetriever(k, metric=metric, region_pairs="same", engine_params=params)
        found = retriever.fit(X).kneighbors(Q)
        slow.assert_ranking(found, expected, k, 3e-6 if dtype == np.float32 else 1e-12)
    _, group = np.unique(np.array(X).reshape(n, -1), axis=0, return_inverse=True)
    for ranking in found[1]:  # equal items keep their order
        for number in set(group.ravel()):
            assert (np.diff(ranking[group.ravel()[ranking] == number]) > 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("gallery_kind")
def test_blocks_and_places_change_no_bit(metric):
    X = make_sets(300, 3, 33, 3, np.float32)
    X[100:150] = X[:50]
    Q = make_sets(11, 3, 33, 4, np.float32)
    for k in (3, 25):
        plain = NearestNeighborsRetriever(k, metric=metric, region_pairs="same").fit(X)
        expected = plain.kneighbors(Q)
        for sizes in [(1, 1), (7, 2), (64, 11), (899, 5)]:
            params = dict(zip(("block_size", "query_block_size"), sizes))
            blocked = plain.set_params(engine_params=params).kneighbors(Q)
            assert_array_equal(blocked[1], expected[1])
            assert_array_equal(blocked[0], expected[0])


@pytest.mark.parametrize("metric", METRICS)
def test_one_region_each_is_the_same_as_rows(metric):
    X, Q = (np.random.default_rng(seed).normal(size=(20, 5)) for seed in (5, 6))
    expected = NearestNeighborsRetriever(20, metric=metric).fit(X).kneighbors(Q)
    for gallery in (X, [row[None] for row in X]):
        same = NearestNeighborsRetriever(20, metric=metric, region_pairs="same").fit(gallery)
        for queries in (Q, [row[None] for row in Q]):
            for found, wanted in zip(same.kneighbors(queries), expected):
                assert_array_equal(found, wanted)


@pytest.mark.parametrize("metric", METRICS)
def test_matched_regions_are_the_pair_behind_each_similarity(make_regions, slow, metric):
    """Of queries with several regions, with one, and with one row."""
    gallery = make_regions(20, 5, 0)
    retriever = NearestNeighborsRetriever(metric=metric).fit(gallery)
    for queries in (make_regions(4, 5, 1), [regions[:1] for regions in make_regions(4, 5, 2)]):
        distances, items = retriever.kneighbors(queries, n_neighbors=6)
        pairs = retriever.matched_regions(queries, items)
        assert pairs.shape == (4, 6, 2)
        for query, item, distance, (own, other) in zip(
            np.repeat(np.arange(4), 6), items.ravel(), distances.ravel(), pairs.reshape(-1, 2), strict=True
        ):
            pair = [queries[query][own]], [gallery[item][other]]
            assert_allclose(slow.best_pair(*pair, metric)[0], distance, atol=1e-6)
    table = np.concatenate([regions[:1] for regions in make_regions(4, 5, 1)])
    assert not retriever.matched_regions(table, retriever.predict(table))[..., 0].any()


@pytest.mark.parametrize("metric", METRICS)
def test_best_regions_have_the_same_number(slow, metric):
    X, Q = make_sets(12, 4, 5, 7), make_sets(5, 4, 5, 8)
    X[0] = np.repeat(X[0][:1], 4, axis=0)
    Q[0] = np.repeat(Q[0][:1], 4, axis=0)  # equal pairs: the first counts
    retriever = NearestNeighborsRetriever(12, metric=metric, region_pairs="same").fit(X)
    indices = retriever.predict(Q)
    query_regions, gallery_regions = retriever.best_regions(Q, indices)
    assert_array_equal(query_regions, gallery_regions)
    for i, j in np.ndindex(5, 12):
        pairs = same_pairs(Q[i], X[indices[i, j]], metric, slow)
        assert query_regions[i, j] == min((round(d, 12), m) for m, d in enumerate(pairs))[1]


@pytest.mark.parametrize("metric", METRICS)
def test_grown_and_shrunk_galleries(metric):
    X, y = make_sets(12, 3, 5, 9), np.arange(12) % 4
    grown = NearestNeighborsRetriever(5, metric=metric, region_pairs="same").partial_fit(X[:7], y[:7])
    grown.partial_fit(X[7:], y[7:]).remove([0, 11])
    whole = NearestNeighborsRetriever(5, metric=metric, region_pairs="same").fit(X[1:11], y[1:11])
    assert_array_equal(grown.gallery_, whole.gallery_)
    assert_array_equal(grown.region_offsets_, whole.region_offsets_)
    assert_array_equal(grown.predict(X), whole.predict(X))
    assert grown.score(X, y) == whole.score(X, y)


def test_numbers_of_regions_that_differ():
    X = make_sets(6, 3, 5, 10)
    retriever = NearestNeighborsRetriever(2, region_pairs="same")
    with pytest.raises(ValueError, match=r"Item 4 has 2 region\(s\), but item 0 has 3: region_pairs='same'"):
        retriever.fit([*X[:4], X[4][:2]])
    retriever.fit(X)
    for method in (retriever.kneighbors, retriever.predict, retriever.transform, retriever.partial_fit):
        with pytest.raises(ValueError, match=r"Item 1 has 4 region\(s\), but those of the gallery have 3"):
            method([X[0], np.vstack([X[0], X[0][:1]]), X[1][:1]])
        with pytest.raises(ValueError, match=r"Item 0 has 1 region\(s\), but those of the gallery have 3"):
            method(np.ones((2, 5)))
    assert retriever.n_samples_fit_ == 6
    with pytest.raises(ValueError, match="region_pairs"):
        NearestNeighborsRetriever(region_pairs="equal").fit(X)


def test_it_takes_effect_at_fit():
    X = make_sets(6, 3, 5, 11)
    retriever = NearestNeighborsRetriever(6).fit(X)
    before = retriever.kneighbors(X)[0]
    retriever.set_params(region_pairs="same")
    assert_array_equal(retriever.kneighbors(X)[0], before)
    assert retriever.fit(X).region_pairs_ == "same"
    assert not np.array_equal(retriever.kneighbors(X)[0], before)


# ---------------------------------------------------------------- query expansion


def expand(query, X, metric, slow, *, n, alpha, include_query):
    """Every region with the regions of the first n items that match by it."""
    unit = slow.l2 if metric == "cosine" else np.asarray
    pairs = [same_pairs(query, item, metric, slow) for item in X]
    expanded = []
    for m, row in enumerate(query):
        total, weight_sum = np.zeros(len(row)), 0.0
        for i in slow.rank([min(p) for p in pairs])[:n]:
            if int(np.argmin(pairs[i])) == m:
                d = min(pairs[i])
                weight = max(1 - d if metric == "cosine" else 1 / (1 + d), 0.0) ** alpha
                total, weight_sum = total + weight * unit(X[i][m]), weight_sum + weight
        if include_query:
            total, weight_sum = total + unit(row), weight_sum + 1
        if metric == "cosine":
            expanded.append(unit(total) if np.any(total) else row)
        else:
            expanded.append(total / weight_sum if weight_sum else row)
    return np.array(expanded)


@pytest.mark.parametrize("include_query", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 2.0])
@pytest.mark.parametrize("n_expand", [1, 4, 50])
@pytest.mark.parametrize("metric", METRICS)
def test_expansion_keeps_regions_apart(slow, metric, n_expand, alpha, include_query):
    X, Q = make_sets(14, 3, 5, 12), make_sets(4, 3, 5, 13)
    options = {"alpha": alpha, "include_query": include_query}
    inner = NearestNeighborsRetriever(14, metric=metric, region_pairs="same")
    wrapper = QueryExpansion(inner, n_expand, **options).fit(X)
    expanded = [expand(q, X, metric, slow, n=n_expand, **options) for q in Q]
    expected = distances(expanded, X, metric, slow)
    slow.assert_ranking(wrapper.kneighbors(Q), expected, 14, 1e-10)
    if include_query:  # else a region of one result alone is that result, and rounding orders the zeros
        assert_array_equal(wrapper.predict(Q), ranked(expected, slow))


def test_expansion_of_single_regions_is_that_of_rows():
    X, Q = (np.random.default_rng(seed).normal(size=(20, 5)) for seed in (14, 15))
    for metric in METRICS:
        options = {"alpha": 3.0, "exclude_self": True}
        same = NearestNeighborsRetriever(20, metric=metric, region_pairs="same")
        wrapper = QueryExpansion(same, 4, **options).fit([row[None] for row in X])
        plain = QueryExpansion(NearestNeighborsRetriever(20, metric=metric), 4, **options).fit(X)
        for queries in (Q, X):
            assert_allclose(wrapper.kneighbors(queries)[0], plain.kneighbors(queries)[0], atol=1e-12)
            assert_array_equal(wrapper.predict(queries), plain.predict(queries))
