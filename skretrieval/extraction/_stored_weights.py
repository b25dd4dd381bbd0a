"""Weights in a form whose pickles and hashes are equal wherever the weights are."""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from ._backbones import unwrapped


class StoredWeightsMixin(BaseEstimator):
    """Carry the weights of a network in ``_state``, if ``store_weights``, and let them be taken out."""

    store_weights: bool
    _state: dict

    def without_weights(self) -> tuple[Self, dict[str, torch.Tensor]]:
        """Separate the stored weights from everything else, so that they can be written to a file of their own.

        Returns
        -------
        extractor : object
            A copy that has learned the same and carries no weights.
        weights : dict of str to tensor
            What it carried; empty before `fit`, and with ``store_weights=False``.

        See Also
        --------
        put_weights : Brings them together again.
        """
        bare = copy.copy(self)
        return bare, dict(bare.__dict__.pop("_state", {}))

    def put_weights(self, weights: dict[str, torch.Tensor]) -> Self:
        """Carry weights that :meth:`without_weights` has separated.

        Parameters
        ----------
        weights : dict of str to tensor
            Their fingerprint is checked against ``fingerprint_`` when the network is built.

        Returns
        -------
        self : object
            The extractor.
        """
        self._forget()  # type: ignore[attr-defined]
        self._state = weights
        return self

    def __copy__(self) -> Self:
        """Copy all but the network that is built, and a backbone of the user's, which both then have."""
        copied = type(self).__new__(type(self))
        copied.__setstate__(self._state_but_backbone())
        return copied

    def __getstate__(self) -> dict:
        state = self._state_but_backbone()
        if "backbone" in state:
            state["backbone"] = _with_stored_tensors(state["backbone"])
        return state

    def _state_but_backbone(self) -> dict:
        state = super().__getstate__()
        state.pop("_state_backbone", None)  # compared by identity, which ends with the process
        if not self.store_weights:
            state.pop("_state", None)
        if "_state" in state:
            state["_state"] = to_arrays(state["_state"])
        return state

    def __setstate__(self, state: dict) -> None:
        if "_state" in state:
            state = {**state, "_state": from_arrays(state["_state"])}
        super().__setstate__(state)
        _put_tensors(state.get("backbone"))


class StoredTensor:
    """Stands for a weight in the pickle of a module of the user's.

    Parameters
    ----------
    tensor : Tensor or Parameter
        The weight.
    """

    def __init__(self, tensor: torch.Tensor):
        self.plain = to_arrays({"": tensor})
        self.is_parameter = isinstance(tensor, nn.Parameter)
        self.requires_grad = tensor.requires_grad

    @cached_property
    def tensor(self) -> torch.Tensor:
        """The weight, on the CPU; always the same object, for modules may share one."""
        tensor = from_arrays(self.plain)[""]
        if self.is_parameter:
            return nn.Parameter(tensor, requires_grad=self.requires_grad)
        return tensor.requires_grad_(self.requires_grad)


def _module_in(backbone: Any) -> nn.Module | None:
    inner = backbone if isinstance(backbone, nn.Module) else unwrapped(backbone)[0]
    return inner if isinstance(inner, nn.Module) else None


def _with_stored_tensors(backbone: Any) -> Any:
    """Copy a backbone, if there is a module in it, without its tensors, whose pickles name addresses.

    Modules that see to their pickles themselves stay as they are.
    """
    module = _module_in(backbone)
    if module is None:
        return backbone
    parts = list(module.modules())
    if any(type(part).__reduce__ is not object.__reduce__ or hasattr(part, "__deepcopy__") for part in parts):
        return backbone
    memo: dict[int, Any] = {}
    for part in parts:
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            usual = type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided
            if usual and not tensor.is_quantized and not tensor.is_meta:
                memo[id(tensor)] = StoredTensor(tensor)
    return copy.deepcopy(backbone, memo)


def _put_tensors(backbone: Any) -> None:
    """Undo :func:`_with_stored_tensors` in its copy."""
    module = _module_in(backbone)
    for part in () if module is None else module.modules():
        for own in (vars(part)["_parameters"], vars(part)["_buffers"]):
            own |= {name: kept.tensor for name, kept in own.items() if isinstance(kept, StoredTensor)}


def to_arrays(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Turn a state dict into arrays of bytes.

    A pickled tensor names its storage by an address, so that ``joblib.hash`` tells equal weights apart.

    Parameters
    ----------
    state : dict of str to tensor
        Weights on the CPU; the versions of their parts are in its ``_metadata``.

    Returns
    -------
    plain : dict
        For :func:`from_arrays`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return {
        "names": list(tensors),
        "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()],
        "shapes": [tuple(tensor.shape) for tensor in tensors.values()],
        "bytes": [_bytes(tensor) for tensor in tensors.values()],
        "metadata": [(name, dict(entry)) for name, entry in getattr(state, "_metadata", {}).items()],
    }


def from_arrays(plain: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Turn what :func:`to_arrays` gave into a state dict.

    Parameters
    ----------
    plain : dict
        Arrays that may be written to are not copied.

    Returns
    -------
    state : dict of str to tensor
    """
    state: Any = OrderedDict()
    columns = (plain[key] for key in ("names", "dtypes", "shapes", "bytes"))
    for name, dtype, shape, array in zip(*columns, strict=True):
        flat = torch.from_numpy(array if array.flags.writeable else array.copy())
        state[name] = flat.view(getattr(torch, dtype)).reshape(shape) if len(array) else _empty(dtype, shape)
    if plain["metadata"]:
        state._metadata = OrderedDict(plain["metadata"])
    return state


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    if tensor.numel() == 0:
        return np.empty(0, dtype=np.uint8)
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _empty(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype))
