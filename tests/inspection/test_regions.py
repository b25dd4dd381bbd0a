import matplotlib
import numpy as np
import pytest
import torch
from torch.nn import functional

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.inspection import RegionsDisplay
from skretrieval.pooling import (
    EntropyPooler,
    GRMACPooler,
    PartWeightedPooler,
    RegionalSecondOrderPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SquareSumRMACPooler,
    SumPooler,
    WeightedPooler,
    regions,
)


def corners(boxes, scale=(1, 1)):
    """Polygons of boxes (row, column, height, width), in a drawing of `scale` pixels (x, y) per cell."""
    return [
        np.array([[col, row], [col + wide, row], [col + wide, row + high], [col, row + high]]) * scale
        for row, col, high, wide in boxes
    ]


def drawn(display):
    """Corners of the outlines on the axes, without the one that closes them."""
    return [outline.get_xy()[:-1] for outline in display.regions_]


@pytest.mark.parametrize(
    ("pooler", "params"),
    [
        (RMACPooler(), {}),
        (GRMACPooler(2, include_global=True), {"n_levels": 2, "include_global": True}),
        (RegionIntegrationPooler(), {"include_global": True}),
        (EntropyPooler(1), {"n_levels": 1}),
        (WeightedPooler(regions="rmac", region_params={"n_levels": 4}), {"n_levels": 4}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_grids_in_image_coordinates(pooler, params, maps, photograph):
    height, width = maps[1].shape[1:]
    boxes = regions.rmac(height, width, **params)
    display = RegionsDisplay.from_estimator(pooler, maps, 1, image=photograph)
    assert display.size == (120, 90)
    for found, expected in zip(drawn(display), corners(boxes, (120 / width, 90 / height)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    alone = RegionsDisplay.from_estimator(pooler, maps, 1)
    assert alone.size == (width, height)
    for found, expected in zip(drawn(alone), corners(boxes), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_whole_map_and_a_function_of_the_user(maps):
    height, width = maps[0].shape[1:]
    (whole,) = drawn(RegionsDisplay.from_estimator(SumPooler(), maps))
    np.testing.assert_allclose(whole, [[0, 0], [width, 0], [width, height], [0, height]])

    def upper_left(height, width):
        return np.array([[0, 0, 2, 3]])

    (own,) = drawn(RegionsDisplay.from_estimator(WeightedPooler(regions=upper_left), maps))
    np.testing.assert_allclose(own, [[0, 0], [3, 0], [3, 2], [0, 2]])


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 14), (7, 7), (17, 33), (24, 18)])
def test_the_windows_of_square_sum_rmac_are_those_of_max_pooling(shape, ceil_mode):
    rng = np.random.default_rng(0)
    map_ = rng.random((1, *shape))
    pooler = SquareSumRMACPooler(ceil_mode=ceil_mode)
    found = [
        map_[0, top:bottom, left:right].max()
        for (left, top), _, (right, bottom), _ in (
            polygon.round().astype(int) for polygon in drawn(RegionsDisplay.from_estimator(pooler, [map_]))
        )
    ]
    expected = []
    for level in (1, 2, 3):
        side = max(1, -(-2 * min(shape) // (level + 1)))
        stride = max(1, int(0.4 * side + 1e-9))
        pooled = functional.max_pool2d(torch.from_numpy(map_), side, stride, ceil_mode=ceil_mode)
        expected += pooled.flatten().tolist()
    assert found == expected


def test_candidate_regions_and_their_points(maps, photograph):
    pooler = RegionalSecondOrderPooler(n_min=20)
    (own,) = pooler.regions_of(maps[2:3])
    display = RegionsDisplay.from_estimator(pooler, maps, 2, image=photograph)
    for found, expected in zip(drawn(display), own.polygons, strict=True):
        np.testing.assert_allclose(found, expected * (120, 90))
    x, y = display.points_.get_data()
    height, width = maps[2].shape[1:]
    chosen = np.zeros((height, width), dtype=bool)
    chosen[(y * height / 90).astype(int), (x * width / 120).astype(int)] = True
    response = maps[2].sum(axis=0)
    assert chosen.sum() == len(x) == 20
    assert response[chosen].min() >= response[~chosen].max()
    # the hull of all clusters is that of the points
    hull = display.polygons[-2] * (120, 90)
    np.testing.assert_allclose([hull[:, 0].min(), hull[:, 0].max()], [x.min(), x.max()])
    np.testing.assert_allclose([hull[:, 1].min(), hull[:, 1].max()], [y.min(), y.max()])


def test_the_whole_image_of_a_query_has_no_points(maps):
    display = RegionsDisplay.from_estimator(RegionalSecondOrderPooler(regions="whole"), maps)
    assert len(display.regions_) == 1
    assert display.points_ is None


def test_points_detected_in_the_photograph():
    pytest.importorskip("skimage")
    rng = np.random.default_rng(0)
    photograph = np.full((96, 128, 3), 128, dtype=np.uint8)
    pattern = np.kron(rng.integers(0, 2, (12, 12)) * 255, np.ones((4, 4)))
    photograph[24:72, 40:88] = pattern[..., None]
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=128)
    maps = extractor.fit_transform([photograph])
    pooler = RegionalSecondOrderPooler(points="hessian", n_min=10)
    display = RegionsDisplay.from_estimator(pooler, maps)
    x, y = display.points_.get_data()
    assert len(x) >= 10
    assert x.min() > 20
    assert x.max() < 108
    assert y.min() > 4
    assert y.max() < 92
    with pytest.raises(ValueError, match="needs the FeatureMaps"):
        RegionsDisplay.from_estimator(pooler, list(maps))


def test_some_of_the_regions(maps):
    everything = drawn(RegionsDisplay.from_estimator(RMACPooler(), maps))
    for chosen, expected in [(slice(2, 5), [2, 3, 4]), ([0, 7], [0, 7]), (-1, [len(everything) - 1])]:
        some = drawn(RegionsDisplay.from_estimator(RMACPooler(), maps, regions=chosen))
        np.testing.assert_allclose(some, [everything[place] for place in expected])
    with pytest.raises(IndexError):
        RegionsDisplay.from_estimator(RMACPooler(), maps, regions=[99])


def test_pixels_of_an_outline_and_of_its_inside(photograph, pixel_at):
    square = np.array([[0.25, 0.2], [0.75, 0.2], [0.75, 0.8], [0.25, 0.8]])  # x 30 to 90, y 18 to 72
    display = RegionsDisplay([square], (120, 90), photograph).plot(alpha=0.25, linewidth=3)
    blue = np.array(matplotlib.colors.to_rgb("C0"))
    np.testing.assert_allclose(pixel_at(display.ax_, 30, 45), blue, atol=0.01)
    np.testing.assert_allclose(pixel_at(display.ax_, 60.5, 18), blue, atol=0.01)
    np.testing.assert_allclose(pixel_at(display.ax_, 45, 45), 0.25 * blue + 0.75 * 40 / 255, atol=0.01)
    np.testing.assert_allclose(pixel_at(display.ax_, 110, 45), [200 / 255] * 3, atol=0.01)


def test_settings_of_the_outlines(photograph):
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    ax = matplotlib.pyplot.subplots()[1]
    display = RegionsDisplay([square, square / 2], (120, 90), photograph).plot(
        ax, color="red", linewidth=4, alpha=0
    )
    assert display.ax_ is ax
    assert len(ax.patches) == 2  # outlines, no insides
    assert {outline.get_linewidth() for outline in display.regions_} == {4}
    assert {outline.get_edgecolor() for outline in display.regions_} == {(1, 0, 0, 1)}


def test_errors(maps):
    with pytest.raises(TypeError, match="PartWeightedPooler has no regions"):
        RegionsDisplay.from_estimator(PartWeightedPooler(), maps)
    with pytest.raises(IndexError, match="index 8 is out of range for 8 feature maps"):
        RegionsDisplay.from_estimator(RMACPooler(), maps, 8)
    with pytest.raises(ValueError, match="empty X"):
        RegionsDisplay.from_estimator(RMACPooler(), [])
    with pytest.raises(ValueError, match="lies outside a map"):
        RegionsDisplay.from_estimator(WeightedPooler(regions=lambda h, w: np.array([[0, 0, 99, 1]])), maps)
