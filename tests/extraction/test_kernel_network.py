"""The maths of kernel networks against slow float64 loops that share no code with them."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from references.maps import patch_by_loop

from skretrieval.extraction import _kernel_network as network
from skretrieval.extraction._kernel_network import (
    KernelLayer,
    gaussian_pool,
)


def pool_by_loop(maps, s):
    """Gaussian of standard deviation s / 2 over the 2 s + 1 nearest rows and columns that exist."""
    if s == 1:
        return maps
    channels, height, width = maps.shape
    pooled = np.zeros((channels, math.ceil(height / s), math.ceil(width / s)))
    for i in range(pooled.shape[1]):
        for j in range(pooled.shape[2]):
            total = 0.0
            for a in range(max(0, i * s - s), min(height, i * s + s + 1)):
                for b in range(max(0, j * s - s), min(width, j * s + s + 1)):
                    weight = math.exp(-((a - i * s) ** 2 + (b - j * s) ** 2) / (2 * (s / 2) ** 2))
                    pooled[:, i, j] += weight * maps[:, a, b]
                    total += weight
            pooled[:, i, j] /= total
    return pooled


def layer_by_loop(image, projection, filters, *, beta, subsampling, center, contrast, reference):
    projection, filters = projection.double().numpy(), filters.double().numpy()
    _, height, width = image.shape
    maps = np.zeros((len(filters), height, width))
    for i in range(height):
        for j in range(width):
            patch = patch_by_loop(image, i, j, projection.shape[-1])
            if center:
                patch -= patch.mean(axis=(1, 2), keepdims=True)
            scale = math.sqrt((patch**2).mean() + contrast * reference)
            if scale == 0:
                continue
            y = np.array([(row * patch).sum() for row in projection]) / scale
            norm = math.sqrt((y**2).sum())
            if norm > 0:
                for k, anchor in enumerate(filters):
                    maps[k, i, j] = norm * math.exp(beta * (anchor @ y / norm - 1))
    return pool_by_loop(maps, subsampling)


def make_layer(channels, size, center, subsampling, contrast=0.02):
    generator = torch.Generator().manual_seed(size)
    projection = torch.randn(6, channels, size, size, generator=generator)
    filters = torch.nn.functional.normalize(torch.randn(5, 6, generator=generator))
    settings = dict(beta=4.0, subsampling=subsampling, center=center, contrast=contrast, reference=0.1)
    return projection, filters, settings


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(
    ("shape", "size", "subsampling"),
    [((3, 9, 7), 3, 2), ((2, 6, 11), 4, 3), ((3, 5, 5), 1, 1), ((1, 2, 3), 5, 4)],
)
def test_layer_equals_slow_loop(shape, size, subsampling, center):
    image = np.random.default_rng(0).random(shape)
    image[:, :, -1] = image[:, :1, -1]  # something flat
    projection, filters, settings = make_layer(shape[0], size, center, subsampling)
    expected = layer_by_loop(image, projection, filters, **settings)

    exact = KernelLayer(projection.double(), filters.double(), **settings)(torch.from_numpy(image[None]))
    assert exact.dtype == torch.float64
    assert_allclose(exact[0].numpy(), expected, rtol=1e-10, atol=1e-13)

    single = KernelLayer(projection, filters, **settings)(torch.from_numpy(image[None]).float())
    assert single.dtype == torch.float32
    assert_allclose(single[0].numpy(), expected, rtol=2e-5, atol=2e-6)


def test_layer_of_a_batch_is_that_of_its_images():
    projection, filters, settings = make_layer(3, 3, True, 2)
    layer = KernelLayer(projection, filters, **settings)
    batch = torch.rand(4, 3, 11, 14, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([layer(image[None]) for image in batch])
    assert_allclose(layer(batch).numpy(), alone.numpy(), rtol=1e-5, atol=1e-6)


def test_blocks_of_channels_change_nothing(monkeypatch):
    projection, filters, settings = make_layer(3, 3, True, 2)
    layer = KernelLayer(projection, filters, **settings)
    batch = torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(1))
    expected = layer(batch)
    monkeypatch.setattr(network, "_BLOCK_ELEMENTS", 1)
    assert_allclose(layer(batch).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("contrast", [0.0, 0.02])
@pytest.mark.parametrize("level", [0.0, 0.1, 200 / 255, 1.0])
def test_flat_image_gives_zero_where_centred(level, contrast):
    projection, filters, settings = make_layer(3, 5, True, 2, contrast)
    layer = KernelLayer(projection, filters, **settings)
    colour = torch.tensor([level, 0.3 * level, 0.7 * level])
    maps = layer(colour[None, :, None, None].expand(2, 3, 8, 9))
    assert torch.equal(maps, torch.zeros(2, 5, 4, 5))


@pytest.mark.parametrize("contrast", [0.0, 0.02])
def test_black_image_gives_zero_without_centring(contrast):
    projection, filters, settings = make_layer(3, 5, False, 2, contrast)
    maps = KernelLayer(projection, filters, **settings)(torch.zeros(1, 3, 8, 9))
    assert torch.equal(maps, torch.zeros(1, 5, 4, 5))


def test_faint_patterns_on_bright_ground_survive():
    """One grey level of difference is no rounding error: the variance must not cancel."""
    projection, filters, settings = make_layer(3, 3, True, 1, contrast=0.0)
    image = np.full((3, 6, 6), 250 / 256)  # a flat patch is exactly flat in binary
    image[:, 3, 3] = 251 / 256
    expected = layer_by_loop(image, projection, filters, **settings)
    maps = KernelLayer(projection, filters, **settings)(torch.from_numpy(image[None]).float())
    assert expected.max() > 0.5
    assert_allclose(maps[0].numpy(), expected, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 12, 10), (2, 7, 9), (1, 1, 1), (1, 2, 5)])
@pytest.mark.parametrize("subsampling", [1, 2, 3, 4])
def test_gaussian_pool_equals_slow_loop(shape, subsampling):
    maps = np.random.default_rng(0).random(shape)
    pooled = gaussian_pool(torch.from_numpy(maps[None]), subsampling)[0].numpy()
    assert_allclose(pooled, pool_by_loop(maps, subsampling), rtol=1e-12)


def test_gaussian_pool_keeps_constants():
    pooled = gaussian_pool(torch.full((1, 2, 9, 13), 3.0), 4)
    assert pooled.shape == (1, 2, 3, 4)
    assert_allclose(pooled.numpy(), 3.0, rtol=1e-6)
