"""Principal axes of all rows at once against float64 references."""

import numpy as np
import pytest

from skretrieval._linalg import _rows, flip_signs, principal_axes


def pca_axes(X, n_components=None, *, center=True):
    """Return mean, components and eigenvalues, without the total variance."""
    return tuple(principal_axes(X, n_components, center=center))[:3]


def reference_axes(X):
    """Axes from the thin SVD of the centred rows."""
    _, values, axes = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    return axes, values**2 / (len(X) - 1)


def correlated(n, D, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, D)) @ rng.normal(size=(D, D)) + rng.normal(size=D)


@pytest.mark.parametrize(("n", "D"), [(60, 12), (13, 12), (12, 12), (12, 60), (2, 5), (5, 1)])
def test_axes_equal_the_thin_svd_in_both_routes(n, D):
    X = correlated(n, D)
    mean, components, eigenvalues = pca_axes(X)
    rank = min(n - 1, D)
    axes, variances = reference_axes(X)
    assert components.shape == (rank, D)
    np.testing.assert_allclose(mean, X.mean(axis=0), atol=1e-13)
    np.testing.assert_allclose(eigenvalues, variances[:rank], rtol=1e-8)
    np.testing.assert_allclose(components, flip_signs(axes[:rank]), atol=1e-8)
    np.testing.assert_allclose(components @ components.T, np.eye(rank), atol=1e-12)


@pytest.mark.parametrize(("n", "D"), [(60, 12), (12, 60)])
@pytest.mark.parametrize("wanted", [1, 3, 9])
def test_leading_axes_are_those_of_the_whole_decomposition(n, D, wanted):
    X = correlated(n, D)
    _, all_components, all_eigenvalues = pca_axes(X)
    _, components, eigenvalues = pca_axes(X, wanted)
    np.testing.assert_allclose(eigenvalues, all_eigenvalues[:wanted], rtol=1e-10)
    np.testing.assert_allclose(components, all_components[:wanted], atol=1e-9)


@pytest.mark.parametrize(("n", "D"), [(60, 12), (12, 60)])
def test_center_can_be_the_origin_or_a_point(n, D):
    X = correlated(n, D)
    for center, point in [(False, np.zeros(D)), (X[0], X[0])]:
        mean, components, eigenvalues = pca_axes(X, center=center)
        np.testing.assert_array_equal(mean, point)
        _, values, axes = np.linalg.svd(X - point, full_matrices=False)
        rank = len(eigenvalues)
        assert rank >= min(n - 1, D)
        np.testing.assert_allclose(eigenvalues, values[:rank] ** 2 / (n - 1), rtol=1e-8)
        np.testing.assert_allclose(components, flip_signs(axes[:rank]), atol=1e-7)


@pytest.mark.parametrize(("n", "D"), [(60, 12), (12, 60)])
@pytest.mark.parametrize("wanted", [None, 2])
def test_total_variance_is_that_of_all_features(n, D, wanted):
    X = correlated(n, D)
    found = principal_axes(X, wanted)
    np.testing.assert_allclose(found.total_variance, X.var(axis=0, ddof=1).sum(), rtol=1e-12)


@pytest.mark.parametrize(("n", "D"), [(40, 12), (10, 30), (30, 30)])
@pytest.mark.parametrize("rank", [1, 3, 7])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rank_deficient_rows_give_only_axes_of_variance(n, D, rank, dtype):
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(n, rank)) @ rng.normal(size=(rank, D)) + 5.0).astype(dtype)
    _, components, eigenvalues = pca_axes(X)
    assert components.shape == (rank, D)
    assert eigenvalues.shape == (rank,)
    assert eigenvalues[-1] > 1e-3


@pytest.mark.parametrize("n", [2, 5, 10_000])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1 / 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_constant_rows_have_no_axes(n, value, dtype):
    X = np.full((n, 7), value, dtype=dtype)
    mean, components, eigenvalues = pca_axes(X)
    np.testing.assert_array_equal(mean, X[0].astype(np.float64))
    assert components.shape == (0, 7)
    assert eigenvalues.shape == (0,)
    if value:  # the same up to one rounding of some rows is still constant
        X[::3] = np.nextafter(X[::3], np.asarray(9, dtype))
        assert len(pca_axes(X)[2]) == 0


def test_a_small_variance_on_a_large_offset_survives():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(50, 3))
    _, _, expected = pca_axes(noise)
    _, _, eigenvalues = pca_axes(noise + 1e6)
    np.testing.assert_allclose(eigenvalues, expected, rtol=1e-6)


def test_duplicated_rows_do_not_change_the_axes():
    X = correlated(40, 10)
    mean, components, eigenvalues = pca_axes(X)
    mean2, components2, eigenvalues2 = pca_axes(np.repeat(X, 2, axis=0))
    np.testing.assert_allclose(mean2, mean, atol=1e-12)
    np.testing.assert_allclose(components2, components, atol=1e-8)
    np.testing.assert_allclose(eigenvalues2, eigenvalues * 2 * 39 / 79, rtol=1e-9)


def test_gram_route_keeps_right_angles_on_a_steep_spectrum():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 200)) * np.logspace(0, -15, 200)
    _, components, eigenvalues = pca_axes(X)
    _, variances = reference_axes(X)
    rank = len(eigenvalues)
    assert rank > 50
    # Without the second pass the last axes are up to 1e-4 off a right angle.
    assert eigenvalues[-1] < 1e-9 * eigenvalues[0]
    np.testing.assert_allclose(components @ components.T, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose(eigenvalues, variances[:rank], rtol=1e-6)
    assert np.all(np.diff(eigenvalues) <= 0)


def test_blocks_of_rows_change_nothing(monkeypatch):
    X = correlated(57, 9)
    expected = pca_axes(X)
    monkeypatch.setattr(_rows, "_BLOCK_ELEMENTS", 9 * 10)
    for found, wanted in zip(pca_axes(X), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_signs_do_not_depend_on_the_solver():
    X = correlated(30, 6)
    for _, components, _ in (pca_axes(X), pca_axes(X, 2), pca_axes(X[:5])):
        largest = np.abs(components).argmax(axis=1)
        assert np.all(components[np.arange(len(components)), largest] > 0)


def test_read_only_rows_are_left_alone():
    X = correlated(20, 6).astype(np.float32)
    copy = X.copy()
    X.flags.writeable = False
    found = pca_axes(X)
    assert all(part.dtype == np.float64 for part in found)
    np.testing.assert_array_equal(X, copy)
