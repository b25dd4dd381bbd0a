"""Networks by name, module or factory; their weights; the layers that can be tapped."""

from __future__ import annotations

import inspect
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torchvision
from sklearn.utils import check_random_state
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from .._io import hash_bytes, new_hash

# Random weights come from the one generator of the process: threads draw one after the other.
_DRAWING = threading.RLock()

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

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


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def check_backbone(backbone: Any) -> None:
    """Raise a ValueError that names the nearest networks if `backbone` is a name that torchvision lacks."""
    if isinstance(backbone, str):
        names = torchvision_names()
        if backbone.lower() not in names:
            near = [name for name in names if name[:4] == backbone.lower()[:4]] or names[:8]
            raise ValueError(
                f"backbone={backbone!r} is no torchvision classification network; near: {', '.join(near)}"
            )
    elif not isinstance(backbone, nn.Module) and not callable(backbone):
        raise ValueError(f"backbone must be a name, an nn.Module or a factory, got {type(backbone).__name__}")


def unwrapped(backbone: Any) -> tuple[Any, Callable | None]:
    """Take apart a factory that puts something around another network, such as ``partial(PatchNetwork, "vgg16")``.

    Returns
    -------
    inner : str, nn.Module or callable
        The network inside, or `backbone` itself: what weights are for.
    wrap : callable or None
        Makes the whole of the built network inside.
    """
    kind = backbone.func if isinstance(backbone, partial) else backbone
    if not isinstance(kind, type) or not getattr(kind, "wraps_backbone", False):
        return backbone, None
    args, keywords = (backbone.args, backbone.keywords) if isinstance(backbone, partial) else ((), {})
    bound = inspect.signature(kind).bind(*args, **keywords)
    bound.apply_defaults()
    return bound.arguments["backbone"], partial(kind, **bound.kwargs)


def build_module(
    backbone: str | Callable,
    seed: int | None,
    state: dict | None,
    source: str = "",
    strict: bool = True,
    trained: bool | None = None,
) -> nn.Module:
    """Build the network that a name or factory stands for, with the weights of `state` if given.

    Parameters
    ----------
    backbone : str or callable
        A torchvision name, or a function that returns an nn.Module.
    seed : int or None
        Makes random initial weights reproducible without touching torch's global state.
    state : dict or None
        Weights. A named network is then built without initialising its own, which takes seconds for VGG16.
    source : str
        Names the weights in messages.
    strict : bool
        Whether every weight must be given; False when `state` holds only those that are used.
    trained : bool, optional
        Whether the weights come from training, which some networks prepare their input for. Default: whether there
        are any.
    """
    trained = state is not None if trained is None else trained
    if isinstance(backbone, str) and state is not None:
        try:
            with torch.device("meta"):
                module = _named(backbone, trained)
        except NotImplementedError:  # RegNet computes with its tensors while it is built
            module = _named(backbone, trained)
        load_state_dict(module, state, source, strict, assign=True)
        return module
    with _DRAWING, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        module = _named(backbone, trained) if isinstance(backbone, str) else backbone()
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"The factory {title(backbone)} must return an nn.Module, got {type(module).__name__}"
        )
    if state is not None:
        load_state_dict(module, state, source, strict)
    return module


def _named(name: str, trained: bool) -> nn.Module:
    options = {}
    if name.lower() in ("googlenet", "inception_v3"):
        # their weights expect inputs in another range, which the network itself provides for
        options = {"init_weights": not trained, "transform_input": trained}
    return torchvision.models.get_model(name, weights=None, **options)


def seed_of(random_state: Any) -> int | None:
    """Turn scikit-learn's random_state into a seed for torch; None stays unseeded."""
    if random_state is None or isinstance(random_state, Integral):
        return None if random_state is None else int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def normalisation(backbone: Any, weights: Any) -> tuple[tuple, tuple]:
    """Return the mean and standard deviation per RGB channel that the weights were trained with."""
    if isinstance(backbone, str) and weights == "DEFAULT":
        asked = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()
        return tuple(asked.mean), tuple(asked.std)
    return IMAGENET_MEAN, IMAGENET_STD


def default_state_dict(backbone: str, progress: bool) -> dict:
    """Load torchvision's default weights, from torch's cache or by download.

    Raises
    ------
    OSError
        If there is neither: the message says which file to put where, and its hash prefix.
    """
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    name = os.path.basename(weights.url)
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        return weights.get_state_dict(progress=progress, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"The default weights of {backbone!r} ({weights}) are not on this machine and could not be downloaded "
            f"from {weights.url} ({error}). Put the file {name}"
            + (f" (its SHA-256 begins with {match.group(1)})" if match else "")
            + f" into {folder}, or give its path as `weights`."
        ) from error


def source_state(backbone: Any, weights: Any, progress: bool = False) -> dict | None:
    """Return the state dict that the `weights` parameter stands for; None: random, or what the module brings."""
    if weights is None:
        return None
    if isinstance(weights, str) and weights == "DEFAULT":
        return default_state_dict(backbone, progress) if isinstance(backbone, str) else None
    return read_state_dict(weights)


def read_state_dict(path: Any) -> dict:
    """Read a state dict with ``weights_only=True``; unwrap {"state_dict": ...} and DataParallel's prefix."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights={path!r}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and EOF errors for a damaged file
        raise ValueError(f"weights={path!r} cannot be read as a state dict: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"weights={path!r} holds no state dict (a mapping of names to tensors)")
    return _state_dict({name.removeprefix("module."): value for name, value in state.items()}, like=state)


def _state_dict(tensors: dict, like: Any) -> dict:
    """Return an ordered state dict with the versions of its parts, which some networks insist on."""
    state: Any = OrderedDict(tensors)
    if hasattr(like, "_metadata"):
        state._metadata = like._metadata
    return state


def load_state_dict(
    module: nn.Module, state: dict, source: str, strict: bool = True, assign: bool = False
) -> None:
    """Load weights; a mismatch becomes a ValueError that names their source."""
    if not hasattr(state, "_metadata"):
        state = _state_dict(state, like=module.state_dict())
    try:
        module.load_state_dict(state, strict=strict, assign=assign)
    except RuntimeError as error:
        raise ValueError(f"The weights do not fit the backbone ({source}): {error}") from error


def used_weights(module: nn.Module, tapped: nn.Module) -> dict:
    """Return the part of the network's state dict that the tapped layers need: no classifier is kept or hashed."""
    needed = {tensor.data_ptr() for tensor in tapped.state_dict().values()}
    state = module.state_dict()
    used = {name: tensor.detach().cpu() for name, tensor in state.items() if tensor.data_ptr() in needed}
    return _state_dict(used, like=state)


def architecture(tapped: nn.Module) -> str:
    """Hash what a network does besides its weights: its parts, their settings, and the traced code."""
    parts = [f"{type(part).__module__}.{type(part).__qualname__}" for part in tapped.modules()]
    code = [str(getattr(part, "code", "")) for part in tapped.modules()]
    return hash_bytes(repr((repr(tapped), parts, code)).encode(), size=8)


def fingerprint(state: dict) -> str:
    """Hash names, shapes, types and values of a state dict."""
    digest = new_hash(16)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")
    return digest.hexdigest()


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
        raise ValueError("layers is empty; use None for the output of the convolutional trunk")
    nodes = [_resolve(module, name) for name in names]
    try:
        known = get_graph_node_names(module, suppress_diff_warning=True)[1]
    except Exception as error:  # torch.fx raises its own and arbitrary errors of the traced code
        raise ValueError(
            f"layers={layers!r}: {type(module).__name__} cannot be traced ({error}); give a module whose forward "
            "returns the maps (a tensor or a tuple of tensors) and layers=None"
        ) from error
    for name, node in zip(names, nodes, strict=True):
        if node not in known and not any(candidate.startswith(f"{node}.") for candidate in known):
            raise ValueError(
                f"layers: {name!r} is no layer of {type(module).__name__}; the last ones are "
                f"{', '.join(known[-12:])}"
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

    def forward(self, images):
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
        raise ValueError(f"layers='last_conv' is not known for {type(module).__name__}; give a node name")
    return node


def title(backbone: str | nn.Module | Callable) -> str:
    """Name the backbone, alike in every process: for messages and cache keys."""
    if isinstance(backbone, str):
        return backbone
    if isinstance(backbone, nn.Module):
        return type(backbone).__name__
    if isinstance(backbone, partial):

        def named(value):
            return title(value) if isinstance(value, nn.Module) or callable(value) else value

        keywords = sorted((name, named(value)) for name, value in backbone.keywords.items())
        return f"{title(backbone.func)}{tuple(map(named, backbone.args))}{keywords}"
    named = backbone if hasattr(backbone, "__qualname__") else type(backbone)
    return f"{named.__module__}.{named.__qualname__}"
