"""The region grid and user-given boxes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.maps import make_map

from skretrieval.pooling import WeightedPooler, regions


def boxes_of(height, width, n_levels):
    return [(top, left, side, side) for top, left, side in ref.rmac_grid(height, width, n_levels)]


def test_golden_grid():
    boxes = regions.rmac(6, 8).tolist()
    scale_1 = [[0, 0, 6, 6], [0, 2, 6, 6]]
    scale_2 = [[i, j, 4, 4] for i in (0, 2) for j in (0, 2, 4)]
    scale_3 = [[i, j, 3, 3] for i in (0, 1, 3) for j in (0, 1, 3, 5)]
    assert boxes == scale_1 + scale_2 + scale_3


def test_all_sizes():
    """Order included; among them the exact ties of aspect 9:5, on which floating point errs."""
    for height in range(1, 41):
        for width in range(1, 41):
            assert regions.rmac(height, width).tolist() == [list(box) for box in boxes_of(height, width, 3)]


@pytest.mark.parametrize("n_levels", [1, 2, 4, 7])
@pytest.mark.parametrize(
    ("height", "width"), [(72, 128), (128, 72), (90, 50), (129, 128), (1, 129), (37, 50)]
)
def test_large_sizes_and_other_levels(height, width, n_levels):
    boxes = regions.rmac(height, width, n_levels=n_levels)
    assert boxes.tolist() == [list(box) for box in boxes_of(height, width, n_levels)]
    assert (boxes[:, 0] + boxes[:, 2]).max() == height  # the last window is flush with the border
    assert (boxes[:, 1] + boxes[:, 3]).max() == width


def test_whole_map_comes_last():
    assert regions.rmac(6, 8, include_global=True)[-1].tolist() == [0, 0, 6, 8]
    assert len(regions.rmac(6, 8, include_global=True)) == 21
    assert regions.whole(6, 8).tolist() == [[0, 0, 6, 8]]


def test_grid_is_safe_to_change():
    """The grid is cached: a caller that writes into it must not change the next one's."""
    regions.rmac(6, 8)[:] = 0
    assert regions.rmac(6, 8).tolist() == [list(box) for box in boxes_of(6, 8, 3)]


def quadrants(height, width):
    return np.array(
        [
            (top, left, height - height // 2, width - width // 2)
            for top in (0, height // 2)
            for left in (0, width // 2)
        ]
    )


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "power_mean"])
def test_boxes_of_a_user(reduce):
    feature_map = make_map(4, 5, 7, seed=1)
    how = {
        "sum": np.sum,
        "mean": np.mean,
        "max": np.max,
        "power_mean": lambda cells: ref.power_mean(cells, 3),
    }[reduce]
    expected = [
        sum(how(channel[i : i + h, j : j + w]) for i, j, h, w in quadrants(5, 7)) for channel in feature_map
    ]
    actual = WeightedPooler(regions=quadrants, reduce=reduce).fit_transform([feature_map])[0]
    assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, 6, 7]],
        [[0, 1, 5, 7]],
        [[-1, 0, 2, 2]],
        [[0, 0, 0, 3]],
        [[0, 0, 3]],
        np.zeros((0, 4), int),
        [[0.0, 0, 2, 2]],
    ],
    ids=["too_high", "too_wide", "negative", "empty_box", "three_numbers", "none", "floats"],
)
def test_bad_boxes(boxes):
    with pytest.raises(ValueError, match="regions"):
        WeightedPooler(regions=lambda height, width: np.array(boxes)).fit_transform([make_map(2, 5, 7)])


def test_equal_boxes_count_twice():
    feature_map = make_map(3, 4, 4, seed=2)
    twice = WeightedPooler(regions=lambda h, w: np.array([[0, 0, h, w]] * 2), reduce="max")
    assert_array_equal(twice.fit_transform([feature_map])[0], 2 * feature_map.max(axis=(1, 2)))
