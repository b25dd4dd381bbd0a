"""Linear algebra shared by post-processing and region whitening.

Pure functions of NumPy arrays: no estimator, no state, no validation beyond what the maths needs. Everything
is accumulated in float64 whatever the input, because whitening divides by the square root of the smallest
eigenvalues.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg
from sklearn.utils import gen_batches

# Rows converted to float64 at a time: bounds the working memory of a covariance to this many numbers (64
# MiB).
_BLOCK_ELEMENTS = 2**23

# Below this ratio of smallest to largest eigenvalue the axes of the Gram route are made orthonormal again.
_GRAM_RATIO = 1e-6


class PrincipalAxes(NamedTuple):
    """What :func:`principal_axes` found.

    Attributes
    ----------
    mean : ndarray of shape (D,)
        The point about which the scatter was taken.
    components : ndarray of shape (d, D)
        Orthonormal axes, one per row.
    eigenvalues : ndarray of shape (d,)
        Variances along the axes (divisor n - 1), descending.
    total_variance : float
        Sum of the variances of all D features about `mean` (divisor n - 1).
    """

    mean: np.ndarray
    components: np.ndarray
    eigenvalues: np.ndarray
    total_variance: float


def row_blocks(X):
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


def principal_axes(X, n_components=None, *, center=True):
    """Principal axes of the rows of `X` and the variances along them, without axes of no variance.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        Rows, float32 or float64; not written to.
    n_components : int or None, default=None
        The largest number of axes wanted. None for all there are.
    center : bool or ndarray of shape (D,), default=True
        The point about which the scatter is taken: True for the mean of the rows, False for the origin, or a
        point.

    Returns
    -------
    axes : PrincipalAxes
        All float64: ``mean`` (D,), that point; ``components`` (d, D), orthonormal axes in rows, the entry of largest
        magnitude of each positive; ``eigenvalues`` (d,), variances along the axes, descending, divisor n - 1; and
        the total variance.

    Notes
    -----
    Only axes with ``eigenvalue > eigenvalues[0] * max(n, D) * eps`` are returned, where also the rounding of
    the input itself (its own precision) counts as no variance: whitening divides by the root of the
    eigenvalue, and a direction in which the rows do not vary would receive all the energy of a new vector. So
    ``d`` can be smaller than `n_components`, and is 0 for constant rows. For n < D the eigenvectors come from
    the n x n Gram matrix, otherwise from the covariance, which is accumulated over blocks of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval._linalg import principal_axes
    >>> axes = principal_axes(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    >>> axes.mean, axes.components, axes.eigenvalues
    (array([2., 1.]), array([[1., 0.]]), array([4.]))
    """
    X = np.asarray(X)
    n, D = X.shape
    mean = _center_of(X, center)
    wanted = min(n, D) if n_components is None else min(n_components, n, D)

    if n < D:
        eigenvalues, components, total, energy = _axes_from_gram(X, mean, wanted)
    else:
        eigenvalues, components, total, energy = _axes_from_covariance(X, mean, wanted)

    # Rounding of the rows themselves: in their own precision, per unit of energy about the origin.
    precision = np.finfo(X.dtype if X.dtype in (np.float32, np.float64) else np.float64).eps
    floor = max(eigenvalues[0] * max(n, D) * np.finfo(np.float64).eps, (2 * precision) ** 2 * energy)
    rank = int(np.count_nonzero(eigenvalues > floor))
    components, eigenvalues = components[:rank], eigenvalues[:rank]
    return PrincipalAxes(mean, flip_signs(components), eigenvalues, total)


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


def flip_signs(components):
    """Give every row the sign that makes its entry of largest magnitude positive.

    Parameters
    ----------
    components : ndarray of shape (d, D)
        Axes in rows; their sign is arbitrary.

    Returns
    -------
    components : ndarray of shape (d, D)
        The same axes with a sign that does not depend on the solver.
    """
    largest = np.argmax(np.abs(components), axis=1)[:, None]
    return components * np.where(np.take_along_axis(components, largest, axis=1) < 0, -1.0, 1.0)


def _center_of(X, center):
    if not isinstance(center, bool | np.bool_):
        return np.asarray(center, dtype=np.float64)
    if not center:
        return np.zeros(X.shape[1])
    # Differences to one of the rows are exactly zero where the rows agree, so that constant features have an
    # exact mean; a plain running sum would leave them a variance made of rounding errors.
    origin = X[0].astype(np.float64)
    total = np.zeros(X.shape[1])
    for rows in row_blocks(X):
        total += np.sum(X[rows] - origin, axis=0)
    return origin + total / X.shape[0]


def _eigh_descending(matrix, wanted):
    """Return the `wanted` largest eigenvalues, descending and clipped at 0, and their vectors in columns."""
    size = matrix.shape[0]
    if wanted > size // 2:
        # Divide and conquer is the fastest driver when most of the spectrum is wanted, but has no subsets.
        values, vectors = linalg.eigh(matrix, driver="evd", overwrite_a=True)
    else:
        values, vectors = linalg.eigh(matrix, subset_by_index=(size - wanted, size - 1), overwrite_a=True)
    return np.maximum(values[::-1][:wanted], 0.0), vectors[:, ::-1][:, :wanted]


def _axes_from_covariance(X, mean, wanted):
    n, D = X.shape
    covariance = np.zeros((D, D))
    energy = 0.0
    for rows in row_blocks(X):
        block = X[rows] - mean
        covariance += block.T @ block
        energy += np.einsum("ij,ij->", X[rows], X[rows], dtype=np.float64)
    covariance /= max(1, n - 1)
    total = float(np.trace(covariance))
    eigenvalues, vectors = _eigh_descending(covariance, wanted)
    return eigenvalues, vectors.T, total, energy / n


def _axes_from_gram(X, mean, wanted):
    n = X.shape[0]
    centered = X - mean
    gram = centered @ centered.T
    gram /= max(1, n - 1)
    total = float(np.trace(gram))
    energy = float(np.einsum("ij,ij->", X, X, dtype=np.float64)) / n
    eigenvalues, vectors = _eigh_descending(gram, wanted)
    # Axes of no variance have no direction in this route: leave them out before dividing by their length.
    keep = eigenvalues > eigenvalues[0] * max(X.shape) * np.finfo(np.float64).eps
    eigenvalues = eigenvalues[keep]
    if eigenvalues.size == 0:
        return np.zeros(1), np.zeros((1, X.shape[1])), total, energy
    components = (vectors[:, keep].T @ centered) / np.sqrt(eigenvalues * max(1, n - 1))[:, None]
    if eigenvalues[-1] < _GRAM_RATIO * eigenvalues[0]:
        # Squaring the rows costs half the digits of the smallest axes. Gram-Schmidt from the largest axis
        # down restores their right angles, and the variances are then measured along the axes themselves.
        components = linalg.qr(components.T, mode="economic", overwrite_a=True)[0].T
        projected = centered @ components.T
        eigenvalues = np.einsum("ij,ij->j", projected, projected) / max(1, n - 1)
        order = np.argsort(-eigenvalues, kind="stable")
        components, eigenvalues = components[order], eigenvalues[order]
    return eigenvalues, components, total, energy
