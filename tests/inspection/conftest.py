"""Figures are drawn without a screen, and closed."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from skretrieval.datasets import make_feature_maps


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def maps():
    """Ragged maps; in the first, the lower right corner is without activation."""
    made, _ = make_feature_maps(8, 16, random_state=0)
    made[0] = made[0].copy()
    made[0][:, -2:, -3:] = 0
    return made


@pytest.fixture
def photograph():
    """120 pixels wide, 90 high: dark to the left, bright to the right."""
    columns = np.repeat([40, 200], 60).astype(np.uint8)
    return np.broadcast_to(columns[None, :, None], (90, 120, 3)).copy()


@pytest.fixture
def pixel_at():
    """A function of (axes, x, y): the colour in [0, 1] that is drawn there."""

    def look(ax, x, y):
        ax.figure.canvas.draw()
        pixels = np.asarray(ax.figure.canvas.buffer_rgba())
        column, row = ax.transData.transform((x, y))
        return pixels[len(pixels) - 1 - int(row), int(column), :3] / 255

    return look
