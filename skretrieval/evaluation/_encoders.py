"""Extractors that replace a paper's: another network, other weights, another size."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

from sklearn.base import clone

from ..extraction import ConvFeatureExtractor, ConvKernelExtractor, PatchNetwork

_BESIDE = {"layer4": -1, "layer3": -2}


def stand_in(
    extractor: Any,
    backbone: str | None = None,
    weights: Any = None,
    image_size: int | None = None,
    **params: Any,
) -> Any:
    """Replace the network of a recipe by another: last layers for last layers, sizes in proportion.

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

    Examples
    --------
    >>> from skretrieval.evaluation import stand_in
    >>> from skretrieval.extraction import ConvFeatureExtractor
    >>> stand_in(ConvFeatureExtractor("vgg16", layers="pool5"), "resnet18", "random", 256)
    ConvFeatureExtractor(backbone='resnet18', image_size=256, random_state=0,
                         weights=None)
    """
    other = clone(extractor)
    if isinstance(other, ConvKernelExtractor):
        return _with(other, random_state=0, **params)
    if backbone == "kernel":
        if weights is not None:
            raise ValueError(
                f"weights={weights!r} are for networks; the kernel extractor learns from the photographs."
            )
        if isinstance(other.layers, list) or isinstance(other.image_size, list):
            raise ValueError("several layers or resolutions need a network, not the kernel extractor.")
        size: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
        return _with(ConvKernelExtractor(random_state=0, **size), **params)
    patches = isinstance(other.backbone, partial)
    if backbone is not None:
        ConvFeatureExtractor(backbone).check_backbone()
        if patches:
            keywords = {**other.backbone.keywords, "layer": "flatten"}
            other.set_params(backbone=partial(PatchNetwork, backbone, **keywords))
        else:
            other.set_params(backbone=backbone, layers=_layers(other.layers, backbone))
        other.set_params(weights="DEFAULT")
    if weights is not None:
        other.set_params(weights=None if weights == "random" else weights, random_state=0)
    if image_size is not None and not patches:  # patches are of the size that the network wants
        other.set_params(image_size=_sizes(other.image_size, image_size))
    return _with(other, **params)


def _with(extractor: Any, **params: Any) -> Any:
    return extractor.set_params(**{name: value for name, value in params.items() if value is not None})


def _sizes(sizes: Any, image_size: int) -> Any:
    if not isinstance(sizes, list | tuple):
        return image_size
    return [round(size * image_size / median(sizes)) for size in sizes]


def _layers(layers: Any, backbone: str) -> Any:
    """Find what corresponds to the layers of a paper's network."""
    if layers is None or isinstance(layers, str):
        return ConvFeatureExtractor(backbone).block_ends()[_BESIDE[layers]] if layers == "layer3" else None
    ends = ConvFeatureExtractor(backbone).block_ends()
    if all(layer in _BESIDE for layer in layers):
        return [ends[_BESIDE[layer]] for layer in layers]
    return ends[-len(layers) :]
