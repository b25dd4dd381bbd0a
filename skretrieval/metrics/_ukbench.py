"""N-S, the score of the UKBench data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d

from ._rankings import check_rank_matrix, gallery_indices

GROUP_SIZE = 4
QUERIES = ("all", "first")


def evaluate_ukbench(ranks: ArrayLike, ground_truth: Any = None, *, queries: str = "all") -> dict[str, Any]:
    """Evaluate rankings under the protocol of UKBench: four photographs of each object, N-S.

    Parameters
    ----------
    ranks : array-like of int of shape (n_queries, n_ranked)
        Gallery indices for each query, best first, of which the first four count. The query is an image of the
        gallery and is ranked too: a perfect result has it among its four. Indices that the ground truth does not
        name are distractors.
    ground_truth : array-like of shape (n_images,) or sequence of n_queries dicts, default=None
        - Array: the object that each gallery image shows, as integers or strings; each must occur four times.
        - Dicts, as in the data sets: under "positives" the gallery indices of the four images of the object
          of each query.
        - None: four images in a row show one object, which is how the images of UKBench are numbered.
    queries : {"all", "first"}, default="all"
        What the rows of `ranks` are, unless dicts say it:

        - "all": row i is the search for image i, n_queries = n_images (10,200), the published protocol.
        - "first": row i is the search for the first image of object i, in order of appearance, n_queries =
          n_images / 4 (2,550). Some papers do so.

    Returns
    -------
    scores : dict
        - "score": float, N-S, the mean number of images of the object among the first four, between 0 and 4;
        - "per_query": ndarray of int of shape (n_queries,), the numbers themselves.

    Raises
    ------
    ValueError
        If `ranks` does not have one row per query and at least four columns, holds a negative index or one
        index twice among the first four; if an object does not have four images; if the option is unknown.
    TypeError
        If indices are not integers.

    Notes
    -----
    N-S is four times the recall at 4 (:func:`recall_at_k`), and is called recall@4 in some papers.

    References
    ----------
    .. [1] Nister, D. and Stewenius, H. (2006). Scalable recognition with a vocabulary tree. CVPR. Section 6.

    Examples
    --------
    >>> from skretrieval.metrics import evaluate_ukbench
    >>> evaluate_ukbench([[0, 1, 2, 5], [4, 7, 6, 5]], [0, 0, 0, 0, 1, 1, 1, 1], queries="first")
    {'score': 3.5, 'per_query': array([3, 4])}
    """
    if queries not in QUERIES:
        raise ValueError(f"queries must be one of {', '.join(map(repr, QUERIES))}, got {queries!r}.")
    if ground_truth is None:
        n_images = len(check_rank_matrix(ranks)) * (1 if queries == "all" else GROUP_SIZE)
        if n_images % GROUP_SIZE:
            raise ValueError(
                f"ranks has {n_images} rows, but the images of groups of four must be a multiple of four."
            )
        ground_truth = np.arange(n_images) // GROUP_SIZE
    if len(ground_truth) and isinstance(next(iter(ground_truth)), dict):
        positives = _from_dicts(ground_truth)
    else:
        positives = _from_labels(ground_truth, queries)
    ranks = check_rank_matrix(ranks, len(positives))
    if ranks.shape[1] < GROUP_SIZE:
        raise ValueError(f"N-S needs the first four images of each ranking, got {ranks.shape[1]}.")
    top = ranks[:, :GROUP_SIZE].astype(np.int64, copy=False)
    ordered = np.sort(top, axis=1)
    twice = np.argwhere(ordered[:, 1:] == ordered[:, :-1])
    if twice.size:
        query, column = twice[0]
        raise ValueError(f"Query {query}: id {ordered[query, column]} is ranked more than once.")
    per_query = np.count_nonzero(top[:, :, None] == positives[:, None, :], axis=(1, 2))
    return {"score": float(per_query.mean()), "per_query": per_query}


def _from_dicts(ground_truth: Sequence[dict[str, Any]]) -> NDArray[np.int64]:
    """Gallery indices of the images of each query's object, shape (n_queries, 4)."""
    positives = [np.unique(ids) for (ids,) in gallery_indices(ground_truth, ("positives",))]
    for query, ids in enumerate(positives):
        if len(ids) != GROUP_SIZE:
            raise ValueError(f"Query {query}: N-S is defined for four positives, got {len(ids)}.")
    return np.stack(positives)


def _from_labels(labels: ArrayLike, queries: str) -> NDArray[np.intp]:
    """Build the same from the object that each image shows."""
    labels = column_or_1d(labels)
    names, first, codes, counts = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    if np.any(counts != GROUP_SIZE):
        worst = np.argmax(counts != GROUP_SIZE)
        raise ValueError(
            f"N-S is defined for groups of four images, but {names[worst].item()!r} has {counts[worst]}."
        )
    members = np.argsort(codes, kind="stable").reshape(-1, GROUP_SIZE)
    return members[codes if queries == "all" else codes[np.sort(first)]]


def ukbench_score(ranks: ArrayLike, ground_truth: Any = None, *, queries: str = "all") -> float:
    """N-S, the mean number of images of the query's object among the first four.

    Parameters
    ----------
    ranks, ground_truth, queries
        See :func:`evaluate_ukbench`.

    Returns
    -------
    score : float
        Between 0 and 4.

    Raises
    ------
    ValueError, TypeError
        As :func:`evaluate_ukbench`.

    See Also
    --------
    evaluate_ukbench : The same with the numbers of each query.

    References
    ----------
    .. [1] Nister, D. and Stewenius, H. (2006). Scalable recognition with a vocabulary tree. CVPR. Section 6.

    Examples
    --------
    >>> from skretrieval.metrics import ukbench_score
    >>> ukbench_score([[0, 1, 2, 3], [1, 0, 3, 9], [2, 0, 1, 3], [3, 8, 9, 7]])
    3.0
    """
    return evaluate_ukbench(ranks, ground_truth, queries=queries)["score"]
