"""Local features and homographies between photographs."""

import builtins

import numpy as np
import pytest
from fixtures.flat_photographs import photograph, photographs

from skretrieval._geometry import (
    central_share,
    describe_points,
    import_cv2,
    match_points,
    verify_pair,
)

cv2 = pytest.importorskip("cv2")


def test_features_are_unit_vectors_within_the_photograph():
    pixels = photograph(0, 0)
    features = describe_points(pixels, n_features=100)
    assert features.points.shape == (len(features.points), 2)
    assert 30 < len(features.points) <= 100
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert features.points.min() >= 0
    assert (features.points < (pixels.shape[1], pixels.shape[0])).all()
    assert features.shape == pixels.shape[:2]


def test_root_sift_is_the_root_of_sift_that_sums_to_one():
    pixels = photograph(1, 0)
    _, sift = cv2.SIFT_create(nfeatures=50).detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
    expected = np.sqrt(sift / sift.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(describe_points(pixels, 50).descriptors, expected[:50], atol=1e-6)


def test_a_homography_is_found_where_it_was_applied():
    pixels = photograph(2, 0)
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + np.array([[20, 10], [-30, 5], [-10, -25], [15, -5]], np.float32)
    true = cv2.getPerspectiveTransform(corners, moved)
    other = cv2.warpPerspective(pixels, true, (width, height))
    found = verify_pair(describe_points(pixels), describe_points(other))
    assert found.n_inliers >= 40
    assert len(found.inliers) == found.n_inliers
    mapped = cv2.perspectiveTransform(corners[:, None], found.homography)[:, 0]
    assert np.abs(mapped - moved).max() < 4


def test_objects_are_told_apart():
    images, labels = photographs(5, 2)
    features = [describe_points(image) for image in images]
    for first in range(len(images)):
        for second in range(first):
            found = verify_pair(features[first], features[second], min_inliers=12)
            assert (found.n_inliers >= 12) == (labels[first] == labels[second])


def test_a_blank_photograph_joins_nothing():
    blank = describe_points(np.full((60, 80, 3), 128, np.uint8))
    assert blank.points.shape == (0, 2)
    assert blank.descriptors.shape == (0, 128)
    for pair in ((blank, blank), (blank, describe_points(photograph(0, 0)))):
        found = verify_pair(*pair)
        assert found.n_inliers == 0
        assert found.homography is None


def test_the_same_pair_gives_the_same_result():
    first, second = describe_points(photograph(3, 0)), describe_points(photograph(3, 1))
    found = [verify_pair(first, second) for _ in range(3)]
    assert len({one.n_inliers for one in found}) == 1
    np.testing.assert_array_equal(found[0].homography, found[2].homography)


def test_matches_are_mutual_and_clear():
    first = np.eye(4, dtype=np.float32)
    second = np.eye(4, dtype=np.float32)[[2, 0, 1]]
    np.testing.assert_array_equal(match_points(first, second), [[0, 1], [1, 2], [2, 0]])
    twice = np.concatenate([second, second[:1]])  # the third point has two equal matches: neither is clear
    np.testing.assert_array_equal(match_points(first, twice), [[0, 1], [1, 2]])
    assert match_points(first, second[:1]).shape == (0, 2)


def test_the_middle_is_that_of_both_photographs():
    features = describe_points(photograph(0, 0))
    middle = np.abs(features.points / (320, 240) - 0.5).max(axis=1) < 0.3
    inside, outside = np.flatnonzero(middle), np.flatnonzero(~middle)
    both = np.array([[inside[0], inside[1]], [inside[1], inside[0]]])
    assert central_share(features, features, both) == 1
    if len(outside):
        assert central_share(features, features, np.array([[inside[0], outside[0]]])) == 0
    assert central_share(features, features, np.zeros((0, 2), int)) == 0


def test_without_opencv_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "cv2":
            raise ImportError("no cv2")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"scikit-retrieval\[opencv\]"):
        import_cv2()
