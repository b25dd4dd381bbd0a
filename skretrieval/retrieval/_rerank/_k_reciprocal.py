"""k-reciprocal re-ranking: the Jaccard distance of the neighbours that are neighbours of each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._order import nearest


def k_reciprocal_distances(
    queries: NDArray[Any], rows: NDArray[Any], k1: int, k2: int, weight: float
) -> NDArray[np.float64]:
    """Distances of the candidates of several queries (Zhong et al. 2017, sections 3.2 to 3.5).

    Parameters
    ----------
    queries : ndarray of shape (n_queries, d)
        Unit rows.
    rows : ndarray of shape (n_queries, m, d)
        Unit rows of the candidates of each query, best first.
    k1 : int
        Neighbours that may be reciprocal.
    k2 : int
        Neighbours, the item itself among them, over which the features are averaged; 1 for no averaging.
    weight : float
        Of the squared Euclidean distance beside the Jaccard distance.

    Returns
    -------
    ndarray of shape (n_queries, m)
        Distances, in float64.
    """
    n_queries, n = len(rows), rows.shape[1] + 1
    half = int(np.around(k1 / 2))
    width = min(max(k1 + 1, k2), n)
    near = np.empty((n_queries, n, width), dtype=np.intp)
    largest = np.empty((n_queries, n))
    similarities = np.empty((n_queries, n, n), dtype=rows.dtype)
    for number, similarity in enumerate(similarities):
        pool = np.concatenate([queries[number][None], rows[number]])
        np.matmul(pool, pool.T, out=similarity)
        np.fill_diagonal(similarity, np.inf)  # itself comes first
        near[number] = nearest(similarity, width)
        np.fill_diagonal(similarity, 1.0)
        largest[number] = similarity.min(axis=1)
    largest = np.maximum(2.0 - 2.0 * largest, 0.0).ravel()
    near += (np.arange(n_queries) * n)[:, None, None]
    near = near.reshape(n_queries * n, width)
    # Every query has its own block of rows and columns in the sparse matrices.
    wide, narrow = _reciprocal(near[:, : k1 + 1]), _reciprocal(near[:, : half + 1])
    features = _expanded(wide, narrow)
    row = np.repeat(np.arange(n_queries * n), np.diff(features.indptr))
    between = _scaled(similarities, row, features.indices, largest, n)
    features.data = np.exp(-between)
    sums = np.asarray(features.sum(axis=1)).ravel()
    features.data /= sums[row]
    if k2 > 1:
        features = sparse.csr_matrix(_members(near[:, :k2]) @ features / min(k2, n))
    jaccard = _jaccard(features, n_queries, n)
    item = np.arange(n_queries * n)
    direct = _scaled(similarities, item // n * n, item, largest, n)
    mixed = (1.0 - weight) * jaccard + weight * direct
    return mixed.reshape(n_queries, n)[:, 1:]


def _members(near: NDArray[np.intp]) -> sparse.csr_matrix:
    """Matrix with a one for each entry of a list of columns for each row."""
    n, width = near.shape
    starts = np.arange(0, n * width + 1, width)
    matrix = sparse.csr_matrix((np.ones(n * width), near.ravel().copy(), starts), shape=(n, n))
    matrix.sort_indices()
    return matrix


def _reciprocal(near: NDArray[np.intp]) -> sparse.csr_matrix:
    members = _members(near)
    return sparse.csr_matrix(members.multiply(members.T.tocsr()))


def _expanded(wide: sparse.csr_matrix, narrow: sparse.csr_matrix) -> sparse.csr_matrix:
    """Unite each set with the narrower sets of its members of which it has more than two thirds."""
    common = sparse.csr_matrix(wide.multiply(wide @ narrow.T.tocsr()))
    sizes = np.diff(narrow.indptr)
    # In whole numbers: 2/3 of a size is none in floating point.
    common.data = (3.0 * common.data > 2.0 * sizes[common.indices]).astype(np.float64)
    common.eliminate_zeros()
    return sparse.csr_matrix(wide + common @ narrow)


def _scaled(
    similarities: NDArray[Any],
    row: NDArray[np.intp],
    column: NDArray[np.intp],
    largest: NDArray[np.float64],
    n: int,
) -> NDArray[np.float64]:
    """Squared distances, divided by the largest of their rows."""
    found = similarities[row // n, row % n, column % n].astype(np.float64)
    distances = np.where(row == column, 0.0, np.maximum(2.0 - 2.0 * found, 0.0))
    limit = largest[row]
    return np.divide(distances, limit, out=np.zeros_like(distances), where=limit > 0)


def _jaccard(features: sparse.csr_matrix, n_queries: int, n: int) -> NDArray[np.float64]:
    """Jaccard distance of each row to the first row of its block."""
    size = n_queries * n
    first = np.asarray(features[::n].sum(axis=0)).ravel()  # the blocks share no column
    shared = features.copy()
    shared.data = np.minimum(shared.data, first[shared.indices])
    least = np.asarray(shared.sum(axis=1)).ravel()
    sums = np.asarray(features.sum(axis=1)).ravel()
    most = sums + np.repeat(sums[::n], n)[:size] - least
    return 1.0 - least / most
