import numpy as np
import pytest

from skretrieval.datasets import make_feature_maps


def descriptors(X):
    sums = np.array([x.sum(axis=(1, 2)) for x in X], dtype=float)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def nearest_is_same_class(X, y):
    similarity = descriptors(X) @ descriptors(X).T
    np.fill_diagonal(similarity, -np.inf)
    return np.mean(y[similarity.argmax(axis=1)] == y)


def test_maps_look_like_a_networks():
    X, y = make_feature_maps(n_samples=60, n_channels=24, n_classes=6, sides=(5, 9), random_state=0)
    assert len(X) == 60
    assert all(x.dtype == np.float32 and x.shape[0] == 24 and x.min() >= 0 for x in X)
    assert all(5 <= side <= 9 for x in X for side in x.shape[1:])
    assert len({x.shape for x in X}) > 5, "maps must be ragged"
    zeros = np.mean([(x == 0).mean() for x in X])
    assert 0.5 < zeros < 0.95, "most cells of a trained network's last layer are zero"
    assert np.bincount(y).tolist() == [10] * 6


def test_classes_can_be_found_and_clutter_hides_them():
    found = [
        nearest_is_same_class(*make_feature_maps(n_samples=100, clutter=clutter, random_state=0))
        for clutter in (0.0, 1.0, 6.0)
    ]
    assert found[0] == 1.0
    assert found[1] > 0.5
    assert found[2] < found[1]


def test_deterministic():
    first, second, other = (make_feature_maps(n_samples=5, random_state=seed)[0] for seed in (1, 1, 2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_extreme_shapes():
    X, y = make_feature_maps(n_samples=3, n_channels=1, n_classes=5, sides=(1, 1), random_state=0)
    assert [x.shape for x in X] == [(1, 1, 1)] * 3
    assert y.tolist() == [0, 1, 2]


@pytest.mark.parametrize("sides", [(0, 4), (5, 4)])
def test_bad_sides(sides):
    with pytest.raises(ValueError, match="sides"):
        make_feature_maps(sides=sides)
