"""Weights of networks: read from files, loaded, checked, hashed."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from .._io import new_hash

# Where checkpoints hold the weights, in order of preference, and what wrappers put before their names.
_IN_CHECKPOINTS = (
    *("state_dict", "model_state_dict", "model", "net", "network"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
_PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(path: Any) -> dict:
    """Read a state dict with ``weights_only=True``, also one within a checkpoint, or a file of safetensors.

    Of the entries of a checkpoint the first that there is counts: ``state_dict``, ``model_state_dict``, ``model``,
    ``net``, ``network``, then running averages (``state_dict_ema``, ``model_ema``, ``ema``). The prefixes of
    DataParallel and torch.compile are taken off.
    """
    state: Any
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights={path!r}: no such file.")
    try:
        if path.endswith(".safetensors"):
            state = load_file(path)
        else:
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
    return ordered({_without_prefix(str(name)): value for name, value in state.items()}, like=state)


def _without_prefix(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def ordered(tensors: dict, like: Any) -> dict:
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
        state = ordered(state, like=own)
    wrong = {
        name: f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    }
    fitting = ordered(
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
    return ordered(used, like=state)


def on_host(state: dict) -> dict:
    """Return a state dict with its tensors on the CPU; those that are there are not copied."""
    return ordered({name: tensor.cpu() for name, tensor in state.items()}, like=state)


def fingerprint(state: dict) -> str:
    """Hash names, shapes, types and values of a state dict."""
    digest = new_hash(16)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")
    return digest.hexdigest()
