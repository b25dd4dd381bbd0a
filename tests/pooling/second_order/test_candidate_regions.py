"""Candidate regions against exact fractions: salient points, clusters, hulls and the cells inside them."""

import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import second_order as ref
from references.maps import SHAPES, make_map, special_maps
from sklearn.cluster import KMeans

from skretrieval.pooling._grammar import _salient_points as salient
from skretrieval.pooling._second_order import _candidate_regions as regions


def found(feature_map, n_clusters=3, n_min=300, min_cells=2):
    response = np.maximum(feature_map, 0).sum(axis=0)[None]
    points, valid = salient.salient_cells(response, n_min)
    size = np.array([response.shape[:0:-1]], dtype=float)
    return regions.candidate_regions(response, points, valid, size, n_clusters, min_cells)[0]


def assert_same_regions(actual, expected):
    masks, polygons = expected
    assert_array_equal(actual.masks, masks)
    assert len(actual.polygons) == len(polygons)
    for corners, own in zip(polygons, actual.polygons, strict=True):
        assert_allclose(sorted(map(tuple, own)), sorted(corners), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# All of it


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] * shape[1] < 100], ids=str)
@pytest.mark.parametrize("n_clusters", [1, 2, 3, 4])
def test_same_regions_as_in_fractions(shape, n_clusters):
    feature_map = make_map(5, *shape, seed=3)
    assert_same_regions(found(feature_map, n_clusters), ref.candidate_regions(feature_map, n_clusters))


@pytest.mark.parametrize("n_min", [1, 3, 20, 60])
def test_same_regions_of_the_strongest_cells(n_min):
    feature_map = make_map(4, 24, 32, seed=9, density=0.3)
    assert_same_regions(found(feature_map, n_min=n_min), ref.candidate_regions(feature_map, n_min=n_min))


@pytest.mark.parametrize("kind", sorted(set(special_maps()) - {"all_equal_large"}))
def test_same_regions_of_special_maps(kind):
    """Maps of nothing but ties among them: the lower index decides, as it does with fractions."""
    feature_map = special_maps()[kind]
    assert_same_regions(found(feature_map), ref.candidate_regions(feature_map))


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (3, 6), (9, 5)], ids=str)
@pytest.mark.parametrize("n_clusters", [2, 3, 4])
def test_symmetric_ties(shape, n_clusters):
    feature_map = np.full((3, *shape), 0.1)
    assert_same_regions(found(feature_map, n_clusters), ref.candidate_regions(feature_map, n_clusters))


@pytest.mark.parametrize("min_cells", [1, 2, 5, 12, 10_000])
def test_small_regions_are_left_out(min_cells):
    feature_map = make_map(4, 6, 8, seed=1)
    own = found(feature_map, n_min=12, min_cells=min_cells)
    assert_same_regions(own, ref.candidate_regions(feature_map, n_min=12, min_cells=min_cells))
    assert (own.masks[:-1].sum(axis=(1, 2)) >= min_cells).all()
    assert own.masks[-1].all()


def test_regions_without_response_are_left_out():
    feature_map = np.zeros((2, 8, 8))
    feature_map[:, :, 0] = 1.0  # one column of responses; everything else ties at zero and is salient too
    own = found(feature_map)
    assert 1 < len(own.masks) < 8
    assert own.masks[:, :, 0].any(axis=1).all()


def test_zero_map_keeps_only_the_whole():
    own = found(np.zeros((3, 6, 8)))
    assert own.masks.shape == (1, 6, 8)
    assert own.masks.all()


def test_a_batch_is_its_images():
    maps = [make_map(4, 9, 12, seed=seed, density=0.3) for seed in range(5)] + [np.zeros((4, 9, 12))]
    response = np.stack([feature_map.sum(axis=0) for feature_map in maps])
    points, valid = salient.salient_cells(response, 30)
    sizes = np.tile([12.0, 9.0], (6, 1))
    together = regions.candidate_regions(response, points, valid, sizes, 3, 2)
    for feature_map, own in zip(maps, together, strict=True):
        alone = found(feature_map, n_min=30)
        assert_array_equal(own.masks, alone.masks)
        assert all(np.array_equal(a, b) for a, b in zip(own.polygons, alone.polygons, strict=True))


def test_small_blocks_give_the_same(monkeypatch):
    maps = [make_map(4, 9, 12, seed=seed) for seed in range(3)]
    expected = [found(feature_map) for feature_map in maps]
    monkeypatch.setattr(regions, "_BLOCK_ELEMENTS", 500)
    for feature_map, own in zip(maps, expected, strict=True):
        assert_array_equal(found(feature_map).masks, own.masks)


# ---------------------------------------------------------------------------------------------------------------------
# Salient points


def test_ties_at_the_threshold_are_included():
    response = np.array([[[5.0, 1.0, 3.0], [3.0, 0.0, 2.0]]])
    points, valid = salient.salient_cells(response, 2)
    assert valid.tolist() == [[True, True, True]]
    assert points[0].tolist() == [[0.5, 0.5], [2.5, 0.5], [0.5, 1.5]]


def test_round_off_does_not_break_ties():
    # 0.1 + 0.2 and 0.3 differ by one unit in the last place
    assert salient.strongest(np.array([[0.3, 0.1 + 0.2, 0.1]]), 1).tolist() == [[True, True, False]]


def test_fewer_cells_than_wanted_are_all():
    points, valid = salient.salient_cells(np.arange(6.0).reshape(1, 2, 3), 300)
    assert valid.all()
    assert points.shape == (1, 6, 2)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 6), (4, 1), (1, 1)])
def test_response_at_pixels_is_the_resized_map(height, width):
    """Jeong et al. (2017) resize the responses to the image; only the values at the points are needed."""
    response = np.random.default_rng(0).random((height, width))
    image_width, image_height = 41, 30
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(response)[None, None],
        (image_height, image_width),
        mode="bilinear",
        align_corners=False,
    )[0, 0].numpy()
    rows, columns = np.indices(resized.shape).reshape(2, -1)
    points = np.stack([columns, rows], axis=1) + 0.5
    values = salient.response_at(response, points, (image_width, image_height))
    assert_allclose(values, resized.ravel(), rtol=1e-12)


def test_detections_of_largest_response_are_kept():
    response = np.array([[0.0, 1.0], [2.0, 3.0]])
    detected = np.array([[2.0, 2.0], [18.0, 2.0], [2.0, 18.0], [18.0, 18.0], [18.0, 17.9]])
    kept = salient.salient_points(response, detected, (20.0, 20.0), n_max=2, n_min=3)
    assert kept.tolist() == [[18.0, 18.0], [18.0, 17.9]]
    kept = salient.salient_points(response, detected, (20.0, 20.0), n_max=3, n_min=5)
    assert kept.tolist() == [[2.0, 18.0], [18.0, 18.0], [18.0, 17.9]]


def test_too_few_detections_are_replaced_by_cells():
    response = np.array([[0.0, 1.0, 5.0], [2.0, 3.0, 4.0]])
    points = salient.salient_points(response, np.zeros((2, 2)), (30.0, 10.0), n_max=4000, n_min=3)
    assert points.tolist() == [[25.0, 2.5], [15.0, 7.5], [25.0, 7.5]]


def test_detector_finds_blobs_light_and_dark():
    rows, columns = np.mgrid[:90, :120] + 0.5
    image = np.full((90, 120), 0.5, dtype=np.float32)
    centres = [(30.0, 25.0, 3.0, 0.4), (85.0, 60.0, 6.0, -0.4), (70.0, 20.0, 4.0, -0.3)]
    for x, y, sigma, height in centres:
        image += height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    points = salient.hessian_points(image)
    for x, y, *_ in centres:
        assert np.hypot(*(points - (x, y)).T).min() < 1.0
    assert len(points) < 20
    assert np.array_equal(points, np.unique(points[:, ::-1], axis=0)[:, ::-1])  # distinct, row by row


def test_detector_finds_nothing_on_a_flat_image_or_its_border():
    assert salient.hessian_points(np.full((40, 50), 0.7, dtype=np.float32)).shape == (0, 2)


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"scikit-retrieval\[photos\]"):
        salient.import_detector()


# ---------------------------------------------------------------------------------------------------------------------
# Clusters


def labels_of(points, n_clusters):
    points = np.asarray(points, dtype=float)
    return regions.global_fast_kmeans(points[None], np.ones((1, len(points)), bool), n_clusters)[0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_clusters", [1, 2, 3, 5])
def test_clusters_as_in_fractions(seed, n_clusters):
    points = np.random.default_rng(seed).integers(0, 12, (40, 2))
    expected = ref.global_fast_kmeans([(Fraction(int(x)), Fraction(int(y))) for x, y in points], n_clusters)
    assert labels_of(points, n_clusters).tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_as_good_as_those_of_many_random_starts(seed):
    points = np.random.default_rng(seed).normal(size=(200, 2)) * [3, 1]
    labels = labels_of(points, 4)
    inertia = sum(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum() for c in range(4))
    best = KMeans(4, n_init=20, random_state=0).fit(points).inertia_
    assert inertia <= 1.1 * best


def test_fewer_distinct_points_than_clusters():
    points = [[1.0, 2.0]] * 3 + [[7.1, 2.0]] * 2
    assert labels_of(points, 5).tolist() in ([0, 0, 0, 1, 1], [1, 1, 1, 0, 0])
    assert labels_of(points[:3], 3).tolist() == [0, 0, 0]


def test_missing_points_change_nothing():
    rng = np.random.default_rng(1)
    points, more = rng.random((30, 2)), rng.random((12, 2)) + 5
    expected = labels_of(points, 3)
    filled = np.concatenate([points, more])[None]
    valid = np.arange(42)[None] < 30
    actual = regions.global_fast_kmeans(filled, valid, 3)[0]
    assert_array_equal(actual, np.concatenate([expected, [-1] * 12]))


def test_no_points_at_all():
    assert_array_equal(regions.global_fast_kmeans(np.ones((2, 4, 2)), np.zeros((2, 4), bool), 3), -1)


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1.0, 1e4), (37.0, -250.0)])
def test_clusters_do_not_depend_on_the_units(scale, shift):
    points = np.random.default_rng(2).random((60, 2))
    assert_array_equal(labels_of(points * scale + shift, 3), labels_of(points, 3))


# ---------------------------------------------------------------------------------------------------------------------
# Hulls


@pytest.mark.parametrize(
    "points",
    [
        [[1.0, 1.0]],
        [[1.0, 1.0], [1.0, 1.0]],
        [[1.0, 1.0], [3.0, 2.0]],
        [[0.5, 0.5], [1.5, 1.5], [4.5, 4.5], [2.5, 2.5]],
    ],
    ids=["one", "twice", "two", "line"],
)
def test_no_hull_without_area(points):
    assert regions.cluster_hulls(np.array(points), np.zeros(len(points), int)) == []


def test_lines_together_have_an_area():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    (hull,) = regions.cluster_hulls(points, np.array([0, 0, 0, 1, 1]))
    assert {tuple(corner) for corner in hull} == {(0, 0), (2, 0), (1, 2), (0, 2)}


def test_hulls_come_in_the_order_of_bit_masks():
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    points = (centres[:, None] + triangle).reshape(-1, 2)
    hulls = regions.cluster_hulls(points, np.repeat([0, 1, 2], 3))
    held = [tuple(c for c in range(3) if np.hypot(*(hull - centres[c]).T).min() < 2) for hull in hulls]
    assert held == [(0,), (1,), (0, 1), (2,), (0, 2), (1, 2), (0, 1, 2)]


def test_the_edge_belongs_to_the_hull():
    square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
    (mask,) = regions.cells_inside([square], 4, 5)
    assert mask.reshape(4, 5).tolist() == [[j < 3 and i < 3 for j in range(5)] for i in range(4)]


def test_hulls_of_unlike_many_corners():
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([10 + 6 * np.cos(angles), 8 + 6 * np.sin(angles)], axis=1)
    triangle = np.array([[2.0, 1.0], [15.0, 3.0], [6.0, 12.0]])
    together = regions.cells_inside([circle, triangle], 16, 20)
    assert_array_equal(together[0], regions.cells_inside([circle], 16, 20)[0])
    assert_array_equal(together[1], regions.cells_inside([triangle], 16, 20)[0])
    y, x = np.indices((16, 20)).reshape(2, -1) + 0.5
    near = np.abs(np.hypot(x - 10, y - 8) - 6) < 0.1  # between the circle and its polygon
    assert_array_equal(together[0][~near], (np.hypot(x - 10, y - 8) < 6)[~near])
    assert regions.cells_inside([], 3, 4).shape == (0, 12)


def test_image_coordinates_do_not_change_the_cells():
    """The same points in pixels of a photograph of the same aspect."""
    feature_map = make_map(4, 9, 12, seed=5, density=0.4)
    response = feature_map.sum(axis=0)[None]
    points, valid = salient.salient_cells(response, 30)
    (own,) = regions.candidate_regions(response, points * 53.0, valid, np.array([[636.0, 477.0]]), 3, 2)
    expected = found(feature_map, n_min=30)
    assert_array_equal(own.masks, expected.masks)
    assert all(np.allclose(a, b) for a, b in zip(own.polygons, expected.polygons, strict=True))
