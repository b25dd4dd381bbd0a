"""Weights in a form whose pickles and hashes are equal wherever the weights are."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator


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

    def __getstate__(self) -> dict:
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
