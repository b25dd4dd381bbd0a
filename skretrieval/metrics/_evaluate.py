"""One call for every protocol, and ground truth from labels."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d

from .._average_precision import DISTRACTOR
from ._protocols import (
    evaluate_holidays,
    evaluate_labels,
    evaluate_oxford,
    evaluate_revisited,
)
from ._significance import standard_error
from ._ukbench import evaluate_ukbench


def evaluate_rankings(
    ranks: ArrayLike, ground_truth: Sequence[dict[str, Any]], protocol: str, **options: Any
) -> dict[str, dict[str, Any]]:
    """Evaluate rankings under a protocol chosen by name, with the figures of a table.

    Parameters
    ----------
    ranks : array-like of int of shape (n_queries, n_ranked)
        Gallery indices for each query, best first.
    ground_truth : sequence of n_queries dicts
        What the function of the protocol takes. The data sets of :mod:`skretrieval.datasets` have it under
        ``ground_truth``, and the protocol under ``protocol``.
    protocol : {"oxford", "revisited", "holidays", "ukbench", "labels"}
        :func:`evaluate_oxford`, :func:`evaluate_revisited`, :func:`evaluate_holidays`, :func:`evaluate_ukbench` or
        :func:`evaluate_labels`.
    **options
        Options of that function, such as ``kappas``, ``precision``, ``method``, ``database`` or ``queries``.

    Returns
    -------
    figures : dict of str to dict
        Under "easy", "medium" and "hard" for "revisited", "ns" for "ukbench" and "map" for all others, a dict with

        - "score": float, mean average precision, or N-S;
        - "standard_error": float, of that mean over queries; see :func:`standard_error`;
        - "n_queries": int, number of queries that have positives;
        - "per_query": ndarray of shape (n_queries,), average precisions (NaN without positives) or numbers of
          images, which :func:`randomization_test` compares;
        - "precision_at": ndarray of shape (n_kappas,), not for "ukbench".

    Raises
    ------
    ValueError, TypeError
        If the protocol or an option is unknown, or as the function of the protocol.

    Examples
    --------
    >>> from skretrieval.metrics import evaluate_rankings
    >>> gnd = [{"good": [0], "ok": [], "junk": []}, {"good": [1], "ok": [2], "junk": [0]}]
    >>> figures = evaluate_rankings([[0, 1, 2], [0, 1, 2]], gnd, "oxford", kappas=(1,))
    >>> figures["map"]["score"], figures["map"]["n_queries"], figures["map"]["precision_at"]
    (1.0, 2, array([1.]))
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(map(repr, PROTOCOLS))}, got {protocol!r}.")
    scores = PROTOCOLS[protocol](ranks, ground_truth, **options)
    if protocol == "ukbench":
        scores = {"ns": scores}
    elif protocol != "revisited":
        scores = {"map": scores}
    return {name: _figures(**score) for name, score in scores.items()}


def evaluate(
    ranks: ArrayLike, ground_truth: Sequence[dict[str, Any]], protocol: str, **options: Any
) -> dict[str, dict[str, Any]]:
    """Evaluate rankings, by the former name of :func:`evaluate_rankings`.

    .. deprecated:: 0.1
        Use :func:`evaluate_rankings`. The name goes in the next version, because
        :func:`skretrieval.evaluation.evaluate` runs a whole evaluation.

    Parameters
    ----------
    ranks, ground_truth, protocol, **options
        As of :func:`evaluate_rankings`.

    Returns
    -------
    figures : dict of str to dict
        As of :func:`evaluate_rankings`.
    """
    warnings.warn(
        "skretrieval.metrics.evaluate is now evaluate_rankings; the old name goes in the next version.",
        FutureWarning,
        stacklevel=2,
    )
    return evaluate_rankings(ranks, ground_truth, protocol, **options)


def _figures(
    score: float | None = None,
    per_query: Any = None,
    map: float | None = None,
    ap: Any = None,
    **others: Any,
) -> dict[str, Any]:
    """Give the figures of all protocols the same names."""
    per_query = ap if per_query is None else per_query
    return {
        "score": map if score is None else score,
        "standard_error": standard_error(per_query),
        "n_queries": int(np.count_nonzero(~np.isnan(per_query))),
        "per_query": per_query,
        **others,
    }


PROTOCOLS: dict[str, Callable[..., dict[str, Any]]] = {
    "oxford": evaluate_oxford,
    "revisited": evaluate_revisited,
    "holidays": evaluate_holidays,
    "ukbench": evaluate_ukbench,
    "labels": evaluate_labels,
}


def ground_truth_from_labels(
    gallery_labels: ArrayLike, query_labels: ArrayLike | None = None, *, queries: ArrayLike | None = None
) -> list[dict[str, Any]]:
    """List the positives of each query from the labels of images.

    Parameters
    ----------
    gallery_labels : array-like of shape (n_gallery,)
        The object that each gallery image shows, as integers or strings. -1 marks distractors: they are
        nobody's positives.
    query_labels : array-like of shape (n_queries,), default=None
        Labels of queries that are not in the gallery.
    queries : array-like of int of shape (n_queries,), default=None
        Gallery indices of queries that are in the gallery; each is skipped in its own ranking. If both are
        None, every gallery image is a query.

    Returns
    -------
    ground_truth : list of n_queries dicts
        Under "positives" the gallery indices of the images with the label of the query, ascending; for queries in
        the gallery without the query itself, whose index is under "query". For :func:`evaluate_labels` and
        :func:`evaluate_holidays`.

    Raises
    ------
    ValueError
        If both `query_labels` and `queries` are given, or an index of `queries` is outside the gallery.
    TypeError
        If one kind of labels is strings and the other is not, or `queries` are not integers.

    Examples
    --------
    The names of the images of Holidays say the group and the place in it; the first of each group is a query:

    >>> import numpy as np
    >>> from skretrieval.metrics import ground_truth_from_labels
    >>> names = np.array([100000, 100001, 100002, 100100, 100101])
    >>> ground_truth_from_labels(names // 100, queries=np.flatnonzero(names % 100 == 0))
    [{'query': 0, 'positives': array([1, 2])}, {'query': 3, 'positives': array([4])}]
    """
    gallery = _labels(gallery_labels)
    if query_labels is not None and queries is not None:
        raise ValueError(
            "Give either query_labels (queries outside the gallery) or queries (indices), not both."
        )
    owners: NDArray[np.intp] | None = None
    if query_labels is None:
        given = np.arange(len(gallery)) if queries is None else column_or_1d(queries)
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"queries must be gallery indices, got dtype {given.dtype}.")
        if given.size and not 0 <= given.min() <= given.max() < len(gallery):
            raise ValueError(
                f"queries must be between 0 and {len(gallery) - 1}, the last gallery index, "
                f"got {given.min()} to {given.max()}."
            )
        owners = given.astype(np.intp)
        wanted = gallery[owners]
    else:
        wanted = _labels(query_labels)
        if (wanted.dtype.kind in "US") != (gallery.dtype.kind in "US"):
            raise TypeError("gallery_labels and query_labels must be both strings or both numbers.")

    order = np.argsort(gallery, kind="stable")
    ordered = gallery[order]
    first = np.searchsorted(ordered, wanted, side="left")
    last = np.searchsorted(ordered, wanted, side="right")
    if wanted.dtype.kind not in "US":
        last = np.where(wanted == DISTRACTOR, first, last)
    positives = [order[low:high] for low, high in zip(first, last, strict=True)]
    if owners is None:
        return [{"positives": ids} for ids in positives]
    return [
        {"query": int(own), "positives": ids[ids != own]} for own, ids in zip(owners, positives, strict=True)
    ]


def _labels(labels: ArrayLike) -> NDArray[Any]:
    """Labels as a 1-D array, strings as such rather than as objects."""
    column = column_or_1d(labels)
    return np.asarray(column.tolist()) if column.dtype == object else column
