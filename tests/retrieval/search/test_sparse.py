"""Sparse descriptors give what the same dense ones give."""

import pickle
import tracemalloc

import numpy as np
import pytest
from fixtures.distances import METRICS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.utils import estimator_checks, get_tags

from skretrieval._linalg import unit_rows
from skretrieval.datasets import make_feature_maps
from skretrieval.pooling import BoWPooler
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion
from skretrieval.retrieval._descriptors import DescriptorSet
from skretrieval.retrieval._search import _scorer
from skretrieval.retrieval._search._exact import make_scorer


def make(n_neighbors=100, **params):
    return NearestNeighborsRetriever(n_neighbors, accept_sparse=True, **params)


@pytest.fixture(params=["small", "large"])
def gallery_kind(request, monkeypatch):
    """Treat the galleries as small ones and as large ones (see ``_scorer``)."""
    if request.param == "large":
        monkeypatch.setattr(_scorer, "_SMALL_GALLERY", 0)
    return request.param


def histograms(n, d, seed, dtype=np.float64, density=0.1):
    """Rows of few numbers, some of them empty and some twice."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n, d)) < density, rng.normal(size=(n, d)), 0.0).astype(dtype)
    X[n // 2] = 0
    X[-1] = X[0]
    return X


@pytest.mark.parametrize(
    "container", [sparse.csr_matrix, sparse.csr_array, sparse.csc_array, sparse.coo_matrix]
)
@pytest.mark.parametrize("k", [3, 60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_dense_gallery(slow, gallery_kind, metric, dtype, k, container):
    X, Q = histograms(60, 50, 0, dtype), histograms(7, 50, 1, dtype)
    dense = make(k, metric=metric).fit(X)
    retriever = make(k, metric=metric).fit(container(X))
    assert sparse.issparse(retriever.gallery_)
    assert retriever.gallery_.format == "csr"
    assert isinstance(retriever.gallery_, sparse.sparray) == issubclass(container, sparse.sparray)
    assert retriever.gallery_.dtype == dtype
    assert_array_equal(retriever.gallery_.toarray(), dense.gallery_)
    expected = dense.kneighbors(Q)
    slow.assert_ranking(expected, slow.distances(Q, X, metric), k, 3e-6 if dtype == np.float32 else 1e-12)
    assert expected[0].dtype == dtype
    for queries, index in [(Q, retriever), (container(Q), retriever), (container(Q), dense)]:
        found = index.kneighbors(queries)
        assert_array_equal(found[1], expected[1])
        if k == 60 and gallery_kind == "large":  # rankings of large galleries come from products
            assert_allclose(found[0], expected[0], atol=1e-13 if dtype == np.float64 else 1e-6)
        else:
            assert_array_equal(found[0], expected[0])
    for found, wanted in zip(retriever.kneighbors(None, 59), dense.kneighbors(None, 59)):
        assert_allclose(found, wanted, atol=1e-13 if dtype == np.float64 else 1e-6)
    same = [retriever.transform(container(Q)), dense.transform(Q)]
    assert_array_equal(same[0].indices, same[1].indices)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 30),
    d=st.integers(1, 6),
    k=st.integers(1, 30),
    blocks=st.tuples(st.integers(1, 9), st.integers(1, 5)),
    metric=st.sampled_from(METRICS),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 50),
)
def test_any_shape_with_ties_and_zeros(n, d, k, blocks, metric, dtype, seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(-1, 2, size=(n, d)).astype(dtype)
    Q, k = X[:4], min(k, n)
    params = dict(zip(("block_size", "query_block_size"), blocks))
    expected = make(k, metric=metric).fit(X).kneighbors(Q)
    retriever = make(k, metric=metric, engine_params=params).fit(sparse.csr_array(X))
    with pytest.MonkeyPatch.context() as patch:
        for small in (1024, 0):
            patch.setattr(_scorer, "_SMALL_GALLERY", small)
            found = retriever.kneighbors(sparse.csr_array(Q))
            assert_array_equal(found[1], expected[1])
            assert_allclose(found[0], expected[0], atol=1e-12 if dtype == np.float64 else 1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_wide_histograms(metric):
    # 9,000 words: more than a dense float32 product may sum, but few numbers a row.
    X, Q = histograms(300, 9000, 2, np.float32, 0.01), histograms(5, 9000, 3, np.float32, 0.01)
    X[17] = Q[2]
    dense = make(6, metric=metric).fit(X)
    retriever = make(6, metric=metric).fit(sparse.csr_array(X))
    for k in (6, 300):
        found, expected = retriever.kneighbors(sparse.csr_array(Q), k), dense.kneighbors(Q, k)
        assert_array_equal(found[1], expected[1])
        assert_allclose(found[0], expected[0], atol=1e-5)
    scorer = make_scorer("cosine", DescriptorSet(unit_rows(Q)), DescriptorSet(unit_rows(sparse.csr_array(X))))
    assert scorer.coarse(0, 300).dtype == np.float32


@pytest.mark.parametrize("kind", ["plain", "long rows", "short rows"])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_stay_within_their_bounds(monkeypatch, metric, kind):
    monkeypatch.setattr(_scorer, "_SMALL_GALLERY", 0)
    X, Q = histograms(200, 700, 4, np.float32, 0.3), histograms(20, 700, 5, np.float32, 0.3)
    X[50:90] *= np.float32({"plain": 1, "long rows": 1e4, "short rows": 1e-4}[kind])
    X[3:9] = Q[3:9] * np.float32(1 + 1e-6)
    prepare = unit_rows if metric == "cosine" else (lambda rows: rows)
    queries = DescriptorSet(prepare(Q))
    scorer = make_scorer(metric, queries, DescriptorSet(prepare(sparse.csr_array(X))))
    coarse, fine = scorer.coarse(0, 200).astype(np.float64), scorer.fine(0, 200)
    query, item = (part.ravel() for part in np.indices((20, 200)))
    exact = scorer.pairs(query, item).reshape(20, 200)
    dense = make_scorer(metric, queries, DescriptorSet(prepare(X)))
    assert_array_equal(exact, dense.pairs(query, item).reshape(20, 200))
    slack = np.stack([column - scorer.loosen(column) for column in coarse.T], axis=1)
    assert (np.abs(coarse - exact) <= slack / 2).all()
    error, near = scorer.fine_error()
    assert (error > 0).all()
    assert (np.abs(fine - exact) <= error).all()
    assert error.shape == near.shape == (20, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_grown_and_shrunk_galleries(metric):
    X, y = histograms(30, 20, 6), np.arange(30) % 4
    whole = make(5, metric=metric).fit(X[1:29], y[1:29])
    rows = sparse.csr_array(X)
    for second in (rows[10:], X[10:]):  # dense rows join a sparse gallery as sparse ones
        grown = make(5, metric=metric).partial_fit(rows[:10], y[:10])
        assert grown.partial_fit(second, y[10:]).remove([0, 29]) is grown
        assert sparse.issparse(grown.gallery_)
        assert_array_equal(grown.gallery_.toarray(), whole.gallery_)
        assert_array_equal(grown.predict(rows), whole.predict(X))
        assert grown.score(rows, y) == pytest.approx(whole.score(X, y), abs=1e-12)
    dense = make(5, metric=metric).fit(X[:10]).partial_fit(rows[10:])
    assert isinstance(dense.gallery_, np.ndarray)
    assert_array_equal(dense.gallery_, make(metric=metric).fit(X).gallery_)


@pytest.mark.parametrize("metric", METRICS)
def test_regions_and_sparse_rows_meet(slow, make_regions, metric):
    X, Q = histograms(12, 6, 7, density=0.5), make_regions(5, 6, seed=8)
    expected = slow.distances(Q, X, metric)
    retriever = make(4, metric=metric).fit(sparse.csr_matrix(X))
    slow.assert_ranking(retriever.kneighbors(Q), expected, 4, 1e-12)
    dense = make(4, metric=metric).fit(X)
    for found, wanted in zip(
        retriever.best_regions(Q, retriever.predict(Q)), dense.best_regions(Q, dense.predict(Q))
    ):
        assert_array_equal(found, wanted)
    retriever.partial_fit(Q)
    assert_array_equal(retriever.predict(Q), dense.partial_fit(Q).predict(Q))
    with pytest.raises(TypeError, match="Item 1 is sparse: the regions"):
        retriever.predict([np.ones((2, 6)), sparse.csr_array(X)])


@pytest.mark.parametrize("metric", METRICS)
def test_query_expansion(metric):
    X, Q = histograms(40, 30, 9), histograms(6, 30, 10)
    y = np.arange(40) % 5
    for options in ({}, {"alpha": 2.0, "include_query": False}, {"exclude_self": True}):
        inner = make(40, metric=metric)
        dense = QueryExpansion(inner, 4, **options).fit(X, y)
        wrapper = QueryExpansion(inner, 4, **options).fit(sparse.csr_matrix(X), y)
        for queries in (Q, X):
            expected = dense.kneighbors(queries)
            for same in (queries, sparse.csr_array(queries)):
                found = wrapper.kneighbors(same)
                assert_array_equal(found[1], expected[1])
                assert_allclose(found[0], expected[0], atol=1e-12)
        assert_array_equal(wrapper.kneighbors(None, 39)[1], dense.kneighbors(None, 39)[1])
        assert wrapper.score(sparse.csr_array(Q), y[:6]) == pytest.approx(dense.score(Q, y[:6]), abs=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_rows_without_a_common_column_tie(gallery_kind, sign):
    # Products of positive rows that are zero are known to be so; with negative numbers, or tiny ones, they are not.
    rng = np.random.default_rng(15)
    X = np.abs(histograms(9000, 300, 16, np.float32, 0.004)) + np.float32(0)
    X[rng.random(9000) < 0.01, :2] = [1, sign]
    X[[70, 7000]] = 0
    X[70, :2] = X[7000, :2] = [1, 1e-30]
    Q = X[[70, 3, 500]]
    Q[0] = 0
    Q[0, 1] = 1
    dense, found = (make(200).fit(kind(X)).kneighbors(kind(Q)) for kind in (np.asarray, sparse.csr_array))
    for left, right in zip(found, dense):
        assert_array_equal(left, right)
    assert (dense[0][1:] == 1).any()
    last = make(9000).fit(sparse.csr_array(X)).predict(Q)
    assert_array_equal(last, make(9000).fit(X).predict(Q))


def test_bags_of_words_find_their_object():
    maps, y = make_feature_maps(30, 16, random_state=0)
    bags = BoWPooler(n_clusters=60, random_state=0).fit_transform(maps)
    assert sparse.issparse(bags)
    retriever = make(5).fit(bags, y)
    assert_array_equal(retriever.predict(bags), make(5).fit(bags.toarray(), y).predict(bags))
    assert retriever.score(bags, y) > 0.5
    again = pickle.loads(pickle.dumps(retriever))
    assert_array_equal(again.kneighbors(bags)[0], retriever.kneighbors(bags)[0])


def test_duplicate_entries_and_unsorted_columns():
    raw = sparse.csr_matrix(
        (np.array([1.0, 2.0, 3.0, 5.0]), np.array([2, 0, 2, 1]), np.array([0, 3, 4])), shape=(2, 3)
    )
    before = [raw.data.copy(), raw.indices.copy(), raw.indptr.copy()]
    for metric in METRICS:
        found = make(2, metric=metric).fit(raw).kneighbors(raw)
        expected = make(2, metric=metric).fit(raw.toarray()).kneighbors(raw.toarray())
        for left, right in zip(found, expected):
            assert_array_equal(left, right)
    for array, same in zip((raw.data, raw.indices, raw.indptr), before):
        assert_array_equal(array, same)


def test_read_only_arrays():
    X = sparse.csr_matrix(histograms(30, 20, 11))
    for array in (X.data, X.indices, X.indptr):
        array.flags.writeable = False
    for metric in METRICS:
        retriever = make(5, metric=metric).fit(X)
        retriever.kneighbors(X)
        retriever.kneighbors(X, 30)


@pytest.mark.parametrize("method", ["fit", "predict", "partial_fit"])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "inf")])
def test_nan_and_inf_are_named(method, value, name):
    X = histograms(30, 20, 12)
    retriever = make().fit(sparse.csr_matrix(X))
    X[[17, 21], 2] = value
    with pytest.raises(ValueError, match=rf"{name}.* in item 17 \(2 row"):
        getattr(retriever, method)(sparse.csr_matrix(X))


def test_numbers_of_features_that_differ():
    retriever = make().fit(sparse.csr_matrix(histograms(30, 20, 13)))
    with pytest.raises(ValueError, match=r"7 features.*20 features"):
        retriever.predict(sparse.csr_matrix(np.ones((2, 7))))
    with pytest.raises(ValueError, match="minimum of 1"):
        retriever.fit(sparse.csr_matrix((0, 20)))


@pytest.mark.parametrize("metric", METRICS)
def test_memory_stays_far_below_that_of_the_dense_gallery(metric):
    X = sparse.random(3000, 25000, density=0.002, format="csr", random_state=14, dtype=np.float32)
    tracemalloc.start()
    try:
        retriever = make(10, metric=metric).fit(X)
        retriever.kneighbors(X[:60])
        retriever.kneighbors(X[:60], 3000)
        QueryExpansion(retriever, 5).fit(X).kneighbors(X[:10])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 300 MB in float32, 600 MB in float64.
    assert peak < 100e6


class FirstOnly(NearestNeighborsRetriever):
    """Says the nearest item alone: the checks of sparse input want one value a sample."""

    def predict(self, X):
        return super().predict(X)[:, 0]


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_sparse_tag,
        estimator_checks.check_estimator_sparse_array,
        estimator_checks.check_estimator_sparse_matrix,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("metric", METRICS)
def test_checks_of_scikit_learn(metric, check):
    check("FirstOnly", FirstOnly(metric=metric, accept_sparse=True))


def test_sparse_input_is_to_be_asked_for():
    X = sparse.csr_array(histograms(9, 5, 17, density=0.9))
    plain, asked = NearestNeighborsRetriever(3), NearestNeighborsRetriever(3, accept_sparse=True)
    for retriever in (plain, QueryExpansion(plain)):
        assert not get_tags(retriever).input_tags.sparse
        for call in (retriever.fit, retriever.fit(X.toarray()).predict):
            with pytest.raises(TypeError, match=r"X is sparse.*accept_sparse=True"):
                call(X)
    for retriever in (asked, QueryExpansion(asked), QueryExpansion(QueryExpansion(asked))):
        assert get_tags(retriever).input_tags.sparse
        assert retriever.fit(X).predict(X).shape == (9, 3)
