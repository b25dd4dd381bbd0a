"""Extractors in the place of a paper's: another network, other weights, another size."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from sklearn.base import clone

from ..extraction import ConvFeatureExtractor, ConvKernelExtractor, PatchNetwork
from ..extraction._backbones import build_module, check_backbone

_STAGES = ("relu", "layer1", "layer2", "layer3", "layer4")
_BESIDE = {"layer4": -1, "layer3": -2}


def stand_in(
    extractor: Any,
    backbone: str | None = None,
    weights: Any = None,
    image_size: int | None = None,
    **params: Any,
) -> Any:
    """Put another network where a recipe has its own: last layers for last layers, sizes in proportion.

    Parameters
    ----------
    extractor : ConvFeatureExtractor or ConvKernelExtractor
        That of a recipe.
    backbone : str, default=None
        A torchvision name, or "kernel" for an extractor that learns from the photographs; None keeps the network.
    weights : "DEFAULT", "random" or path, default=None
        None keeps those of the extractor, or takes "DEFAULT" for another network.
    image_size : int, default=None
        Longest side, of the middle one of several resolutions. None keeps the sizes.
    **params
        Other parameters of the extractor, such as ``device``.

    Returns
    -------
    extractor : estimator
        Unfitted.

    Raises
    ------
    ValueError
        If the network is unknown, or its layers cannot be found.
    """
    front = clone(extractor)
    if isinstance(front, ConvKernelExtractor):
        return _with(front, random_state=0, **params)
    if backbone == "kernel":
        if weights is not None:
            raise ValueError("weights are for networks; the kernel extractor learns from the photographs")
        if isinstance(front.layers, list) or isinstance(front.image_size, list):
            raise ValueError("several layers or resolutions need a network, not the kernel extractor")
        size = {} if image_size is None else {"image_size": image_size}
        return ConvKernelExtractor(random_state=0, **size, **params)
    patches = isinstance(front.backbone, partial)
    if backbone is not None:
        check_backbone(backbone)
        if patches:
            keywords = {**front.backbone.keywords, "layer": "flatten"}
            front.set_params(backbone=partial(PatchNetwork, backbone, **keywords))
        else:
            front.set_params(backbone=backbone, layers=_layers(front.layers, backbone))
        front.set_params(weights="DEFAULT")
    if weights is not None:
        front.set_params(weights=None if weights == "random" else weights, random_state=0)
    if image_size is not None and not patches:  # patches are of the size that the network wants
        front.set_params(image_size=_sizes(front.image_size, image_size))
    return _with(front, **params)


def missing_weights(extractor: Any, download: bool = False) -> str | None:
    """Tell which file of weights an extractor would need and has not, or None."""
    if not isinstance(extractor, ConvFeatureExtractor) or extractor.weights is None:
        return None
    if extractor.weights != "DEFAULT":
        return None if os.path.isfile(extractor.weights) else f"weights {extractor.weights}"
    name = extractor.backbone.args[0] if isinstance(extractor.backbone, partial) else extractor.backbone
    if download or not isinstance(name, str):
        return None
    file = os.path.basename(torchvision.models.get_model_weights(name).DEFAULT.url)
    place = Path(torch.hub.get_dir(), "checkpoints", file)
    return None if place.is_file() else f"weights of {name} ({place})"


def _with(extractor: Any, **params: Any) -> Any:
    return extractor.set_params(**{name: value for name, value in params.items() if value is not None})


def _sizes(sizes: Any, image_size: int) -> Any:
    if not isinstance(sizes, list | tuple):
        return image_size
    return [round(size * image_size / median(sizes)) for size in sizes]


def _layers(layers: Any, backbone: str) -> Any:
    """Find what corresponds to the layers of a paper's network."""
    if layers is None or isinstance(layers, str):
        return None if layers not in _BESIDE else block_ends(backbone)[_BESIDE[layers]]
    ends = block_ends(backbone)
    if all(layer in _BESIDE for layer in layers):
        return [ends[_BESIDE[layer]] for layer in layers]
    return ends[-len(layers) :]


@lru_cache(maxsize=16)
def _block_ends(backbone: str) -> tuple[str, ...]:
    with torch.device("meta"):  # shapes without numbers
        network = build_module(backbone, 0, None).eval()
        if hasattr(network, "layer4"):
            return _STAGES
        parts = getattr(network, "features", None)
        if not isinstance(parts, torch.nn.Sequential):
            raise ValueError(f"the layers of {backbone!r} that end a resolution are not known")
        maps = torch.zeros(1, 3, 224, 224)
        names, sides = [], []
        for name, part in parts.named_children():
            maps = part(maps)
            names.append(f"features.{name}")
            sides.append(maps.shape[-1])
    last = [place for place in range(len(names) - 1) if sides[place + 1] < sides[place]]
    return tuple(names[place] for place in (*last, len(names) - 1))


def block_ends(backbone: str) -> list[str]:
    """Name the last layer at each spatial resolution of a network, from the first to the last.

    Examples
    --------
    >>> from skretrieval.evaluation._fronts import block_ends
    >>> block_ends("squeezenet1_0")
    ['features.1', 'features.5', 'features.10', 'features.12']
    """
    return list(_block_ends(backbone))
