"""A scorer that searches inside the fold it is given."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.pipeline import Pipeline
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _num_samples

from .._average_precision import DISTRACTOR, ap_from_relevance, average_precisions
from ..postprocessing import DatabaseAugmentation
from ..retrieval import NearestNeighborsRetriever


def leave_one_out_map(estimator: Any, X: Any, y: ArrayLike) -> float:
    """Mean average precision when every image of X queries all the others.

    It has the signature of a scorer, ``scoring=leave_one_out_map``, and is made for cross-validation by
    groups: when all images of an object are in one fold, a search of the training fold can find none of them,
    so its mean average precision is 0 whatever the estimator. Here the fitted estimator embeds the images of
    the fold, and these are searched for each other.

    Parameters
    ----------
    estimator : estimator
        Fitted. Either a Pipeline whose last step is a retriever, a retriever (anything with ``kneighbors``,
        also a wrapper such as query expansion, also scikit-learn's NearestNeighbors), or a transformer to
        descriptors. A retriever is cloned and indexes the descriptors of the fold; its own gallery is not
        searched. In the same way a DatabaseAugmentation step is cloned and augments the fold by itself. The
        descriptors of a transformer are compared by cosine. Of a fitted search such as GridSearchCV the best
        estimator is taken.
    X : sequence of n images, descriptors or whatever the estimator takes
        The images of the fold.
    y : array-like of shape (n,)
        The object that each image shows, as integers or strings. -1 marks distractors: they are searched, but
        are neither queries nor anybody's positives.

    Returns
    -------
    score : float
        Trapezoid average precision (:func:`average_precision`) by label, the query itself left out of the
        ranking, averaged over the images whose label occurs at least twice in y. NaN with an
        UndefinedMetricWarning if there is no such image, as scikit-learn's own scorers do for an undefined
        score: splitting by groups, with the labels as groups, avoids it.

    Raises
    ------
    TypeError
        If the estimator neither transforms nor finds neighbours.
    ValueError
        If y does not have one label per image.

    Notes
    -----
    Retrievers of this package say the ranks of the images of an object alone (``ranks_of_label``), in bounded memory.
    By others the whole fold is ranked for each of its images: O(n^2) memory.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> from sklearn.neighbors import NearestNeighbors
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import Normalizer
    >>> from skretrieval.metrics import leave_one_out_map
    >>> y = np.repeat(np.arange(6), 4)
    >>> X = np.eye(6)[y] + 0.1 * np.random.default_rng(0).normal(size=(24, 6))
    >>> pipeline = make_pipeline(Normalizer(), NearestNeighbors())
    >>> cross_val_score(pipeline, X, y, groups=y, cv=GroupKFold(3), scoring=leave_one_out_map)
    array([1., 1., 1.])
    """
    labels = column_or_1d(y)
    descriptors, retriever = _embed(estimator, X)
    n = _num_samples(descriptors)
    if len(labels) != n:
        raise ValueError(f"There are {n} images, but y has {len(labels)} labels.")

    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    distractor = np.zeros(n, dtype=bool) if labels.dtype.kind in "US" else labels == DISTRACTOR
    n_positives = np.where(distractor, 0, counts[codes] - 1)
    queries = np.flatnonzero(n_positives)
    if queries.size == 0:
        warnings.warn(
            f"No label occurs twice among the {n} images to score, so that no query has a positive and the score is "
            "NaN. In cross-validation, split by groups (GroupKFold with groups=y) to keep the images of an object "
            "together.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return float("nan")

    fitted = clone(retriever).fit(descriptors, labels)
    if hasattr(fitted, "ranks_of_label"):
        query, ranks = fitted.ranks_of_label()
        ap = average_precisions(query, ranks, n_positives, "trapezoid")
        return float(np.mean(ap[queries]))
    neighbors = fitted.kneighbors(n_neighbors=n - 1, return_distance=False)
    if np.any(neighbors == np.arange(n)[:, None]):
        raise ValueError(
            f"{type(retriever).__name__}.kneighbors(X=None) returned a query as its own neighbour."
        )
    relevant = codes[neighbors[queries]] == codes[queries, None]
    return float(np.mean(ap_from_relevance(relevant, n_positives[queries])))


def _embed(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Descriptors of X, and the retriever to search them with."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if isinstance(estimator, Pipeline):
        last = estimator.steps[-1][1]
        if hasattr(last, "kneighbors") or isinstance(last, Pipeline):
            return _embed(last, _transform(estimator.steps[:-1], X))
        if last in (None, "passthrough") or hasattr(last, "transform"):
            return _transform(estimator.steps, X), NearestNeighborsRetriever(
                metric="cosine", accept_sparse=True
            )
        estimator = last
    if hasattr(estimator, "kneighbors"):
        return X, estimator
    if not hasattr(estimator, "transform"):
        raise TypeError(
            f"{type(estimator).__name__} has neither kneighbors nor transform: it yields no descriptors to search."
        )
    return _transform([("", estimator)], X), NearestNeighborsRetriever(metric="cosine", accept_sparse=True)


def _transform(steps: Sequence[tuple[str, Any]], X: Any) -> Any:
    """Send X through fitted steps; what works on the gallery is fitted to X, which is the gallery here."""
    for _, step in steps:
        if isinstance(step, DatabaseAugmentation):
            X = clone(step).fit_transform(X)
        elif step not in (None, "passthrough"):
            X = step.transform(X)
    return X
