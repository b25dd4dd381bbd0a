"""What the descriptors of a pooler depend on, as a name for those that are kept on disk.

Two poolers have one name only if they describe alike. Where that cannot be told there is no name, and nothing is kept:
a function of the user's has the same name after its body was changed.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from .._io import new_hash

# Where functions and classes change with the version only.
_PACKAGES = ("skretrieval", "numpy", "scipy", "sklearn", "torch")
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
# Attributes that say nothing of how maps are described: they follow from the maps, or concern containers.
_BOOKKEEPING = {"_channels", "n_features_in_", "_n_features_out", "_sklearn_output_config"}


class NamelessError(TypeError):
    """Something that cannot be told from something else."""


def pooler_key(pooler: Any) -> bytes | None:
    """Name what the descriptors of a pooler depend on beside the maps.

    Parameters
    ----------
    pooler : estimator
        About to describe maps: fitted, or, if it learns nothing, not yet.

    Returns
    -------
    key : bytes or None
        Hash of its class, its parameters with those of its parts, and what it has learned. Of a pooler that learns
        nothing no fitted attribute counts, so that ``fit_transform`` and ``transform`` share it. None if a
        parameter cannot be named (see :func:`feed`).
    """
    digest = new_hash()
    try:
        _feed_estimator(digest, pooler, fitted="_channels" in vars(pooler) or pooler._learns)
    except NamelessError:
        return None
    return digest.digest()


def feed(digest: Any, value: Any, fitted: bool = False) -> None:
    """Add a value to a hash, its type included: 1, 1.0, True and ``np.float64(1)`` may be computed with differently.

    Parameters
    ----------
    digest : hash object
        Is updated.
    value : None, bool, number, str, bytes, ndarray, list, tuple, dict, pooler, function or class
        Functions, classes and poolers only of this package and those it computes with.
    fitted : bool
        Whether estimators count with what they have learned.

    Raises
    ------
    NamelessError
        For anything else.
    """
    kind = type(value)
    if kind in _PLAIN:
        _add(digest, kind.__name__, repr(value))
    elif isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
        _add(digest, "scalar", value.dtype.str, value.tobytes())
    elif kind in (np.ndarray, np.memmap) and value.dtype.kind in "biufcSU":
        _add(digest, "array", value.dtype.str, str(value.shape), value.tobytes())
    elif kind in (list, tuple) or (isinstance(value, tuple) and hasattr(value, "_fields")):
        _add(digest, kind.__name__ if kind in (list, tuple) else _name(kind), str(len(value)))
        for entry in value:
            feed(digest, entry, fitted)
    elif kind is dict and all(type(key) is str for key in value):
        _add(digest, "dict", str(len(value)))
        for key in sorted(value):
            _add(digest, key)
            feed(digest, value[key], fitted)
    elif isinstance(value, BaseEstimator) and hasattr(value, "_learns"):
        _feed_estimator(digest, value, fitted)
    elif isinstance(value, type | np.ufunc) or inspect.isroutine(value):
        _add(digest, "named", _name(value))
    else:
        raise NamelessError(kind.__name__)


def _feed_estimator(digest: Any, pooler: Any, fitted: bool) -> None:
    if not pooler._follows_from_parameters:
        raise NamelessError(type(pooler).__name__)
    _add(digest, "estimator", _name(type(pooler)))
    params = pooler.get_params(deep=False)
    feed(digest, params)
    if not fitted:
        return
    if pooler._learns:
        state = {name: value for name, value in vars(pooler).items() if name not in {*params, *_BOOKKEEPING}}
        feed(digest, state, fitted=True)
    elif not _parts_are_as_given(pooler):
        raise NamelessError("parts with other parameters than those given")


def _parts_are_as_given(pooler: Any) -> bool:
    """Tell whether the parts that describe are copies of those that the parameters name, also after `set_params`."""
    parts = [part for _, part in getattr(pooler, "poolers_", [])]
    if not parts:
        return True
    given = [part for _, part in pooler._named()]
    if not isinstance(pooler.poolers, list | tuple):
        given = given * len(parts)
    if len(given) != len(parts) or not all(_parts_are_as_given(part) for part in parts):
        return False
    return all(_params_hash(part) == _params_hash(own) for part, own in zip(parts, given, strict=True))


def _params_hash(pooler: Any) -> bytes:
    digest = new_hash(64)
    feed(digest, pooler)
    return digest.digest()


def _name(thing: Any) -> str:
    """Name a function or class by where it is found, with the version of the package."""
    module = getattr(thing, "__module__", None) or ""
    name = getattr(thing, "__qualname__", thing.__name__)
    package = module.partition(".")[0]
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if package not in _PACKAGES or found is not thing:  # also a lambda, a closure, a bound method
        raise NamelessError(f"{module}.{name}")
    return f"{module}.{name} {getattr(sys.modules[package], '__version__', '')}"


def hashed(*parts: Any) -> bytes:
    """Hash texts and bytes to 20 bytes, each part with its length."""
    digest = new_hash()
    _add(digest, *(part if isinstance(part, bytes) else str(part) for part in parts))
    return digest.digest()


def _add(digest: Any, *parts: str | bytes) -> None:
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode()
        digest.update(f"{len(content)}:".encode() + content)
