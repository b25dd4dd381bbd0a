"""Engine "faiss": the contract of the exact engine, and how much of its answer is found."""

import pickle
import sys
import warnings

import joblib
import numpy as np
import pytest
from fixtures.distances import METRICS
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import estimator_checks as checks

from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion

faiss = pytest.importorskip("faiss", reason="the extra faiss (faiss-cpu) is not installed")

INDEXES = {
    "flat": {"index": "flat"},
    "hnsw": {"index": "hnsw", "M": 16, "ef_construction": 64, "ef_search": 64},
    "ivfpq": {"index": "ivfpq", "nlist": 10, "nprobe": 5, "m": 4, "nbits": 5},
    "factory": {"index": "IVF10,SQ8", "nprobe": 10},
    "opq": {"index": "OPQ4,IVF8,PQ4x4", "nprobe": 4, "oversample": 8},
}


def make(k=10, **params):
    return NearestNeighborsRetriever(k, engine="faiss", **params)


@pytest.fixture(scope="module")
def objects():
    """Clustered descriptors, some of them twice, and queries near them."""
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 60
    X = rng.normal(size=(60, 16))[y] + 0.5 * rng.normal(size=(1200, 16))
    X[700:750] = X[:50]
    Q = X[:40] + 0.2 * rng.normal(size=(40, 16))
    return X.astype(np.float32), y, Q.astype(np.float32)


def as_regions(X):
    return [np.stack([row, np.roll(row, 1), -row])[: 1 + i % 3] for i, row in enumerate(X)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_flat_is_the_exact_search(objects, metric, regions, dtype):
    X, _, Q = objects
    X, Q = X.astype(dtype), Q.astype(dtype)
    X, Q = (as_regions(X), as_regions(Q)) if regions else (X, Q)
    exact = NearestNeighborsRetriever(10, metric=metric).fit(X)
    retriever = make(metric=metric).fit(X)
    assert retriever.gallery_.dtype == dtype
    # Duplicates tie: bit by bit the same distances, in the order of the gallery.
    for found, expected in zip(retriever.kneighbors(Q), exact.kneighbors(Q)):
        assert found.dtype == expected.dtype
        assert_array_equal(found, expected)
    assert_array_equal(retriever.predict(Q), exact.predict(Q))
    for found, expected in zip(retriever.kneighbors(None, 5), exact.kneighbors(None, 5)):
        assert_array_equal(found, expected)
    for found, expected in zip(
        retriever.best_regions(Q, exact.predict(Q)), exact.best_regions(Q, exact.predict(Q))
    ):
        assert_array_equal(found, expected)
    assert retriever.engine_recall(Q) == 1.0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("name", list(INDEXES))
def test_approximate_indexes_keep_the_contract(objects, metric, name):
    X, y, Q = objects
    exact = NearestNeighborsRetriever(10, metric=metric).fit(X, y)
    retriever = make(metric=metric, engine_params=INDEXES[name]).fit(X, y)
    distances, indices = retriever.kneighbors(Q)
    assert distances.shape == indices.shape == (40, 10)
    assert all(len(set(row)) == 10 for row in indices.tolist())
    # Every distance is the exact one of its item, ordered by distance and then by index.
    everything, ranking = exact.kneighbors(Q, 1200)
    by_item = np.take_along_axis(everything, np.argsort(ranking, axis=1), axis=1)
    assert_allclose(distances, np.take_along_axis(by_item, indices, axis=1), rtol=1e-6, atol=1e-6)
    steps = np.diff(distances, axis=1)
    assert (steps >= 0).all()
    assert (np.diff(indices, axis=1)[steps == 0] > 0).all()
    by_hand = np.mean(distances <= exact.kneighbors(Q)[0][:, -1:])
    assert retriever.engine_recall(Q) == pytest.approx(by_hand, abs=1e-12)
    assert retriever.engine_recall(Q) > 0.8
    assert 0 < retriever.engine_recall(n_neighbors=3) <= 1
    # Whole rankings are exact.
    assert retriever.score(Q, y[:40]) == exact.score(Q, y[:40])
    graph = retriever.transform(Q)
    assert graph.shape == (40, 1200)
    assert graph.nnz == 400


def test_recall_says_what_is_lost(objects):
    X, _, Q = objects
    poor = {"index": "ivfpq", "nlist": 40, "nprobe": 1, "m": 1, "nbits": 2, "oversample": 1}
    retriever = make(engine_params=poor).fit(X)
    recall = retriever.engine_recall(Q)
    assert recall < 0.95
    retriever.set_params(engine_params={**poor, "nprobe": 40, "oversample": 20})
    assert retriever.engine_recall(Q) > recall
    assert retriever.engine_params["nprobe"] == 40  # not changed by the comparison
    assert NearestNeighborsRetriever(10).fit(X).engine_recall(Q) == 1.0


@pytest.mark.parametrize("name", list(INDEXES))
def test_two_fits_are_bit_equal(objects, name):
    X, _, Q = objects
    first, second = (make(engine_params=INDEXES[name]).fit(X) for _ in range(2))
    assert_array_equal(faiss.serialize_index(first._faiss.index), faiss.serialize_index(second._faiss.index))
    assert_array_equal(first.predict(Q), second.predict(Q))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("name", list(INDEXES))
def test_the_index_is_in_the_model(objects, tmp_path, name, regions):
    X, y, Q = objects
    X, Q = (as_regions(X), as_regions(Q)) if regions else (X, Q)
    fitted = QueryExpansion(make(engine_params=INDEXES[name]), 3).fit(X, y)
    expected = fitted.kneighbors(Q)
    joblib.dump(fitted, tmp_path / "retriever.joblib")
    copies = [pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "retriever.joblib")]
    copies.append(joblib.load(tmp_path / "retriever.joblib", mmap_mode="r"))
    copies.append(pickle.loads(pickle.dumps(copies[0])))
    for copy in copies:
        for found, same in zip(copy.kneighbors(Q), expected):
            assert_array_equal(found, same)
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fitted))))  # never searched in between
    assert_array_equal(twice.predict(Q), fitted.predict(Q))
    grown = copies[2].partial_fit(X[:2], y[:2]).remove([0])
    assert grown.n_samples_fit_ == 1201
    assert grown.predict(Q).shape == (40, 10)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("name", list(INDEXES))
def test_grown_and_shrunk_galleries(objects, name, regions):
    X, y, Q = objects
    X, Q = (as_regions(X), as_regions(Q)) if regions else (X, Q)
    retriever = make(engine_params=INDEXES[name]).partial_fit(X[:1100], y[:1100])
    assert retriever.partial_fit(X[1100:], y[1100:]) is retriever
    exact = NearestNeighborsRetriever(10).fit(X, y)
    assert retriever._faiss.index.ntotal == len(exact.gallery_)
    last = retriever.kneighbors(X[1100:], 1)
    assert (last[0] < 1e-6).mean() > 0.95  # what was appended is found
    gone = np.arange(0, 1200, 3)
    retriever.remove(gone)
    exact.remove(gone)
    assert retriever._faiss.index.ntotal == len(exact.gallery_)
    assert_array_equal(retriever.gallery_, exact.gallery_)
    assert_array_equal(retriever.labels_, exact.labels_)
    assert retriever.engine_recall(Q) > 0.7
    if name == "flat":
        assert_array_equal(retriever.predict(Q), exact.predict(Q))
    if name in ("flat", "hnsw"):
        keep = [i for i in range(1200) if i % 3]
        again = make(engine_params=INDEXES[name]).fit([X[i] for i in keep])
        assert_array_equal(again.predict(Q), retriever.predict(Q))


def test_query_expansion_over_the_flat_index(objects):
    X, y, Q = objects
    for options in ({}, {"alpha": 3.0, "exclude_self": True}):
        exact = QueryExpansion(NearestNeighborsRetriever(10), 5, **options).fit(X, y)
        wrapper = QueryExpansion(make(), 5, **options).fit(X, y)
        for queries in (Q, X[:20]):
            assert_array_equal(wrapper.predict(queries), exact.predict(queries))
        assert wrapper.score(Q, y[:40]) == exact.score(Q, y[:40])


def test_one_query_and_one_region_set_among_many():
    # All regions of item 0 are nearest: the list of rows must grow until it holds enough items.
    rng = np.random.default_rng(1)
    crowd = rng.normal(size=8) + 1e-3 * rng.normal(size=(500, 8))
    X = [crowd, *rng.normal(size=(90, 1, 8))]
    for metric in METRICS:
        expected = NearestNeighborsRetriever(6, metric=metric).fit(X).kneighbors(crowd[:1])
        found = make(6, metric=metric).fit(X).kneighbors(crowd[:1])
        for left, right in zip(found, expected):
            assert_array_equal(left, right)


def test_too_few_items_found_are_searched_exactly():
    # One probe finds a cell of mostly five items, twenty are due.
    rng = np.random.default_rng(2)
    centres = 10 * rng.normal(size=(40, 8))
    X = np.repeat(centres, 5, axis=0) + 0.01 * rng.normal(size=(200, 8))
    retriever = make(20, metric="euclidean", engine_params={"index": "IVF40,Flat", "nprobe": 1}).fit(X)
    cells = (retriever._faiss.index.search(X.astype(np.float32), 200)[1] >= 0).sum(axis=1)
    short = cells < 20
    assert 0.5 < short.mean() < 1
    found = retriever.kneighbors(X)
    expected = NearestNeighborsRetriever(20, metric="euclidean").fit(X).kneighbors(X)
    for left, right in zip(found, expected):
        assert_array_equal(left[short], right[short])
    assert not np.array_equal(found[1][~short], expected[1][~short])


def test_query_blocks_change_nothing(objects):
    X, _, Q = objects
    expected = make(engine_params=INDEXES["hnsw"]).fit(X).kneighbors(Q)
    params = {**INDEXES["hnsw"], "query_block_size": 7}
    for found, same in zip(make(engine_params=params).fit(X).kneighbors(Q), expected):
        assert_array_equal(found, same)


def test_settings_of_the_library_are_restored(objects):
    before = faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()
    make(engine_params=INDEXES["hnsw"]).fit(objects[0]).predict(objects[2])
    assert (faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()) == before


def test_training_is_quiet(objects, capfd):
    for name in ("ivfpq", "factory"):
        make(engine_params=INDEXES[name]).fit(objects[0])
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"nprobe": 3},
            r"Unknown engine_params \['nprobe'\].*index 'flat'.*\['index', 'oversample', 'query_bl",
        ),
        ({"index": "hnsw", "m": 3}, r"Unknown engine_params \['m'\].*'M', 'ef_construction', 'ef_search'"),
        (
            {"index": "ivfpq", "block_size": 3},
            r"Unknown.*\['index', 'm', 'nbits', 'nlist', 'nprobe', 'oversample'",
        ),
        ({"index": "IVF8,Flat", "M": 3}, r"Unknown.*'ef_construction', 'ef_search', 'nprobe'"),
        ({"index": "hnsw", "M": 0}, r"engine_params\['M'\] must be an integer of at least 1, got 0"),
        ({"index": "hnsw", "ef_search": None}, r"engine_params\['ef_search'\].*got None"),
        ({"oversample": 0.5}, r"engine_params\['oversample'\] must be a number of at least 1, got 0.5"),
        ({"oversample": float("nan")}, "oversample"),
        ({"index": 3}, r"engine_params\['index'\] must be \['flat', 'hnsw', 'ivfpq'\] or a faiss string"),
        ({"index": "ivfpq", "m": 5}, r"\['m'\]=5 does not divide the 16 features"),
        ({"index": "ivfpq", "nbits": 11}, "learns 2048 centroids.*has 1200 rows"),
        ({"index": "nonsense"}, "faiss cannot build 'nonsense'.*could not parse"),
        ({"index": "IVF8,Flat", "ef_search": 5}, "Index 'IVF8,Flat' has no parameter 'ef_search'"),
        ({"index": "IVF5000,Flat"}, "faiss cannot build.*from 1200 rows.*number of clusters"),
    ],
)
def test_bad_parameters(objects, params, message):
    retriever = make(engine_params=params)
    with pytest.raises(ValueError, match=message):
        retriever.fit(objects[0])
    assert not hasattr(retriever, "gallery_")


def test_what_it_cannot_do(objects):
    X, _, Q = objects
    with pytest.raises(ValueError, match="'hnsw' does not know the metric 'manhattan'"):
        make(metric="manhattan", engine_params={"index": "hnsw"}).fit(X)
    with pytest.raises(ValueError, match="region_pairs='same' needs engine='exact'"):
        make(region_pairs="same").fit(X)
    with pytest.raises(TypeError, match="sparse"):
        make(accept_sparse=True).fit(sparse.csr_array(X))
    with pytest.raises(ValueError, match="float32"):
        make(metric="euclidean").fit(X.astype(np.float64) * 1e300)
    retriever = make().fit(X)
    with pytest.raises(ValueError, match="was 'flat' when fitted and is 'hnsw' now"):
        retriever.set_params(engine_params={"index": "hnsw"}).predict(Q)
    with pytest.raises(ValueError, match="was 'faiss' when fitted and is 'exact' now"):
        retriever.set_params(engine="exact", engine_params=None).predict(Q)
    with pytest.raises(ValueError, match="n_neighbors=1201 is larger"):
        make(1201).fit(X).predict(Q)


def test_without_the_library(objects, monkeypatch):
    fitted = pickle.dumps(make().fit(objects[0]))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"scikit-retrieval\[faiss\]"):
        make().fit(objects[0])
    with pytest.raises(ImportError, match=r"scikit-retrieval\[faiss\]"):
        pickle.loads(fitted).predict(objects[2])


def test_wide_and_awkward_numbers_of_features():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 13))  # a prime: product codes of one part
    assert make(5, engine_params={"index": "ivfpq"}).fit(X).engine_recall(X[:20]) > 0.3
    one = make(1, metric="euclidean").fit(X[:, :1])
    assert_array_equal(one.predict(X[:, :1])[:, 0], np.arange(300))


@checks.parametrize_with_checks([make(100), make(100, metric="manhattan"), QueryExpansion(make(100))])
def test_battery(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(clone(estimator))
