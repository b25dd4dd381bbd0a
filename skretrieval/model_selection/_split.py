"""Divide labelled photographs into galleries and queries."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import _num_samples

from ..metrics import DISTRACTOR


class GalleryQuerySplit(BaseCrossValidator):
    """Divide the photographs of every object between a gallery (train) and its queries (test).

    With it plain ``GridSearchCV(pipeline, grid, cv=GalleryQuerySplit())`` is right: the pipeline is fitted on
    the gallery, and the retriever's own ``score``, the mAP by label, ranks that gallery for the queries. Every
    query has a positive in its gallery; the only photograph of an object, and distractors (label -1), are in
    every gallery and are never queries.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds. 1 is possible with `n_queries_per_label`, and reads every photograph once.

    n_queries_per_label : int or None, default=None
        Photographs of each label that query in a fold, fewer where the label has no more to spare. Folds take
        turns, so that a photograph doesn't query again before all others of its label have. None: every
        photograph of a label with at least two queries in exactly one fold.

    random_state : int, RandomState instance or None, default=None
        Which photographs query together. An int gives the same folds at every call.

    See Also
    --------
    skretrieval.metrics.leave_one_out_map : The scorer for folds that separate objects (GroupKFold).

    Notes
    -----
    Everything in the pipeline sees the other photographs of the queries' objects when it is fitted, as it will
    when the gallery that is searched is the one it was fitted on. That is right for steps that learn without
    labels, such as PCAWhitening. Steps that learn **from labels** would be scored on objects whose labels they
    know: separate the objects instead, with ``GroupKFold``, the labels as groups, and
    ``scoring=leave_one_out_map``.

    Threads: any number may split by one object at the same time.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.model_selection import GalleryQuerySplit
    >>> y = np.array([7, 7, 7, 8, 8, 9, -1])
    >>> for gallery, queries in GalleryQuerySplit(2, random_state=0).split(y, y):
    ...     print(y[gallery], y[queries])
    [ 7  8  9 -1] [7 7 8]
    [ 7  7  8  9 -1] [7 8]
    """

    # With metadata routing, a search hands `groups` over without being asked.
    __metadata_request__split = {"groups": True}

    def __init__(
        self,
        n_splits: int = 5,
        *,
        n_queries_per_label: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.n_queries_per_label = n_queries_per_label
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : ignored
            For the scikit-learn interface.

        Returns
        -------
        n_splits : int
            Number of folds.
        """
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the gallery and the queries of each fold.

        Parameters
        ----------
        X : sequence of n photographs, FeatureMaps, feature maps or descriptors, or None
            Only counted.

        y : array-like of shape (n,)
            The object that each shows, as integers or strings; the integer -1 marks distractors.

        groups : array-like of shape (n,), default=None
            Photographs that were taken together (a burst, a shot of a video): those of one label and one group
            are wholly gallery or wholly queries, and count as one for `n_queries_per_label`. A query then
            never finds its own near-duplicates. None: every photograph is on its own.

        Yields
        ------
        gallery : ndarray of shape (n_gallery,)
            Indices of the gallery, ascending.

        queries : ndarray of shape (n - n_gallery,)
            Indices of the queries, ascending.

        Raises
        ------
        ValueError
            If there are no labels, no label has two photographs (two groups), there are more folds than
            photographs that can query, or a parameter is out of its range.
        """
        self._check_parameters()
        if y is None:
            raise ValueError("GalleryQuerySplit divides by label: give y, the object that each image shows.")
        y = column_or_1d(y)
        n = len(y)
        if X is not None and _num_samples(X) != n:
            raise ValueError(f"There are {_num_samples(X)} images, but y has {n} labels.")
        label, unit = self._units(y, groups)
        order, place, size = self._turns(label)
        q = self.n_queries_per_label
        if q is None and len(order) < self.n_splits:
            raise ValueError(
                f"n_splits={self.n_splits} is larger than the {len(order)} photographs or groups that can query."
            )
        for fold in range(self.n_splits):
            if q is None:
                # Dealt like cards through all labels: folds differ by one query at most.
                chosen = np.arange(len(order)) % self.n_splits == fold
            else:
                chosen = (place - fold * q) % size < np.minimum(q, size - 1)
            asks = np.zeros(len(label), dtype=bool)
            asks[order[chosen]] = True
            yield np.flatnonzero(~asks[unit]), np.flatnonzero(asks[unit])

    def _check_parameters(self) -> None:
        q = self.n_queries_per_label
        for name, value in (("n_splits", self.n_splits), ("n_queries_per_label", q)):
            if name == "n_queries_per_label" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
        if q is None and self.n_splits == 1:
            raise ValueError(
                "n_splits must be at least 2 when every photograph queries once: a single fold would leave no "
                "positive in the gallery. Give n_queries_per_label."
            )

    @staticmethod
    def _units(y: np.ndarray, groups: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the label of each unit (-1: never queries), and the unit of each photograph.

        A unit is what goes to one side as a whole: a photograph, or those of one label and group.
        """
        codes = np.unique(y, return_inverse=True)[1]
        if y.dtype.kind not in "US":
            codes = np.where(y == DISTRACTOR, -1, codes)
        if groups is None:
            return codes, np.arange(len(y))
        groups = column_or_1d(groups)
        check_consistent_length(y, groups)
        taken = np.unique(groups, return_inverse=True)[1]
        pairs, unit = np.unique(np.column_stack([codes, taken]), axis=0, return_inverse=True)
        return pairs[:, 0], unit.ravel()

    def _turns(self, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shuffle the units that can query within their labels.

        Returns
        -------
        order : ndarray of shape (n_units,)
            The units, label by label.
        place, size : ndarray of shape (n_units,)
            The place of each among the units of its label, and their number.
        """
        counts = np.bincount(label[label >= 0], minlength=1)
        able = np.flatnonzero((label >= 0) & (counts[label] >= 2))
        if len(able) == 0:
            raise ValueError(
                f"None of the labels of {len(label)} photographs or groups has two of them: every query needs a "
                "positive in the gallery."
            )
        luck = check_random_state(self.random_state).permutation(len(able))
        order = able[np.lexsort([luck, label[able]])]
        size = counts[label[order]]
        first = np.searchsorted(label[order], label[order])
        return order, np.arange(len(order)) - first, size


class WholeGallerySplit(BaseCrossValidator):
    """One fold, in which everything is the gallery: for scorers that bring their own queries.

    ``GridSearchCV(pipeline, grid, cv=WholeGallerySplit(), scoring=PseudoQueryScorer(...)).fit(gallery)`` fits
    every candidate on the whole gallery, and at last the best one, too.

    See Also
    --------
    PseudoQueryScorer : A scorer that brings its own queries.

    Notes
    -----
    Threads: any number may split by one object at the same time.

    Examples
    --------
    >>> from skretrieval.model_selection import WholeGallerySplit
    >>> list(WholeGallerySplit().split(["a.jpg", "b.jpg", "c.jpg"]))
    [(array([0, 1, 2]), array([0, 1, 2]))]
    """

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return 1.

        Parameters
        ----------
        X, y, groups : ignored
            For the scikit-learn interface.

        Returns
        -------
        n_splits : int
            The one fold.
        """
        return 1

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all indices, twice.

        Parameters
        ----------
        X : sequence of n items
            Only counted.
        y, groups : ignored
            For the scikit-learn interface.

        Yields
        ------
        gallery, test : ndarray of shape (n,)
            All indices. What is given as test is for the scorer to check, not to search.
        """
        n = _num_samples(X)
        yield np.arange(n), np.arange(n)
