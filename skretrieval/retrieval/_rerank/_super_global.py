"""SuperGlobal re-ranking: candidates refined by their neighbours, and the query by the refined candidates."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._order import nearest


def super_global_scores(
    query: NDArray[Any], rows: NDArray[Any], n_refine: int, beta: float
) -> NDArray[np.float64]:
    """Score the candidates of one query (Shao et al. 2023, section 3.3).

    Parameters
    ----------
    query : ndarray of shape (d,)
        Unit row.
    rows : ndarray of shape (m, d)
        Unit rows of the candidates, best first.
    n_refine : int
        Neighbours that refine each candidate; the candidates that refine the query are one more.
    beta : float
        Weight of a neighbour of similarity 1.

    Returns
    -------
    ndarray of shape (m,)
        Scores, in float64.
    """
    n = len(rows)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    neighbours = nearest(similarity, min(n_refine, n - 1)) if n > 1 and n_refine else np.empty((n, 0), int)
    weights = beta * np.take_along_axis(similarity, neighbours, axis=1).astype(np.float64)
    total = 1.0 + weights.sum(axis=1)

    def refined(values: NDArray[Any]) -> NDArray[np.float64]:
        """Products with the refined candidates, from those with the candidates."""
        return (values + (weights * values[neighbours]).sum(axis=1)) / total

    first = refined((rows @ query).astype(np.float64))
    best = nearest(first.astype(rows.dtype)[None], min(n_refine + 1, n))[0]
    around = rows[neighbours[best]].astype(np.float64)
    vectors = (rows[best] + (weights[best][:, :, None] * around).sum(axis=1)) / total[best][:, None]
    second = refined((rows @ vectors.max(axis=0).astype(rows.dtype)).astype(np.float64))
    return (first + second) / 2.0
