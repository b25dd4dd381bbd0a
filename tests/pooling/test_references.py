"""The references themselves against the golden values worked out by hand for one small map."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import pooling as ref
from references.maps import golden_map

PRINTED = {"rtol": 0, "atol": 6e-7}  # six printed decimals


@pytest.fixture(scope="module")
def golden():
    return golden_map()


def test_golden_map(golden):
    assert golden[0, 0].tolist() == [0, 2, 7, 1, 6, 0, 5, 0]
    assert golden.sum(axis=(1, 2)).tolist() == [121, 134, 90, 134]
    assert (golden == 0).sum(axis=(1, 2)).tolist() == [19, 13, 22, 18]


@pytest.mark.parametrize(
    ("function", "kwargs", "expected"),
    [
        (ref.mac, {}, [7, 7, 6, 7]),
        (ref.sum_pool, {}, [121, 134, 90, 134]),
        (ref.spoc, {"center_prior": False}, [121, 134, 90, 134]),
        (ref.gem, {}, [4.286687, 4.187276, 3.369332, 4.454969]),
        (ref.spoc, {}, [14.44839, 14.014396, 12.819581, 17.010408]),
        (ref.rmac, {}, [10.493293, 10.175501, 8.725071, 10.409685]),
        (ref.grmac, {}, [84.584174, 82.41878, 68.453477, 87.930632]),
        (ref.grmac, {"region_norm": "l2"}, [10.358686, 10.101389, 8.394065, 10.785884]),
        (ref.crow, {"eps": 0}, [70.488597, 60.952242, 46.163198, 76.313045]),
        (ref.region_integration_channel_weights, {}, [1.386294, 1.203973, 1.491655, 1.353505]),
        (ref.region_integration, {}, [11.252687, 9.677661, 7.90558, 12.157081]),
        (ref.sjw_zero_ratio, {}, [2.526316, 3.692308, 2.181818, 2.666667]),
        (ref.sjw_deviation, {}, [2.653532, 2.380111, 2.117634, 2.699987]),
        (ref.sjw_channel_weights, {}, [1.404673, 1.133928, 1.776869, 1.333251]),
        (ref.sjw, {}, [397.239062, 365.382754, 338.183234, 452.641727]),
        (ref.sjw, {"n_channels": 1.0}, [449.150456, 370.925404, 380.658773, 430.05973]),
        (ref.square_sum_rmac_raw, {}, [68.900816, 67.82999, 58.903528, 70.176626]),
        (ref.square_sum_rmac, {}, [0.517268, 0.509229, 0.442214, 0.526846]),
    ],
)
def test_golden_values(golden, function, kwargs, expected):
    assert_allclose(function(golden, **kwargs), expected, **PRINTED)


def test_golden_saliency_as_printed(golden):
    expected = [87830110.268, 88755022.881, 84597287.519, 98893778.654]
    assert_allclose(ref.sjw(golden, saliency_norm="none"), expected, rtol=0, atol=6e-4)
    assert ref.sjw_selected(golden, 0.3) == [3]
    attention = ref.sjw_spatial_weights(golden, rho=0.0)
    contrast = ref.sjw_spatial_weights(golden, rho=1.0, saliency_norm="none") - attention
    assert_allclose(contrast.sum(), 264609.708388, atol=1e-6)


def test_golden_adaptive_gaussian(golden):
    assert_allclose(ref.gaussian_center(golden), (2.6, 3.6))
    omega = ref.adaptive_gaussian(golden, channel=None)
    assert_allclose(omega, [2.049127, 2.125667, 1.673801, 2.270467], **PRINTED)
    weighted = ref.adaptive_gaussian(golden)
    assert_allclose(weighted / omega, [1.379024, 1.30568, 1.783657, 1.17388], **PRINTED)
    assert_allclose(ref.l2(weighted), [0.501854, 0.492911, 0.530215, 0.473343], **PRINTED)


def test_golden_grid():
    scale_1 = [(0, 0, 6), (0, 2, 6)]
    scale_2 = [(i, j, 4) for i in (0, 2) for j in (0, 2, 4)]
    scale_3 = [(i, j, 3) for i in (0, 1, 3) for j in (0, 1, 3, 5)]
    assert ref.rmac_grid(6, 8, 3) == scale_1 + scale_2 + scale_3
    large = ref.rmac_grid(24, 32, 3)
    assert [side for _, _, side in large] == [24] * 2 + [16] * 6 + [12] * 12
    assert sorted({top for top, _, side in large if side == 12}) == [0, 6, 12]
    assert sorted({left for _, left, side in large if side == 12}) == [0, 6, 13, 20]


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(1, 1, 1), (2, 5, 32), (7, 7, 14), (24, 32, 20), (32, 24, 20), (3, 14, None)],
)
def test_grid_counts(height, width, count):
    windows = ref.rmac_grid(height, width, 3)
    if count is not None:
        assert len(windows) == count
    assert all(0 <= top <= height - side and 0 <= left <= width - side for top, left, side in windows)


def test_grid_tie_takes_the_smaller_number_of_windows():
    # 10 x 18: |1 - 8/10 - 0.4| = |1 - 8/20 - 0.4| = 0.2 exactly, so m = 2
    assert len(ref.rmac_grid(10, 18, 1)) == 2


def test_global_contrast():
    assert ref.global_contrast([0.0, 1.0, 3.0]).tolist() == [4.0, 3.0, 5.0]


def test_power_mean():
    assert ref.power_mean([1, 2, 6], 1) == 3
    assert ref.power_mean([1, 2, 6], math.inf) == 6
    assert_allclose(ref.power_mean([-2, 0], 3), -(4 ** (1 / 3)))
    assert_allclose(ref.power_mean([1e4, 1e4], 200), 1e4)


def test_fusion_of_a_zero_part_is_the_other_part():
    assert_allclose(ref.fuse([np.zeros(2), np.array([3.0, 4.0])], [0.6, 0.4]), [0.6, 0.8])
