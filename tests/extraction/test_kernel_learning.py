"""The learning of kernel networks against slow float64 loops that share no code with it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from references.maps import patch_by_loop

from skretrieval.extraction._kernel_learning import (
    gather_patches,
    normalise_patches,
    spherical_kmeans,
    whitening,
)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_gather_patches_equals_slow_loop(size):
    image = np.random.default_rng(0).random((2, 4, 6))
    cells = torch.arange(24)
    patches = gather_patches(torch.from_numpy(image), size, cells).numpy()
    for cell in cells.tolist():
        np.testing.assert_array_equal(patches[cell], patch_by_loop(image, cell // 6, cell % 6, size))


def test_normalise_patches_scales_by_contrast():
    patches = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    patches[3] = 0.4
    normalised, reference = normalise_patches(patches, True, 0.5)
    x = patches.numpy() - patches.numpy().mean(axis=(2, 3), keepdims=True)
    power = (x**2).mean(axis=(1, 2, 3))
    assert reference == pytest.approx(power.mean(), rel=1e-12)
    expected = x / np.sqrt(power + 0.5 * power.mean())[:, None, None, None]
    assert_allclose(normalised.numpy(), expected, atol=1e-12)
    assert not normalised[3].any()
    again, same = normalise_patches(patches[:5], True, 0.5, reference)
    assert same == reference
    assert_allclose(again.numpy(), expected[:5], atol=1e-12)


def test_whitening_makes_the_second_moment_the_identity():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    vectors = torch.randn(400, 5, generator=generator, dtype=torch.float64) @ mixing + 2.0
    white = vectors @ whitening(vectors, None, 0.0).T
    assert_allclose((white.T @ white / 400).numpy(), np.eye(5), atol=1e-8)
    few = whitening(vectors, 2, 0.0)
    assert_allclose(few.numpy(), whitening(vectors, None, 0.0)[:2].numpy())


def test_whitening_keeps_no_more_than_the_rank():
    flat = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 2, 3], [0, 1, 1]]
    )
    projection = whitening(flat, None, 0.0)
    assert projection.shape == (2, 3)
    assert torch.isfinite(projection).all()
    assert whitening(flat, 3, 0.0).shape == (2, 3)
    with pytest.raises(ValueError, match="flat"):
        whitening(torch.zeros(10, 3), None, 0.1)


def test_whitening_regularisation_damps_weak_directions():
    vectors = torch.tensor([[10.0, 0.0], [0.0, 0.1]]).repeat(5, 1)
    scales = whitening(vectors, None, 0.5).norm(dim=1)
    # second moments 50 and 0.005, their mean 25.0025
    assert_allclose(scales.numpy(), [(50 + 12.50125) ** -0.5, (0.005 + 12.50125) ** -0.5], rtol=1e-6)


def test_spherical_kmeans_finds_separated_directions():
    rng = np.random.RandomState(0)
    true = torch.eye(4)[[0, 1, 2]]
    vectors = torch.nn.functional.normalize(
        true.repeat_interleave(60, 0) + 0.05 * torch.from_numpy(rng.randn(180, 4)).float()
    )
    centres = spherical_kmeans(vectors, 3, np.random.RandomState(1), n_iter=30)
    assert_allclose(centres.norm(dim=1).numpy(), 1.0, rtol=1e-6)
    # a fixed point: each centre is the direction of the sum of the vectors nearest to it
    nearest = (vectors @ centres.T).argmax(dim=1)
    for k in range(3):
        mean = vectors[nearest == k].double().sum(dim=0)
        assert_allclose(centres[k].numpy(), (mean / mean.norm()).numpy(), atol=1e-6)


def test_spherical_kmeans_refills_a_lost_cluster():
    """Four distinct directions, twenty times each, asked for as four clusters: each must become a centre."""
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [-1, 0.2]])).repeat(
        20, 1
    )
    for seed in range(5):
        centres = spherical_kmeans(vectors, 4, np.random.RandomState(seed), n_iter=20)
        assert_allclose((vectors @ centres.T).max(dim=1).values.numpy(), 1.0, atol=1e-6)


def test_spherical_kmeans_never_returns_an_empty_direction():
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(10, 1)
    centres = spherical_kmeans(opposite, 1, np.random.RandomState(0))
    assert_allclose(centres.norm(dim=1).numpy(), 1.0)


def test_spherical_kmeans_counts_distinct_vectors():
    vectors = torch.eye(3).repeat(30, 1)
    with pytest.raises(ValueError, match="3 distinct patches for 4 filters"):
        spherical_kmeans(vectors, 4, np.random.RandomState(0))
