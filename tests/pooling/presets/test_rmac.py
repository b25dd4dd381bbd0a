"""R-MAC and its region grid."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import pooling as ref
from references.maps import golden_map, make_map, make_signed_map

from skretrieval.pooling import GRMACPooler, MACPooler, RMACPooler


def test_golden():
    expected = [10.493293, 10.175501, 8.725071, 10.409685]
    assert_allclose(RMACPooler().fit_transform([golden_map()])[0], expected, rtol=0, atol=6e-7)
    assert_allclose(RMACPooler().fit_transform([golden_map().astype(np.float32)])[0], expected, rtol=2e-4)


def covered(height, width, n_levels):
    """What the pooler's own grid is: one channel per cell, so that a region's value names the cells it holds."""
    cells = np.zeros((height * width, height, width))
    for cell in range(height * width):
        cells[cell, cell // width, cell % width] = 1.0
    # p = 1 without normalisation: sum over regions of 1 / |R| for the regions that hold the cell
    return GRMACPooler(n_levels=n_levels, p=1.0).fit_transform([cells])[0].reshape(height, width)


@pytest.mark.parametrize("n_levels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("height", "width"),
    # 9:5 and 18:10 are exact ties of the number of windows, where floating point decides wrongly
    [
        (10, 18),
        (18, 10),
        (5, 9),
        (20, 36),
        (6, 8),
        (12, 16),
        (7, 7),
        (2, 5),
        (3, 14),
        (1, 30),
        (31, 2),
        (13, 15),
        (16, 12),
    ],
)
def test_grid(height, width, n_levels):
    expected = np.zeros((height, width))
    for top, left, side in ref.rmac_grid(height, width, n_levels):
        expected[top : top + side, left : left + side] += 1 / side**2
    assert_allclose(covered(height, width, n_levels), expected, rtol=1e-12, atol=1e-14)


def test_grid_of_every_small_size():
    """The sum over regions of 1 / |R|, and the same weighted by a fixed pattern, for all small sizes."""
    rng = np.random.default_rng(0)
    for height in range(1, 13):
        for width in range(height, 19):
            pattern = rng.integers(1, 1000, (1, height, width)).astype(float)
            expected = sum(
                pattern[0, top : top + side, left : left + side].mean()
                for top, left, side in ref.rmac_grid(height, width, 3)
            )
            pooler = GRMACPooler(p=1.0)
            assert_allclose(
                pooler.fit_transform([pattern])[0, 0], expected, rtol=1e-12, err_msg=f"{height}x{width}"
            )
            turned = pattern.transpose(0, 2, 1)
            assert_allclose(
                pooler.fit_transform([turned])[0, 0], expected, rtol=1e-12, err_msg=f"{width}x{height}"
            )


def test_more_levels_than_cells():
    feature_map = make_map(3, 2, 3, seed=1)
    assert_allclose(RMACPooler(n_levels=9).fit_transform([feature_map])[0], ref.rmac(feature_map, n_levels=9))


def test_whole_map_counts_twice_on_a_square_map():
    feature_map = make_map(4, 6, 6, seed=2)
    whole = ref.l2(MACPooler().fit_transform([feature_map])[0])
    without = RMACPooler(n_levels=1).fit_transform([feature_map])[0]
    with_whole = RMACPooler(n_levels=1, include_global=True).fit_transform([feature_map])[0]
    assert_allclose(without, whole)
    assert_allclose(with_whole, 2 * whole)


def test_regions_without_responses_are_left_out():
    feature_map = np.zeros((4, 24, 32))
    feature_map[:, :3, :3] = np.arange(1, 5)[:, None, None]
    assert_allclose(RMACPooler().fit_transform([feature_map])[0], ref.rmac(feature_map), rtol=1e-12)


def test_signed_maps():
    feature_map = make_signed_map(5, 6, 8, seed=4) - 1.0  # some regions have a negative maximum
    assert (feature_map.max(axis=(1, 2)) > 0).any()
    for kwargs in ({}, {"include_global": True}, {"n_levels": 4}):
        actual = RMACPooler(rectify=False, **kwargs).fit_transform([feature_map])[0]
        assert_allclose(actual, ref.rmac(feature_map, rectify=False, **kwargs), rtol=1e-8)


@pytest.mark.parametrize("kwargs", [{"n_levels": 0}, {"n_levels": 1.5}, {"include_global": 2}], ids=str)
def test_parameters_out_of_range(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        RMACPooler(**kwargs).fit([golden_map()])
