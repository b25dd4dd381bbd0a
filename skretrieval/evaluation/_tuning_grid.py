"""The settings that tuning chooses among, and the descriptors of all of them from one pass per image size."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import normalize

from .. import recipes
from ..extraction import ConvFeatureExtractor, UnreadableImageWarning
from ..pooling import LayerwisePooler, PoolerFusion
from ..postprocessing import PCAWhitening

#: Layers of the default network: 112 and 320 channels, and the last, 1280.
LAYERS = ("blocks.4", "blocks.6", "bn2")
POOLERS = ("spoc", "gem", "grmac", "rmac")
WHITENINGS = ("none", "auto", "shrunk", "full")
IMAGE_SIZES = (384, 512)
_SHRINKAGE = 0.3


class Setting(NamedTuple):
    """One way to describe photographs.

    Attributes
    ----------
    layer : str
        Of the network.
    pooler : str
        The name of a recipe.
    whitening : {"none", "auto", "shrunk", "full"}
        "auto" is that of the recipes: little more than the mean is subtracted where photographs are few. "shrunk"
        divides by variances that are shrunk by 0.3 towards their mean, "full" by those of the axes that the number of
        photographs can bear (``PCAWhitening(n_components="auto")``).
    image_size : int
        Longest side in pixels.

    Notes
    -----
    Threads: any number may read it; nothing changes it.
    """

    layer: str
    pooler: str
    whitening: str
    image_size: int

    def __str__(self) -> str:
        return f"{self.layer}, {self.pooler}, whitening {self.whitening}, {self.image_size} px"


def default_extractor() -> ConvFeatureExtractor:
    """Return the network of the recipes for one's own photographs."""
    return recipes.grmac(extractor="photographs").named_steps["extractor"]


def make_grid(layers: Sequence[str], image_sizes: Sequence[int]) -> list[Setting]:
    """Return every combination."""
    return [
        Setting(layer, pooler, whitening, size)
        for layer in layers
        for pooler in POOLERS
        for whitening in WHITENINGS
        for size in image_sizes
    ]


def default_of(layers: Sequence[str], image_sizes: Sequence[int]) -> Setting:
    """Return the setting that needs no evidence, that of `skretrieval index`."""
    return Setting(layers[-1], "grmac", "auto", image_sizes[0])


def pipeline_of(setting: Setting, extractor: Any) -> Pipeline:
    """Return the unfitted Pipeline of a setting."""
    whitening = {
        "none": None,
        "auto": PCAWhitening(shrinkage="size"),
        "shrunk": PCAWhitening(shrinkage=_SHRINKAGE),
        "full": PCAWhitening(n_components="auto"),
    }[setting.whitening]
    own = clone(extractor).set_params(layers=setting.layer, image_size=setting.image_size)
    pipeline = getattr(recipes, setting.pooler)(extractor=own, whitening=whitening)
    return pipeline.set_params(pooler__rectify="auto")  # maps of inner layers have both signs


def pooled_descriptors(
    images: Sequence[Any], extractor: Any, layers: Sequence[str], image_size: int
) -> tuple[dict[tuple[str, str], np.ndarray], dict[int, str]]:
    """Describe photographs by every pooler over every layer, in one pass of the network.

    Parameters
    ----------
    images : sequence of n photographs
        What the extractor takes.
    extractor : ConvFeatureExtractor
        Its layers and image size are set here.
    layers : sequence of str
        Of the network.
    image_size : int
        Longest side in pixels.

    Returns
    -------
    descriptors : dict of (layer, pooler) to ndarray of shape (n, channels)
        Raw; a photograph that could not be read has a row that means nothing.
    failed : dict of int to str
        Why, for each of these.
    """
    own = clone(extractor).set_params(layers=list(layers), image_size=image_size, on_error="warn")
    poolers = {
        name: pipeline_of(Setting(layers[0], name, "none", image_size), own)["pooler"] for name in POOLERS
    }
    several = [
        (name, LayerwisePooler(pooler, combine="concat", norm=None)) for name, pooler in poolers.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadableImageWarning)
        maps = own.fit(images).transform(images)
        together = PoolerFusion(several, combine="concat", norm=None).fit_transform(maps)
        readable = np.setdiff1d(np.arange(len(images)), list(maps.failed_))
        widths = [len(one) for one in maps[int(readable[0])]] if len(readable) else [1] * len(layers)
    ends = np.cumsum(widths * len(POOLERS))[:-1]
    names = [(layer, pooler) for pooler in POOLERS for layer in layers]
    return dict(zip(names, np.split(together, ends, axis=1))), dict(maps.failed_)


def similarities_of(descriptors: np.ndarray, whitening: str) -> np.ndarray:
    """Return the cosines of photographs under a whitening that was fitted on them, as an index does it."""
    rows = normalize(descriptors.astype(np.float64))
    if whitening != "none":
        with warnings.catch_warnings():  # what few photographs do to a whitening is measured here
            warnings.simplefilter("ignore")
            step = pipeline_of(Setting("", "spoc", whitening, 1), ConvFeatureExtractor())["whitening"]
            rows = normalize(step.fit_transform(rows))
    return (rows @ rows.T).astype(np.float32)
