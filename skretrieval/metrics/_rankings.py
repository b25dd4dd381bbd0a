"""Rankings as lists of ids: checks, junk, and the mean over queries."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length, column_or_1d


def as_ids(values, name):
    """Turn a collection of ids into a 1-D array of int64 or of str.

    Parameters
    ----------
    values : sequence or set of int or of str
        The ids.
    name : str
        What to call them in messages.

    Returns
    -------
    ids : ndarray of shape (n,)

    Raises
    ------
    TypeError
        If they are neither all integers nor all strings.
    ValueError
        If they are not one-dimensional.
    """
    if not isinstance(values, np.ndarray):
        if isinstance(values, str):
            raise TypeError(f"{name} must be a collection of ids, got the string {values!r}.")
        values = list(values)
        # NumPy would turn the numbers of a mixed list into strings.
        if any(isinstance(value, str) for value in values) and not all(
            isinstance(value, str) for value in values
        ):
            raise TypeError(f"{name} mixes strings with other ids.")
        values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got {values.ndim} dimensions.")
    if values.size == 0:
        return np.empty(0, dtype=np.int64)
    if values.dtype == object:
        values = np.asarray(values.tolist())
    if values.dtype.kind in "iu":
        return values.astype(np.int64, copy=False)
    if values.dtype.kind == "U":
        return values
    raise TypeError(f"{name} must hold ids that are integers or strings, got dtype {values.dtype}.")


def positive_ranks(ranking, positives, junk=(), query=None):
    """Ranks of the positives among what is not junk.

    Parameters
    ----------
    ranking : sequence of int or of str
        Ids, best first.
    positives, junk : collection of int or of str
        Ids of the positives, and ids to skip.
    query : int, default=None
        Index of the query, for messages.

    Returns
    -------
    ranks : ndarray of int of shape (n_found,)
        0-based ranks of the positives found, ascending.
    n_positives : int
        Number of distinct positives, found or not.

    Raises
    ------
    ValueError
        If an id is ranked twice, or is both positive and junk.
    TypeError
        If ids are neither integers nor strings, or not of one kind.
    """
    prefix = "" if query is None else f"Query {query}: "
    ranking = as_ids(ranking, f"{prefix}ranking")
    positives = np.unique(as_ids(positives, f"{prefix}positives"))
    junk = as_ids(junk, f"{prefix}junk")
    kinds = {ids.dtype.kind for ids in (ranking, positives, junk) if ids.size}
    if len(kinds) > 1:
        raise TypeError(f"{prefix}ranking, positives and junk must all hold integers or all hold strings.")
    distinct, counts = np.unique(ranking, return_counts=True)
    if len(distinct) < len(ranking):
        raise ValueError(f"{prefix}id {distinct[counts > 1][0].item()!r} is ranked more than once.")
    both = np.intersect1d(positives, junk)
    if both.size:
        raise ValueError(f"{prefix}id {both[0].item()!r} is both positive and junk.")
    if junk.size:
        ranking = ranking[~np.isin(ranking, junk)]
    return np.flatnonzero(np.isin(ranking, positives)), len(positives)


def check_queries(rankings, positives, junk):
    """Pair up the rankings, positives and junk of several queries.

    Parameters
    ----------
    rankings, positives : sequence of n_queries entries
        One entry per query.
    junk : sequence of n_queries entries, or None
        One entry per query; None or an empty collection for no junk.

    Returns
    -------
    queries : list of tuple (ranking, positives, junk)

    Raises
    ------
    ValueError
        If there is no query, or not one entry for each.
    """
    n_queries = len(rankings)
    if n_queries == 0:
        raise ValueError("There is no query: rankings is empty.")
    if len(positives) != n_queries:
        raise ValueError(f"There are {n_queries} rankings, but positives has {len(positives)} entries.")
    if junk is None or len(junk) == 0:
        junk = [()] * n_queries
    elif len(junk) != n_queries:
        raise ValueError(f"There are {n_queries} rankings, but junk has {len(junk)} entries.")
    return list(zip(rankings, positives, junk, strict=True))


def is_one_query(ranking):
    """Whether `ranking` is the ranking of one query rather than a sequence of rankings."""
    if isinstance(ranking, np.ndarray) and ranking.dtype != object:
        return ranking.ndim == 1
    first = next(iter(ranking), None)
    return first is None or isinstance(first, str | Integral)


def mean_over_queries(scores, sample_weight=None):
    """Mean over the queries that have a score.

    Parameters
    ----------
    scores : array-like of shape (n_queries,)
        NaN where a query has no positive.
    sample_weight : array-like of shape (n_queries,), default=None
        Weights of the queries.

    Returns
    -------
    mean : float
        NaN, with an UndefinedMetricWarning, if no query of positive weight has a score.
    """
    scores = np.asarray(scores, dtype=np.float64)
    weights = np.ones(len(scores))
    if sample_weight is not None:
        weights = column_or_1d(sample_weight).astype(np.float64)
        check_consistent_length(scores, weights)
        if not np.all(np.isfinite(weights)) or np.any(weights < 0):
            raise ValueError("sample_weight must be finite and not negative.")
    weights = np.where(np.isnan(scores), 0.0, weights)
    if not np.any(weights):
        warnings.warn(
            "No query has a positive, so that the mean over queries is not defined: NaN.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
        return float("nan")
    return float(np.average(np.nan_to_num(scores), weights=weights))
