"""Pairs of photographs that show the same object, found without labels, and what they say of a setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from .._geometry import LocalFeatures, central_share, verify_pair

#: Inliers from which a homography is no chance; fewer are common among photographs of unlike things.
MIN_INLIERS = 15
#: Inliers that lie in the middle of both photographs, at least, as a share. On 158 photographs of single objects,
#: 40 % of the pairs that a homography joins show different things on the same table; with this, none does.
MIN_CENTRAL = 0.5
#: Share of the pairs between two groups that must be verified for the groups to be one object.
_LINKED = 0.5
_BLOCK = 1024  # rows of similarities looked at together


class Mates(NamedTuple):
    """Photographs of the same object.

    Attributes
    ----------
    pairs : int64 ndarray of shape (m, 2)
        Positions of two photographs, each pair once.
    groups : int64 ndarray of shape (n,)
        A number for each photograph; those of one object have the same. Photographs without a mate have one of
        their own.
    """

    pairs: np.ndarray
    groups: np.ndarray

    def has_mate(self) -> np.ndarray:
        """Return a mask of the photographs that have one."""
        return np.isin(np.arange(len(self.groups)), self.pairs)


def candidate_pairs(neighbors: Iterable[np.ndarray], asked: np.ndarray, n_each: int) -> np.ndarray:
    """Choose the pairs to verify: the nearest of each setting in turn, so that none is favoured.

    Parameters
    ----------
    neighbors : iterable of int ndarray of shape (n_asked, k)
        What each setting finds, best first, for the photographs that are asked about.
    asked : int ndarray of shape (n_asked,)
        Positions of these photographs.
    n_each : int
        Different candidates for each.

    Returns
    -------
    pairs : int64 ndarray of shape (m, 2)
        Positions with the smaller first, each pair once, sorted.
    """
    stacked = np.stack(list(neighbors), axis=2)  # (n_asked, k, n_settings): ranks first, then settings
    found: set[tuple[int, int]] = set()
    for position, row in zip(asked.tolist(), stacked.reshape(len(asked), -1)):
        chosen = [other for other in dict.fromkeys(row.tolist()) if other != position][:n_each]
        found.update((min(position, other), max(position, other)) for other in chosen)
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


def verified_pairs(
    features: Sequence[LocalFeatures] | dict[int, LocalFeatures],
    candidates: np.ndarray,
    *,
    min_inliers: int = MIN_INLIERS,
    min_central: float = MIN_CENTRAL,
    n_jobs: int | None = None,
    say: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Return the candidates that a homography joins by what stands in the middle of both.

    Parameters
    ----------
    features : sequence or dict of LocalFeatures
        By position.
    candidates : int ndarray of shape (m, 2)
        Positions.
    min_inliers : int, default=15
        Matches that the homography explains, at least.
    min_central : float, default=0.5
        Share of them in the middle of both photographs, at least (see :func:`skretrieval._geometry.central_share`).
    n_jobs : int or None, default=None
        Threads, as joblib has them.
    say : callable or None
        Takes a line on how far it is.

    Returns
    -------
    pairs : int64 ndarray of shape (k, 2)
        Those of the candidates.
    """

    def holds(pair: np.ndarray) -> bool:
        first, second = features[int(pair[0])], features[int(pair[1])]
        found = verify_pair(first, second, min_inliers=min_inliers)
        return found.n_inliers >= min_inliers and central_share(first, second, found.inliers) >= min_central

    kept = []
    step = 5000
    for start in range(0, len(candidates), step):
        if say is not None and start:
            say(f"{start} of {len(candidates)} pairs verified")
        part = candidates[start : start + step]
        kept += Parallel(n_jobs=n_jobs, prefer="threads")(delayed(holds)(pair) for pair in part)
    return candidates[np.array(kept, dtype=bool)] if len(candidates) else candidates


def mates_of(pairs: np.ndarray, n_images: int) -> Mates:
    """Gather verified pairs into objects, and drop pairs that do not fit in.

    Objects come from average linkage: two groups are one where at least half of the pairs between them are verified.
    A single pair between two groups, by a place or a picture that different objects share, so joins nothing.

    Parameters
    ----------
    pairs : int ndarray of shape (m, 2)
        Positions.
    n_images : int
        Photographs in all.

    Returns
    -------
    mates : Mates
        The pairs within objects.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.model_selection import mates_of
    >>> mates = mates_of(np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4]]), 6)
    >>> mates.groups
    array([0, 0, 0, 3, 3, 5])
    >>> mates.pairs.tolist()
    [[0, 1], [0, 2], [1, 2], [3, 4]]
    """
    groups = np.arange(n_images)
    involved = np.unique(pairs)
    if len(involved) == 0:
        return Mates(np.zeros((0, 2), np.int64), groups)
    place = np.searchsorted(involved, pairs)
    apart = np.ones((len(involved), len(involved)))
    apart[place[:, 0], place[:, 1]] = apart[place[:, 1], place[:, 0]] = 0
    np.fill_diagonal(apart, 0)
    numbers = fcluster(linkage(squareform(apart, checks=False), "average"), _LINKED, "distance")
    first = {number: int(involved[numbers == number][0]) for number in np.unique(numbers)}
    groups[involved] = [first[number] for number in numbers]
    within = groups[pairs[:, 0]] == groups[pairs[:, 1]]
    return Mates(np.asarray(pairs[within], dtype=np.int64), groups)


def mates_of_given(pairs: np.ndarray, n_images: int) -> Mates:
    """Take pairs as a person gave them: photographs joined by any chain of pairs show one object."""
    groups = np.arange(n_images)
    for first, second in np.sort(pairs, axis=1):
        low, high = sorted((groups[first], groups[second]))
        groups[groups == high] = low
    return Mates(np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int64), groups)


def both_ways(pairs: np.ndarray) -> np.ndarray:
    """Return (who asks, whom it should find) for pairs in which each asks for the other."""
    return np.concatenate([pairs, pairs[:, ::-1]])


def mate_scores(similar: np.ndarray, wanted: np.ndarray, tolerance: int = 1) -> np.ndarray:
    """Score how high photographs rank those that they should find.

    One at rank r among the photographs that are not wanted counts ``1 - log(max(r, t) / t) / log(n / t)``: 1 up to
    rank t, then linear in the logarithm, 0 for the last. The tolerance t is there because a photograph may have other
    mates that nobody has found: those before a known mate are no mistake.

    Parameters
    ----------
    similar : ndarray of shape (n, n)
        Similarities. The diagonal is not looked at.
    wanted : int ndarray of shape (m, 2)
        Who asks, and whom it should find.
    tolerance : int, default=1
        t, below n.

    Returns
    -------
    scores : ndarray of shape (n,)
        Mean over all that a photograph should find, NaN for one that asks for none.
    """
    n = len(similar)
    known = np.eye(n, dtype=bool)
    known[wanted[:, 0], wanted[:, 1]] = True
    own = similar[wanted[:, 0], wanted[:, 1]]
    ranks = np.empty(len(wanted))
    for start in range(0, len(wanted), _BLOCK):
        part = slice(start, start + _BLOCK)
        asking = wanted[part, 0]
        strange, level = ~known[asking], own[part, np.newaxis]
        before = ((similar[asking] > level) & strange).sum(axis=1)
        level_with = ((similar[asking] == level) & strange).sum(
            axis=1
        )  # half of them come before, on average
        ranks[part] = 1 + before + level_with / 2
    gained = 1 - np.log(np.maximum(ranks, tolerance) / tolerance) / np.log(n / tolerance)
    counts = np.bincount(wanted[:, 0], minlength=n)
    sums = np.bincount(wanted[:, 0], weights=gained, minlength=n)
    return np.divide(sums, counts, out=np.full(n, np.nan), where=counts > 0)
