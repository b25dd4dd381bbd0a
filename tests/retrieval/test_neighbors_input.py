"""What a retriever is told about bad input and bad parameters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError

from skretrieval.retrieval import NearestNeighborsRetriever


@pytest.mark.parametrize("method", ["fit", "partial_fit", "kneighbors", "predict", "transform"])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_nan_and_inf_are_named(gallery, make_regions, method, value, name):
    retriever = NearestNeighborsRetriever().fit(gallery)
    bad = gallery.copy()
    bad[[17, 21], 2] = value
    with pytest.raises(ValueError, match=rf"{name}.* in item 17 \(2 row"):
        getattr(retriever, method)(bad)
    regions = make_regions(9, 5, seed=13)
    regions[6] = np.vstack([np.ones((2, 5)), np.full((1, 5), value)])
    with pytest.raises(ValueError, match=rf"{name}.* in item 6, region 2"):
        getattr(retriever, method)(regions)
    with pytest.raises(ValueError, match=rf"{name}.* in item 17"):
        getattr(retriever, method)(bad.astype(np.float32))


def test_large_finite_values_are_no_infinity():
    X = np.full((3, 4), 3e38, dtype=np.float32)
    assert_allclose(NearestNeighborsRetriever().fit(X).gallery_, 0.5)
    with np.errstate(over="ignore"):
        huge = np.full((3, 4), 1e308)
    assert_allclose(NearestNeighborsRetriever().fit(huge).gallery_, 0.5)


@pytest.mark.parametrize("method", ["kneighbors", "predict", "transform", "partial_fit"])
def test_numbers_of_features_that_differ(gallery, make_regions, method):
    retriever = NearestNeighborsRetriever().fit(gallery)
    with pytest.raises(ValueError, match=r"7 features.*5 features"):
        getattr(retriever, method)(np.ones((2, 7)))
    regions = make_regions(4, 5, seed=14)
    regions[2] = np.ones((3, 8))
    with pytest.raises(ValueError, match=r"Item 2 has 8 features.*expecting 5"):
        getattr(retriever, method)(regions)
    with pytest.raises(ValueError, match=r"Item 2 has 8 features, but item 0 has 5"):
        retriever.fit(regions)


def test_wrong_ranks(gallery):
    retriever = NearestNeighborsRetriever().fit(gallery)
    for method in (retriever.fit, retriever.predict):
        with pytest.raises(ValueError, match="2D array, got 1D"):
            method(gallery[0])
        with pytest.raises(ValueError, match="dim 3"):
            method(gallery[None])
        with pytest.raises(ValueError, match=r"Item 1: expected 2 dimensions .* got 1"):
            method([gallery[:2], gallery[0]])
        with pytest.raises(ValueError, match=r"Item 1: expected 2 dimensions .* got 3"):
            method([gallery[:2], gallery[None]])


@pytest.mark.parametrize("method", ["fit", "predict", "kneighbors", "transform", "partial_fit"])
def test_empty_input(gallery, method):
    call = getattr(NearestNeighborsRetriever().fit(gallery), method)
    with pytest.raises(ValueError, match="minimum of 1"):
        call([])
    with pytest.raises(ValueError, match="minimum of 1"):
        call(np.empty((0, 5)))
    with pytest.raises(ValueError, match="Item 1 has 0 regions"):
        call([np.ones((2, 5)), np.empty((0, 5))])


def test_before_fit(gallery):
    retriever = NearestNeighborsRetriever()
    calls = [retriever.kneighbors, lambda: retriever.predict(gallery), lambda: retriever.transform(gallery)]
    calls += [lambda: retriever.remove([0]), lambda: retriever.score(gallery, np.ones(30))]
    for call in calls:
        with pytest.raises(NotFittedError):
            call()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"metric": "hamming"}, "metric"),
        ({"engine": "magic"}, "engine"),
        ({"engine_params": [1]}, "engine_params"),
        (
            {"engine_params": {"blocks": 3, "nprobe": 1}},
            r"Unknown engine_params \['blocks', 'nprobe'\].*block_size",
        ),
        ({"engine_params": {"block_size": 0}}, r"engine_params\['block_size'\].*got 0"),
        ({"engine_params": {"query_block_size": 2.5}}, r"engine_params\['query_block_size'\].*got 2.5"),
    ],
)
def test_bad_parameters(gallery, params, message):
    with pytest.raises(ValueError, match=message):
        NearestNeighborsRetriever(**params).fit(gallery)
