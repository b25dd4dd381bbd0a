"""Average precision from the ranks of the positives, and the names of the rules of precision.

It stands beside the packages because two of them need it: retrievers score their own rankings by label, and the
metrics, which come after retrieval, score rankings of any origin.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rules of the average precision; see :func:`skretrieval.metrics.average_precision`.
METHODS = ("trapezoid", "finite", "printed")
# Rules of the precision at k; see :func:`skretrieval.metrics.precision_at_k`.
PRECISION_MODES = ("standard", "revisitop")
# Label of gallery images that are searched, but are nobody's positives.
DISTRACTOR = -1


def ap_from_relevance(
    relevant: ArrayLike, n_positives: ArrayLike | None = None, method: str = "trapezoid"
) -> NDArray[np.float64]:
    """Average precision of several queries from the relevance of what was ranked.

    Parameters
    ----------
    relevant : array-like of bool of shape (n_queries, n_ranked)
        Whether the gallery image at each rank is a positive of the query, best first.
    n_positives : int or array-like of int of shape (n_queries,), default=None
        Number of positives that exist for each query, at least as many as are ranked. None: all are ranked.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        See :func:`skretrieval.metrics.average_precision`.

    Returns
    -------
    scores : ndarray of shape (n_queries,)
        NaN for queries without positives.

    Raises
    ------
    ValueError
        If the shapes do not fit, fewer positives exist than were found, or the method is unknown.

    References
    ----------
    .. [1] Philbin, J., Chum, O., Isard, M., Sivic, J. and Zisserman, A. (2007). Object retrieval with large
       vocabularies and fast spatial matching. CVPR. ("trapezoid".)

    Examples
    --------
    >>> from skretrieval.metrics import ap_from_relevance
    >>> ap_from_relevance([[True, False, False], [False, True, False]])
    array([1.  , 0.25])
    """
    relevant = np.asarray(relevant, dtype=bool)
    if relevant.ndim != 2:
        raise ValueError(f"relevant must be (n_queries, n_ranked), got {relevant.ndim} dimensions.")
    if n_positives is None:
        n_positives = np.count_nonzero(relevant, axis=1)
    n_positives = np.asarray(n_positives)
    if n_positives.ndim > 1 or (n_positives.ndim == 1 and len(n_positives) != len(relevant)):
        raise ValueError(f"n_positives has shape {n_positives.shape}, but there are {len(relevant)} queries.")
    query, ranks = np.nonzero(relevant)
    return average_precisions(query, ranks, np.broadcast_to(n_positives, len(relevant)), method)


def average_precisions(
    query: NDArray[np.integer], ranks: NDArray[np.integer], n_positives: NDArray[np.integer], method: str
) -> NDArray[np.float64]:
    """Average precision of many queries from one flat list of hits, sorted by query, then rank.

    Parameters
    ----------
    query, ranks : ndarray of int of shape (n_hits,)
        Which query each hit belongs to, and its 0-based rank there.
    n_positives : ndarray of int of shape (n_queries,)
        Number of positives that exist.
    method : str
        See :func:`skretrieval.metrics.average_precision`.

    Returns
    -------
    scores : ndarray of shape (n_queries,)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}.")
    found = np.bincount(query, minlength=len(n_positives))
    if np.any(found > n_positives):
        worst = np.argmax(found > n_positives)
        raise ValueError(
            f"Query {worst} has {found[worst]} positives in its ranking, but n_positives={n_positives[worst]}."
        )
    if method == "printed":
        # One entry for each b = 1 .. m of each query, in one row: whether the image at rank b - 1 is a hit.
        starts = np.cumsum(n_positives) - n_positives
        owner = np.repeat(np.arange(len(n_positives)), n_positives)
        hit = np.zeros(len(owner), dtype=np.intp)
        early = ranks < n_positives[query]
        hit[starts[query[early]] + ranks[early]] = 1
        hits = np.cumsum(hit)
        k = hits - (hits - hit)[starts[owner]]
        terms = k / (np.arange(len(owner)) - starts[owner] + 1)
    else:
        owner = query.astype(np.intp, copy=False)
        # j counts the hits of a query that come before this one.
        j = np.arange(len(query)) - (np.cumsum(found) - found)[query]
        terms = (j + 1) / (ranks + 1)
        if method == "trapezoid":
            before = np.where(ranks == 0, 1.0, j / np.maximum(ranks, 1))
            terms = (before + terms) / 2
    totals = np.bincount(owner, weights=terms, minlength=len(n_positives))
    return np.where(n_positives > 0, totals / np.maximum(n_positives, 1), np.nan)
