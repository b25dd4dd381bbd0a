"""Maps and photographs for regional second-order pooling."""

import numpy as np
import pytest
from references.maps import make_map
from references.networks import counting_network

from skretrieval.datasets import make_feature_maps
from skretrieval.extraction import ConvFeatureExtractor


@pytest.fixture(scope="module")
def maps():
    """Structured maps of many shapes, one 1x1, one 2x5, one zero."""
    found, _ = make_feature_maps(14, n_channels=8, sides=(3, 8), random_state=0)
    extra = [
        make_map(8, 1, 1, seed=1),
        make_map(8, 2, 5, seed=2),
        np.zeros((8, 3, 4)),
        make_map(8, 3, 14, seed=3),
    ]
    return [*(feature_map.astype(np.float64) for feature_map in found), *extra]


@pytest.fixture(scope="module")
def stacked():
    return np.stack([make_map(6, 5, 7, seed=seed, density=0.4) for seed in range(12)])


@pytest.fixture(scope="module")
def photographs():
    """Photographs of blobs, on noise; one of one colour."""
    rng = np.random.default_rng(0)
    images = []
    for width, height in [(120, 90), (90, 120), (120, 90), (100, 100), (120, 90), (150, 60), (120, 90)]:
        image = rng.normal(128, 4, (height, width))
        rows, columns = np.mgrid[:height, :width]
        for _ in range(25):
            x, y, sigma = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 6)
            image += rng.choice([-70, 70]) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        images.append(np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2))
    images.append(np.full((90, 120, 3), 99, np.uint8))
    return images


@pytest.fixture(scope="module")
def extractor(photographs):
    return ConvFeatureExtractor(
        counting_network, weights=None, image_size=96, batch_size=2, device="cpu"
    ).fit(photographs)
