"""Average precision, from lists of ids, from relevance and from hits."""

import numpy as np

from ._rankings import find_hits, find_hits_of_queries, mean_over_queries

METHODS = ("trapezoid", "finite", "printed")


def average_precision(ranking, positives, junk=(), method="trapezoid"):
    """Average precision of one query.

    Parameters
    ----------
    ranking : sequence of int or of str, shape (n_ranked,)
        Ids of the gallery images, best first, each at most once. It may be cut off: positives that are not in
        it contribute 0.
    positives : collection of int or of str
        Ids of all gallery images that show the object of the query.
    junk : collection of int or of str, default=()
        Ids that are skipped as if they were not in the gallery.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        With m positives, found at the 0-based ranks r_0 < r_1 < ... among what is not junk:

        - "trapezoid": ``sum_j (P0_j + P1_j) / (2 m)``, ``P0_j = j / r_j`` (1 if r_j is 0) and
          ``P1_j = (j + 1) / (r_j + 1)``. The area under the precision-recall curve as the evaluation programs
          of Oxford5k, Holidays and revisited Oxford and Paris compute it.
        - "finite": ``sum_j P1_j / m``, the mean of the precisions at the positives; never less than
          "trapezoid".
        - "printed": ``sum_{b=1..m} k_b / (b m)`` with k_b positives among the first b, as equation 25 of [1]_
          is printed. It ignores all that comes after rank m and is offered for comparison only.

    Returns
    -------
    score : float
        Between 0 and 1; NaN if there are no positives.

    Raises
    ------
    ValueError
        If an id is ranked twice or is both positive and junk, or if the method is unknown.
    TypeError
        If ids are neither integers nor strings, or not of one kind.

    See Also
    --------
    mean_average_precision : The mean over several queries.
    sklearn.metrics.average_precision_score : "finite" for scores instead of a ranking, without junk or cut.

    References
    ----------
    .. [1] Zhao, H. et al. (2021). Toward improving image retrieval via global saliency weighted feature.
       ISPRS International Journal of Geo-Information, 10(4), 249. Equation 25.
    .. [2] Philbin, J. et al. (2007). Object retrieval with large vocabularies and fast spatial matching.
       CVPR.

    Examples
    --------
    >>> from skretrieval.metrics import average_precision
    >>> average_precision([7, 3, 9, 1], positives=[7, 9])
    0.79166...
    >>> average_precision([7, 3, 9, 1], positives=[7, 9], junk=[3])
    1.0
    """
    hits = find_hits([ranking], [(positives, junk)], single=True)
    return float(average_precisions(*hits.without_junk(), method)[0])


def mean_average_precision(rankings, positives, junk=None, *, method="trapezoid", sample_weight=None):
    """Mean of the average precisions of several queries.

    Parameters
    ----------
    rankings : sequence of n_queries sequences, or array of shape (n_queries, n_ranked)
        Ids of the gallery images for each query, best first; see :func:`average_precision`.
    positives : sequence of n_queries collections
        Ids of the positives of each query.
    junk : sequence of n_queries collections, default=None
        Ids to skip for each query; None for none.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        See :func:`average_precision`.
    sample_weight : array-like of shape (n_queries,), default=None
        Weights of the queries.

    Returns
    -------
    score : float
        Mean over the queries that have at least one positive. NaN with an UndefinedMetricWarning if there is
        none.

    Raises
    ------
    ValueError
        If the arguments do not have one entry per query, or for what :func:`average_precision` refuses; the
        message names the query.

    Examples
    --------
    >>> from skretrieval.metrics import mean_average_precision
    >>> mean_average_precision([[0, 1, 2], [2, 1, 0]], positives=[[0], [1]])
    0.625
    """
    hits = find_hits_of_queries(rankings, positives, junk)
    return mean_over_queries(average_precisions(*hits.without_junk(), method), sample_weight)


def ap_from_relevance(relevant, n_positives=None, method="trapezoid"):
    """Average precision of several queries from the relevance of what was ranked.

    Parameters
    ----------
    relevant : array-like of bool of shape (n_queries, n_ranked)
        Whether the gallery image at each rank is a positive of the query, best first.
    n_positives : int or array-like of int of shape (n_queries,), default=None
        Number of positives that exist for each query, at least as many as are ranked. None: all are ranked.
    method : {"trapezoid", "finite", "printed"}, default="trapezoid"
        See :func:`average_precision`.

    Returns
    -------
    scores : ndarray of shape (n_queries,)
        NaN for queries without positives.

    Raises
    ------
    ValueError
        If the shapes do not fit, fewer positives exist than were found, or the method is unknown.

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


def average_precisions(query, ranks, n_positives, method):
    """Average precision of many queries from one flat list of hits, sorted by query, then rank.

    Parameters
    ----------
    query, ranks : ndarray of int of shape (n_hits,)
        Which query each hit belongs to, and its 0-based rank there.
    n_positives : ndarray of int of shape (n_queries,)
        Number of positives that exist.
    method : str
        See :func:`average_precision`.

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
        owner = query
        # j counts the hits of a query that come before this one.
        j = np.arange(len(query)) - (np.cumsum(found) - found)[query]
        terms = (j + 1) / (ranks + 1)
        if method == "trapezoid":
            before = np.where(ranks == 0, 1.0, j / np.maximum(ranks, 1))
            terms = (before + terms) / 2
    totals = np.bincount(owner, weights=terms, minlength=len(n_positives))
    return np.where(n_positives > 0, totals / np.maximum(n_positives, 1), np.nan)
