"""Principal axes of rows in batches: the same as of all rows together, on both sides of n = D."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skretrieval._linalg import principal_axes
from skretrieval._linalg._streamed_axes import StreamedAxes, check_rank


def rows_of(n, size=12, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, size)) * 1.5 ** -np.arange(size) + rng.normal(size=size)).astype(dtype)


def streamed(rows, step=5, center=True, n_components=None):
    axes = StreamedAxes(center)
    for low in range(0, len(rows), step):
        axes.update(rows[low : low + step])
    return axes.finish(n_components)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n", [2, 11, 12, 13, 14, 40, 200])
@pytest.mark.parametrize("n_components", [None, 3])
def test_as_of_all_rows_together(n, center, n_components):
    rows = rows_of(n)
    found, expected = (
        streamed(rows, 5, center, n_components),
        principal_axes(rows, n_components, center=center),
    )
    assert_allclose(found.mean, expected.mean, atol=1e-14)
    assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-9, atol=1e-14)
    assert_allclose(found.components, expected.components, atol=1e-8)
    assert_allclose(found.total_variance, expected.total_variance, rtol=1e-12)


def test_batches_do_not_matter():
    rows = rows_of(60)
    expected = streamed(rows, 60)
    for step in (1, 7, 13, 59):
        assert_allclose(streamed(rows, step).components, expected.components, atol=1e-9)


def test_rows_are_kept_until_there_are_as_many_as_features():
    axes = StreamedAxes()
    axes.update(rows_of(11))
    assert [len(rows) for rows in axes.kept] == [11]
    axes.update(rows_of(1))
    assert axes.kept is None
    assert axes.n_rows == 12


def test_rows_are_kept_in_their_precision():
    axes = StreamedAxes()
    rows = rows_of(4, dtype=np.float32)
    axes.update(rows)
    assert axes.kept[0] is rows


@pytest.mark.parametrize("n", [6, 30])
def test_zero_rows_do_not_count(n):
    rows = rows_of(n)
    mixed = np.zeros((2 * n, 12))
    mixed[::2] = rows
    axes = StreamedAxes()
    axes.update(mixed)
    assert axes.n_rows == n
    assert_allclose(axes.finish().components, principal_axes(rows).components, atol=1e-8)


@pytest.mark.parametrize("n", [5, 30])
def test_rounding_of_single_precision_is_no_variance(n):
    """Rows of rank 2, rounded to float32: the other directions hold nothing but rounding."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(n, 2)) @ rng.normal(size=(2, 12)) + 3).astype(np.float32)
    assert len(streamed(rows).components) == 2


@pytest.mark.parametrize("n", [1, 5, 30])
def test_equal_rows_have_no_axes(n):
    assert len(streamed(np.tile(rows_of(1), (n, 1))).components) == 0


def test_no_rows_have_no_axes():
    axes = StreamedAxes()
    axes.update(np.zeros((4, 3)))
    assert len(axes.finish().components) == 0


def test_input_is_not_written():
    rows = rows_of(30)
    before = rows.copy()
    rows.flags.writeable = False
    streamed(rows, 30)
    assert np.array_equal(rows, before)


def test_rank():
    axes = principal_axes(rows_of(5))
    check_rank(axes, "n_local", 4, 5, 12)
    check_rank(axes, "n_local", None, 5, 12)
    with pytest.warns(UserWarning, match=r"n_local=5 exceeds the rank 4 .* 3 image"):
        check_rank(axes, "n_local", 5, 3, 12)
    with pytest.raises(ValueError, match=r"alike.*n_samples=1\b.*n_features=12\b"):
        check_rank(streamed(rows_of(1)), "n_local", 5, 1, 12)
