"""What all retrievers share: the public methods in terms of one search."""

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import Tags, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from .._average_precision import average_precisions
from .._doc_link import DocLinkMixin
from .._region_sets import OutputMixin
from ._descriptors import DescriptorSet
from ._gallery_items import check_items, check_own
from ._label_ranks import label_ranks

_DEFAULT_N_NEIGHBORS = 100


class RetrieverMixin(  # type: ignore[call-arg]
    DocLinkMixin, OutputMixin, ClassNamePrefixFeaturesOutMixin, auto_wrap_output_keys=None
):
    """Methods of a retriever, written once for the index and for the wrappers around it.

    A subclass gives ``_index``, ``_uses_own``, and ``_search`` and ``_ranks`` for checked queries.
    """

    def kneighbors(self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """Find the nearest gallery items.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays, default=None
            Query descriptors or region sets. None: every gallery item queries the others, itself left out.
        n_neighbors : int, default=None
            Number of neighbours; None for the retriever's own ``n_neighbors``.
        return_distance : bool, default=True
            Whether to return the distances too.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            Smallest first, in the dtype of the gallery. Only if ``return_distance``.
        indices : ndarray of shape (n_queries, n_neighbors)
            Gallery items, best first; equal distances in the order of the gallery.

        Raises
        ------
        ValueError
            If ``n_neighbors`` is larger than the gallery (less the query itself when X is None), or X does
            not fit the gallery.
        """
        distances, indices = self.search(X, n_neighbors)
        return (distances, indices) if return_distance else indices

    def search(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        *,
        exclude: ArrayLike | None = None,
        own: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Find the nearest gallery items of queries that may be gallery items themselves.

        :meth:`kneighbors` is the same for queries of which nothing is known.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays, default=None
            Query descriptors or region sets. None: the gallery items are the queries, in their order, each excluded
            from its own result unless `exclude` or `own` says otherwise.
        n_neighbors : int, default=None
            Number of neighbours; None for the retriever's own ``n_neighbors``.
        exclude : array-like of int of shape (n_queries,), default=None
            Gallery item that each query is, -1 for none. It is left out of the result of the query, and of what a
            wrapper learns from first results, where the wrapper is told to (``QueryExpansion(exclude_self=True)``).
        own : array-like of int of shape (n_queries,), default=None
            The same for rankings in which the item stays: protocols skip it themselves. Only wrappers that are told
            to leave it out of what they learn use it. If neither `exclude` nor `own` is given, these take the first
            item at distance zero from a query for the query itself.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            Smallest first, in the dtype of the gallery.
        indices : ndarray of shape (n_queries, n_neighbors)
            Gallery items, best first; equal distances in the order of the gallery.

        Raises
        ------
        ValueError
            If ``n_neighbors`` is larger than the gallery (less one where an item is excluded), X does not fit the
            gallery, both `exclude` and `own` are given, or either does not have one integer for each query.
        IndexError
            If an item of `exclude` or `own` is outside the gallery.

        Examples
        --------
        >>> from skretrieval.retrieval import NearestNeighborsRetriever
        >>> retriever = NearestNeighborsRetriever().fit([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> retriever.search([[1.0, 0.0], [2.0, 1.0]], 2, exclude=[0, -1])[1]
        array([[2, 1],
               [2, 0]])
        """
        queries, items, leave_out = self._check_search(X, exclude, own)
        k = self._check_n_neighbors(n_neighbors, without_query=leave_out)
        if items is None or not leave_out:
            return self._search(queries, k, items)
        distances, indices = self._search(queries, k + 1, items)
        keep = indices != items[:, None]
        keep[keep.all(axis=1), -1] = False  # own item is not among them: the last one is too many
        return distances[keep].reshape(-1, k), indices[keep].reshape(-1, k)

    def ranks_of_label(
        self,
        X: Any = None,
        y: ArrayLike | None = None,
        *,
        exclude: ArrayLike | None = None,
        own: ArrayLike | None = None,
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Ranks of the gallery items that have the label of each query: all that average precision needs.

        Where few items share a label, their ranks are counted, which takes a fraction of the time and memory of
        ranking the gallery and gives the same numbers.

        Parameters
        ----------
        X, exclude, own
            As for :meth:`search`. An excluded item has no rank, and those behind it move up.
        y : array-like of shape (n_queries,), default=None
            Labels of the queries. None: those of the gallery items, where they are the queries.

        Returns
        -------
        query : ndarray of int of shape (n_found,)
            Numbers of queries, ascending; one entry for each item found, none for queries of the label -1 (the
            integer), which marks distractors.
        ranks : ndarray of int of shape (n_found,)
            0-based ranks, ascending for each query.

        Raises
        ------
        ValueError
            If the gallery has no labels, X is given without y or y does not have one label for each query; and as
            for :meth:`search`.
        IndexError
            As for :meth:`search`.

        Examples
        --------
        >>> from skretrieval.retrieval import NearestNeighborsRetriever
        >>> gallery = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
        >>> retriever = NearestNeighborsRetriever().fit(gallery, ["tower", "bridge", "tower"])
        >>> retriever.ranks_of_label([[2.0, 1.0]], ["bridge"])
        (array([0]), array([2]))
        """
        queries, items, leave_out = self._check_search(X, exclude, own)
        labels = self._index.labels_
        if labels is None:
            raise ValueError("ranks_of_label needs the labels of the gallery: fit with y.")
        if y is None and X is not None:
            raise ValueError("ranks_of_label needs y, the labels of the queries, where X is given.")
        query_labels = labels if y is None else column_or_1d(y)
        check_consistent_length(np.empty(queries.n_items), query_labels)
        return label_ranks(self, queries, labels, query_labels, items, leave_out)

    def predict(self, X: Any) -> NDArray[np.intp]:
        """Rank the gallery for each query.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays (M_i, n_features)
            Query descriptors or region sets.

        Returns
        -------
        ndarray of shape (n_queries, n_neighbors)
            Gallery indices, best first.
        """
        check_is_fitted(self)
        return self.kneighbors(X, return_distance=False)

    def transform(self, X: Any) -> csr_matrix:
        """Graph of the distances to the nearest gallery items.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays (M_i, n_features)
            Query descriptors or region sets.

        Returns
        -------
        csr_matrix of shape (n_queries, n_samples_fit_)
            Distances to the ``n_neighbors`` nearest items, also those that are zero, best first in each row.
        """
        check_is_fitted(self)
        distances, indices = self.kneighbors(X)
        n_queries, k = indices.shape
        starts = np.arange(0, n_queries * k + 1, k)
        return csr_matrix(
            (distances.ravel(), indices.ravel(), starts), shape=(n_queries, self._index.n_samples_fit_)
        )

    def fit_transform(self, X: Any, y: ArrayLike | None = None, **params: Any) -> csr_matrix:
        """Index the gallery, then return the graph of its own neighbours.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or list of arrays (M_i, n_features)
            Gallery descriptors or region sets.
        y : array-like of shape (n_samples,), default=None
            Labels.
        **params : ignored
            For the scikit-learn interface.

        Returns
        -------
        csr_matrix of shape (n_samples, n_samples)
            As ``fit(X, y).transform(X)``: each item is among its own neighbours.
        """
        return self.fit(X, y).transform(X)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Mean average precision of the ranking of the whole gallery by label.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays (M_i, n_features)
            Query descriptors or region sets.
        y : array-like of shape (n_queries,)
            Labels of the queries; gallery items of the same label are their positives. -1 (the integer) marks
            distractors, as in :func:`~skretrieval.metrics.leave_one_out_map`: gallery items of this label are
            searched, but nobody's positives, and queries of this label are left out.
        sample_weight : array-like of shape (n_queries,), default=None
            Weights of the queries in the mean.

        Returns
        -------
        float
            Trapezoid average precision, averaged over the queries that have a positive in the gallery. NaN,
            with an ``UndefinedMetricWarning``, if no query has one.

        Raises
        ------
        ValueError
            If the gallery has no labels.
        """
        check_is_fitted(self)
        if self._index.labels_ is None:
            raise ValueError("score needs the labels of the gallery: fit with y.")
        labels = column_or_1d(y)
        weights = np.ones(len(labels)) if sample_weight is None else column_or_1d(sample_weight)
        check_consistent_length(labels, weights)
        query, ranks = self.ranks_of_label(X, labels)
        n_positives = np.bincount(query, minlength=len(labels))
        ap = average_precisions(query, ranks, n_positives, "trapezoid")
        valid = n_positives > 0
        if not weights[valid].sum() > 0:
            message = (
                "No query has an item of its label in the gallery: mAP is undefined, and NaN returned. In "
                "cross-validation, split so that every label is in every fold (StratifiedKFold)."
            )
            warnings.warn(message, UndefinedMetricWarning, stacklevel=2)
            return float("nan")
        return float(np.average(ap[valid], weights=weights[valid]))

    def matched_regions(self, X: Any, indices: ArrayLike) -> NDArray[np.intp]:
        """Regions by which queries and gallery items match: the pair behind each similarity.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays (M_i, n_features)
            Query descriptors or region sets.
        indices : array-like of shape (n_queries, k)
            Gallery items, as :meth:`predict` returns them.

        Returns
        -------
        regions : ndarray of shape (n_queries, k, 2)
            Number of the region within the query, and within the gallery item; the first of those that are equally
            good, up to rounding in the dtype of the gallery. 0 where there is one descriptor. Query expansion and other
            wrappers answer for the query as it is given.
        """
        return np.stack(self.best_regions(X, indices), axis=-1)

    def best_regions(self, X: Any, indices: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Regions by which queries and gallery items match, as :meth:`matched_regions`, in two arrays.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays (M_i, n_features)
            Query descriptors or region sets.
        indices : array-like of shape (n_queries, k)
            Gallery items, as :meth:`predict` returns them.

        Returns
        -------
        query_regions, gallery_regions : ndarray of shape (n_queries, k)
            Region numbers within each query and each gallery item; the first of those that are equally good, up to
            rounding in the dtype of the gallery.
        """
        check_is_fitted(self)
        queries = self._index._check_queries(X)
        indices = check_items(indices, self._index.n_samples_fit_)
        if indices.ndim != 2 or len(indices) != queries.n_items:
            raise ValueError(f"indices must have shape ({queries.n_items}, k), got {indices.shape}.")
        query_rows, gallery_rows = self._index._best_rows(queries, indices)
        return query_rows - queries.starts[:, None], gallery_rows - self._index._gallery.starts[indices]

    # What a retriever and its wrappers tell each other.

    @property
    def _index(self) -> Any:
        """The NearestNeighborsRetriever at the bottom of the wrappers."""
        raise NotImplementedError

    @property
    def _uses_own(self) -> bool:
        """Whether it matters which gallery items the queries are."""
        return False

    def _search(
        self, queries: DescriptorSet, n_neighbors: int, own: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Search for checked queries; ``own`` as for ``search``, or None where it is unknown or unused."""
        raise NotImplementedError

    def _ranks(
        self,
        queries: DescriptorSet,
        query: NDArray[np.intp],
        item: NDArray[np.intp],
        own: NDArray[np.intp] | None,
    ) -> NDArray[np.intp] | None:
        """Ranks of items in the rankings of queries, if there is a way without whole rankings, else None.

        ``query`` ascends.
        """
        raise NotImplementedError

    def _check_search(
        self, X: Any, exclude: ArrayLike | None, own: ArrayLike | None
    ) -> tuple[DescriptorSet, NDArray[np.intp] | None, bool]:
        """Check what is searched for: queries, the item that each is, and whether these are left out."""
        check_is_fitted(self)
        if exclude is not None and own is not None:
            raise ValueError("Give exclude or own, not both: an excluded item is the query's own.")
        n_items = self._index.n_samples_fit_
        if X is None:
            queries = self._index._gallery
            exclude = np.arange(n_items) if exclude is None and own is None else exclude
        else:
            queries = self._index._check_queries(X)
        if exclude is not None:
            items = check_own("exclude", exclude, queries.n_items, n_items)
            return queries, items, bool((items >= 0).any())
        if own is not None:
            return queries, check_own("own", own, queries.n_items, n_items), False
        return queries, self._find_own(queries), False

    def _find_own(self, queries: DescriptorSet) -> NDArray[np.intp] | None:
        """Gallery item that each query is, if a wrapper asks for it."""
        return self._index._own_items(queries) if self._uses_own else None

    def _check_n_neighbors(self, n_neighbors: int | None, *, without_query: bool = False) -> int:
        """Return the number of neighbours; the limit is the gallery, less the query when that is in it."""
        size = self._index.n_samples_fit_
        limit = size - without_query
        given = self._index.n_neighbors if n_neighbors is None else n_neighbors
        if isinstance(given, bool) or not isinstance(given, Integral):
            raise TypeError(f"n_neighbors must be an integer, got {given!r}.")
        if given < 1:
            raise ValueError(f"n_neighbors must be at least 1, got {given}.")
        if n_neighbors is None and given == _DEFAULT_N_NEIGHBORS and limit > 0:
            return min(given, limit)
        if given > limit:
            rest = f", of which {limit} besides the query itself" if without_query else ""
            raise ValueError(f"n_neighbors={given} is larger than the gallery of {size} item(s){rest}.")
        return int(given)

    @property
    def _n_features_out(self) -> int:
        return self._index.n_samples_fit_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
