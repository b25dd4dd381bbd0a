"""Average precision of rankings of ids."""

from collections.abc import Collection, Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from .._average_precision import average_precisions
from ._rankings import find_hits, find_hits_of_queries, mean_over_queries


def average_precision(
    ranking: Sequence[Any] | NDArray[Any],
    positives: Collection[Any] | NDArray[Any],
    junk: Collection[Any] | NDArray[Any] = (),
    method: str = "trapezoid",
) -> float:
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
          of Oxford5k [2]_, Holidays and revisited Oxford and Paris compute it.
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
    .. [1] Zhao, H., Wu, J., Zhang, D. and Liu, P. (2021). Toward improving image retrieval via global saliency weighted
       feature. ISPRS International Journal of Geo-Information, 10(4), 249. Equation 25.
    .. [2] Philbin, J., Chum, O., Isard, M., Sivic, J. and Zisserman, A. (2007). Object retrieval with large
       vocabularies and fast spatial matching. CVPR.

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


def mean_average_precision(
    rankings: Sequence[Any] | NDArray[Any],
    positives: Sequence[Any],
    junk: Sequence[Any] | None = None,
    *,
    method: str = "trapezoid",
    sample_weight: ArrayLike | None = None,
) -> float:
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

    References
    ----------
    .. [1] Philbin, J., Chum, O., Isard, M., Sivic, J. and Zisserman, A. (2007). Object retrieval with large
       vocabularies and fast spatial matching. CVPR.

    Examples
    --------
    >>> from skretrieval.metrics import mean_average_precision
    >>> mean_average_precision([[0, 1, 2], [2, 1, 0]], positives=[[0], [1]])
    0.625
    """
    hits = find_hits_of_queries(rankings, positives, junk)
    return mean_over_queries(average_precisions(*hits.without_junk(), method), sample_weight)
