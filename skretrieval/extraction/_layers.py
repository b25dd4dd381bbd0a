"""The layers of a network that can be tapped: by torchvision's names, by aliases, or where a resolution ends."""

from __future__ import annotations

import copy
import re
from functools import lru_cache, partial
from numbers import Integral
from typing import Any

import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from . import _timm, _transformers
from ._any_size import MaxVitReader, reader_of
from ._backbones import build_module, library_of, title
from ._network_maps import NetworkMaps
from ._sizes import SizedMaps

# The last convolutional output of torchvision families that keep it neither in `features` nor in `layer4`.
_TRUNKS = {
    "GoogLeNet": "inception5b",
    "Inception3": "Mixed_7c",
    "RegNet": "trunk_output",
    "ShuffleNetV2": "conv5",
    "SwinTransformer": "permute",
    "MNASNet": "layers",
    "MaxVit": "blocks",
}
_ALEXNET = {"relu": (1, 4, 7, 9, 11), "conv": (0, 3, 6, 8, 10), "pool": {1: 2, 2: 5, 5: 12}}
_STAGES = ("relu", "layer1", "layer2", "layer3", "layer4")


def maps_of(
    module: nn.Module, backbone: Any, layers: Any, tokens: str = "patch", config: str | None = None
) -> nn.Module:
    """Return a module, in evaluation mode, whose output is the asked maps, as :class:`ConvFeatureExtractor` says.

    Parameters
    ----------
    module : nn.Module
        The whole network. What the maps do not need is taken out of transformers and of networks of timm.
    backbone : str, nn.Module or callable
        What it was built of.
    layers : None, int, str, or sequence of them
        See the extractor.
    tokens : {"patch", "cls", "patch+cls"}
        See the extractor.
    config : str, optional
        What else the network is built of; see :func:`~skretrieval.extraction._backbones.config_of`.
    """
    library, name = library_of(backbone)
    reader: Any
    make_empty: Any
    if library is _timm:
        reader, make_empty = _timm.TimmReader(module), partial(_timm.build, name)
    elif library is _transformers:
        reader, make_empty = (
            _transformers.TransformersReader(module),
            partial(_transformers.build, name, config),
        )
    else:
        reader = reader_of(module)
        if reader is not None:  # a copy from before the module has hooks
            make_empty = partial(nn.Module.to, copy.deepcopy(module), "meta")
    numbers = [layer for layer in _listed(layers) if isinstance(layer, Integral)]
    if reader is None or (isinstance(reader, MaxVitReader) and layers is not None and not numbers):
        if tokens != "patch":
            raise ValueError(
                f"tokens={tokens!r}: {title(backbone)} has no CLS token that is known; only tokens='patch' works."
            )
        return tap(module, _stages_by_number(backbone, layers) if numbers else layers)

    def empty() -> NetworkMaps:
        return NetworkMaps(type(reader)(make_empty().eval()), layers, tokens, title(backbone))

    return SizedMaps(NetworkMaps(reader, layers, tokens, title(backbone)), empty)


def _listed(layers: Any) -> list:
    return [layers] if layers is None or isinstance(layers, str | Integral) else list(layers)


def _stages_by_number(backbone: Any, layers: Any) -> list[str]:
    """Name the layers where the numbered resolutions of a network end."""
    if not isinstance(backbone, str):
        raise ValueError(f"layers={layers!r}: only of a network by name are the layers known by numbers.")
    ends = block_ends(backbone)
    names = []
    number: Any
    for number in _listed(layers):
        if not isinstance(number, Integral) or not -len(ends) <= int(number) < len(ends):
            raise ValueError(
                f"layers={layers!r}: {backbone} has {len(ends)} stages, numbered from 0; give numbers or names."
            )
        names.append(ends[number])
    return names


def tap(module: nn.Module, layers: Any) -> nn.Module:
    """Return a module, in evaluation mode, whose output is the asked layers (a tensor, or a tuple of them).

    Parameters
    ----------
    module : nn.Module
        The whole network.
    layers : None, str or sequence of str
        None for the output of the convolutional trunk, else torchvision node names or aliases.
    """
    part: Any
    for part in module.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # else an activation would overwrite the map of the layer before it
    if layers is None:
        return _trunk(module)
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ValueError("layers is empty; use None for the output of the convolutional trunk.")
    nodes = [_resolve(module, name) for name in names]
    try:
        known = get_graph_node_names(module, suppress_diff_warning=True)[1]
    except Exception as error:  # torch.fx raises its own and arbitrary errors of the traced code
        raise ValueError(
            f"layers={layers!r}: {type(module).__name__} cannot be traced ({error}); give a module whose forward "
            "returns the maps (a tensor or a tuple of tensors) and layers=None."
        ) from error
    for name, node in zip(names, nodes, strict=True):
        if node not in known and not any(candidate.startswith(f"{node}.") for candidate in known):
            raise ValueError(
                f"layers: {name!r} is no layer of {type(module).__name__}; the last ones are "
                f"{', '.join(known[-12:])}."
            )
    traced = create_feature_extractor(
        module, {node: node for node in dict.fromkeys(nodes)}, suppress_diff_warning=True
    )
    return _Ordered(traced, nodes)


class _Ordered(nn.Module):
    """Turn the dict that torchvision's extractor returns into a tuple in the asked order."""

    def __init__(self, traced: nn.Module, nodes: list[str]):
        super().__init__()
        self.traced = traced
        self.nodes = nodes

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a tuple of maps, one per asked layer."""
        outputs = self.traced(images)
        return tuple(outputs[node] for node in self.nodes)


def _trunk(module: Any) -> nn.Module:
    if hasattr(module, "features") and hasattr(module, "classifier"):
        return module.features
    if hasattr(module, "layer4") and hasattr(module, "fc"):
        return tap(module, "layer4")
    node = _TRUNKS.get(type(module).__name__)
    return module if node is None else tap(module, node)


def _resolve(module: nn.Module, name: str) -> str:
    """Translate an alias into a node name of this module; other names pass through."""
    if name == "last_conv":
        return _last_conv(module)
    match = re.fullmatch(r"(conv|relu|pool)(\d)(?:_(\d))?", name)
    if match is None or not isinstance(getattr(module, "features", None), nn.Sequential):
        return name
    kind, block, place = match.group(1), int(match.group(2)), match.group(3)
    if type(module).__name__ == "AlexNet" and place is None:
        table: Any = _ALEXNET[kind]
        position = table.get(block) if isinstance(table, dict) else dict(enumerate(table, 1)).get(block)
        return name if position is None else f"features.{position}"
    if type(module).__name__ == "VGG":
        return _vgg_nodes(module).get(name, name)
    return name


def _vgg_nodes(module: Any) -> dict[str, str]:
    """Name the layers of a VGG as its paper does: conv5_3, relu5_3, pool5."""
    nodes, block, place = {}, 1, 0
    for position, layer in enumerate(module.features):
        node = f"features.{position}"
        if isinstance(layer, nn.Conv2d):
            place += 1
            nodes[f"conv{block}_{place}"] = node
        elif isinstance(layer, nn.ReLU):
            nodes[f"relu{block}_{place}"] = node
        elif isinstance(layer, nn.MaxPool2d):
            nodes[f"pool{block}"] = node
            block, place = block + 1, 0
    return nodes


def _last_conv(module: nn.Module) -> str:
    """Return the output of the last convolution and its activation: the trunk without a final pooling."""
    if hasattr(module, "layer4") and hasattr(module, "fc"):
        return "layer4"
    features = getattr(module, "features", None)
    if isinstance(features, nn.Sequential):
        position = len(features) - 1
        while isinstance(features[position], nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.Dropout):
            position -= 1
        return f"features.{position}"
    node = _TRUNKS.get(type(module).__name__)
    if node is None:
        raise ValueError(f"layers='last_conv' is not known for {type(module).__name__}; give a node name.")
    return node


@lru_cache(maxsize=16)
def block_ends(backbone: str) -> tuple[str, ...]:
    """Name the last layer at each spatial resolution of a network, from the first to the last.

    Raises
    ------
    ValueError
        If the network has neither stages nor a chain of ``features``.
    """
    library, name = library_of(backbone)
    if library is _timm:
        with torch.device("meta"):
            return tuple(_timm.stages(_timm.build(name)))
    if library is not None:
        raise ValueError(f"backbone={backbone!r}: the layers that end a resolution are not known.")
    with torch.device("meta"):  # shapes without numbers
        network = build_module(backbone, 0, None)[0].eval()
        if hasattr(network, "layer4"):
            return _STAGES
        parts = getattr(network, "features", None)
        if not isinstance(parts, nn.Sequential):
            raise ValueError(
                f"backbone={backbone!r}: the layers that end a resolution are not known; it has no `features`."
            )
        maps = torch.zeros(1, 3, 224, 224)
        names, sides = [], []
        for name, part in parts.named_children():
            maps = part(maps)
            names.append(f"features.{name}")
            sides.append(maps.shape[-1])
    last = [place for place in range(len(names) - 1) if sides[place + 1] < sides[place]]
    return tuple(names[place] for place in (*last, len(names) - 1))
