"""Nearest of similarities and the order of distances, where ties go to what comes first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def digits_of(dtype: Any) -> int:
    """Decimal digits of a cosine that are no rounding error: numbers equal to these tie."""
    return 12 if np.dtype(dtype) == np.float64 else 6


def nearest(similarity: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Columns of the k largest numbers of each row, largest first.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        Cosines; infinity comes before all of them, minus infinity behind.
    k : int
        At most m.

    Returns
    -------
    ndarray of shape (n, k)
        Columns. Numbers that differ by rounding only tie, and the first column of those comes first.
    """
    n_columns = similarity.shape[1]
    digits = digits_of(similarity.dtype)
    # One integer of the number and the column, so that no two are equal.
    keys = np.rint(np.clip(similarity, -1.5, 1.5).astype(np.float64) * 10.0**digits).astype(np.int64)
    keys *= -n_columns
    keys += np.arange(n_columns)
    if k < n_columns:
        columns = np.argpartition(keys, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(keys, columns, axis=1), axis=1)
        return np.take_along_axis(columns, order, axis=1)
    return np.argsort(keys, axis=1)


def ascending(distances: NDArray[Any], last: NDArray[np.bool_], dtype: Any) -> NDArray[np.intp]:
    """Order of each row by its distances, in which the entries `last` come behind all others.

    Parameters
    ----------
    distances : ndarray of shape (n, m)
        Distances in the order of the first search.
    last : ndarray of bool of shape (n, m)
        Entries that may not move up.
    dtype : dtype
        Of the descriptors: it says what is rounding.

    Returns
    -------
    ndarray of int of shape (n, m)
        Columns; ties in their order.
    """
    keys = np.where(last, np.inf, np.round(distances, digits_of(dtype)))
    return np.argsort(keys, axis=1, kind="stable")
