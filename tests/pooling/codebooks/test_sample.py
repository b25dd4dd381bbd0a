"""The sample of local descriptors that a codebook is learned from."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from references.maps import make_map

from skretrieval.pooling._codebooks._local_descriptors import local_descriptors
from skretrieval.pooling._codebooks._sample import LocalSample


def columns(feature_map, **kwargs):
    cells, valid = local_descriptors(torch.from_numpy(feature_map)[None], **kwargs)
    return cells[0][valid[0]].numpy()


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
