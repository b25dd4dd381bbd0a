"""Rankings as lists of ids: checks, where the ids that count stand, junk, and the mean over queries."""

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length, column_or_1d


def as_ids(values: Any, name: str) -> NDArray[Any]:
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


class Hits(NamedTuple):
    """Where the ids of a few groups (positives, junk ...) stand in the rankings of several queries.

    One flat list over all queries, sorted by query, then by rank, so that nothing that follows has to loop.
    """

    query: np.ndarray  # (n_hits,) number of the query
    rank: np.ndarray  # (n_hits,) 0-based rank in the whole ranking
    group: np.ndarray  # (n_hits,) number of the group that the id found there belongs to
    n_ids: np.ndarray  # (n_queries, n_groups) distinct ids in each group, ranked or not

    def without_junk(
        self, positives: Sequence[int] = (0,), junk: Sequence[int] = (1,)
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Ranks of the positives among what is not junk.

        Parameters
        ----------
        positives, junk : sequence of int
            Groups whose ids are positives, and groups whose ids are skipped. Those in neither are negatives.

        Returns
        -------
        query, rank : ndarray of int of shape (n_positive_hits,)
            As in the attributes, for the positives alone; ranks are counted without junk.
        n_positives : ndarray of int of shape (n_queries,)
            Number of positives, ranked or not.
        """
        n_queries, n_groups = self.n_ids.shape
        role = np.zeros(n_groups, dtype=np.int8)
        role[list(positives)], role[list(junk)] = 1, 2
        roles = role[self.group]
        skipped = np.cumsum(roles == 2)
        # Junk of the queries before, which the running count includes.
        own = np.bincount(self.query, weights=roles == 2, minlength=n_queries).astype(np.intp)
        earlier = np.cumsum(own) - own
        kept = roles == 1
        query = self.query[kept]
        rank = self.rank[kept] - (skipped[kept] - earlier[query])
        return query, rank, self.n_ids[:, list(positives)].sum(axis=1)


def find_hits(
    rankings: Sequence[Any] | NDArray[Any],
    groups: Sequence[tuple[Any, ...]],
    names: tuple[str, ...] = ("positive", "junk"),
    single: bool = False,
) -> Hits:
    """Find the ids of a few disjoint groups in rankings.

    Parameters
    ----------
    rankings : sequence of n_queries sequences of int or of str
        Ids, best first.
    groups : sequence of n_queries tuples of collections of int or of str
        The ids of each group, in the order of `names`.
    names : tuple of str
        What the groups are called in messages.
    single : bool, default=False
        Leave the number of the query out of messages.

    Returns
    -------
    hits : Hits

    Raises
    ------
    ValueError
        If an id is ranked twice, or is in two groups.
    TypeError
        If ids are neither integers nor strings, or not of one kind.
    """
    found, n_ids = [], np.zeros((len(rankings), len(names)), dtype=np.intp)
    for query, (ranking, members) in enumerate(zip(rankings, groups, strict=True)):
        prefix = "" if single else f"Query {query}: "
        ranking = as_ids(ranking, f"{prefix}ranking")
        ids = [as_ids(ids, f"{prefix}{name} ids") for name, ids in zip(names, members, strict=True)]
        if len({part.dtype.kind for part in (ranking, *ids) if part.size}) > 1:
            raise TypeError(
                f"{prefix}ranking, {' and '.join(names)} ids must all hold integers or all hold strings."
            )
        ids = [np.unique(part) for part in ids]
        n_ids[query] = [part.size for part in ids]
        every = np.concatenate([part for part in ids if part.size] or ids)
        codes = np.repeat(np.arange(len(names), dtype=np.uint8), n_ids[query])
        order = np.argsort(every, kind="stable")
        every, codes = every[order], codes[order]
        twice = np.flatnonzero(every[1:] == every[:-1])
        if twice.size:
            first, second = (names[codes[i]] for i in (twice[0], twice[0] + 1))
            raise ValueError(f"{prefix}id {every[twice[0]].item()!r} is both {first} and {second}.")
        found.append(_find(ranking, every, codes, prefix))
    lengths = [len(places) for places, _ in found]
    return Hits(
        query=np.repeat(np.arange(len(found)), lengths),
        rank=np.concatenate([places for places, _ in found]) if found else np.empty(0, dtype=np.intp),
        group=np.concatenate([codes for _, codes in found]) if found else np.empty(0, dtype=np.uint8),
        n_ids=n_ids,
    )


def _find(
    ranking: NDArray[Any], ids: NDArray[Any], codes: NDArray[np.uint8], prefix: str
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Places in a ranking where sorted distinct ids stand, ascending, and the codes of these ids."""
    # Indices of a gallery of which a good part is ranked: look each up in a table, without any sorting.
    if ranking.dtype.kind == "i" and ranking.size and ranking.min() >= 0:
        size = int(ranking.max()) + 1
        if size <= 16 * ranking.size + 1024:
            absent, seen = np.uint8(254), np.uint8(255)
            table = np.full(size, absent)
            inside = (ids >= 0) & (ids < size)
            table[ids[inside]] = codes[inside]
            code = table[ranking]
            table[ranking] = seen
            if np.count_nonzero(table == seen) < ranking.size:
                _refuse_repeated(ranking, prefix)
            places = np.flatnonzero(code != absent)
            return places, code[places]
    _refuse_repeated(ranking, prefix)
    if ids.size == 0:
        return np.empty(0, dtype=np.intp), codes
    nearest = np.minimum(np.searchsorted(ids, ranking), ids.size - 1)
    places = np.flatnonzero(ids[nearest] == ranking)
    return places, codes[nearest[places]]


def _refuse_repeated(ranking: NDArray[Any], prefix: str) -> None:
    distinct, counts = np.unique(ranking, return_counts=True)
    if len(distinct) < len(ranking):
        raise ValueError(f"{prefix}id {distinct[counts > 1][0].item()!r} is ranked more than once.")


def find_hits_of_queries(
    rankings: Sequence[Any] | NDArray[Any], positives: Sequence[Any], junk: Sequence[Any] | None
) -> Hits:
    """Find the positives and junk of several queries in their rankings.

    Parameters
    ----------
    rankings, positives : sequence of n_queries entries
        One entry per query.
    junk : sequence of n_queries entries, or None
        One entry per query; None or an empty collection for no junk.

    Returns
    -------
    hits : Hits
        Of the groups positives (0) and junk (1).

    Raises
    ------
    ValueError
        If there is no query, or not one entry for each; and as :func:`find_hits`.
    TypeError
        As :func:`find_hits`.
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
    return find_hits(rankings, list(zip(positives, junk, strict=True)))


def check_rank_matrix(ranks: ArrayLike, n_queries: int | None = None) -> NDArray[np.integer]:
    """Check rankings of gallery indices, one row per query.

    Parameters
    ----------
    ranks : array-like of int of shape (n_queries, n_ranked)
        Gallery indices, best first.
    n_queries : int, default=None
        Number of rows there must be; None for any but 0.

    Returns
    -------
    ranks : ndarray of the same shape, of the given integer type

    Raises
    ------
    ValueError
        If it is not two-dimensional, does not have one row per query, or holds a negative index.
    TypeError
        If it does not hold integers.
    """
    try:
        ranks = np.asarray(ranks)
    except ValueError as error:
        raise ValueError(
            "ranks must be of shape (n_queries, n_ranked): all rows of the same length."
        ) from error
    if ranks.ndim != 2:
        raise ValueError(f"ranks must be of shape (n_queries, n_ranked), got {ranks.ndim} dimensions.")
    if len(ranks) == 0 or n_queries == 0:
        raise ValueError(f"There is no query: ranks has shape {ranks.shape}, for {n_queries or 0} queries.")
    if n_queries is not None and len(ranks) != n_queries:
        message = f"ranks must have one row per query: it has shape {ranks.shape}, for {n_queries} queries."
        if ranks.shape[1] == n_queries:
            message += " It may be transposed (revisitop ranks in columns): pass ranks.T."
        raise ValueError(message)
    if ranks.size and ranks.dtype.kind not in "iu":
        raise TypeError(f"ranks must hold gallery indices, which are integers, got dtype {ranks.dtype}.")
    if ranks.size and ranks.dtype.kind == "i" and ranks.min() < 0:
        raise ValueError(
            f"Query {np.argwhere(ranks < 0)[0, 0]}: ranks holds the negative index {ranks.min()}. Indices start at "
            "0; some search engines fill up short results with -1."
        )
    return ranks


def gallery_indices(
    ground_truth: Sequence[dict[str, Any]], keys: tuple[str, ...], optional: tuple[str, ...] = ()
) -> list[tuple[NDArray[np.int64], ...]]:
    """Read the gallery indices of each query under several keys.

    Parameters
    ----------
    ground_truth : sequence of n_queries dicts
        Collections of gallery indices, of which "query" is a single one.
    keys : tuple of str
        What to read.
    optional : tuple of str, default=()
        Which of them may be missing, for no indices.

    Returns
    -------
    groups : list of n_queries tuples of ndarray of int64
        In the order of `keys`.

    Raises
    ------
    ValueError
        If it is not a sequence of dicts, a key is missing, or an index is negative.
    TypeError
        If indices are not integers.
    """
    if isinstance(ground_truth, dict) or not all(isinstance(entry, dict) for entry in ground_truth):
        raise ValueError(
            f"The ground truth must be a sequence of dicts, one per query, with the keys {keys}."
        )
    groups = []
    for query, entry in enumerate(ground_truth):
        members = []
        for key in keys:
            ids = entry.get(key, ())
            if ids is None or (key not in entry and key not in optional):
                raise ValueError(
                    f"Query {query}: the ground truth has no {key!r}, only {sorted(map(str, entry))}."
                )
            name = f"Query {query}: ground truth {key!r}"
            if key == "query" and key in entry:
                if np.ndim(ids):
                    raise ValueError(f"{name} must be one gallery index, got {ids!r}.")
                ids = np.array([ids])
            ids = as_ids(ids, name)
            if ids.dtype.kind != "i":
                raise TypeError(f"{name} must hold gallery indices, got strings.")
            if ids.size and ids.min() < 0:
                raise ValueError(f"{name} holds the negative index {ids.min()}.")
            members.append(ids)
        groups.append(tuple(members))
    return groups


def is_one_query(ranking: Sequence[Any] | NDArray[Any]) -> bool:
    """Whether `ranking` is the ranking of one query rather than a sequence of rankings."""
    if isinstance(ranking, np.ndarray) and ranking.dtype != object:
        return ranking.ndim == 1
    first = next(iter(ranking), None)
    return first is None or isinstance(first, str | Integral)


def mean_over_queries(scores: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
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
            bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[0]
            raise ValueError(
                f"sample_weight must be finite and not negative, got {weights[bad]} for query {bad}."
            )
    weights = np.where(np.isnan(scores), 0.0, weights)
    if not np.any(weights):
        warnings.warn(
            "No query has a positive, so that the mean over queries is not defined: NaN.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
        return float("nan")
    return float(np.average(np.nan_to_num(scores), weights=weights))


def mean_of_defined(scores: NDArray[np.float64]) -> Any:
    """Mean over the queries (first axis) that have a score, NaN where none has, without a warning.

    For results that show the scores of the queries beside their mean.
    """
    defined = ~np.isnan(scores)
    count = defined.sum(axis=0)
    total = np.where(defined, scores, 0.0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean if mean.ndim else float(mean)
