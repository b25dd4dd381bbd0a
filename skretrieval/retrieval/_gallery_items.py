"""Gallery items given by their numbers: checks of what callers pass."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def check_items(indices: ArrayLike, n_items: int) -> NDArray[np.intp]:
    """Return gallery indices as an integer array.

    Raises
    ------
    ValueError
        If they are not integers.
    IndexError
        That names the first one outside ``0..n_items - 1``.
    """
    indices = np.asarray(indices)
    if indices.size and indices.dtype.kind not in "iu":
        raise ValueError(f"Gallery indices must be integers, got an array of {indices.dtype}.")
    bad = indices[(indices < 0) | (indices >= n_items)]
    if bad.size:
        raise IndexError(
            f"Index {bad.flat[0]} is outside the gallery of {n_items} items (0 to {n_items - 1})."
        )
    return indices.astype(np.intp)


def check_own(name: str, items: ArrayLike, n_queries: int, n_items: int) -> NDArray[np.intp]:
    """Return the gallery item that each query is, -1 for none, as an integer array.

    Parameters
    ----------
    name : str
        Of the parameter, for messages.
    items : array-like of int of shape (n_queries,)
        As given.
    n_queries, n_items : int
        Numbers of queries and of gallery items.

    Raises
    ------
    ValueError
        If it is not one integer for each query.
    IndexError
        That names the first query whose item is outside ``-1..n_items - 1``.
    """
    own = np.asarray(items)
    if own.shape != (n_queries,) or own.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must hold one integer for each of {n_queries} queries, got an array of {own.dtype} of shape "
            f"{own.shape}."
        )
    bad = np.flatnonzero((own < -1) | (own >= n_items))
    if bad.size:
        raise IndexError(
            f"Query {bad[0]}: item {own[bad[0]]} of {name} is outside the gallery of {n_items} items (0 to "
            f"{n_items - 1}, or -1 for none)."
        )
    return own.astype(np.intp)
