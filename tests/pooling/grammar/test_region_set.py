"""One descriptor per region: `RegionSetPooler` and the regions of grids."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from references.maps import make_map, make_ragged

from skretrieval.extraction import ConvFeatureExtractor, ImageCrop
from skretrieval.pooling import RegionSetPooler, WeightedPooler, regions


def slow_grid(height, width, n_levels):
    """The borders as the specification has them, part by part."""

    def part(size, k, g):
        first, last = round(k * size / g), round((k + 1) * size / g)
        first = min(first, size - 1)
        return first, max(last, first + 1)

    boxes = []
    for g in range(1, n_levels + 1):
        for i in range(g):
            for j in range(g):
                top, bottom = part(height, i, g)
                left, right = part(width, j, g)
                boxes.append((top, left, bottom - top, right - left))
    return boxes


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7))
def test_grids_are_those_of_the_specification(height, width, n_levels):
    boxes = regions.grid(height, width, n_levels)
    assert_array_equal(boxes, slow_grid(height, width, n_levels))
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= [height, width]).all()
    assert len(boxes) == sum(g * g for g in range(1, n_levels + 1))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5))
def test_the_parts_of_a_grid_cover_the_map_once(height, width, parts):
    if parts > min(height, width):
        return  # some parts share a cell
    boxes = regions.grid(height, width, parts)[-(parts**2) :]
    covered = np.zeros((height, width), int)
    for row, col, high, wide in boxes:
        covered[row : row + high, col : col + wide] += 1
    assert (covered == 1).all()


def test_grids_need_a_level():
    with pytest.raises(ValueError, match="n_levels must be at least 1, got 0"):
        regions.grid(3, 3, 0)


@pytest.mark.parametrize("shape", [(4, 6), (1, 1), (2, 13), (9, 9)])
def test_each_region_is_the_mean_of_its_cells(shape):
    feature_map = make_map(5, *shape, seed=3)
    found = RegionSetPooler().fit_transform([feature_map])[0]
    positive = np.maximum(feature_map, 0)
    expected = [
        positive[:, row : row + high, col : col + wide].mean(axis=(1, 2))
        for row, col, high, wide in slow_grid(*shape, 4)
    ]
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_the_sum_over_the_regions_is_the_weighted_pooler():
    maps = make_ragged(n_channels=6, shapes=[(5, 7), (3, 3), (5, 7)], seed=1)
    terms = {"spatial": "crow", "channel": "sparsity", "regions": "rmac", "region_norm": "l2"}
    sets = RegionSetPooler(n_levels=2, reduce="max", **terms).fit_transform(maps)
    whole = WeightedPooler(reduce="max", region_params={"n_levels": 2}, **terms).fit_transform(maps)
    assert_allclose([regions.sum(axis=0) for regions in sets], whole, rtol=1e-5)


def test_parameters_of_terms_have_names_of_their_own():
    pooler = RegionSetPooler(reduce="power_mean").set_params(reduce_params__p=1.0)
    assert pooler.get_params()["reduce_params__p"] == 1.0
    feature_map = make_map(4, 6, 6, seed=0)
    assert_allclose(
        pooler.fit_transform([feature_map])[0], RegionSetPooler().fit_transform([feature_map])[0], rtol=1e-5
    )
    with pytest.raises(ValueError, match="region_params"):
        pooler.set_params(region_params__n_levels=2)
    with pytest.raises(ValueError, match="has no parameter q"):
        RegionSetPooler(reduce_params={"q": 1}).fit([feature_map])


def test_tensors_and_arrays_give_the_same():
    feature_map = make_map(4, 5, 8, seed=5)
    for dtype in (np.float32, np.float64):
        given_map = feature_map.astype(dtype)
        (of_array,) = RegionSetPooler().fit_transform([given_map])
        (of_tensor,) = RegionSetPooler().fit_transform([torch.from_numpy(given_map)])
        assert of_array.dtype == dtype
        assert_array_equal(of_array, of_tensor)


def quiet_network():
    """Maps that are the photograph itself, four pixels to a cell."""
    return torch.nn.AvgPool2d(4)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_lie_where_the_pixels_are(tmp_path, orientation):
    """A bright square, in a photograph that is turned by its EXIF and scaled: its region is where the box says."""
    upright = np.zeros((120, 160, 3), np.uint8)
    upright[60:, 80:] = 255  # the lower right quarter
    turned = Image.fromarray(upright)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    if orientation in turn:
        turned = turned.transpose(turn[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "photograph.png", exif=exif)
    extractor = ConvFeatureExtractor(quiet_network, weights=None, image_size=80, device="cpu")
    feature_map = extractor.fit_transform([tmp_path / "photograph.png"])[0]
    assert feature_map.shape == (3, 15, 20)
    pooler = RegionSetPooler("grid", n_levels=2, rectify=False)
    brightness = pooler.fit_transform([feature_map])[0][1:].mean(axis=1)  # of the four quarters
    box = pooler.boxes(feature_map.shape[1:], (160, 120))[1 + int(brightness.argmax())]
    assert box.tolist() == [80, 64, 160, 120], "15 rows: the border is at row 8, half to even"


def test_boxes_of_a_crop_start_at_its_corner():
    """What `boxes` says of a crop is relative to the crop; its corner is added."""
    photograph = np.zeros((100, 200, 3), np.uint8)
    photograph[40:60, 100:140] = 255
    crop = ImageCrop(photograph, (60, 20, 140, 60))
    extractor = ConvFeatureExtractor(quiet_network, weights=None, image_size=80, device="cpu")
    feature_map = extractor.fit_transform([crop])[0]
    pooler = RegionSetPooler("grid", n_levels=2, rectify=False)
    brightness = pooler.fit_transform([feature_map])[0][1:].mean(axis=1)
    box = pooler.boxes(feature_map.shape[1:], (80, 40))[1 + int(brightness.argmax())]
    left, top = crop.box[:2]
    assert np.add(box, [left, top, left, top]).tolist() == [100, 40, 140, 60]
