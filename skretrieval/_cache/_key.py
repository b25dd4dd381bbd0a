"""Keys of cached descriptors: hashes of all that the descriptors of a pooler depend on.

Two poolers have one name only if they describe alike. Where that cannot be told there is no name, and nothing is
cached: a function of the user's has the same name after its body was changed.
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


class NamelessError(TypeError):
    """A function, class or object without a name by which a later process could recognise it."""


def pooler_key(pooler: Any, fitted: bool = True) -> bytes | None:
    """Name what the descriptors of a pooler depend on beside the maps.

    Parameters
    ----------
    pooler : pooler
        About to describe maps: fitted, or, if it learns nothing, not yet. It answers ``cache_state()``.
    fitted : bool, default=True
        Whether what was learned counts, or class and parameters only.

    Returns
    -------
    key : bytes or None
        Hash of its class, its parameters with those of its parts, and what it has learned. Of a pooler that learns
        nothing no fitted attribute counts, so that ``fit_transform`` and ``transform`` share it. None if a
        parameter cannot be named (see :func:`feed`).
    """
    digest = new_hash()
    try:
        _feed_estimator(digest, pooler, fitted)
    except NamelessError:
        return None
    return digest.digest()


def feed(digest: Any, value: Any, fitted: bool = False) -> None:
    """Add a value and its type to a hash: 1, 1.0, True and ``np.float64(1)`` may give different results.

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
    elif isinstance(value, BaseEstimator) and hasattr(value, "cache_state"):
        _feed_estimator(digest, value, fitted)
    elif isinstance(value, type | np.ufunc) or inspect.isroutine(value):
        _add(digest, "named", _name(value))
    else:
        raise NamelessError(kind.__name__)


def _feed_estimator(digest: Any, pooler: Any, fitted: bool) -> None:
    state = pooler.cache_state()
    if state is None:
        raise NamelessError(type(pooler).__name__)
    _add(digest, "estimator", _name(type(pooler)))
    feed(digest, pooler.get_params(deep=False))
    if fitted and state:
        feed(digest, state, fitted=True)


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
