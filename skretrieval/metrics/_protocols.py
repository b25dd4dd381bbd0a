"""The published protocols: which images count for which query, and which are skipped."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._average_precision import average_precisions
from ._at_k import precisions_at
from ._rankings import Hits, check_rank_matrix, find_hits, gallery_indices, mean_of_defined

KAPPAS = (1, 5, 10)
DATABASES = ("all", "non_queries")

# Groups of the revisited protocol are numbered easy 0, hard 1, junk 2. For each level: positives, junk.
REVISITED_LEVELS = {"easy": ((0,), (1, 2)), "medium": ((0, 1), (2,)), "hard": ((1,), (0, 2))}


def evaluate_revisited(
    ranks: ArrayLike,
    gnd: Sequence[dict[str, Any]] | dict[str, Any],
    kappas: Sequence[int] = KAPPAS,
    *,
    precision: str = "revisitop",
    method: str = "trapezoid",
) -> dict[str, dict[str, Any]]:
    """Evaluate rankings under the protocol of revisited Oxford and Paris (ROxford5k, RParis6k).

    Queries are cropped and are not in the gallery. Each image that shows the object of a query is easy, hard or
    junk, which gives three levels of difficulty:

    ======  ============  ==========
    level   positives     skipped
    ======  ============  ==========
    easy    easy          junk, hard
    medium  easy, hard    junk
    hard    hard          junk, easy
    ======  ============  ==========

    Parameters
    ----------
    ranks : array-like of int of shape (n_queries, n_ranked)
        Gallery indices for each query, best first, each at most once. A row may be cut off (n_ranked less than
        the size of the gallery): positives that are not in it contribute 0. Indices beyond the images that the
        ground truth names are distractors.
    gnd : sequence of n_queries dicts, or dict with such a sequence under "gnd"
        For each query the gallery indices under "easy", "hard" and "junk", as lists or arrays. Other keys
        ("bbx") are ignored. The official ground-truth file holds the second form.
    kappas : sequence of int, default=(1, 5, 10)
        Depths at which precision is measured.
    precision : {"revisitop", "standard"}, default="revisitop"
        Rule of the precision at k: the `mode` of :func:`precision_at_k`.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        Rule of the average precision; see :func:`average_precision`.

    Returns
    -------
    scores : dict
        Under "easy", "medium" and "hard" a dict with

        - "map": float, mean average precision over the queries that have a positive at this level;
        - "ap": ndarray of shape (n_queries,), average precisions, NaN for queries without positives;
        - "precision_at": ndarray of shape (n_kappas,), mean precisions at `kappas` over the same queries.

        The means are NaN at a level at which no query has a positive.

    Raises
    ------
    ValueError
        If `ranks` is not two-dimensional with one row per query (revisitop's own are its transpose), holds a
        negative index or one index twice in a row; if a dict lacks a group, or an image is in two of them; if
        an option is unknown.
    TypeError
        If indices are not integers.

    References
    ----------
    .. [1] Radenovic, F., Iscen, A., Tolias, G., Avrithis, Y. and Chum, O. (2018). Revisiting Oxford and Paris:
       large-scale image retrieval benchmarking. CVPR. Section 3.

    Examples
    --------
    >>> from skretrieval.metrics import evaluate_revisited
    >>> gnd = [{"easy": [0], "hard": [2], "junk": [1]}, {"easy": [], "hard": [3], "junk": []}]
    >>> scores = evaluate_revisited([[1, 0, 2, 3], [2, 3, 0, 1]], gnd, kappas=(1, 2))
    >>> {level: score["map"] for level, score in scores.items()}
    {'easy': 1.0, 'medium': 0.625, 'hard': 0.625}
    >>> scores["easy"]["ap"]
    array([ 1., nan])
    >>> scores["medium"]["precision_at"]
    array([0.5 , 0.75])
    """
    if isinstance(gnd, dict):
        if "gnd" not in gnd:
            raise ValueError(f"gnd is a dict without the key 'gnd'; its keys are {sorted(map(str, gnd))}.")
        entries: Sequence[dict[str, Any]] = gnd["gnd"]
    else:
        entries = gnd
    groups = gallery_indices(entries, ("easy", "hard", "junk"))
    hits = _hits(ranks, groups, ("easy", "hard", "junk"))
    return {
        level: _score(hits, positives, junk, kappas, precision, method)
        for level, (positives, junk) in REVISITED_LEVELS.items()
    }


def evaluate_oxford(
    ranks: ArrayLike,
    ground_truth: Sequence[dict[str, Any]],
    kappas: Sequence[int] = KAPPAS,
    *,
    precision: str = "standard",
    method: str = "trapezoid",
) -> dict[str, Any]:
    """Evaluate rankings under the protocol of Oxford5k and Paris6k.

    Images that are "good" or "ok" for a query are its positives, "junk" is skipped. The 55 queries are cropped,
    but the whole photographs they come from stay in the gallery and are among the good images.

    Parameters
    ----------
    ranks : array-like of int of shape (n_queries, n_ranked)
        Gallery indices for each query, best first, each at most once; see :func:`evaluate_revisited`. Appended
        distractors (Flickr100k) are indices beyond those that the ground truth names.
    ground_truth : sequence of n_queries dicts
        For each query the gallery indices under "good", "ok" and "junk". Other keys are ignored.
    kappas : sequence of int, default=(1, 5, 10)
        Depths at which precision is measured.
    precision : {"standard", "revisitop"}, default="standard"
        Rule of the precision at k: the `mode` of :func:`precision_at_k`.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        Rule of the average precision; see :func:`average_precision`. "trapezoid" is that of the program that
        comes with Oxford5k.

    Returns
    -------
    scores : dict
        "map", "ap" and "precision_at", as for one level of :func:`evaluate_revisited`.

    Raises
    ------
    ValueError, TypeError
        As :func:`evaluate_revisited`.

    References
    ----------
    .. [1] Philbin, J., Chum, O., Isard, M., Sivic, J. and Zisserman, A. (2007). Object retrieval with large
       vocabularies and fast spatial matching. CVPR. Section 2.
    .. [2] Philbin, J., Chum, O., Isard, M., Sivic, J. and Zisserman, A. (2008). Lost in quantization: improving
       particular object retrieval in large scale image databases. CVPR. (Paris6k.)

    Examples
    --------
    >>> from skretrieval.metrics import evaluate_oxford
    >>> scores = evaluate_oxford([[3, 0, 1, 2]], [{"good": [0], "ok": [2], "junk": [3]}])
    >>> scores["map"]
    0.79166...
    """
    hits = _hits(ranks, gallery_indices(ground_truth, ("good", "ok", "junk")), ("good", "ok", "junk"))
    return _score(hits, (0, 1), (2,), kappas, precision, method)


def evaluate_holidays(
    ranks: ArrayLike,
    ground_truth: Sequence[dict[str, Any]],
    kappas: Sequence[int] = KAPPAS,
    *,
    database: str = "all",
    precision: str = "standard",
    method: str = "trapezoid",
) -> dict[str, Any]:
    """Evaluate rankings under the protocol of INRIA Holidays.

    The query is an image of the gallery. It is skipped in its own ranking; the other queries stay as
    distractors.

    Parameters
    ----------
    ranks : array-like of int of shape (n_queries, n_ranked)
        Gallery indices for each query, best first, each at most once; see :func:`evaluate_revisited`. Whether
        the query itself is ranked makes no difference.
    ground_truth : sequence of n_queries dicts
        For each query under "positives" the gallery indices of the other images of its group, and its own index
        under "query", or in a list under "junk". :func:`ground_truth_from_labels` makes it from the numbers of
        the groups.
    kappas : sequence of int, default=(1, 5, 10)
        Depths at which precision is measured.
    database : {"all", "non_queries"}, default="all"
        - "all": the gallery is all images but the query, the published protocol.
        - "non_queries": all queries are skipped, so that the gallery is the 991 other images. Some papers do
          so; it takes 499 distractors from each ranking, and its scores do not compare with those of others.
          Each dict must have "query".
    precision : {"standard", "revisitop"}, default="standard"
        Rule of the precision at k: the `mode` of :func:`precision_at_k`.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        Rule of the average precision; see :func:`average_precision`.

    Returns
    -------
    scores : dict
        "map", "ap" and "precision_at", as for one level of :func:`evaluate_revisited`.

    Raises
    ------
    ValueError, TypeError
        As :func:`evaluate_revisited`, or if `database` is unknown.

    References
    ----------
    .. [1] Jegou, H., Douze, M. and Schmid, C. (2008). Hamming embedding and weak geometric consistency for
       large scale image search. ECCV. Section 5.

    Examples
    --------
    >>> from skretrieval.metrics import evaluate_holidays
    >>> ground_truth = [{"query": 0, "positives": [1]}, {"query": 2, "positives": [3]}]
    >>> ranks = [[0, 2, 1, 3], [2, 3, 0, 1]]
    >>> evaluate_holidays(ranks, ground_truth)["map"]
    0.625
    >>> evaluate_holidays(ranks, ground_truth, database="non_queries")["map"]
    1.0
    """
    if database not in DATABASES:
        raise ValueError(f"database must be one of {', '.join(map(repr, DATABASES))}, got {database!r}.")
    optional = ("junk",) if database == "non_queries" else ("query", "junk")
    groups = gallery_indices(ground_truth, ("positives", "query", "junk"), optional)
    for query, entry in enumerate(ground_truth):
        # Without this a query that leads its own ranking would silently count as an error.
        if "query" not in entry and "junk" not in entry:
            raise ValueError(
                f"Query {query}: neither 'query' nor 'junk' says which image is the query itself."
            )
    if database == "non_queries":
        own = np.array([own[0] for _, own, _ in groups], dtype=np.int64)
        groups = [(np.setdiff1d(positives, own), own, junk) for positives, _, junk in groups]
    return _score(_skip(ranks, groups), (0,), (1,), kappas, precision, method)


def evaluate_labels(
    ranks: ArrayLike,
    ground_truth: Sequence[dict[str, Any]],
    kappas: Sequence[int] = KAPPAS,
    *,
    precision: str = "standard",
    method: str = "trapezoid",
) -> dict[str, Any]:
    """Evaluate rankings by lists of positives: any data set whose images carry labels.

    Parameters
    ----------
    ranks : array-like of int of shape (n_queries, n_ranked)
        Gallery indices for each query, best first, each at most once; see :func:`evaluate_revisited`.
    ground_truth : sequence of n_queries dicts
        For each query the gallery indices of its "positives", and, if there are any, of "junk"; if the query
        is itself an image of the gallery that is to be skipped, its index under "query".
        :func:`ground_truth_from_labels` makes it.
    kappas : sequence of int, default=(1, 5, 10)
        Depths at which precision is measured.
    precision : {"standard", "revisitop"}, default="standard"
        Rule of the precision at k: the `mode` of :func:`precision_at_k`.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        Rule of the average precision; see :func:`average_precision`.

    Returns
    -------
    scores : dict
        "map", "ap" and "precision_at", as for one level of :func:`evaluate_revisited`.

    Raises
    ------
    ValueError, TypeError
        As :func:`evaluate_revisited`.

    See Also
    --------
    mean_average_precision : Of rankings of ids of any kind, also strings, and of unequal length.

    Examples
    --------
    >>> from skretrieval.metrics import evaluate_labels, ground_truth_from_labels
    >>> ground_truth = ground_truth_from_labels(["cat", "dog", "cat"])
    >>> evaluate_labels([[0, 2, 1], [1, 0, 2], [2, 1, 0]], ground_truth)["ap"]
    array([1.  ,  nan, 0.25])
    """
    groups = gallery_indices(ground_truth, ("positives", "query", "junk"), optional=("query", "junk"))
    return _score(_skip(ranks, groups), (0,), (1,), kappas, precision, method)


def _hits(ranks: ArrayLike, groups: Sequence[tuple[Any, ...]], names: tuple[str, ...]) -> Hits:
    return find_hits(check_rank_matrix(ranks, len(groups)), groups, names)


def _skip(ranks: ArrayLike, groups: Sequence[tuple[Any, ...]]) -> Hits:
    """Hits of positives, and of junk together with the queries that are skipped."""
    groups = [(positives, np.union1d(own, junk)) for positives, own, junk in groups]
    return _hits(ranks, groups, ("positive", "skipped"))


def _score(
    hits: Hits,
    positives: tuple[int, ...],
    junk: tuple[int, ...],
    kappas: Sequence[int],
    precision: str,
    method: str,
) -> dict[str, Any]:
    found = hits.without_junk(positives, junk)
    ap = average_precisions(*found, method)
    return {
        "map": mean_of_defined(ap),
        "ap": ap,
        "precision_at": mean_of_defined(precisions_at(*found, kappas, precision)),
    }
