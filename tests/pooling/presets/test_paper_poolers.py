"""Poolers of three papers beyond the common tests: golden values, region whitening, the terms they share."""

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import pooling as reference
from references.maps import golden_map, make_map

from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SquareSumRMACPooler,
    WeightedPooler,
)


def test_golden_values():
    maps = golden_map()[None]
    regions = RegionIntegrationPooler(whiten=False).fit_transform(maps)[0]
    assert_allclose(regions, [11.252687, 9.677661, 7.90558, 12.157081], atol=1e-6)
    gaussian = AdaptiveGaussianPooler().fit_transform(maps)[0]
    assert_allclose(gaussian / np.linalg.norm(gaussian), [0.501854, 0.492911, 0.530215, 0.473343], atol=1e-6)
    omega = AdaptiveGaussianPooler(channel=None).fit_transform(maps)[0]
    assert_allclose(omega, [2.049127, 2.125667, 1.673801, 2.270467], atol=1e-6)
    squares = SquareSumRMACPooler().fit_transform(maps)[0]
    assert_allclose(squares, [0.517268, 0.509229, 0.442214, 0.526846], atol=1e-6)


def test_equal_cells_centre_the_gaussian():
    """All ties count: a "first cells" rule would put the centre near the top."""
    maps = np.ones((1, 2, 24, 32))
    maps[0, 1] = np.arange(24)[:, None] - 11.5 + 12  # only to weigh the rows
    even = AdaptiveGaussianPooler(channel=None).fit_transform(np.ones((1, 1, 24, 32)))
    centred = AdaptiveGaussianPooler(alpha=1.0, channel=None).fit_transform(np.ones((1, 1, 24, 32)))
    assert_allclose(even, centred)


def whitened_by_hand(maps, n_components):
    """Region integration with loops: all region vectors, PCA-whitening of the l2-normalised ones, l2, sum."""
    vectors, owners = [], []
    for owner, feature_map in enumerate(maps):
        channel = reference.region_integration_channel_weights(feature_map)
        weighted = feature_map * reference.crow_spatial(feature_map) * channel[:, None, None]
        for cells in reference.regions_of(weighted, 3, include_global=True):
            vector = np.asarray(cells).reshape(len(feature_map), -1).sum(axis=1)
            if vector.any():
                vectors.append(vector / np.linalg.norm(vector))
                owners.append(owner)
    vectors, owners = np.array(vectors), np.array(owners)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    axes = axes[:, ::-1][:, :n_components] / np.sqrt(values[::-1][:n_components])
    whitened = (vectors - vectors.mean(axis=0)) @ axes
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    return np.array([whitened[owners == owner].sum(axis=0) for owner in range(len(maps))])


@pytest.mark.parametrize("n_components", [3, 6])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_region_whitening_against_a_slow_reference(n_components, dtype):
    shapes = [(6, 8), (9, 7), (6, 8), (5, 5)]
    maps = [
        make_map(6, *shape, seed=seed).astype(np.float32).astype(float) for seed, shape in enumerate(shapes)
    ]
    expected = whitened_by_hand(maps, n_components)
    pooler = RegionIntegrationPooler(n_components=n_components)
    actual = pooler.fit_transform([feature_map.astype(dtype) for feature_map in maps])
    assert actual.dtype == dtype
    signs = np.sign((actual * expected).sum(axis=0))
    rtol = 1e-8 if dtype == np.float64 else 2e-4
    assert_allclose(actual * signs, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    # the axes do not depend on the batches that they were learned from
    again = RegionIntegrationPooler(n_components=n_components).fit(maps[::-1]).transform(maps)
    assert_allclose(again * np.sign((again * expected).sum(axis=0)), expected, atol=1e-7)


def test_region_whitening_is_rank_safe():
    """Two channels that say the same leave an axis without variance: it must not get the energy of new maps."""
    maps = [make_map(3, 6, 8, seed=seed) for seed in range(4)]
    maps = [np.concatenate([feature_map, feature_map[:1]]) for feature_map in maps]
    pooler = RMACPooler(whiten=True).fit(maps)
    assert pooler.region_whitening_.components.shape == (3, 4)
    assert pooler.transform(maps).shape == (4, 3)
    with pytest.warns(UserWarning, match=r"n_components=4 exceeds the rank 3"):
        RMACPooler(whiten=True, n_components=4).fit(maps)


def test_nothing_to_whiten():
    with pytest.raises(ValueError, match="at least 2 regions with activations"):
        RMACPooler(whiten=True).fit(np.zeros((3, 2, 4, 4)))
    with pytest.raises(ValueError, match="all regions are equal"):
        RMACPooler(whiten=True).fit(np.ones((3, 2, 4, 4)))


def test_models_mapped_read_only(tmp_path):
    maps = np.random.default_rng(0).random((3, 4, 5, 6))
    pooler = RegionIntegrationPooler().fit(maps)
    joblib.dump(pooler, tmp_path / "pooler")
    mapped = joblib.load(tmp_path / "pooler", mmap_mode="r")
    assert not mapped.region_whitening_.components.flags.writeable
    assert np.array_equal(mapped.transform(maps), pooler.transform(maps))


def test_zero_maps_stay_zero_after_whitening():
    maps = np.random.default_rng(0).random((3, 4, 5, 6))
    pooler = RegionIntegrationPooler().fit(maps)
    assert not pooler.transform(np.zeros((1, 4, 5, 6))).any()


def test_the_same_specs_in_the_general_pooler():
    maps = np.random.default_rng(0).random((3, 6, 7, 9)) - 0.4
    integration = WeightedPooler(
        "crow",
        "count_sparsity",
        "rmac",
        region_norm="l2",
        region_params={"include_global": True},
        whiten=True,
        n_components=4,
    )
    assert_allclose(
        integration.fit_transform(maps), RegionIntegrationPooler(n_components=4).fit_transform(maps)
    )
    gaussian = WeightedPooler("adaptive_gaussian", "element", spatial_params={"alpha": 0.2})
    assert_allclose(gaussian.fit_transform(maps), AdaptiveGaussianPooler(0.2).fit_transform(maps))


def test_ceil_mode_reaches_the_border():
    narrow = np.zeros((1, 1, 6, 9))
    narrow[0, 0, -1, -1] = 1
    assert SquareSumRMACPooler(1).fit_transform(narrow) == 0
    assert SquareSumRMACPooler(1, ceil_mode=True).fit_transform(narrow) == 1


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e18, 1e30])
def test_squares_of_any_scale(scale):
    maps = np.stack([make_map(6, 9, 7, seed=seed) for seed in range(3)])
    expected = SquareSumRMACPooler().fit_transform(maps)
    beside_others = np.concatenate([maps * scale, maps, np.zeros_like(maps[:1])]).astype(np.float32)
    found = SquareSumRMACPooler().fit_transform(beside_others)
    assert_allclose(found[:3], expected, rtol=2e-5)
    assert_allclose(found[3:6], expected, rtol=2e-5)
    assert not found[6].any()
