"""How photographs are prepared for a network."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import Bunch
from torch import nn

from ._sizes import SizedMaps

_LARGEST_MULTIPLE = 4096


def checked_normalization(normalization: Any, asked: Bunch) -> tuple[tuple, tuple]:
    """Return the mean and standard deviation per RGB channel, of values from 0 to 1.

    Parameters
    ----------
    normalization : "auto" or pair
        The parameter of the extractor.
    asked : Bunch
        ``mean`` and ``std``: what the weights ask for.

    Raises
    ------
    ValueError
        If a pair is not of one or three finite numbers each, or a deviation is not positive.
    """
    what, pair = f"normalization={normalization!r}", normalization
    if isinstance(normalization, str):
        what, pair = "the network", (asked.mean, asked.std)
    if not hasattr(pair, "__len__") or len(pair) != 2:
        raise ValueError(f"{what} must be 'auto' or a pair (mean, std).")
    mean, std = (_three(values, name, what) for values, name in zip(pair, ("mean", "std"), strict=True))
    if min(std) <= 0:
        raise ValueError(f"{what}: std must be positive, got {min(std):g}.")
    return mean, std


def _three(values: Any, name: str, what: str) -> tuple[float, ...]:
    listed = [values] * 3 if isinstance(values, Real) else list(values) if hasattr(values, "__len__") else []
    if len(listed) != 3 or not all(isinstance(value, Real) and np.isfinite(float(value)) for value in listed):
        raise ValueError(
            f"{what}: {name} must be one finite number or three, one per RGB channel, got {values!r}."
        )
    return tuple(float(value) for value in listed)


def size_multiple_of(tapped: nn.Module, module: nn.Module) -> int:
    """Return of what the sides of photographs have to be multiples: as the network was found to need, or says."""
    if isinstance(tapped, SizedMaps):
        return 1 if tapped.size_multiple is None else tapped.size_multiple
    own: Any = getattr(module, "size_multiple", 1)
    if isinstance(own, bool) or not isinstance(own, Integral) or not 1 <= int(own) <= _LARGEST_MULTIPLE:
        raise ValueError(
            f"size_multiple of {type(module).__name__} must be a number from 1 to {_LARGEST_MULTIPLE}, got {own!r}."
        )
    return int(own)


def side_of(tapped: nn.Module, multiple: int) -> int:
    """Return the side of a square that the network takes, about 224 pixels."""
    fixed = tapped.fixed_size if isinstance(tapped, SizedMaps) else None
    return fixed[0] if fixed is not None else max(1, round(224 / multiple)) * multiple
