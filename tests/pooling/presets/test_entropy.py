"""Regional entropies (FDE)."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import parts as ref
from references.maps import golden_map, make_map, make_ragged, make_signed_map, special_maps

from skretrieval.pooling import EntropyPooler, PoolerFusion, RMACPooler, regions
from skretrieval.pooling._presets._entropy import region_entropies

PARAMETERS = [{}, {"n_levels": 1, "n_bins": 2}, {"n_levels": 4, "n_bins": 37}]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_against_reference(parameters, dtype):
    maps = make_ragged(n_channels=5, seed=20, dtype=dtype)
    actual = EntropyPooler(**parameters).fit_transform(maps)
    assert actual.dtype == dtype
    expected = [ref.entropy(feature_map, **parameters) for feature_map in maps]
    assert_allclose(actual, expected, rtol=1e-8 if dtype == np.float64 else 1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", sorted(special_maps()))
@pytest.mark.parametrize("rectify", [True, False])
def test_special_maps(kind, rectify):
    feature_map = special_maps()[kind]
    actual = EntropyPooler(rectify=rectify).fit_transform([feature_map])[0]
    assert_allclose(actual, ref.entropy(feature_map, rectify=rectify), rtol=1e-8, atol=1e-12)
    flat = ["zero", "zero_cell", "all_equal", "all_equal_large", "constant", "one_cell"]
    if any(kind.startswith(word) for word in flat):
        assert not actual.any()


def test_signed_maps():
    feature_map = make_signed_map(4, 6, 9)
    for rectify in (True, False):
        actual = EntropyPooler(rectify=rectify).fit_transform([feature_map])[0]
        assert_allclose(actual, ref.entropy(feature_map, rectify=rectify), rtol=1e-8)
    assert_array_equal(
        EntropyPooler(rectify=False).fit_transform([feature_map + 10]).round(9), actual[None].round(9)
    )


def test_entropies_by_hand():
    """2 x 2 cells of values 0, 0, 1, 4: shares 1/2, 1/4, 1/4 with four bins or more; 3/4, 1/4 with two."""
    maps = torch.tensor([[[[0.0, 0.0], [1.0, 4.0]]]])
    whole = regions.whole(2, 2)
    expected = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert_allclose(region_entropies(maps, whole, 4), [[[expected]]])
    assert_allclose(region_entropies(maps, whole, 100), [[[expected]]])
    assert_allclose(region_entropies(maps, whole, 2), [[[0.75 * math.log(4 / 3) + 0.25 * math.log(4)]]])
    # the left column holds 0 and 1, the top row 0 and 0
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 2]])
    assert_allclose(region_entropies(maps, boxes, 4), [[[math.log(2)], [0.0]]], atol=1e-15)


def test_the_largest_value_is_in_the_last_bin():
    """Ten values over nine bins: each alone but the two largest, 8 and 9."""
    maps = torch.arange(10.0).reshape(1, 1, 2, 5)
    expected = 8 * 0.1 * math.log(10) + 0.2 * math.log(5)
    assert_allclose(region_entropies(maps, regions.whole(2, 5), 9), [[[expected]]])


def test_borders_of_bins_do_not_depend_on_the_dtype():
    """0.7 in single precision lies just below 7/10, but ten times it is 7 when multiplied in single precision."""
    tenths = np.arange(11, dtype=np.float32) / np.float32(10)
    feature_map = np.random.default_rng(0).choice(tenths, size=(6, 9, 12))
    assert_allclose(
        EntropyPooler().fit_transform([feature_map]),
        EntropyPooler().fit_transform([feature_map.astype(np.float64)]),
        rtol=1e-6,
    )
    assert_allclose(EntropyPooler().fit_transform([feature_map])[0], ref.entropy(feature_map), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 3.0, 1e30])
def test_scale_of_the_activations_does_not_matter(scale):
    feature_map = golden_map().astype(np.float32)
    expected = EntropyPooler().fit_transform([feature_map])
    assert_allclose(EntropyPooler().fit_transform([feature_map * np.float32(scale)]), expected, rtol=1e-6)


def test_bursty_channels_weigh_less():
    """One loud cell makes a peaked histogram, a spread of values a flat one."""
    maps = make_map(2, 8, 8, density=1.0)[None]
    maps[0, 0, 3, 3] = 1e3
    first, second = EntropyPooler().fit_transform(maps)[0]
    assert first < 0.2 * second


def test_fused_with_rmac():
    maps = make_ragged(n_channels=5, seed=3)
    pooler = PoolerFusion([("rmac", RMACPooler()), ("fde", EntropyPooler())], weights=[0.7, 0.3])
    rmac = RMACPooler().fit_transform(maps)
    total = 0.7 * rmac / np.linalg.norm(rmac, axis=1, keepdims=True) + 0.3 * EntropyPooler().fit_transform(
        maps
    )
    assert_allclose(
        pooler.fit_transform(maps), total / np.linalg.norm(total, axis=1, keepdims=True), rtol=1e-10
    )
    assert_allclose(pooler.transform(maps[:1])[0], rmac[0] / np.linalg.norm(rmac[0]))  # 1x1: R-MAC alone
