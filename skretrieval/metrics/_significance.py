"""Whether one ranking is better than another by more than chance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import permutation_test
from sklearn.utils import check_random_state, column_or_1d

ALTERNATIVES = ("two-sided", "greater", "less")

# Values that scipy shuffles at a time: 16 MB.
_BATCH_ELEMENTS = 2**20


class RandomizationTestResult(NamedTuple):
    """What :func:`randomization_test` returns."""

    statistic: float
    p_value: float
    n_queries: int


def randomization_test(
    first: ArrayLike,
    second: ArrayLike,
    n_permutations: int = 10_000,
    random_state: int | np.random.RandomState | None = None,
    alternative: str = "two-sided",
) -> RandomizationTestResult:
    """Paired randomisation test between two rankings of the same queries.

    If two systems are equally good, it is chance which of them got which of the two scores of a query. The
    p-value is the share of all ways to exchange the scores of queries in which the means differ at least as
    much as they do.

    Parameters
    ----------
    first, second : array-like of shape (n,)
        Scores of each query, such as average precisions, of the two systems. Queries of which either is NaN are
        left out.
    n_permutations : int, default=10000
        Number of random exchanges. If there are no more than that in all, which is 2 to the power of the number
        of queries with different scores, all are tried and the p-value is exact.
    random_state : int, RandomState instance or None, default=None
        Determines the exchanges.
    alternative : {"two-sided", "greater", "less"}, default="two-sided"
        "greater": the first system is better than the second.

    Returns
    -------
    result : RandomizationTestResult
        Named tuple of

        - statistic: float, mean score of the first minus that of the second;
        - p_value: float; of random exchanges never below 1 / (n_permutations + 1), and twice that if two-sided;
        - n_queries: int, number of queries that both have a score for.

    Raises
    ------
    ValueError
        If the scores are not of the same length, are infinite, or have no query in common; if
        `n_permutations` is less than 1 or the alternative is unknown.

    Notes
    -----
    Queries with equal scores say nothing about which system is better: no exchange changes them, so they count
    only in the mean. With n queries of different scores no p-value is below 2 / 2^n (two-sided).

    References
    ----------
    .. [1] Smucker, M. D., Allan, J. and Carterette, B. (2007). A comparison of statistical significance tests
       for information retrieval evaluation. CIKM. Section 2.1.

    Examples
    --------
    >>> from skretrieval.metrics import randomization_test
    >>> result = randomization_test([0.8, 0.7, 0.9, 0.5, 0.6], [0.5, 0.6, 0.7, 0.5, 0.4])
    >>> result.p_value, result.n_queries
    (0.125, 5)
    >>> round(result.statistic, 3)
    0.16
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(
            f"alternative must be one of {', '.join(map(repr, ALTERNATIVES))}, got {alternative!r}."
        )
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}.")
    first = _scores(first, "first")
    second = _scores(second, "second")
    if len(first) != len(second):
        raise ValueError(f"first has scores of {len(first)} queries, but second of {len(second)}.")
    both = ~np.isnan(first) & ~np.isnan(second)
    n_queries = int(np.count_nonzero(both))
    if n_queries == 0:
        raise ValueError("No query has a score of both systems.")
    differ = both & (first != second)
    n_different = np.count_nonzero(differ)
    if n_different == 0:
        return RandomizationTestResult(0.0, 1.0, n_queries)
    # scipy refuses samples of one observation; two equal scores change nothing.
    extra = [0.0] if n_different == 1 else []
    result = permutation_test(
        (np.append(first[differ], extra), np.append(second[differ], extra)),
        lambda a, b, axis: (a - b).sum(axis=axis) / n_queries,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_permutations,
        batch=max(1, _BATCH_ELEMENTS // n_different),
        alternative=alternative,
        random_state=check_random_state(random_state),
    )
    return RandomizationTestResult(float(result.statistic), float(result.pvalue), n_queries)


def standard_error(scores: ArrayLike) -> float:
    """Estimate the standard error of a mean over queries.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Scores of each query. NaN are left out.

    Returns
    -------
    error : float
        Standard deviation (of a sample, divisor n - 1) divided by the root of the number of scores; NaN of fewer
        than two.

    Raises
    ------
    ValueError
        If scores are infinite or not one-dimensional.

    Examples
    --------
    >>> from skretrieval.metrics import standard_error
    >>> standard_error([0.2, 0.4, 0.9, float("nan")])
    0.208166...
    """
    scores = _scores(scores, "scores")
    scores = scores[~np.isnan(scores)]
    if len(scores) < 2:
        return float("nan")
    return float(np.std(scores, ddof=1) / np.sqrt(len(scores)))


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    scores = column_or_1d(values).astype(np.float64)
    if np.any(np.isinf(scores)):
        raise ValueError(
            f"{name} holds infinite scores, the first for query {np.flatnonzero(np.isinf(scores))[0]}."
        )
    return scores
