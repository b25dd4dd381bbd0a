"""Diffusion: similarity that spreads over the graph of neighbours that are neighbours of each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg

# Residual of the linear systems: below the 1e-6 of the paper, so that equal nodes stay equal to nine digits.
_TOLERANCE = 1e-10


def mutual_graph(
    indices: NDArray[np.intp], similarities: NDArray[Any], gamma: float
) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
    """Normalised graph of mutual neighbours (Iscen et al. 2017, section 3.1).

    Parameters
    ----------
    indices : ndarray of int of shape (n, k)
        Neighbours of each node, itself left out.
    similarities : ndarray of shape (n, k)
        Their cosines.
    gamma : float
        Exponent of the similarities.

    Returns
    -------
    graph : csr_matrix of shape (n, n)
        ``D^-1/2 W D^-1/2``, symmetric.
    mutual : ndarray
        Cosines of the mutual neighbours, each pair twice.
    """
    n, k = indices.shape
    starts = np.arange(0, n * k + 1, k) if k else np.zeros(n + 1, dtype=np.intp)
    shape = (n, n)
    member = sparse.csr_matrix((np.ones(n * k), indices.ravel().copy(), starts), shape=shape)
    cosine = sparse.csr_matrix(
        (similarities.ravel().astype(np.float64), indices.ravel().copy(), starts), shape=shape
    )
    both = sparse.coo_matrix(cosine.multiply(member.T.tocsr()))
    mutual = both.data
    weights = sparse.csr_matrix((np.maximum(mutual, 0.0) ** gamma, (both.row, both.col)), shape=shape)
    weights = ((weights + weights.T) * 0.5).tocsr()  # the two directions may differ by rounding
    weights.eliminate_zeros()
    sums = np.asarray(weights.sum(axis=1)).ravel()
    scale = np.divide(1.0, np.sqrt(sums), out=np.zeros(n), where=sums > 0)
    return sparse.csr_matrix(sparse.diags(scale) @ weights @ sparse.diags(scale)), mutual


def diffuse(graph: sparse.csr_matrix, start: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Solve ``(I - alpha S) f = y`` by conjugate gradients (Iscen et al. 2017, equation 10).

    Parameters
    ----------
    graph : csr_matrix of shape (n, n)
        S, of :func:`mutual_graph`.
    start : ndarray of shape (n,)
        y, the similarities of the query to its nearest nodes, else 0.
    alpha : float
        Below 1.

    Returns
    -------
    ndarray of shape (n,)
        f, divided by its largest number where that is not 0.
    """
    peak = start.max(initial=0.0)
    if not peak > 0:
        return np.zeros_like(start)
    system = sparse.eye_array(len(start), format="csr") - alpha * graph
    found, failed = cg(system, start / peak, rtol=_TOLERANCE, atol=0.0, maxiter=10_000)
    if failed:
        raise ValueError(f"Diffusion with alpha={alpha} did not converge in 10000 steps: choose it lower.")
    found = np.maximum(found, 0.0)
    return found / found.max()
