"""Estimators as plain values for JSON, and back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

# What a file may name without being trusted explicitly. Of scikit-learn and of these packages estimators, which do
# nothing when they are made; of these packages public functions and classes too. What downloads, reads or writes files
# of the caller's choice (data sets, commands, pages of results) is not among them.
_PACKAGES = ("skretrieval", "sklearn")
_CALLABLE = tuple(
    f"skretrieval.{package}"
    for package in ("extraction", "pooling", "postprocessing", "retrieval", "metrics", "model_selection")
)
_LARGEST_ARRAY = 10_000
_ELSEWHERE = ("memory", "verbose")  # parameters that change no result and do not travel


class NotPlainError(TypeError):
    """A value that JSON cannot hold, so that a result cannot be rerun from its file."""


def to_plain(value: Any) -> Any:
    """Turn a parameter value into what JSON can hold.

    Parameters
    ----------
    value : None, bool, number, str, path, list, tuple, dict, ndarray, estimator, class, function or partial
        An estimator becomes its class and all its parameters, except ``memory`` and ``verbose``, which change no
        result.

    Returns
    -------
    plain : None, bool, number, str, list or dict
        ``from_plain`` turns it back.

    Raises
    ------
    NotPlainError
        For anything else: fitted (frozen) estimators, modules, random number generators.

    Examples
    --------
    >>> from sklearn.preprocessing import Normalizer
    >>> from skretrieval.evaluation._plain import from_plain, to_plain
    >>> to_plain(Normalizer())
    {'estimator': 'sklearn.preprocessing.Normalizer', 'params': {'copy': True, 'norm': 'l2'}}
    >>> from_plain(to_plain((1, None)))
    (1, None)
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [to_plain(item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: to_plain(item) for key, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size <= _LARGEST_ARRAY:
        return {
            "array": [to_plain(item) for item in value.ravel()],
            "shape": list(value.shape),
            "dtype": str(value.dtype),
        }
    if isinstance(value, FrozenEstimator):
        raise NotPlainError(
            "a FrozenEstimator holds what it learned, which is no setting; use whitening_set."
        )
    if isinstance(value, BaseEstimator) and not isinstance(value, type):
        params = value.get_params(deep=False)
        kept = {name: to_plain(param) for name, param in params.items() if name not in _ELSEWHERE}
        return {"estimator": _name(type(value)), "params": kept}
    if isinstance(value, partial):
        arguments = [to_plain(item) for item in value.args]
        keywords = {name: to_plain(item) for name, item in value.keywords.items()}
        return {"partial": to_plain(value.func), "args": arguments, "keywords": keywords}
    if callable(value) and hasattr(value, "__qualname__") and "<" not in value.__qualname__:
        return {"name": _name(value)}
    raise NotPlainError(f"a {type(value).__name__} cannot be written as a setting.")


def settings_key(*values: Any) -> str:
    """Write values as text that is equal only if the values are: a key for what one run remembers.

    It takes functions of the user's by their names, which the key of a cache on disk (``_cache.pooler_key``) cannot:
    in another process another body may stand behind a name.

    Parameters
    ----------
    *values : object
        Of the kinds that :func:`to_plain` takes.

    Returns
    -------
    key : str

    Raises
    ------
    NotPlainError
        For anything else.
    """
    return json.dumps([to_plain(value) for value in values])


def from_plain(plain: Any, trusted: Collection[str] = ()) -> Any:
    """Turn back what ``to_plain`` made.

    Parameters
    ----------
    plain : None, bool, number, str, list or dict
        Plain values.
    trusted : collection of str
        Full names that may be imported and called besides the estimators of scikit-learn and skretrieval, and the
        public functions and classes of skretrieval's stages.

    Returns
    -------
    value : object
        Estimators are new and unfitted.

    Raises
    ------
    ValueError
        If something is named that is not trusted, does not exist, or is no estimator where one must be; or if a
        parameter is given that never travels, such as `memory`, where files would be written.
    """
    if isinstance(plain, list):
        return [from_plain(item, trusted) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if "float" in plain:
        return float(plain["float"])
    if "tuple" in plain:
        return tuple(from_plain(plain["tuple"], trusted))
    if "dict" in plain:
        return {key: from_plain(item, trusted) for key, item in plain["dict"].items()}
    if "array" in plain:
        values = from_plain(plain["array"], trusted)
        return np.array(values, dtype=plain["dtype"]).reshape(plain["shape"])
    if "estimator" in plain:
        kind = _find(plain["estimator"], trusted)
        if not (isinstance(kind, type) and issubclass(kind, BaseEstimator)):
            raise ValueError(f"{plain['estimator']} is no estimator.")
        local = sorted(set(plain["params"]) & set(_ELSEWHERE))
        if local:
            raise ValueError(f"{plain['estimator']}: {', '.join(local)} cannot come from a file.")
        return kind(**{name: from_plain(item, trusted) for name, item in plain["params"].items()})
    if "partial" in plain:
        keywords = {name: from_plain(item, trusted) for name, item in plain["keywords"].items()}
        return partial(from_plain(plain["partial"], trusted), *from_plain(plain["args"], trusted), **keywords)
    if "name" in plain:
        return _find(plain["name"], trusted)
    raise ValueError(f"not a setting: {plain}.")


def _name(thing: Any) -> str:
    """Return the public name of a class or function: private modules move between versions."""
    full = f"{thing.__module__}.{thing.__qualname__}"
    public = ".".join(part for part in thing.__module__.split(".") if not part.startswith("_"))
    short = f"{public}.{thing.__qualname__}"
    try:
        return short if _get(short) is thing else full
    except (ImportError, AttributeError, ValueError):
        return full


def _find(name: str, trusted: Collection[str]) -> Any:
    """Import what a name stands for, if it is trusted and defined (not merely imported) by who is trusted."""
    advice = "name it in `trusted` if you trust the file"
    parts = str(name).split(".")
    if name not in trusted and (parts[0] not in _PACKAGES or any(part.startswith("__") for part in parts)):
        raise ValueError(f"{name} is not of {' or '.join(_PACKAGES)}: {advice}.")
    if name not in trusted and parts[0] == "skretrieval" and not _within(name, _CALLABLE):
        raise ValueError(f"{name} is not of the stages of a Pipeline: {advice}.")
    try:
        found = _get(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} cannot be found: {error}.") from error
    if name in trusted:
        return found
    home = str(getattr(found, "__module__", ""))
    if home.split(".")[0] not in _PACKAGES:
        raise ValueError(f"{name} is not of {' or '.join(_PACKAGES)}, which only imports it.")
    if isinstance(found, type) and issubclass(found, BaseEstimator):
        return found
    if not _within(home, _CALLABLE) or any(part.startswith("_") for part in parts):
        raise ValueError(f"{name} is not an estimator, nor public in a stage of a Pipeline: {advice}.")
    return found


def _within(name: str, packages: Collection[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _get(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)
