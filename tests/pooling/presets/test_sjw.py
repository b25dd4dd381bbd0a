"""Saliency joint weighting: golden values, the rules of its steps, and its edge cases."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import pooling as ref
from references.maps import golden_map, make_map

from skretrieval.pooling import SJWPooler


def sjw(feature_map, **kwargs):
    return SJWPooler(**kwargs).fit_transform([feature_map])[0]


@pytest.mark.parametrize(
    ("kwargs", "expected", "atol"),
    [
        ({}, [397.239062, 365.382754, 338.183234, 452.641727], 6e-7),
        ({"n_channels": 1.0}, [449.150456, 370.925404, 380.658773, 430.05973], 6e-7),
        ({"saliency_norm": "none"}, [87830110.268, 88755022.881, 84597287.519, 98893778.654], 6e-4),
    ],
)
def test_golden(kwargs, expected, atol):
    assert_allclose(sjw(golden_map(), **kwargs), expected, rtol=0, atol=atol)
    assert_allclose(sjw(golden_map().astype(np.float32), **kwargs), expected, rtol=2e-4)


@pytest.mark.parametrize(
    ("n_channels", "n_total", "count"), [(0.29, 100, 29), (0.3, 512, 153), (0.3, 2, 1), (1.0, 7, 7)]
)
def test_number_of_selected_channels(n_channels, n_total, count):
    """int(0.29 * 100) is 28: one channel too few would change the attention."""
    feature_map = make_map(n_total, 4, 5, seed=1)
    assert len(ref.sjw_selected(feature_map, n_channels)) == count
    assert_allclose(sjw(feature_map, n_channels=n_channels), ref.sjw(feature_map, n_channels), rtol=1e-8)


def test_ties_of_the_deviation_go_to_the_lower_index():
    channel = np.arange(32.0).reshape(4, 8)
    feature_map = np.stack([channel, channel[::-1], channel.T.reshape(4, 8), channel[:, ::-1]])
    assert ref.sjw_selected(feature_map, 0.25) == [0]
    for n_channels in (0.25, 0.5, 0.75):
        expected = ref.sjw(feature_map, n_channels)
        assert_allclose(sjw(feature_map, n_channels=n_channels), expected, rtol=1e-8)
        actual = sjw(feature_map.astype(np.float32), n_channels=n_channels)
        assert_allclose(actual, expected, rtol=2e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ties_in_quantised_maps(dtype):
    """Channels of few levels often have equal deviations, the mean of 0/1 cells too: round-off must not order them."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        feature_map = np.zeros((4, 35))
        for k, ones in enumerate([12, 23, 23, 12]):  # the deviation of p is that of 1 - p
            feature_map[k, rng.permutation(35)[:ones]] = 1.0
        feature_map = feature_map.reshape(4, 5, 7).astype(dtype)
        assert ref.sjw_selected(feature_map, 0.25) == [0]
        assert_allclose(sjw(feature_map, n_channels=0.25), ref.sjw(feature_map, 0.25), rtol=2e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_constant_channels_tie_at_zero_deviation(dtype):
    """0.1 has no exact mean in floating point: its round-off must not decide which channel is selected."""
    feature_map = np.empty((6, 24, 32), dtype)
    feature_map[:] = np.array([0.1, 0.7, 0.3, 1.1, 0.9, 1.3])[:, None, None]
    feature_map[5] = make_map(1, 24, 32, seed=2)[0]
    for n_channels in (0.34, 0.5, 0.7):
        expected = ref.sjw(feature_map, n_channels)
        assert_allclose(
            sjw(feature_map, n_channels=n_channels), expected, rtol=1e-8 if dtype == np.float64 else 2e-4
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (5, 7), (13, 29), (24, 32)])
@pytest.mark.parametrize("norm", ["sum", "none", "l2", "max", "minmax"])
def test_constant_map_has_no_contrast(dtype, shape, norm):
    """The stretch to [0, 255] must not blow the round-off of a constant attention up."""
    values = np.array([0.1, 0.7, 0.3, 1.1, 0.9, 1.3, 1e-3, 1 / 3], dtype)
    feature_map = np.broadcast_to(values[:, None, None], (8, *shape))
    n_cells = shape[0] * shape[1]
    # C = log K for every channel, M = N^(-1/4) in every cell
    expected = values.astype(np.float64) * n_cells * n_cells**-0.25 * np.log(8)
    assert_allclose(
        sjw(feature_map, saliency_norm=norm), expected, rtol=2e-4 if dtype == np.float32 else 1e-8
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 3), (2, 5), (7, 7), (13, 29), (31, 33), (37, 50)])
def test_constant_maps_of_a_real_network_have_no_contrast(dtype, shape):
    """With many channels and images a matrix product rounds differently from cell to cell."""
    values = np.random.default_rng(0).gamma(1.0, size=(12, 512)).astype(dtype)
    maps = np.broadcast_to(values[:, :, None, None], (12, 512, *shape))
    n_cells = shape[0] * shape[1]
    expected = values.astype(np.float64) * n_cells**0.75 * np.log(512)
    for norm in ("sum", "none"):
        actual = SJWPooler(saliency_norm=norm).fit_transform(maps)
        assert_allclose(actual, expected, rtol=2e-4 if dtype == np.float32 else 1e-8)


def test_channel_without_zeros_has_the_floor_of_its_count():
    feature_map = make_map(4, 5, 5, seed=9) + np.array([0, 0.5, 0, 0])[:, None, None]
    assert ref.sjw_zero_ratio(feature_map)[1] == 25
    assert_allclose(sjw(feature_map), ref.sjw(feature_map), rtol=1e-8)


def test_all_channels_are_used_when_the_selected_are_zero():
    cell = np.array([0.0, 2.0, 3.0]).reshape(3, 1, 1)
    assert_allclose(sjw(cell), cell.ravel() * np.log(3))
    constant = np.broadcast_to(cell, (3, 4, 4))
    assert_allclose(sjw(constant), cell.ravel() * 16 * 16**-0.25 * np.log(3))


def test_contrast_survives_an_offset():
    """The gaps between sorted values carry the saliency: a large common response must not drown it."""
    feature_map = make_map(3, 8, 8, seed=3)
    feature_map[1:] = 0
    feature_map[0] += 1e5
    assert_allclose(
        sjw(feature_map, saliency_norm="minmax"), ref.sjw(feature_map, saliency_norm="minmax"), rtol=1e-8
    )


def test_many_cells():
    feature_map = make_map(3, 37, 50, seed=6)
    assert_allclose(sjw(feature_map), ref.sjw(feature_map), rtol=1e-8)


def test_weights_of_one_image_do_not_leak_into_another():
    maps = np.stack([make_map(4, 6, 8, seed=seed) * 10.0**seed for seed in range(4)])
    actual = SJWPooler().fit_transform(maps)
    assert_allclose(actual, [ref.sjw(feature_map) for feature_map in maps], rtol=1e-8)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"n_channels": 0.0},
        {"n_channels": 1.5},
        {"n_channels": -0.1},
        {"rho": -1.0},
        {"saliency_norm": "l1"},
        {"channel_combine": "max"},
        {"eps": -1e-6},
        {"eps": 0.0},
    ],
    ids=str,
)
def test_parameters_out_of_range(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        sjw(golden_map(), **kwargs)


def test_signed_maps():
    signed = make_map(3, 4, 4, seed=1) - 0.5
    assert_allclose(sjw(signed), ref.sjw(np.maximum(signed, 0)), rtol=1e-8)
    with pytest.raises(ValueError, match=r"(?i)\b1\b.*negative|negative.*\b1\b"):
        SJWPooler(rectify=False).fit_transform([np.abs(signed), signed])
    assert_allclose(sjw(np.abs(signed), rectify=False), ref.sjw(np.abs(signed)), rtol=1e-8)
