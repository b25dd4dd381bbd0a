"""Principal axes of rows in batches: the same as of all rows together, on both sides of n = D."""

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skretrieval._linalg import StreamedAxes, check_rank, principal_axes


def rows_of(n, size=12, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, size)) * 1.5 ** -np.arange(size) + rng.normal(size=size)).astype(dtype)


def streamed(rows, step=5, center=True, n_components=None):
    axes = StreamedAxes(center)
    for low in range(0, len(rows), step):
        axes.update(rows[low : low + step])
    return axes.finish(n_components)


@pytest.mark.parametrize("center", [True, False, np.linspace(-1, 2, 12)])
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


def test_zero_rows_count_where_they_say_something():
    rows = np.concatenate([rows_of(30), np.zeros((10, 12))])
    axes = StreamedAxes(skip_zero=False)
    axes.update(rows)
    assert axes.n_rows == 40
    assert_allclose(axes.finish().mean, rows.mean(axis=0))


@pytest.mark.parametrize("n", [5, 30])
def test_precision_of_what_the_rows_were_computed_from(n):
    """Rows of rank 2 in double precision, with noise like the rounding of single precision in them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 12)) + 3 + 1e-6 * rng.normal(size=(n, 12))
    ranks = []
    for precision in (None, np.float32):
        axes = StreamedAxes(precision=precision)
        axes.update(rows)
        ranks.append(len(axes.finish().components))
    assert ranks[0] > ranks[1] == 2


def test_constant_features_have_no_part_in_the_axes():
    rows = rows_of(40)
    rows[:, 3] = 0.1
    axes = streamed(rows, 40)
    assert_allclose(axes.components[:, 3], 0, atol=1e-12)
    assert axes.mean[3] == 0.1


def test_rows_wait_to_be_folded_together(monkeypatch):
    """The products are a matrix of any size; small batches are not added to it one by one."""
    folded = []
    fold = StreamedAxes._fold
    monkeypatch.setattr(
        StreamedAxes, "_fold", lambda self, rows: folded.append(len(rows)) or fold(self, rows)
    )
    streamed(rows_of(60), 1)
    assert folded == [1] * 12 + [12] * 4


def test_memory_stays_that_of_the_products():
    size, n = 600, 40_000
    rows = np.random.default_rng(0).normal(size=(500, size)).astype(np.float32)
    axes = StreamedAxes()
    tracemalloc.start()
    for _ in range(n // len(rows)):
        axes.update(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert axes.n_rows == n
    # products (D, D) and, in float64, what is folded together: two batches of 500 rows, and centred copies of them
    assert peak < 8 * (size**2 + 3 * 1000 * size)


def test_whitening():
    axes = principal_axes(rows_of(40))
    whitening = axes.whitening()
    assert_allclose(
        np.cov(((rows_of(40) - whitening.mean) @ whitening.components.T).T), np.eye(12), atol=1e-9
    )
    rest = axes.whitening(first=2)
    assert_array_equal(rest.components, whitening.components[2:])
    assert_array_equal(rest.eigenvalues, whitening.eigenvalues[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whitened_vectors_have_length_one_or_zero(dtype):
    whitening = principal_axes(rows_of(40)).whitening()
    for part in whitening:
        part.flags.writeable = False  # as joblib maps a model into a worker
    vectors = torch.from_numpy(rows_of(6)).to(dtype).reshape(2, 3, 12)
    vectors[0, 1] = 0
    found = whitening.apply(vectors)
    expected = (vectors.numpy() - whitening.mean) @ whitening.components.T
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    expected[0, 1] = 0
    assert found.dtype == dtype
    assert_allclose(found, expected, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_share_of_the_variance():
    axes = principal_axes(np.diag([3.0, 2.0, 1.0, 0.0]), center=False)  # variances 9, 4, 1 of 14
    assert [axes.n_for_share(share) for share in (0.5, 0.64, 0.65, 0.93, 1 - 1e-17)] == [1, 1, 2, 3, 3]


def test_rank():
    axes = principal_axes(rows_of(5))
    assert [check_rank(axes, "n_local", wanted, 5, 12) for wanted in (3, 4, None)] == [3, 4, 4]
    with pytest.warns(UserWarning, match=r"n_local=5 exceeds the rank 4 .* 3 image"):
        assert check_rank(axes, "n_local", 5, 3, 12) == 4
    with pytest.raises(ValueError, match=r"n_local=5: all rows are equal .*n_samples=1, n_features=12"):
        check_rank(streamed(rows_of(1)), "n_local", 5, 1, 12, "rows")
