"""Numbers near the ends of the range of floats: brought to the middle by a power of two, which keeps their bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._descriptors import DescriptorSet

# Squares of numbers up to these powers of two, and sums of thousands of them, are as exact as anywhere.
_SAFE = {np.dtype(np.float32): 56, np.dtype(np.float64): 480}


def largest_number(rows: Any) -> float:
    """Return the largest absolute value of rows, dense or sparse; without an array of their size.

    Parameters
    ----------
    rows : ndarray or sparse array of shape (n, d)
        Finite numbers.
    """
    values = rows.data if sparse.issparse(rows) else rows
    if values.size == 0:
        return 0.0
    return max(float(values.max()), -float(values.min()))


def exponent_of(largest: float, dtype: np.dtype[Any]) -> int:
    """Return the power of two to divide by, 0 for numbers of ordinary size.

    Parameters
    ----------
    largest : float
        Of :func:`largest_number`.
    dtype : dtype
        What is computed in, float32 or float64.
    """
    exponent = int(np.frexp(largest)[1]) if largest else 0
    return 0 if abs(exponent) <= _SAFE[dtype] else exponent


def scaled(descriptors: DescriptorSet, exponent: int) -> DescriptorSet:
    """Divide rows by a power of two, in float64.

    Parameters
    ----------
    descriptors : DescriptorSet
        Without lengths.
    exponent : int
        Of :func:`exponent_of`.

    Returns
    -------
    DescriptorSet
        A copy.
    """
    rows = descriptors.rows.astype(np.float64)
    if sparse.issparse(rows):
        rows.data = np.ldexp(rows.data, -exponent)
    else:
        rows = np.ldexp(rows, -exponent)
    return DescriptorSet(rows, descriptors.offsets)


def distances_of(found: NDArray[Any], exponent: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Bring distances of scaled rows back to their size.

    Parameters
    ----------
    found : ndarray of shape (n_queries, k)
        Distances of rows that were divided.
    exponent : int
        What they were divided by.
    dtype : dtype
        Of the distances.

    Returns
    -------
    ndarray of shape (n_queries, k)

    Raises
    ------
    ValueError
        If a distance is larger than the largest number of `dtype`; the message names the query.
    """
    with np.errstate(over="ignore", under="ignore"):
        distances = np.ldexp(found, exponent).astype(dtype)
    bad = np.flatnonzero(~np.isfinite(distances).all(axis=1))
    if len(bad):
        raise ValueError(
            f"Query {bad[0]}: its distance to an item is beyond {np.finfo(dtype).max:.3g}, the largest number "
            f"of {dtype}: scale the descriptors, or use metric='cosine'."
        )
    return distances


def directions(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert rows of which the direction counts: those that `dtype` cannot hold are scaled, each by itself.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Finite numbers.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    ndarray of shape (n, d)
        Zero only where the rows are.
    """
    if rows.dtype.itemsize <= dtype.itemsize:
        return rows.astype(dtype, copy=False)
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    exponents = np.frexp(largest)[1]
    outside = (largest > 0) & (np.abs(exponents) > _SAFE[dtype])
    if outside.any():
        rows = rows.copy()
        rows[outside] = np.ldexp(rows[outside], -exponents[outside, None])
    return rows.astype(dtype)
