"""Feature maps as they are cached on disk."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_memory

LARGEST_HALF = 65504  # of float16


def to_half(outputs: list[torch.Tensor], positions: np.ndarray, names: list[str]) -> list[torch.Tensor]:
    """Round maps to float16.

    Parameters
    ----------
    outputs : list of tensors of shape (N, C, H, W)
        The maps of N photographs, by layer.
    positions : ndarray of shape (N,)
        Where the photographs stand in what the user gave.
    names : list of str of length N
        The photographs, for messages.

    Returns
    -------
    halves : list of tensors of shape (N, C, H, W)
        In float16.

    Raises
    ------
    ValueError
        Naming the first photograph of which an activation is beyond the range of float16.
    """
    halves = []
    for maps in outputs:
        largest = maps.abs().flatten(1).amax(dim=1).tolist()
        for position, name, value in zip(positions, names, largest, strict=True):
            if value > LARGEST_HALF:
                raise ValueError(
                    f"Entry {position} ({name}): activations reach {value:g}, beyond {LARGEST_HALF}, the "
                    'largest number of memory_dtype="float16"; use memory_dtype="float32".'
                )
        halves.append(maps.half())
    return halves


def host_arrays(outputs: list[torch.Tensor]) -> list[np.ndarray]:
    """Copy maps to the host; bfloat16, of which numpy has no type, becomes float32, which holds it exactly."""
    return [(maps.float() if maps.dtype == torch.bfloat16 else maps).cpu().numpy() for maps in outputs]


def folder_of(memory: Any) -> str | None:
    """Return the folder of a `memory` parameter; None where it is not a folder on disk that exists."""
    place = getattr(getattr(as_memory(memory), "store_backend", None), "location", None)
    return os.fspath(place) if isinstance(place, str | os.PathLike) and os.path.isdir(place) else None


def as_memory(memory: Any) -> Any:
    """Return the joblib.Memory that a `memory` parameter stands for."""
    return check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
