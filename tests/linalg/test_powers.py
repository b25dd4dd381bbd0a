"""Powers and power means."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skretrieval._linalg import power, power_mean, root, signed_power, without_rounding


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1, 3])
@pytest.mark.parametrize("make", [np.array, torch.tensor, sparse.csr_array])
def test_signed_power_of_any_kind(make, exponent):
    values = [[-4.0, 0.0, 9.0], [0.0, 0.25, 0.0]]
    given = make(values)
    found = signed_power(given, exponent)
    assert type(found) is type(given)
    found = found.toarray() if sparse.issparse(found) else np.asarray(found)
    assert_allclose(found, np.sign(values) * np.abs(values) ** exponent)
    assert_array_equal(given.toarray() if sparse.issparse(given) else given, values)


@pytest.mark.parametrize("p", [1.0, 2.5, 3, 4])
def test_roots_undo_powers(p):
    values = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    assert_allclose(root(power(values, p, signed=True), p, signed=True), values)
    assert_allclose(root(power(values.abs(), p), p), values.abs())


def test_odd_powers_keep_the_sign():
    values = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    assert_allclose(root(power(values, 3.0), 3.0), values)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("p", [1.0, 4.5, 50.0])
def test_power_mean_at_any_scale(p, dim, scale):
    values = np.random.default_rng(0).random((3, 4, 5)) + 0.1
    found = power_mean(torch.from_numpy(values).float() * scale, p, dim)
    assert_allclose(found / scale, (values**p).mean(axis=dim) ** (1 / p), rtol=1e-5)


def test_power_mean_of_zeros_is_zero():
    assert_array_equal(power_mean(torch.zeros(2, 3), 4.5, 1), [0, 0])


def test_signed_power_mean_of_what_cancels_is_zero():
    values = torch.tensor([[0.1, 0.2, -0.2, -0.1]], dtype=torch.float64)
    assert_array_equal(power_mean(values, 2.5, 1, signed=True), [0])
    found = power_mean(values[:, :3], 2.0, 1, signed=True)
    assert_allclose(found, [np.sqrt(0.01 / 3)])


def test_rounding_of_terms_of_both_signs():
    mean, magnitude = torch.tensor([1e-16, 1e-12, -1e-16]), torch.tensor([1.0, 1.0, 1e-10])
    assert_array_equal(without_rounding(mean, magnitude), torch.tensor([0, 1e-12, -1e-16]))
