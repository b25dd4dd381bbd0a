"""Galleries in half precision and on disk: kept as they are, searched as if they were in memory."""

import pickle
import tracemalloc

import joblib
import numpy as np
import pytest
from fixtures.distances import METRICS
from numpy.testing import assert_allclose, assert_array_equal

from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion
from skretrieval.retrieval._half_precision import half_to_single
from skretrieval.retrieval._search import _scorer


@pytest.fixture(params=["small", "large"])
def gallery_kind(request, monkeypatch):
    """Treat the galleries as small ones and as large ones (see ``_scorer``)."""
    if request.param == "large":
        monkeypatch.setattr(_scorer, "_SMALL_GALLERY", 0)
    return request.param


def descriptors(n, d, seed, dtype=np.float16):
    X = np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)
    X[n // 2] = 0
    X[-1] = X[0]
    return X


def map_to_file(X, path):
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def test_halves_become_singles_exactly():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert len(finite) == 63488
    found = half_to_single(finite)
    assert found.dtype == np.float32
    assert_array_equal(found.view(np.uint32), finite.astype(np.float32).view(np.uint32))
    rows = finite.reshape(-1, 2, 16)[:, 0]  # rows with gaps between them
    assert_array_equal(half_to_single(rows), rows.astype(np.float32))
    rows.flags.writeable = False
    out = np.empty(rows.shape, dtype=np.float32)
    assert half_to_single(rows, out) is out
    assert_array_equal(out, rows.astype(np.float32))


@pytest.mark.parametrize("kind", ["half", "mapped half", "mapped single", "mapped double"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("gallery_kind")
def test_equals_the_gallery_in_memory(tmp_path, metric, kind):
    dtype = {"half": np.float16, "single": np.float32, "double": np.float64}[kind.split()[-1]]
    given = descriptors(90, 33, 0, dtype)
    X = given.astype(np.promote_types(dtype, np.float32))
    gallery = map_to_file(given, tmp_path / "X.npy") if "mapped" in kind else given
    Q = descriptors(12, 33, 1, np.float32)
    expected = NearestNeighborsRetriever(9, metric=metric).fit(X)
    retriever = NearestNeighborsRetriever(9, metric=metric).fit(gallery)
    assert retriever.gallery_.dtype == dtype
    assert np.shares_memory(retriever.gallery_, gallery)
    assert (retriever.row_lengths_ is None) == (metric != "cosine")
    assert expected.row_lengths_ is None
    for params in (None, {"block_size": 7, "query_block_size": 5}):
        retriever.set_params(engine_params=params)
        for queries in (Q, Q.astype(np.float16), gallery[:5], None):
            for k in (9, 80):
                found, same = retriever.kneighbors(queries, k), expected.kneighbors(queries, k)
                assert found[0].dtype == same[0].dtype
                assert_array_equal(found[1], same[1])
                # Distances of long rankings come from products, whose last bits depend on the blocks.
                tolerance = 1e-14 if k == 80 else 0
                assert_allclose(found[0], same[0], rtol=tolerance, atol=tolerance)
    for found, same in zip(
        retriever.best_regions(Q, retriever.predict(Q)), expected.best_regions(Q, expected.predict(Q))
    ):
        assert_array_equal(found, same)
    again = pickle.loads(pickle.dumps(retriever))
    assert_array_equal(again.kneighbors(Q)[0], retriever.kneighbors(Q)[0])


@pytest.mark.parametrize("metric", METRICS)
def test_expansion_score_and_regions(metric):
    X, Q, y = descriptors(60, 8, 2), descriptors(9, 8, 3, np.float32), np.arange(60) % 7
    inner = NearestNeighborsRetriever(9, metric=metric)
    for options in ({}, {"alpha": 2.0, "exclude_self": True}):
        half = QueryExpansion(inner, 4, **options).fit(X, y)
        single = QueryExpansion(inner, 4, **options).fit(X.astype(np.float32), y)
        for found, same in zip(half.kneighbors(Q), single.kneighbors(Q)):
            assert_array_equal(found, same)
        assert half.score(Q, y[:9]) == single.score(Q, y[:9])
    regions = list(X.reshape(20, 3, 8))
    singles = [item.astype(np.float32) for item in regions]
    for pairs in ("all", "same"):
        inner = NearestNeighborsRetriever(9, metric=metric, region_pairs=pairs)
        found, same = inner.fit(regions).kneighbors(singles[:4]), inner.fit(singles).kneighbors(singles[:4])
        for left, right in zip(found, same):
            assert_array_equal(left, right)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_grown_and_shrunk_galleries(tmp_path, metric, dtype):
    X = descriptors(40, 6, 4, dtype)
    whole = NearestNeighborsRetriever(5, metric=metric).fit(X[1:])
    mapped = map_to_file(X[:25], tmp_path / "X.npy")
    grown = (
        NearestNeighborsRetriever(5, metric=metric)
        .fit(mapped)
        .partial_fit(X[25:].astype(np.float32))
        .remove([0])
    )
    assert grown.gallery_.dtype == dtype
    for found, same in zip(grown.kneighbors(X), whole.kneighbors(X)):
        assert_array_equal(found, same)
    assert_array_equal(np.load(tmp_path / "X.npy"), X[:25])


def test_copies_of_mapped_rows_are_normalised_as_ever(tmp_path):
    mapped = map_to_file(descriptors(40, 6, 9, np.float32), tmp_path / "X.npy")
    assert NearestNeighborsRetriever().fit(mapped[5:]).row_lengths_ is not None
    for copied in (mapped[[1, 5, 7]], mapped[::-1], np.array(mapped), mapped * 2):
        retriever = NearestNeighborsRetriever().fit(copied)
        assert retriever.row_lengths_ is None
        assert_allclose(np.linalg.norm(retriever.gallery_, axis=1)[:2], 1, rtol=1e-6)


def test_models_map_their_rows_again(tmp_path):
    X = descriptors(40, 6, 5)
    fitted = NearestNeighborsRetriever(5).fit(map_to_file(X, tmp_path / "X.npy"))
    joblib.dump(fitted, tmp_path / "model.joblib")
    (tmp_path / "X.npy").unlink()
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert isinstance(loaded.gallery_, np.memmap)
    for found, same in zip(loaded.kneighbors(X), fitted.kneighbors(X)):
        assert_array_equal(found, same)


@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_lengths_far_from_one_are_normalised_in_memory(tmp_path, factor):
    X = descriptors(40, 6, 6, np.float32)
    X[7] *= np.float32(factor)
    retriever = NearestNeighborsRetriever(5).fit(map_to_file(X, tmp_path / "X.npy"))
    assert retriever.row_lengths_ is None
    expected = NearestNeighborsRetriever(5).fit(X)
    for found, same in zip(retriever.kneighbors(X), expected.kneighbors(X)):
        assert_array_equal(found, same)


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (-np.inf, "inf")])
def test_nan_and_inf_are_named(value, name):
    X = descriptors(40, 6, 7)
    retriever = NearestNeighborsRetriever().fit(X)
    bad = X.copy()
    bad[[17, 21], 2] = value
    for method in (retriever.fit, retriever.predict, retriever.partial_fit):
        with pytest.raises(ValueError, match=rf"{name}.* in item 17 \(2 row"):
            method(bad)
    retriever.fit(X)
    with pytest.raises(ValueError, match=r"inf.* in item 1 "):
        retriever.partial_fit(np.array([[1.0] * 6, [1e6] * 6], dtype=np.float32))
    assert retriever.n_samples_fit_ == 40


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_nothing_is_copied(tmp_path, metric, dtype):
    # 41 MB in float32; blocks of 1,024 rows take 0.5 MB.
    X = map_to_file(np.random.default_rng(8).normal(size=(80000, 128)).astype(dtype), tmp_path / "X.npy")
    params = {"block_size": 1024, "query_block_size": 64}
    tracemalloc.start()
    try:
        retriever = NearestNeighborsRetriever(20, metric=metric, engine_params=params).fit(X)
        retriever.kneighbors(X[:5])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        distances, indices = retriever.kneighbors(X[:5], 80000)
        ranking_peak = tracemalloc.get_traced_memory()[1] - distances.nbytes - indices.nbytes
    finally:
        tracemalloc.stop()
    assert peak < 12e6
    assert ranking_peak < 16e6
