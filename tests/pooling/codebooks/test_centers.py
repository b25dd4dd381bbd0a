"""The nearest centre of each local descriptor, and the residuals to it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import codebooks as ref

from skretrieval.pooling._codebooks._centers import aggregate_residuals, nearest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_centers", [1, 2, 40])
def test_nearest(dtype, n_centers):
    rng = np.random.default_rng(0)
    cells = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((200, 6))), dim=1)
    centers = torch.from_numpy(rng.standard_normal((n_centers, 6)) / 3)
    expected = [ref.nearest(x, centers.numpy()) for x in cells.numpy()]
    assert_array_equal(nearest(cells.to(dtype), centers.to(dtype)).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_go_to_the_first_in_any_batch(dtype):
    rng = np.random.default_rng(0)
    cells = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((300, 32))), dim=1).to(dtype)
    away = torch.from_numpy(rng.standard_normal((5, 32))).to(dtype) / 6
    # each centre many times over, so that round-off would choose between them
    centers = torch.cat([away] * 13)
    single = nearest(cells, away)
    assert_array_equal(nearest(cells, centers), single)
    assert_array_equal(torch.cat([nearest(cell[None], centers) for cell in cells]), single)


def test_mirrored_centres_tie():
    """A descriptor between two centres, neither of which is nearer, although products of the two round unlike."""
    x = torch.full((1, 3), 1 / 3**0.5)
    centers = torch.tensor([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2], [0.2, 0.7, 0.1]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert nearest(x, centers[order]).item() == 0


def test_nearest_in_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    cells, centers = torch.from_numpy(rng.random((50, 4))), torch.from_numpy(rng.random((7, 4)))
    expected = nearest(cells, centers)
    monkeypatch.setattr("skretrieval.pooling._codebooks._centers.BLOCK_NUMBERS", 20)
    assert_array_equal(nearest(cells, centers), expected)


def test_residuals_of_rounding_are_none():
    centers = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    cells = centers + 1e-9
    ones = torch.ones(1, 1, 1, dtype=torch.float64)
    assert not aggregate_residuals(cells[None], ones, centers, floor=1e-8).any()
    assert_allclose(
        aggregate_residuals(cells[None], ones, centers, floor=1e-10)[0, 0], [1e-9, 1e-9], rtol=1e-6
    )
