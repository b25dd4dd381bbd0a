"""Maps near the ends of the range of floats: finite descriptors, or an error that names the entry."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from skretrieval import pooling

NEEDS = {
    "BoWPooler": {"n_clusters": 4},
    "VLADPooler": {"n_clusters": 2},
    "NetVLADPooler": {"n_clusters": 2},
    "FisherVectorPooler": {"n_components": 2},
    "TEmbeddingPooler": {"n_clusters": 2},
    "PartWeightedPooler": {"n_parts": 4},
}
POOLERS = sorted(
    name
    for name in pooling.__all__
    if name.endswith("Pooler") and name not in ("BasePooler", "LayerwisePooler")
)


def made(name):
    kind = getattr(pooling, name)
    known = inspect.signature(kind).parameters
    wanted = {"n_local": "all" if name == "RegionalSecondOrderPooler" else None, **NEEDS.get(name, {})}
    return kind(**{key: value for key, value in wanted.items() if key in known})


def maps(dtype):
    return (np.random.default_rng(0).random((5, 8, 6, 7)) + 0.01).astype(dtype)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(POOLERS), scale=st.integers(-300, 300), dtype=st.sampled_from(["f4", "f8"]))
def test_no_descriptor_is_infinite_or_made_up(name, scale, dtype):
    limit = 37 if dtype == "f4" else 300
    with np.errstate(over="ignore"):
        scaled = maps("f8") * 10.0 ** max(-limit, min(limit, scale))
        scaled = (scaled * 3).astype(dtype)
    try:
        found = made(name).fit_transform(list(scaled))
    except ValueError as error:
        assert "Entry" in str(error)  # noqa: PT017
        return
    found = (
        found.toarray() if sparse.issparse(found) else np.concatenate([np.atleast_2d(rows) for rows in found])
    )
    assert np.isfinite(found).all()
    assert found.any(axis=1).all() or name == "BoWPooler"


@pytest.mark.parametrize("name", ["SumPooler", "SPoCPooler", "GRMACPooler", "CroWPooler", "SJWPooler"])
def test_the_entry_that_overflows_is_named(name):
    given_maps = list(maps("f4"))
    given_maps[3] = np.full((8, 6, 7), 3e38, dtype="f4")
    with pytest.raises(ValueError, match=r"Entry 3: its descriptor is not finite, because .* reach 3e\+38"):
        made(name).fit(given_maps[:1]).transform(given_maps)


@pytest.mark.parametrize("name", ["RegionIntegrationPooler", "RegionalSecondOrderPooler"])
def test_a_pooler_that_learns_names_the_entry(name):
    given_maps = list(maps("f4"))
    given_maps[2] = np.full((8, 6, 7), 3e38, dtype="f4")
    with pytest.raises(ValueError, match="Entry 2: nothing can be learned"):
        made(name).fit(given_maps)


def test_denormal_maps_get_no_zero_descriptor():
    given_maps = list(maps("f8"))
    given_maps[1] = given_maps[1] * 1e-321
    with pytest.raises(ValueError, match="Entry 1: its descriptor vanishes"):
        pooling.GeMPooler().fit_transform(given_maps)


ODD = {
    "sparse": lambda ones: ones.to_sparse(),
    "meta device": lambda ones: ones.to("meta"),
    "quantised": lambda ones: torch.quantize_per_tensor(ones, 0.1, 0, torch.quint8),
    "complex": lambda ones: ones.to(torch.complex64),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("words", sorted(ODD))
def test_tensors_without_plain_numbers_are_refused(words):
    tensor = ODD[words](torch.ones(3, 4, 5))
    with pytest.raises(ValueError, match=f"Entry 1: the feature map is a tensor that is .*{words}"):
        pooling.SumPooler().fit([torch.ones(3, 4, 5), tensor])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([torch.ones(3, 4, 5), torch.ones(3, 2, 5)])
    with pytest.raises(ValueError, match="nested: give a list of its parts"):
        pooling.SumPooler().fit(nested)


def test_maps_that_require_gradients_are_detached():
    wanted = pooling.GeMPooler().fit_transform([torch.ones(3, 4, 5)])
    found = pooling.GeMPooler().fit_transform([torch.ones(3, 4, 5, requires_grad=True)])
    np.testing.assert_array_equal(found, wanted)
    many = torch.ones(2, 3, 4, 5, requires_grad=True)
    np.testing.assert_array_equal(pooling.GeMPooler().fit_transform(many), np.repeat(wanted, 2, axis=0))


@pytest.mark.parametrize("values", [np.ones((3, 4, 5), complex), np.full((3, 4, 5), None)])
def test_arrays_without_real_numbers_are_refused(values):
    with pytest.raises(ValueError, match="Entry 0: expected real numbers"):
        pooling.SumPooler().fit([values])
