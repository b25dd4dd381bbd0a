"""Region sets: one array of several descriptors per image, in a list."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


class RegionSetOutput:
    """Keep the containers of ``set_output`` away from region sets, which are no table.

    To be named before the transformer it is mixed into. scikit-learn wraps the ``transform`` and ``fit_transform``
    that a transformer class defines itself; those of this class stay plain, and call what is behind the wrapper
    wherever region sets come out.
    """

    def _gives_region_sets(self, X: Any) -> bool:
        """Whether `transform` of `X` gives region sets."""
        raise NotImplementedError

    def _transform_sets(self, X: Any, transform: Any) -> list[np.ndarray]:
        """Give the region sets of `X` with the plain `transform` of the class that this one is mixed into."""
        return transform(X)

    def transform(self, X):
        """Transform `X`.

        Parameters
        ----------
        X : sequence
            What the class describes: feature maps, descriptors or region sets.

        Returns
        -------
        result : ndarray of shape (n, d), or list of n ndarrays of shape (M_i, d)
            Descriptors, or region sets, for which the containers of ``set_output`` are no use.
        """
        transform = super().transform  # type: ignore[misc]
        return self._transform_sets(X, _plain(transform)) if self._gives_region_sets(X) else transform(X)

    def fit_transform(self, X, y=None, **params):
        """Fit to `X` and transform it.

        Parameters
        ----------
        X : sequence
            As for :meth:`fit`.
        y : ignored
            For the scikit-learn interface.
        **params : dict
            For the scikit-learn interface.

        Returns
        -------
        result : ndarray of shape (n, d), or list of n ndarrays of shape (M_i, d)
            As from :meth:`transform`.
        """
        fit_transform = super().fit_transform  # type: ignore[misc]
        if self._gives_region_sets(X):
            fit_transform = _plain(fit_transform)
        return fit_transform(X, y, **params)


def _plain(method: Any) -> Any:
    """Return a bound method without the wrapper that puts its result into a container."""
    return method.__func__.__wrapped__.__get__(method.__self__)


def is_region_sets(X: Any) -> bool:
    """Whether X is a sequence of 2-D arrays, one per image, and not itself a 2-D table."""
    if isinstance(X, np.ndarray):
        if X.dtype != object or X.ndim != 1:
            return False
    elif not isinstance(X, list | tuple):
        return False
    return len(X) > 0 and (np.ndim(X[0]) == 2 or any(getattr(item, "ndim", 0) == 2 for item in X))


def stack_region_sets(
    X: Any, n_features: int | None = None, owner: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Stack region sets after checking the rank, the number of regions and features, and the values of each.

    Parameters
    ----------
    X : sequence of n arrays of shape (M_i, d)
        Region sets.
    n_features : int, default=None
        The `d` that is expected; None takes that of the first set.
    owner : str, default=""
        Who expects it, for the message.

    Returns
    -------
    rows : ndarray of shape (sum of M_i, d)
        The descriptors, set after set.
    offsets : ndarray of int of shape (n + 1,)
        Rows ``offsets[i]:offsets[i + 1]`` are those of set i.

    Raises
    ------
    ValueError
        For a set without descriptors, a wrong rank or number of features, NaN or infinity: the message names the
        item.
    TypeError
        If the descriptors of an item are sparse.
    """
    for i, item in enumerate(X):
        if sparse.issparse(item):
            raise TypeError(f"Item {i} is sparse: the regions of an image must be a dense array.")
    items = [np.asarray(item) for item in X]
    for i, item in enumerate(items):
        if item.ndim != 2:
            raise ValueError(f"Item {i}: expected 2 dimensions (regions, features), got {item.ndim}.")
        if len(item) == 0:
            raise ValueError(f"Item {i} has 0 regions; every image needs at least 1.")
    expected = items[0].shape[1] if n_features is None else n_features
    wrong = next((i for i, item in enumerate(items) if item.shape[1] != expected), None)
    if wrong is not None:
        asked = "item 0 has" if n_features is None else f"{owner} is expecting"
        raise ValueError(
            f"Item {wrong} has {items[wrong].shape[1]} features, but {asked} {expected} features."
        )
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in items])])
    rows = np.concatenate(items)
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        at = int(np.searchsorted(offsets, row, side="right")) - 1
        kind = "NaN" if np.isnan(rows[row]).any() else "infinity (inf)"
        raise ValueError(f"X contains {kind} in item {at}, region {row - int(offsets[at])}.")
    return rows, offsets


def split_region_sets(rows: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Cut stacked rows into the sets they belong to: the inverse of :func:`stack_region_sets`.

    Parameters
    ----------
    rows : ndarray of shape (sum of M_i, d)
        Descriptors, set after set.
    offsets : ndarray of int of shape (n + 1,)
        Where each set begins, and the end.

    Returns
    -------
    region_sets : list of n ndarrays of shape (M_i, d)
        Views of the rows.
    """
    return np.split(rows, offsets[1:-1])
