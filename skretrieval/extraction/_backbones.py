"""Networks by name, module or factory, and their weights."""

from __future__ import annotations

import inspect
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torchvision
from sklearn.utils import check_random_state
from torch import nn

from .._io import hash_bytes, new_hash

_LOG = logging.getLogger("skretrieval.extraction")


# Random weights come from the one generator of the process: threads draw one after the other.
_DRAWING = threading.RLock()

# Where checkpoints hold the weights, in order of preference, and what wrappers put before their names.
_IN_CHECKPOINTS = (
    *("state_dict", "model_state_dict", "model", "net", "network"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
_PREFIXES = ("module.", "_orig_mod.")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
                f"backbone={backbone!r} is no torchvision classification network; near: {', '.join(near)}."
            )
    elif not isinstance(backbone, nn.Module) and not callable(backbone):
        raise ValueError(
            f"backbone must be a name, an nn.Module or a factory, got {type(backbone).__name__}."
        )


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
) -> tuple[nn.Module, dict[str, str]]:
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
        Whether any weight must be given.
    trained : bool, optional
        Whether the weights come from training, which some networks prepare their input for. Default: whether there
        are any.

    Returns
    -------
    module : nn.Module
        The network; what did not come of one that is named may be on the meta device.
    unfit : dict of str to str
        See :func:`load_state_dict`; empty without `state`.
    """
    trained = state is not None if trained is None else trained
    if isinstance(backbone, str) and state is not None:
        try:
            with torch.device("meta"):
                module = _named(backbone, trained)
        except NotImplementedError:  # RegNet computes with its tensors while it is built
            module = _named(backbone, trained)
        return module, load_state_dict(module, state, source, strict, assign=True)
    with _DRAWING, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        module = _named(backbone, trained) if isinstance(backbone, str) else backbone()
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"The factory {title(backbone)} must return an nn.Module, got {type(module).__name__}."
        )
    return module, {} if state is None else load_state_dict(module, state, source, strict)


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


def default_weights_file(backbone: str) -> str:
    """Say where torch keeps torchvision's default weights of a network."""
    url = torchvision.models.get_model_weights(backbone).DEFAULT.url
    return os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))


def default_state_dict(backbone: str, progress: bool) -> dict:
    """Load torchvision's default weights, from torch's cache or by download.

    Raises
    ------
    OSError
        If there is neither: the message says which file to put where, and its hash prefix.
    """
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    path = default_weights_file(backbone)
    folder, name = os.path.split(path)
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        if not os.path.isfile(path):  # torch's own download would write to stderr
            _LOG.info("Downloading the weights of %s from %s to %s", backbone, weights.url, path)
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, path, match and match.group(1), progress=progress)
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
    """Read a state dict with ``weights_only=True``, also one within a checkpoint.

    Of the entries of a checkpoint the first that there is counts: ``state_dict``, ``model_state_dict``, ``model``,
    ``net``, ``network``, then running averages (``state_dict_ema``, ``model_ema``, ``ema``). The prefixes of
    DataParallel and torch.compile are taken off.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights={path!r}: no such file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and EOF errors for a damaged file
        raise ValueError(f"weights={path!r} cannot be read as a state dict: {error}.") from error
    while isinstance(state, dict):
        inner = next((state[key] for key in _IN_CHECKPOINTS if isinstance(state.get(key), dict)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"weights={path!r} holds no state dict (a mapping of names to tensors).")
    return _state_dict({_without_prefix(str(name)): value for name, value in state.items()}, like=state)


def _without_prefix(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _state_dict(tensors: dict, like: Any) -> dict:
    """Return an ordered state dict with the versions of its parts, which some networks insist on."""
    state: Any = OrderedDict(tensors)
    if hasattr(like, "_metadata"):
        state._metadata = like._metadata
    return state


def load_state_dict(
    module: nn.Module, state: dict, source: str, strict: bool = True, assign: bool = False
) -> dict[str, str]:
    """Load the weights that fit, and tell which of the network's did not come.

    Parameters
    ----------
    module : nn.Module
        The network; changed.
    state : dict of str to tensor
        Weights. Those of no part of the network are passed over.
    source : str
        Names the weights in messages.
    strict : bool, default=True
        Whether something must fit at all.
    assign : bool, default=False
        Whether the tensors themselves become the network's.

    Returns
    -------
    unfit : dict of str to str
        What is wrong with each weight of the network that was not loaded; for :func:`check_used`.

    Raises
    ------
    ValueError
        If nothing fits, or the network refuses the weights.
    """
    own = module.state_dict()
    if not hasattr(state, "_metadata"):
        state = _state_dict(state, like=own)
    wrong = {
        name: f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    }
    fitting = _state_dict(
        {name: value for name, value in state.items() if name in own and name not in wrong}, like=state
    )
    if strict and own and not fitting:
        first = "shapes differ" if wrong else f"it begins with {next(iter(state), 'nothing')!r}"
        raise ValueError(
            f"The weights do not fit the backbone ({source}): none of its {len(own)} tensors is among them; {first}."
        )
    try:
        missing = module.load_state_dict(fitting, strict=False, assign=assign).missing_keys
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"The weights do not fit the backbone ({source}): {error}.") from error
    return {name: wrong.get(name, f"{name} is missing") for name in missing}


def check_used(used: Iterable[str], unfit: dict[str, str], source: str) -> None:
    """Raise a ValueError that names the weights that are used and did not come.

    Parameters
    ----------
    used : iterable of str
        Names of the weights that the tapped layers need.
    unfit : dict of str to str
        From :func:`load_state_dict`.
    source : str
        Names the weights.
    """
    reasons = [unfit[name] for name in used if name in unfit]
    if reasons:
        more = f"; {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise ValueError(f"The weights do not fit the backbone ({source}): {'; '.join(reasons[:5])}{more}.")


def used_weights(module: nn.Module, tapped: nn.Module) -> dict:
    """Return the part of the network's state dict that the tapped layers need: no classifier is kept or hashed."""

    def place(tensor):  # a weight that did not come may still be on the meta device, where every address is 0
        return tensor.data_ptr() or id(tensor)

    state, own = module.state_dict(keep_vars=True), tapped.state_dict(keep_vars=True)
    needed = {place(tensor) for tensor in own.values()}
    used = {name: tensor.detach() for name, tensor in state.items() if place(tensor) in needed}
    return _state_dict(used, like=state)


def on_host(state: dict) -> dict:
    """Return a state dict with its tensors on the CPU; those that are there are not copied."""
    return _state_dict({name: tensor.cpu() for name, tensor in state.items()}, like=state)


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
