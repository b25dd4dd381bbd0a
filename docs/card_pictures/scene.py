"""What the pictures share: the photographs with their maps, panels, and the register of pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from skretrieval.datasets import load_sample_photographs
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.inspection import CellWeightsDisplay

SHOWN = ("coffee", "chelsea", "rocket")

PICTURES: dict[str, Callable[[Scene], Figure]] = {}


class Scene:
    """The photographs and their feature maps, which the pictures share.

    Parameters
    ----------
    extractor : ConvFeatureExtractor
        The network.
    """

    def __init__(self, extractor: ConvFeatureExtractor):
        paths = [Path(path) for path in load_sample_photographs().images if "skimage" in path]
        paths.sort(key=lambda path: SHOWN.index(path.stem) if path.stem in SHOWN else len(SHOWN))
        self.extractor = extractor
        self.maps = extractor.fit_transform([str(path) for path in paths])
        self.shown = range(len(SHOWN))

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """The maps of all photographs, for what is learned from them."""
        return list(self.maps)

    def photograph(self, index: int) -> np.ndarray:
        """Return the pixels of a photograph."""
        return np.asarray(Image.open(self.maps.images[index]).convert("RGB"))


def picture(make: Callable[[Scene], Figure]) -> Callable[[Scene], Figure]:
    """Register a function of the scene that draws the picture of its name."""
    PICTURES[make.__name__] = make
    return make


def panels(n_rows: int, n_columns: int, width: float = 2.4, title: float = 0.0):
    """Return a figure with a panel of `width` inches for each of so many 3:2 photographs, and the axes."""
    size = (width * n_columns, (width * 2 / 3 + 0.08 + title) * n_rows)
    return plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")


def weights(scene: Scene, pooler, **kwargs) -> Figure:
    """Draw the weights of a pooler over each photograph shown."""
    figure, axes = panels(1, len(scene.shown))
    for index in scene.shown:
        CellWeightsDisplay.from_estimator(pooler, scene.maps, index, ax=axes[0, index], **kwargs)
    return figure


def titled(ax, text: str) -> None:
    """Write what a panel shows above it."""
    ax.set_title(text, fontsize=9)
