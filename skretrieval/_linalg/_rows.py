"""Rows of NumPy arrays: walked over in blocks, brought to unit length, projected.

There are three spellings of l2 for three contracts: :func:`l2_normalize` for arrays of any shape, in their own
precision; :func:`unit_rows`, the same on blocks in float64, for rows whose bits may not depend on where they stand; and
``l2`` for tensors, which runs where they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from sklearn.utils import gen_batches

# Rows converted to float64 at a time: bounds the working memory of a covariance to this many numbers
# (64 MiB).
_BLOCK_ELEMENTS = 2**23

# Numbers brought to unit length at a time: they and their temporary arrays in float64 stay in the processor's cache.
_CACHED = 2**17


def row_blocks(X: np.ndarray) -> Iterator[slice]:
    """Slices of rows of `X` small enough to be converted to float64 at once.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        Rows to walk over.

    Returns
    -------
    blocks : generator of slice
        In order, together covering every row.
    """
    return gen_batches(X.shape[0], max(1, _BLOCK_ELEMENTS // max(1, X.shape[1])))


def l2_normalize(x):
    """Divide every row by its Euclidean length; a zero row stays zero.

    Parameters
    ----------
    x : array-like of shape (..., D)
        Vectors along the last axis.

    Returns
    -------
    y : ndarray of shape (..., D)
        A new array; float32 for float32 input, float64 otherwise.

    Notes
    -----
    No epsilon is added to the length, so that every nonzero row has length one, whatever its scale: rows so
    small or so large that their squares leave the range of the floating point type are scaled by their
    largest entry first.

    Examples
    --------
    >>> from skretrieval._linalg import l2_normalize
    >>> l2_normalize([[3.0, 4.0], [0.0, 0.0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    x = np.asarray(x)
    if x.dtype != np.float32:
        x = x.astype(np.float64, copy=False)
    limits = np.finfo(x.dtype)
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.sqrt(np.einsum("...i,...i->...", x, x, dtype=np.float64))
    # The square root of the smallest float64 is where its squares start to lose digits.
    safe = (lengths > max(limits.tiny, 1e-150)) & (lengths < limits.max)
    y = x / np.where(safe, lengths, 1.0).astype(x.dtype)[..., None]
    if not np.all(safe):
        rest = x[~safe].astype(np.float64)
        rest /= np.where(np.any(rest, axis=-1), np.max(np.abs(rest), axis=-1, initial=0.0), 1.0)[..., None]
        norms = np.sqrt(np.einsum("...i,...i->...", rest, rest))
        y[~safe] = rest / np.where(norms > 0, norms, 1.0)[..., None]
    return y


def unit_rows(rows):
    """Scale every row to unit Euclidean length; a zero row stays zero (no epsilon is added).

    Works in float64 on blocks of rows, so that a row gets the same bits wherever it stands.

    Parameters
    ----------
    rows : ndarray or CSR matrix or array of shape (n, d)
        Float32 or float64; never written to.

    Returns
    -------
    ndarray or CSR matrix or array of shape (n, d)
        A new one of the same dtype; sparse rows get the numbers that the same dense rows get.
    """
    step = max(1, _CACHED // max(1, rows.shape[1]))
    if sparse.issparse(rows):
        return _unit_sparse_rows(rows, step)
    out = np.empty(rows.shape, dtype=rows.dtype)
    for start in range(0, len(rows), step):
        out[start : start + step] = l2_normalize(rows[start : start + step].astype(np.float64))
    return out


def _unit_sparse_rows(rows, step):
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    data = np.empty_like(rows.data)
    for start in range(0, rows.shape[0], step):
        part = rows[start : start + step]
        # Dense, because the sum of squares depends in its last bit on the zeros between the numbers.
        unit = l2_normalize(part.toarray().astype(np.float64))
        row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        first = rows.indptr[start]
        data[first : first + part.nnz] = unit[row, part.indices]
    return type(rows)((data, rows.indices, rows.indptr), shape=rows.shape)


def project(X, mean, axes):
    """Coordinates of the rows of `X` along `axes`, about `mean`: ``(X - mean) @ axes.T``.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        Rows, float32 or float64; not written to.
    mean : ndarray of shape (D,)
        Origin of the coordinates.
    axes : ndarray of shape (d, D)
        Axes in rows, of any length: whitening divides them by powers of the eigenvalues.

    Returns
    -------
    Z : ndarray of shape (n, d)
        Coordinates in the dtype of `X`.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval._linalg import project
    >>> project(np.array([[3.0, 5.0]]), np.array([1.0, 1.0]), np.array([[0.5, 0.0]]))
    array([[1.]])
    """
    mean = np.asarray(mean, dtype=X.dtype)
    axes = np.asarray(axes, dtype=X.dtype).T
    Z = np.empty((X.shape[0], axes.shape[1]), dtype=X.dtype)
    # The mean is subtracted before the product: subtracting its projection afterwards cancels digits. Blocks
    # keep the centred copy small.
    for rows in row_blocks(X):
        np.matmul(X[rows] - mean, axes, out=Z[rows])
    return Z
