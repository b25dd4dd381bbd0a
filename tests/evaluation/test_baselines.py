"""Descriptions that need no network."""

import numpy as np
from numpy.testing import assert_allclose
from PIL import Image

from skretrieval.evaluation import colour_histograms, thumbnails


def test_histograms_count_colours():
    """Red in three quarters of the pixels, blue in the rest."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255
    image[0] = [0, 0, 255]
    row = colour_histograms([image])[0]
    assert row.dtype == np.float32
    assert_allclose(row[[7 * 64, 7]], np.sqrt([0.75, 0.25]), rtol=1e-6)
    assert np.count_nonzero(row) == 2
    assert_allclose(np.linalg.norm(row), 1, rtol=1e-6)


def test_histograms_know_no_place(tmp_path):
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "one.png")
    both = colour_histograms([tmp_path / "one.png", image[::-1, ::-1]])
    assert_allclose(both[0], both[1], rtol=1e-6)


def test_thumbnails_are_correlations():
    random = np.random.RandomState(1)
    grey = random.randint(0, 100, (8, 8), dtype=np.uint8)
    other = random.randint(0, 100, (8, 8), dtype=np.uint8)
    rows = thumbnails([grey, 2 * grey + 7, other, np.full((9, 5), 3, np.uint8)])
    assert rows.shape == (4, 64)
    assert_allclose(rows[0] @ rows[1], 1, rtol=1e-5)
    assert_allclose(rows[0] @ rows[2], np.corrcoef(grey.ravel(), other.ravel())[0, 1], rtol=1e-5)
    assert not rows[3].any()
