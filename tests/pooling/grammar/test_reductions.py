"""Regional sums, maxima and power means against slices, for boxes of any kind and maps of any layout."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references.maps import make_map, make_signed_map
from torch.nn import functional

from skretrieval.pooling import SquareSumRMACPooler
from skretrieval.pooling._grammar._reductions import max_cells, power_mean_cells, sum_cells
from skretrieval.pooling._presets._square_sum_rmac import windows


def random_boxes(rng, height, width, n, dtype=np.int64):
    high, wide = rng.integers(1, height + 1, n), rng.integers(1, width + 1, n)
    row, col = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
    return np.stack([row, col, high, wide], axis=1).astype(dtype)


def slices(maps, boxes):
    return [
        maps[:, :, row : row + high, col : col + wide].flatten(2) for row, col, high, wide in boxes.tolist()
    ]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("boxes_dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (6, 8), (13, 11)])
def test_boxes(height, width, boxes_dtype, layout):
    rng = np.random.default_rng(height * width)
    maps = torch.from_numpy(np.stack([make_signed_map(5, height, width, seed=seed) for seed in range(3)]))
    maps = maps.contiguous(memory_format=layout)
    for n in (1, 2, 20):
        boxes = random_boxes(rng, height, width, n, boxes_dtype)
        expected = torch.stack([cells.amax(dim=2) for cells in slices(maps, boxes)], dim=1)
        assert_array_equal(max_cells(maps, boxes), expected)
        expected = torch.stack([cells.sum(dim=2) for cells in slices(maps, boxes)], dim=1)
        assert_allclose(sum_cells(maps, boxes), expected, atol=1e-12)


@pytest.mark.parametrize("n_weights", [1, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_weighted_boxes(n_weights, whole):
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(np.stack([make_map(5, 6, 8, seed=seed) for seed in range(3)]))
    spatial = torch.from_numpy(rng.random((n_weights, 6, 8)))
    boxes = np.array([[0, 0, 6, 8]]) if whole else random_boxes(rng, 6, 8, 9)
    weighted = maps * spatial[:, None]
    assert_allclose(sum_cells(maps, boxes, spatial), sum_cells(weighted, boxes), rtol=1e-12)
    assert_array_equal(max_cells(maps, boxes, spatial), max_cells(weighted, boxes))


def test_maps_with_gaps_between_the_boxes():
    maps = torch.from_numpy(make_map(3, 4, 30))[None]
    boxes = np.array([[0, 0, 2, 3], [2, 20, 2, 4], [3, 29, 1, 1]])
    expected = torch.stack([cells.amax(dim=2) for cells in slices(maps, boxes)], dim=1)
    assert_array_equal(max_cells(maps, boxes), expected)


@pytest.mark.parametrize("p", [1.5, 2, 3.0, 4])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-7, 1e7, 1e12, 1e30])
def test_maps_of_unlike_scales_side_by_side(p, scale):
    """The powers of one map leave the range of float32; the one beside it, and a zero map, must stay as they are."""
    plain = torch.from_numpy(np.stack([make_map(5, 6, 8, seed=seed) for seed in range(3)])).float()
    plain[2] = 0
    maps = plain * torch.tensor([1, scale, 1])[:, None, None, None]
    boxes = np.array([[0, 0, 6, 8], [1, 1, 3, 4]])
    expected = (
        power_mean_cells(plain.double(), boxes, p=p) * torch.tensor([1, scale, 1]).double()[:, None, None]
    )
    assert_allclose(power_mean_cells(maps, boxes, p=p), expected, rtol=2e-5)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (6, 8), (9, 6), (24, 32), (37, 50), (3, 40)])
def test_square_sum_windows_are_those_of_max_pooling(height, width, ceil_mode):
    maps = torch.from_numpy(make_signed_map(3, height, width))[None]
    for level, boxes in enumerate(windows(height, width, 4, ceil_mode), start=1):
        side = max(1, -(-2 * min(height, width) // (level + 1)))
        stride = max(1, 2 * side // 5)
        expected = functional.max_pool2d(maps, side, stride, ceil_mode=ceil_mode).flatten(2)
        assert_array_equal(max_cells(maps, boxes).transpose(1, 2), expected)
    pooler = SquareSumRMACPooler(4, ceil_mode=ceil_mode, rectify=False)
    assert_allclose(np.linalg.norm(pooler.fit_transform(maps)), 1)
