"""Networks by name, module or factory, and their weights."""

from __future__ import annotations

import inspect
import logging
import os
import re
import threading
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torchvision
from sklearn.utils import Bunch, check_random_state
from torch import nn

from .._io import hash_bytes
from . import _timm, _transformers
from ._state_dicts import load_state_dict, read_state_dict

_LOG = logging.getLogger("skretrieval.extraction")


# Random weights come from the one generator of the process: threads draw one after the other.
_DRAWING = threading.RLock()

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# Libraries beside torchvision, by what names of their networks begin with.
_LIBRARIES = {"timm": _timm, "hf": _transformers}


def library_of(backbone: Any) -> tuple[Any, str]:
    """Return what reads the networks of a library that a name begins with (None for torchvision), and the rest."""
    prefix, colon, rest = backbone.partition(":") if isinstance(backbone, str) else ("", "", "")
    return (_LIBRARIES[prefix], rest) if colon and prefix in _LIBRARIES else (None, rest)


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def check_backbone(backbone: Any) -> None:
    """Raise a ValueError that names the nearest networks if `backbone` is a name that no library has."""
    library, name = library_of(backbone)
    if library is not None:
        library.check_name(name)
    elif isinstance(backbone, str):
        names = torchvision_names()
        if backbone.lower() not in names:
            near = [name for name in names if name[:4] == backbone.lower()[:4]] or names[:8]
            raise ValueError(
                f"backbone={backbone!r} is no torchvision classification network; near: {', '.join(near)}. "
                "Networks of other libraries are named 'timm:NAME' and 'hf:NAME_OR_FOLDER'."
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
    config: str | None = None,
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
    config : str, optional
        What else the network is built of, if it is known; see :func:`config_of`.

    Returns
    -------
    module : nn.Module
        The network; what did not come of one that is named may be on the meta device.
    unfit : dict of str to str
        See :func:`load_state_dict`; empty without `state`.
    """
    trained = state is not None if trained is None else trained
    library, name = library_of(backbone)
    if isinstance(backbone, str) and state is not None and library is None:
        try:
            with torch.device("meta"):
                module = _named(backbone, trained)
        except NotImplementedError:  # RegNet computes with its tensors while it is built
            module = _named(backbone, trained)
        return module, load_state_dict(module, state, source, strict, assign=True)
    with _DRAWING, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        if library is not None:
            module = library.build(name, *([config] if config else []))
        else:
            module = _named(backbone, trained) if isinstance(backbone, str) else backbone()
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"The factory {title(backbone)} must return an nn.Module, got {type(module).__name__}."
        )
    if state is None:
        return module, {}
    return module, load_state_dict(module, state, source, strict)


def config_of(backbone: Any) -> str | None:
    """Return what else than its name and weights a network is built of; None where there is nothing."""
    library, name = library_of(backbone)
    return library.config_text(name) if library is _transformers else None


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


def asked_by(backbone: Any, weights: Any) -> Bunch:
    """Return what the weights were trained with.

    Returns
    -------
    asked : Bunch
        ``mean`` and ``std`` per RGB channel, ``interpolation``, and ``licence`` of the weights, None if not known.
    """
    library, name = library_of(backbone)
    if library is not None:
        asked = library.asked(name)
        return asked if weights == "DEFAULT" else Bunch(**{**asked, "licence": None})
    asked = Bunch(mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic", licence=None)
    if isinstance(backbone, str) and weights == "DEFAULT":
        found = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()
        asked.update(mean=tuple(found.mean), std=tuple(found.std))
    elif isinstance(backbone, nn.Module):
        asked.update(
            mean=getattr(backbone, "input_mean", IMAGENET_MEAN),
            std=getattr(backbone, "input_std", IMAGENET_STD),
        )
    return asked


def missing_default(backbone: str) -> str | None:
    """Tell which file of default weights is needed and not on this machine; None where it is there."""
    library, name = library_of(backbone)
    if library is not None:
        return library.missing_file(name)
    place = default_weights_file(backbone)
    return None if os.path.isfile(place) else place


def default_weights_file(backbone: str) -> str:
    """Say where torch keeps torchvision's default weights of a network."""
    url = torchvision.models.get_model_weights(backbone).DEFAULT.url
    return os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))


def default_state_dict(backbone: str, progress: bool) -> dict:
    """Load the default weights of a network by name, from the library's cache or by download.

    Raises
    ------
    OSError
        If there is neither: the message says which file to put where, and its hash prefix.
    """
    library, name = library_of(backbone)
    if library is not None:
        return library.default_state_dict(name)
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
    state = read_state_dict(weights)
    library, name = library_of(backbone)
    return _transformers.converted(name, state) if library is _transformers else state


def architecture(tapped: nn.Module) -> str:
    """Hash what a network does besides its weights: its parts, their settings, and the traced code."""
    parts = [f"{type(part).__module__}.{type(part).__qualname__}" for part in tapped.modules()]
    code = [str(getattr(part, "code", "")) for part in tapped.modules()]
    return hash_bytes(repr((repr(tapped), parts, code)).encode(), size=8)


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
