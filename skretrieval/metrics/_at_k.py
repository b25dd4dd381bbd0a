"""Precision and recall of the first k results."""

from collections.abc import Callable, Collection, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._average_precision import PRECISION_MODES
from ._rankings import find_hits, find_hits_of_queries, is_one_query, mean_over_queries

RECALL_MODES = ("fraction", "any")


def precision_at_k(
    ranking: Sequence[Any] | NDArray[Any],
    positives: Collection[Any] | NDArray[Any],
    k: int,
    junk: Collection[Any] | NDArray[Any] = (),
    mode: str = "standard",
) -> float:
    """Share of positives among the first k results.

    Parameters
    ----------
    ranking : sequence of int or of str; or sequence of n_queries such sequences
        Ids of the gallery images, best first, each at most once: of one query, or of each of several.
    positives : collection of int or of str; or sequence of n_queries such collections
        Ids of all gallery images that show the object of the query.
    k : int
        Number of results looked at, after junk is removed.
    junk : collection of int or of str; or sequence of n_queries such collections, default=()
        Ids that are skipped as if they were not in the gallery.
    mode : {"standard", "revisitop"}, default="standard"
        - "standard": positives among the first k, divided by k, even if less than k images are ranked.
        - "revisitop": divided by ``min(k, rank of the last positive found)`` instead, which is what the
          evaluation program of revisited Oxford and Paris reports as mP@k: a query with fewer than k
          positives can still reach 1. A query of which no positive was found scores 0.

    Returns
    -------
    score : float
        Of one query: NaN if it has no positives. Of several: the mean over those that have positives, and NaN
        with an UndefinedMetricWarning if none has.

    Raises
    ------
    ValueError
        If k < 1, if an id is ranked twice or is both positive and junk, or if the mode is unknown.
    TypeError
        If ids are neither integers nor strings, or not of one kind.

    Notes
    -----
    Precisions at k in the literature on revisited Oxford and Paris are not always of the kind that their text
    defines: published values of P@5 that are no multiples of 1 / (5 n_queries) are of the second kind.

    References
    ----------
    .. [1] Radenovic, F., Iscen, A., Tolias, G., Avrithis, Y. and Chum, O. (2018). Revisiting Oxford and Paris:
       large-scale image retrieval benchmarking. CVPR.

    Examples
    --------
    >>> from skretrieval.metrics import precision_at_k
    >>> precision_at_k([7, 3, 9, 1], positives=[7, 9], k=4)
    0.5
    >>> precision_at_k([7, 3, 9, 1], positives=[7, 9], k=4, mode="revisitop")
    0.666...
    >>> precision_at_k([[7, 3], [3, 7]], positives=[[7], [7]], k=1)
    0.5
    """
    return _over_queries(precisions_at, ranking, positives, k, junk, mode)


def recall_at_k(
    ranking: Sequence[Any] | NDArray[Any],
    positives: Collection[Any] | NDArray[Any],
    k: int,
    junk: Collection[Any] | NDArray[Any] = (),
    mode: str = "fraction",
) -> float:
    """Share of the positives that are among the first k results.

    Parameters
    ----------
    ranking : sequence of int or of str; or sequence of n_queries such sequences
        Ids of the gallery images, best first, each at most once: of one query, or of each of several.
    positives : collection of int or of str; or sequence of n_queries such collections
        Ids of all gallery images that show the object of the query.
    k : int
        Number of results looked at, after junk is removed.
    junk : collection of int or of str; or sequence of n_queries such collections, default=()
        Ids that are skipped as if they were not in the gallery.
    mode : {"fraction", "any"}, default="fraction"
        - "fraction": positives among the first k, divided by the number of positives that exist.
        - "any": 1 if there is a positive among the first k, else 0, which is called Recall@k in work on metric
          learning and place recognition.

    Returns
    -------
    score : float
        Of one query: NaN if it has no positives. Of several: the mean over those that have positives, and NaN
        with an UndefinedMetricWarning if none has.

    Raises
    ------
    ValueError
        If k < 1, if an id is ranked twice or is both positive and junk, or if the mode is unknown.
    TypeError
        If ids are neither integers nor strings, or not of one kind.

    References
    ----------
    .. [1] Jegou, H., Douze, M. and Schmid, C. (2011). Product quantization for nearest neighbor search. IEEE
       Transactions on Pattern Analysis and Machine Intelligence. (Recall at k of one neighbour: "any".)

    Examples
    --------
    >>> from skretrieval.metrics import recall_at_k
    >>> recall_at_k([7, 3, 9, 1], positives=[7, 9], k=2)
    0.5
    >>> recall_at_k([7, 3, 9, 1], positives=[7, 9], k=2, mode="any")
    1.0
    """
    return _over_queries(recalls_at, ranking, positives, k, junk, mode)


def precisions_at(
    query: NDArray[np.integer],
    ranks: NDArray[np.integer],
    n_positives: NDArray[np.integer],
    kappas: Sequence[int],
    mode: str,
) -> NDArray[np.float64]:
    """Precision of many queries at several depths, from one flat list of hits, sorted by query, then rank.

    Parameters
    ----------
    query, ranks : ndarray of int of shape (n_hits,)
        Which query each hit belongs to, and its 0-based rank there, counted without junk.
    n_positives : ndarray of int of shape (n_queries,)
        Number of positives that exist.
    kappas : sequence of int of length n_kappas
        Numbers of results looked at.
    mode : {"standard", "revisitop"}
        See :func:`precision_at_k`.

    Returns
    -------
    scores : ndarray of shape (n_queries, n_kappas)
        NaN for queries without positives.
    """
    _check_mode(mode, PRECISION_MODES)
    depths, hits = _hits_at(query, ranks, len(n_positives), kappas)
    depth = np.broadcast_to(depths, hits.shape)
    if mode == "revisitop":
        last = np.zeros(len(n_positives), dtype=np.intp)  # 1-based; 0 if none was found
        np.maximum.at(last, query, ranks + 1)
        depth = np.minimum(depth, last[:, None])
    return np.where(n_positives[:, None] > 0, hits / np.maximum(depth, 1), np.nan)


def recalls_at(
    query: NDArray[np.integer],
    ranks: NDArray[np.integer],
    n_positives: NDArray[np.integer],
    kappas: Sequence[int],
    mode: str,
) -> NDArray[np.float64]:
    """Recall of many queries at several depths; see :func:`precisions_at` and :func:`recall_at_k`."""
    _check_mode(mode, RECALL_MODES)
    _, hits = _hits_at(query, ranks, len(n_positives), kappas)
    scores = hits > 0 if mode == "any" else hits / np.maximum(n_positives, 1)[:, None]
    return np.where(n_positives[:, None] > 0, scores, np.nan)


def _hits_at(
    query: NDArray[np.integer], ranks: NDArray[np.integer], n_queries: int, kappas: Sequence[int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Check the depths; count the hits of each query down to each, shape (n_queries, n_kappas)."""
    for k in kappas:
        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be an integer of at least 1, got {k!r}.")
    hits = np.empty((n_queries, len(kappas)), dtype=np.intp)
    for column, k in enumerate(kappas):
        hits[:, column] = np.bincount(query[ranks < k], minlength=n_queries)
    return np.array(kappas, dtype=np.intp), hits


def _over_queries(
    scores: Callable[..., NDArray[np.float64]],
    ranking: Sequence[Any] | NDArray[Any],
    positives: Any,
    k: int,
    junk: Any,
    mode: str,
) -> float:
    if is_one_query(ranking):
        hits = find_hits([ranking], [(positives, junk)], single=True)
        return float(scores(*hits.without_junk(), (k,), mode)[0, 0])
    hits = find_hits_of_queries(ranking, positives, junk)
    return mean_over_queries(scores(*hits.without_junk(), (k,), mode)[:, 0])


def _check_mode(mode: str, modes: tuple[str, ...]) -> None:
    if mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(map(repr, modes))}, got {mode!r}.")
