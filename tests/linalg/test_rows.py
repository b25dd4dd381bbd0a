"""Rows of unit length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skretrieval._linalg import l2_normalize


def test_read_only_rows_are_left_alone():
    X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    copy = X.copy()
    X.flags.writeable = False
    assert l2_normalize(X).flags.writeable
    np.testing.assert_array_equal(X, copy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_l2_normalize_gives_unit_rows_at_every_scale(dtype):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 5))
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    limits = np.finfo(dtype)
    scales = [1.0, 1e-30, 1e30, float(limits.max) / 4, float(limits.tiny) * 1e4]
    for scale in scales:
        y = l2_normalize((rows * scale).astype(dtype))
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, atol=4e-7 if dtype == np.float32 else 1e-12)


def test_l2_normalize_keeps_zero_rows_and_takes_any_shape():
    x = np.zeros((2, 3, 4))
    x[0, 0] = [0, 3, 0, 4]
    y = l2_normalize(x)
    np.testing.assert_allclose(y[0, 0], [0, 0.6, 0, 0.8])
    assert np.count_nonzero(y) == 2
    np.testing.assert_allclose(l2_normalize([3, 4]), [0.6, 0.8])
    np.testing.assert_array_equal(l2_normalize(np.zeros(3)), np.zeros(3))
    assert l2_normalize(np.zeros((0, 3))).shape == (0, 3)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_l2_normalize_rows_have_length_one_or_zero(x):
    lengths = np.linalg.norm(l2_normalize(x).astype(np.float64), axis=1)
    expected = np.any(x, axis=1).astype(float)
    np.testing.assert_allclose(lengths, expected, atol=1e-6)
