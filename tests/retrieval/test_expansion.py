"""Query expansion against a slow reference written from the formula, and as a wrapper."""

import numpy as np
import pytest
from fixtures.distances import METRICS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


@pytest.fixture
def gallery():
    return np.random.default_rng(0).normal(size=(30, 5))


@pytest.fixture
def queries():
    return np.random.default_rng(1).normal(size=(4, 5))


def reference(slow, Q, X, metric, **options):
    """Distances of the expanded queries to the gallery, (n_queries, n_gallery)."""
    return np.vstack([slow.distances([slow.expand(q, X, metric, **options)], X, metric) for q in Q])


@pytest.mark.parametrize("include_query", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("n_expand", [1, 4, 30, 500])
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_formula(slow, gallery, queries, metric, n_expand, alpha, include_query):
    wrapper = QueryExpansion(
        NearestNeighborsRetriever(9, metric=metric), n_expand, alpha=alpha, include_query=include_query
    ).fit(gallery)
    expected = reference(slow, queries, gallery, metric, n=n_expand, alpha=alpha, include_query=include_query)
    slow.assert_ranking(wrapper.kneighbors(queries), expected, 9, 1e-10)
    assert_array_equal(wrapper.predict(queries), [slow.rank(row)[:9] for row in expected])


@pytest.mark.parametrize("include_query", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 2.0])
@pytest.mark.parametrize("query_kind", ["regions", "rows"])
@pytest.mark.parametrize("metric", METRICS)
def test_region_sets_expand_with_the_best_region(
    slow, gallery, queries, make_regions, metric, query_kind, alpha, include_query
):
    X = make_regions(12, 5, seed=2)
    Q = make_regions(4, 5, seed=3) if query_kind == "regions" else queries
    inner = NearestNeighborsRetriever(12, metric=metric)
    wrapper = QueryExpansion(inner, 3, alpha=alpha, include_query=include_query).fit(X)
    expected = reference(slow, Q, X, metric, n=3, alpha=alpha, include_query=include_query)
    slow.assert_ranking(wrapper.kneighbors(Q), expected, 12, 1e-10)


@pytest.mark.parametrize("pairs", ["all", "same"])
@pytest.mark.parametrize("metric", METRICS)
def test_rounding_does_not_choose_between_tied_regions(metric, pairs):
    # A query that is in the gallery matches itself by each of its regions. Described in a batch of another shape,
    # its rows differ in their last bits: that must not decide which region the expansion adds.
    rng = np.random.default_rng(5)
    X = [rng.normal(size=(4, 24)).astype(np.float32) + 3 for _ in range(30)]
    X = [np.concatenate([item[:3], item[:1]]) for item in X]  # and regions 0 and 3 are one
    noise = [1 + 2e-6 * rng.uniform(-1, 1, size=item.shape) for item in X]
    Q = [(item * part).astype(np.float32) for item, part in zip(X, noise)]
    wrapper = QueryExpansion(
        NearestNeighborsRetriever(10, metric=metric, region_pairs=pairs), 4, include_query=pairs == "same"
    ).fit(X)
    query_regions, gallery_regions = wrapper.best_regions(Q, np.arange(30)[:, None])
    assert_array_equal(query_regions, 0)
    assert_array_equal(gallery_regions, 0)
    distances, indices = wrapper.kneighbors(X)
    in_other_batch = wrapper.kneighbors(Q)
    assert_array_equal(in_other_batch[1], indices)
    assert_allclose(in_other_batch[0], distances, rtol=1e-4, atol=1e-4)
    for i, item in enumerate(X):
        alone = wrapper.kneighbors([item])
        assert_array_equal(alone[1][0], indices[i])
        assert_array_equal(alone[0][0], distances[i])


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_a_tie_depends_on_the_dtype(metric):
    query, item = np.array([[1.0, 0.0]]), np.array([[1.0, 2e-6], [1.0, 1e-6], [1.0, 0.1]])
    for dtype, better in [(np.float32, 0), (np.float64, 1)]:
        index = NearestNeighborsRetriever(metric=metric).fit([item.astype(dtype)])
        assert index.best_regions([query.astype(dtype)], [[0]])[1] == better
        index = NearestNeighborsRetriever(metric=metric).fit([item[::-1].astype(dtype)])
        assert index.best_regions([query.astype(dtype)], [[0]])[1] == 1  # a difference that is not rounding


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 25),
    d=st.integers(1, 4),
    n_expand=st.integers(0, 30),
    alpha=st.sampled_from([0, 0.5, 3]),
    include_query=st.booleans(),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 1000),
)
def test_any_shape(slow, n, d, n_expand, alpha, include_query, metric, seed):
    rng = np.random.default_rng(seed)
    X, Q = rng.normal(size=(n, d)), rng.normal(size=(3, d))
    options = {"alpha": alpha, "include_query": include_query}
    wrapper = QueryExpansion(NearestNeighborsRetriever(metric=metric), n_expand, **options).fit(X)
    if n_expand == 0:
        expected = slow.distances(Q, X, metric)
    else:
        expected = reference(slow, Q, X, metric, n=n_expand, **options)
    # One-dimensional unit rows cancel to a sum of mere rounding now and then: not what is tested here.
    if metric != "cosine" or d > 1:
        slow.assert_ranking(wrapper.kneighbors(Q), expected, n, 1e-8)


def test_average_query_expansion_by_hand():
    gallery = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    query = np.array([[0.8, 0.6]])
    # Nearest: 1 (0.96), then 0 (0.8).
    for options, total in [
        ({"include_query": True}, [2.4, 1.4]),
        ({"include_query": False}, [1.6, 0.8]),
        ({"alpha": 1.0}, [0.8 + 0.96 * 0.6 + 0.8, 0.6 + 0.96 * 0.8]),
    ]:
        wrapper = QueryExpansion(NearestNeighborsRetriever(), 2, **options).fit(gallery)
        expected = 1 - gallery @ (np.array(total) / np.linalg.norm(total))
        distances, indices = wrapper.kneighbors(query)
        assert_allclose(distances[0], expected[indices[0]], atol=1e-12)


def test_no_expansion_is_the_retriever_itself(gallery, queries):
    plain = NearestNeighborsRetriever().fit(gallery)
    wrapper = QueryExpansion(NearestNeighborsRetriever(), 0).fit(gallery)
    for X in (queries, None):
        for found, expected in zip(wrapper.kneighbors(X), plain.kneighbors(X)):
            assert_array_equal(found, expected)


@pytest.mark.parametrize("regions", [False, True])
def test_zero_sum_keeps_the_query(regions):
    # Nothing to add: the similarities are zero or negative, or the rows cancel.
    gallery = np.array([[-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    query = np.array([[2.0, 0.0]])
    X = [row[None] for row in gallery] if regions else gallery
    Q = [np.vstack([query, 0 * query]), [[-3.0, 4.0]]] if regions else np.vstack([query, [[-3.0, 4.0]]])
    options = {"include_query": False, "alpha": 1.0}
    wrapper = QueryExpansion(NearestNeighborsRetriever(), 3, **options).fit(X)
    plain = NearestNeighborsRetriever().fit(X).kneighbors(Q)
    distances, indices = wrapper.kneighbors(Q)
    assert_array_equal(indices[0], plain[1][0])
    assert_array_equal(distances[0], plain[0][0])
    total = 0.6 * gallery[0] + 0.8 * gallery[1]  # the second query has something to add
    assert_allclose(np.sort(distances[1]), np.sort(1 - gallery @ total / np.linalg.norm(total)), atol=1e-12)
    cancel = QueryExpansion(NearestNeighborsRetriever(), 2).fit([[1.0, 0.0], [-2.0, 0.0]])
    assert_array_equal(cancel.predict([[0.0, 0.0]]), [[0, 1]])


def test_zero_weights_keep_the_query_of_other_metrics():
    gallery = np.array([[1e200], [3e200], [-1e200]])[:, [0, 0]] / 1e100
    wrapper = QueryExpansion(
        NearestNeighborsRetriever(metric="manhattan"), 2, alpha=10.0, include_query=False
    ).fit(gallery)
    plain = NearestNeighborsRetriever(metric="manhattan").fit(gallery)
    assert_array_equal(wrapper.kneighbors([[1.0, 1.0]])[0], plain.kneighbors([[1.0, 1.0]])[0])


def test_ties_are_stable_in_the_expansion():
    # Equal similarity: the first gallery rows are added.
    gallery = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    for order in ([0, 1, 2], [1, 0, 2]):
        wrapper = QueryExpansion(NearestNeighborsRetriever(), 2).fit(gallery[order])
        distances, indices = wrapper.kneighbors([[1.0, 0.0, 0.0]])
        assert_array_equal(indices, [[2, 0, 1]])
        assert distances[0, 1] < 1 == distances[0, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float32_agrees_and_stays(slow, gallery, queries, dtype):
    wrapper = QueryExpansion(NearestNeighborsRetriever(30), 5, alpha=1.5).fit(gallery.astype(dtype))
    found = wrapper.kneighbors(queries.astype(dtype))
    assert found[0].dtype == dtype
    slow.assert_ranking(found, reference(slow, queries, gallery, "cosine", n=5, alpha=1.5), 30, 2e-6)


# ---------------------------------------------------------------- queries that are gallery items


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_expand", [1, 3, 29, 30])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_without_x_items_leave_themselves_out(slow, gallery, metric, n_expand, exclude_self):
    gallery[20] = gallery[3]
    wrapper = QueryExpansion(
        NearestNeighborsRetriever(metric=metric), n_expand, alpha=1.0, exclude_self=exclude_self
    ).fit(gallery)
    indices = wrapper.kneighbors(return_distance=False)
    assert indices.shape == (30, 29)
    for i, query in enumerate(gallery):
        own = i if exclude_self else None
        expanded = slow.expand(query, gallery, metric, n=n_expand, alpha=1.0, own=own)
        row = slow.distances([expanded], gallery, metric)[0]
        assert_array_equal(indices[i], [j for j in slow.rank(row) if j != i])


def test_own_items_are_found_among_given_queries(slow, gallery, queries):
    inner = NearestNeighborsRetriever(30)
    with_own = QueryExpansion(inner, 4).fit(gallery)
    without = QueryExpansion(inner, 4, exclude_self=True).fit(gallery)
    # Gallery rows as queries lose themselves, others lose nothing.
    mixed = np.vstack([gallery[[5, 0]], queries])
    distances, indices = without.kneighbors(mixed)
    for q, own in enumerate([5, 0, None, None, None, None]):
        expanded = slow.expand(mixed[q], gallery, n=4, own=own)
        assert_array_equal(indices[q], slow.rank(slow.distances([expanded], gallery)[0]))
    assert_array_equal(indices[2:], with_own.predict(queries))
    assert not np.array_equal(distances[:2], with_own.kneighbors(mixed)[0][:2])


@pytest.mark.parametrize("include_query", [False, True])
def test_own_items_of_region_sets(make_regions, include_query):
    X = make_regions(10, 4, seed=5)
    inner = NearestNeighborsRetriever()
    wrapper = QueryExpansion(inner, 2, exclude_self=True, include_query=include_query).fit(X)
    given = wrapper.kneighbors(X, 10, return_distance=False)
    expected = wrapper.kneighbors(return_distance=False)
    for i in range(10):
        assert_array_equal([j for j in given[i] if j != i], expected[i])


def test_gallery_of_one_item():
    wrapper = QueryExpansion(NearestNeighborsRetriever(), 3, exclude_self=True).fit([[1.0, 2.0]])
    assert_array_equal(wrapper.predict([[1.0, 2.0], [2.0, 1.0]]), [[0], [0]])


# ---------------------------------------------------------------- wrapping


@pytest.mark.parametrize("metric", METRICS)
def test_wrappers_nest(slow, gallery, queries, metric):
    inner = QueryExpansion(NearestNeighborsRetriever(30, metric=metric), 3, include_query=False)
    nested = QueryExpansion(inner, 2).fit(gallery)
    unit = slow.l2 if metric == "cosine" else np.asarray
    for query, found in zip(queries, nested.predict(queries)):
        # Outer expansion: the first results of the inner ranking, which is one of expanded queries.
        first = slow.expand(query, gallery, metric, n=3, include_query=False)
        top = slow.rank(slow.distances([first], gallery, metric)[0])[:2]
        outer = sum(unit(gallery[i]) for i in top) + unit(query)
        outer = unit(outer) if metric == "cosine" else outer / 3
        final = slow.expand(outer, gallery, metric, n=3, include_query=False)
        assert_array_equal(found, slow.rank(slow.distances([final], gallery, metric)[0]))


def test_own_items_pass_through_nested_wrappers(gallery):
    # Only the inner one excludes: it must know the own item although the outer one has changed the query.
    nested = QueryExpansion(QueryExpansion(NearestNeighborsRetriever(), 2, exclude_self=True), 2).fit(gallery)
    given = nested.kneighbors(gallery, 30, return_distance=False)
    expected = nested.kneighbors(return_distance=False)
    for i in range(30):
        assert_array_equal([j for j in given[i] if j != i], expected[i])


def test_many_queries_are_expanded_in_blocks(gallery):
    Q = np.random.default_rng(6).normal(size=(2500, 5))
    wrapper = QueryExpansion(NearestNeighborsRetriever(5), 4, alpha=1.0, exclude_self=True).fit(gallery)
    distances, indices = wrapper.kneighbors(Q)
    for part in (slice(0, 1), slice(1020, 1030), slice(2499, 2500)):
        found = wrapper.kneighbors(Q[part])
        assert_array_equal(found[0], distances[part])
        assert_array_equal(found[1], indices[part])


def test_score_is_the_mean_of_a_hand_loop(slow, gallery, queries):
    y, wanted = np.arange(30) % 4, np.array([2, 0, 9, 3])
    wrapper = QueryExpansion(NearestNeighborsRetriever(), 5).fit(gallery, y)
    expected = reference(slow, queries, gallery, "cosine", n=5)
    ap = [
        slow.average_precision([y[i] == label for i in slow.rank(row)])
        for row, label in zip(expected, wanted)
    ]
    assert wrapper.score(queries, wanted) == pytest.approx(np.mean([ap[0], ap[1], ap[3]]), abs=1e-12)


def test_it_has_the_methods_of_a_retriever(gallery, queries):
    y = np.arange(30)
    wrapper = QueryExpansion(NearestNeighborsRetriever(4), 3).fit(gallery[:20], y[:20])
    wrapper.partial_fit(gallery[20:], y[20:]).remove([0, 29])
    expected = QueryExpansion(NearestNeighborsRetriever(4), 3).fit(gallery[1:29], y[1:29])
    assert_array_equal(wrapper.labels_, y[1:29])
    assert_array_equal(wrapper.gallery_, expected.gallery_)
    assert wrapper.n_samples_fit_ == len(wrapper.get_feature_names_out()) == 28
    assert wrapper.n_features_in_ == 5
    assert wrapper.metric_ == "cosine"
    assert wrapper.region_offsets_ is None
    assert_array_equal(wrapper.predict(queries), expected.predict(queries))
    assert (wrapper.transform(queries) != expected.transform(queries)).nnz == 0
    assert (wrapper.fit_transform(gallery) != wrapper.transform(gallery)).nnz == 0
    assert not np.any(wrapper.best_regions(queries, wrapper.predict(queries)))
    fresh = QueryExpansion(NearestNeighborsRetriever(4), 3)
    assert fresh.partial_fit(gallery) is fresh
    assert fresh.n_samples_fit_ == 30


def test_the_wrapped_retriever_is_cloned(gallery):
    inner = NearestNeighborsRetriever(4)
    wrapper = QueryExpansion(inner).fit(gallery)
    assert wrapper.retriever_ is not inner
    assert not hasattr(inner, "gallery_")
    nested = QueryExpansion(wrapper)
    assert nested.get_params()["retriever__retriever__metric"] == "cosine"
    changed = clone(nested).set_params(retriever__retriever__metric="manhattan", retriever__n_expand=1)
    assert changed.fit(gallery).metric_ == "manhattan"


def test_limits_are_those_of_the_gallery(gallery, queries):
    wrapper = QueryExpansion(NearestNeighborsRetriever(31), 10).fit(gallery)
    with pytest.raises(ValueError, match=r"n_neighbors=31 is larger than the gallery of 30"):
        wrapper.predict(queries)
    assert QueryExpansion(NearestNeighborsRetriever(), 10).fit(gallery).predict(queries).shape == (4, 30)
    with pytest.raises(IndexError, match="Index 30 is outside the gallery of 30"):
        wrapper.remove([30])


def test_bad_input_is_named(gallery, queries):
    wrapper = QueryExpansion(NearestNeighborsRetriever()).fit(gallery)
    queries[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN.* in item 2"):
        wrapper.predict(queries)
    with pytest.raises(ValueError, match=r"7 features.*5 features"):
        wrapper.predict(np.ones((2, 7)))
    with pytest.raises(ValueError, match="minimum of 1"):
        wrapper.predict([])
    with pytest.raises(NotFittedError):
        QueryExpansion(NearestNeighborsRetriever()).predict(gallery)
    with pytest.raises(NotFittedError):
        QueryExpansion(NearestNeighborsRetriever()).remove([0])


class NotARetriever(BaseEstimator):
    """Looks like one, but has no gallery."""

    def fit(self, X, y=None):
        return self

    def kneighbors(self, X):
        return X


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"retriever": None}, ValueError, "retriever"),
        ({"retriever": NotARetriever()}, TypeError, "NearestNeighborsRetriever or a wrapper"),
        ({"n_expand": -1}, ValueError, "n_expand"),
        ({"n_expand": 1.5}, ValueError, "n_expand"),
        ({"alpha": -0.1}, ValueError, "alpha"),
        ({"include_query": "yes"}, ValueError, "include_query"),
    ],
)
def test_bad_parameters(gallery, params, error, message):
    with pytest.raises(error, match=message):
        QueryExpansion(**{"retriever": NearestNeighborsRetriever(), **params}).fit(gallery)
