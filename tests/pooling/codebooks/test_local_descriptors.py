"""Local descriptors: the columns, their sample, their whitening, and the nearest centre of each."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import codebooks as ref
from references.maps import make_map, make_ragged, make_signed_map

from skretrieval.pooling._codebooks._centers import aggregate_residuals, nearest
from skretrieval.pooling._codebooks._local_descriptors import local_axes, local_descriptors, signed_power
from skretrieval.pooling._codebooks._sample import LocalSample


def columns(feature_map, **kwargs):
    cells, valid = local_descriptors(torch.from_numpy(feature_map)[None], **kwargs)
    return cells[0][valid[0]].numpy()


@pytest.mark.parametrize("upsample", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 5), (5, 4)])
def test_against_reference(shape, upsample):
    feature_map = make_signed_map(3, *shape)
    expected = ref.local_descriptors(feature_map, rectify=False, upsample=upsample)
    assert_allclose(columns(feature_map, upsample=upsample), expected, rtol=1e-10, atol=1e-14)


def test_cells_come_row_by_row():
    feature_map = make_map(4, 3, 5, density=1.0)
    cells, valid = local_descriptors(torch.from_numpy(feature_map)[None])
    assert valid.all()
    column = feature_map[:, 1, 3]
    assert_allclose(cells[0, 1 * 5 + 3].numpy(), column / np.linalg.norm(column), rtol=1e-14)


def test_zero_cells_are_no_descriptors():
    feature_map = make_map(4, 3, 5, density=1.0)
    feature_map[:, 2, 1] = 0
    cells, valid = local_descriptors(torch.from_numpy(feature_map)[None])
    assert_array_equal(np.flatnonzero(~valid[0].numpy()), [2 * 5 + 1])
    assert not cells[0, 11].any()


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 1e36])
@pytest.mark.parametrize("upsample", [1, 2])
def test_no_scale_is_lost(scale, upsample):
    feature_map = make_map(4, 3, 5).astype(np.float32)
    scaled = (feature_map * np.float32(scale)).astype(np.float32)
    expected = columns(feature_map, upsample=upsample)
    assert_allclose(columns(scaled, upsample=upsample), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Sample


def sampled(maps, size, seed=0, order=None, together=1):
    """The sample when maps of equal shape arrive in this order, so many at a time."""
    order = range(len(maps)) if order is None else order
    taken = LocalSample(size, seed)
    for start in range(0, len(maps), together):
        indices = np.array(order[start : start + together])
        taken.add(indices, *local_descriptors(torch.from_numpy(np.stack([maps[i] for i in indices]))))
    return taken.finish()


@pytest.fixture(scope="module")
def maps():
    return np.stack([make_map(4, 5, 6, seed=seed, density=0.4) for seed in range(12)])


def test_everything_fits(maps):
    everything = np.concatenate([columns(feature_map) for feature_map in maps])
    assert len(everything) < 12 * 30  # some cells are zero
    for size in (len(everything), 10_000):
        assert_array_equal(sampled(maps, size), everything)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_sample_does_not_depend_on_batches(maps, size):
    expected = sampled(maps, size)
    assert expected.shape == (size, 4)
    for together in (2, 5, 12):
        assert_array_equal(sampled(maps, size, together=together), expected)
    assert_array_equal(sampled(maps, size, order=np.random.default_rng(0).permutation(12)), expected)
    assert not np.array_equal(sampled(maps, size, seed=1), expected)


def test_sample_holds_only_descriptors_of_the_maps_without_repeats():
    maps = np.stack([make_map(4, 5, 6, seed=seed, density=1.0) for seed in range(12)])
    everything = np.concatenate([columns(feature_map) for feature_map in maps])
    sample = sampled(maps, 40)
    places = [np.flatnonzero((everything == row).all(axis=1)) for row in sample]
    assert all(len(place) == 1 for place in places)
    places = np.concatenate(places)
    assert (np.diff(places) > 0).all()  # in the order of images and cells


def test_sample_is_uniform():
    """Each of 64 cells of each of 4 images is as likely as any other: counts over 400 seeds, within 5 sigma."""
    maps = np.stack([make_map(2, 8, 8, seed=seed, density=1.0) for seed in range(4)])
    everything = np.concatenate([columns(feature_map) for feature_map in maps])
    place = {tuple(row): t for t, row in enumerate(everything)}
    counts = np.zeros(256)
    for seed in range(400):
        counts[[place[tuple(row)] for row in sampled(maps, 64, seed=seed, together=4)]] += 1
    expected, sigma = 400 / 4, np.sqrt(400 * 0.25 * 0.75)
    assert np.abs(counts - expected).max() < 5 * sigma
    # the spread over the cells is that of independent draws, too: neither too even nor in clumps
    assert 0.7 < counts.var() / sigma**2 < 1.4
    by_image = counts.reshape(4, 64).sum(axis=1)
    assert np.abs(by_image - 6400).max() < 5 * np.sqrt(400 * 64 * 0.25 * 0.75)


def test_nothing_to_sample():
    taken = LocalSample(5, 0)
    taken.add(np.array([0]), *local_descriptors(torch.zeros(1, 3, 2, 2)))
    with pytest.raises(ValueError, match="every cell of every feature map is zero"):
        taken.finish()


# ---------------------------------------------------------------------------------------------------------------------
# Whitening


def test_axes_whiten():
    sample = np.concatenate([columns(feature_map) for feature_map in make_ragged(5, [(6, 7), (8, 3)])])
    mean, components, eigenvalues = local_axes(sample, "all")
    whitened = (sample - mean) @ components.T
    assert components.shape == (5, 5)
    assert_allclose(np.cov(whitened.T), np.eye(5), atol=1e-9)
    assert_allclose(eigenvalues, np.linalg.eigvalsh(np.cov(sample.T))[::-1], rtol=1e-9)
    assert_allclose(local_axes(sample, 2).components, components[:2], rtol=1e-9)


def test_axes_beyond_the_rank():
    sample = np.random.default_rng(0).standard_normal((30, 2)) @ [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    with pytest.warns(UserWarning, match="n_local=3 exceeds the rank 2"):
        assert len(local_axes(sample, 3).components) == 2
    assert len(local_axes(sample, "all").components) == 2
    assert len(local_axes(np.ones((5, 3)), "all").components) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Nearest centre


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


# ---------------------------------------------------------------------------------------------------------------------
# Sums


def test_residuals_of_rounding_are_none():
    centers = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    cells = centers + 1e-9
    ones = torch.ones(1, 1, 1, dtype=torch.float64)
    assert not aggregate_residuals(cells[None], ones, centers, floor=1e-8).any()
    assert_allclose(
        aggregate_residuals(cells[None], ones, centers, floor=1e-10)[0, 0], [1e-9, 1e-9], rtol=1e-6
    )


def test_signed_power():
    assert_allclose(signed_power(torch.tensor([-4.0, 0.0, 9.0]), 0.5), [-2.0, 0.0, 3.0])
    assert_array_equal(signed_power(torch.tensor([-4.0, 0.0, 9.0]), 1), [-4.0, 0.0, 9.0])
