"""Find every estimator of the package, as ``sklearn.utils.discovery`` does for scikit-learn."""

from __future__ import annotations

from importlib import import_module

from sklearn.base import BaseEstimator

_PACKAGES = ("extraction", "pooling", "postprocessing", "retrieval")


def all_estimators() -> list[tuple[str, type]]:
    """Return the public estimators in the order of the data, by name within each stage.

    Base classes, for estimators of your own, are none.

    Returns
    -------
    estimators : list of (str, type)
        Names and classes.

    Examples
    --------
    >>> from skretrieval.utils.discovery import all_estimators
    >>> dict(all_estimators())["GeMPooler"]
    <class 'skretrieval.pooling._presets._gem.GeMPooler'>
    """
    found = []
    for package in _PACKAGES:
        module = import_module(f"skretrieval.{package}")
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            is_base = name.startswith("Base")
            if isinstance(thing, type) and issubclass(thing, BaseEstimator) and not is_base:
                found.append((name, thing))
    return found
