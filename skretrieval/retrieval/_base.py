"""What all retrievers share: the public methods in terms of one search."""

import warnings
from numbers import Integral

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from .._doc_link import DocLinkMixin
from ._descriptors import ragged_arange

_DEFAULT_N_NEIGHBORS = 100
_DISTRACTOR = -1
# Where positives are at most one of so many pairs of query and item, their ranks are counted without rankings.
_COUNTED_SHARE = 64


class RetrieverMixin(DocLinkMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Methods of a retriever, written once for the index and for the wrappers around it.

    A subclass gives ``_index``, the :class:`NearestNeighborsRetriever` at the bottom of the wrappers,
    ``_search(queries, n_neighbors, own)`` for validated queries, and ``_uses_own``. ``own`` holds the gallery
    item that each query itself is (-1: none), or is None.
    """

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
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
        check_is_fitted(self)
        if X is None:
            queries, own = self._index._gallery, np.arange(self.n_samples_fit_)
        else:
            queries, own = self._index._check_queries(X), None
        k = self._check_n_neighbors(n_neighbors, without_query=X is None)
        if X is None:
            distances, indices = self._search(queries, k + 1, own)
            keep = indices != own[:, None]
            keep[keep.all(axis=1), -1] = False  # own item is not among them: the last one is too many
            distances, indices = distances[keep].reshape(-1, k), indices[keep].reshape(-1, k)
        else:
            distances, indices = self._search(queries, k, self._find_own(queries))
        return (distances, indices) if return_distance else indices

    def predict(self, X):
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

    def transform(self, X):
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
            (distances.ravel(), indices.ravel(), starts), shape=(n_queries, self.n_samples_fit_)
        )

    def fit_transform(self, X, y=None):
        """Index the gallery, then return the graph of its own neighbours.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or list of arrays (M_i, n_features)
            Gallery descriptors or region sets.
        y : array-like of shape (n_samples,), default=None
            Labels.

        Returns
        -------
        csr_matrix of shape (n_samples, n_samples)
            As ``fit(X, y).transform(X)``: each item is among its own neighbours.
        """
        return self.fit(X, y).transform(X)

    def score(self, X, y, sample_weight=None):
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
        # Imported here: metrics come after retrieval, this is the one exception (as in scikit-learn).
        from ..metrics._average_precision import ap_from_relevance, average_precisions

        if self.labels_ is None:
            raise ValueError("score needs the labels of the gallery: fit with y.")
        queries = self._index._check_queries(X)
        y = column_or_1d(y)
        if sample_weight is None:
            sample_weight = np.ones(len(y))
        sample_weight = column_or_1d(sample_weight)
        check_consistent_length(np.empty(queries.n_items), y, sample_weight)
        n_items = self.n_samples_fit_
        # Small integers compare faster than strings, and 4 bytes an entry bound the memory.
        codes = np.unique(np.concatenate([self.labels_, y]), return_inverse=True)[1].astype(np.int32)
        gallery_codes, query_codes = codes[:n_items], codes[n_items:]
        own = self._find_own(queries)
        n_positives = np.bincount(gallery_codes, minlength=codes.max() + 1)[query_codes]
        if y.dtype.kind not in "US":
            n_positives[y == _DISTRACTOR] = 0
        valid = n_positives > 0
        counted = self._ranks_of_label(queries, gallery_codes, query_codes, n_positives, own)
        if counted is not None:
            query, _, ranks = counted
            ap = average_precisions(query, ranks[np.lexsort((ranks, query))], n_positives, "trapezoid")
        else:
            ap = np.zeros(len(y))
            for start, stop in queries.blocks(max(1, 2**23 // n_items)):
                part_own = None if own is None else own[start:stop]
                ranking = self._search(queries.slice(start, stop), n_items, part_own)[1]
                relevant = gallery_codes[ranking] == query_codes[start:stop, None]
                rows = np.flatnonzero(valid[start:stop])
                if len(rows):
                    ap[start + rows] = ap_from_relevance(relevant[rows])
        if not sample_weight[valid].sum() > 0:
            message = (
                "No query has an item of its label in the gallery: mAP is undefined, and NaN returned. In "
                "cross-validation, split so that every label is in every fold (StratifiedKFold)."
            )
            warnings.warn(message, UndefinedMetricWarning, stacklevel=2)
            return float("nan")
        return float(np.average(ap[valid], weights=sample_weight[valid]))

    def best_regions(self, X, indices):
        """Regions by which queries and gallery items match best.

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
        indices = check_items(indices, self.n_samples_fit_)
        if indices.ndim != 2 or len(indices) != queries.n_items:
            raise ValueError(f"indices must have shape ({queries.n_items}, k), got {indices.shape}.")
        query_rows, gallery_rows = self._index._best_rows(queries, indices)
        return query_rows - queries.starts[:, None], gallery_rows - self._index._gallery.starts[indices]

    def _ranks(self, queries, query, item, own):
        """Ranks of items in the rankings of queries, if there is a way without whole rankings, else None.

        ``query`` ascends.
        """
        return None

    def _ranks_of_label(self, queries, gallery_labels, query_labels, counts, own):
        """Ranks of the gallery items that have the label of each query.

        Parameters
        ----------
        queries : DescriptorSet
            Queries.
        gallery_labels, query_labels : ndarray of int
            Labels.
        counts : ndarray of int of shape (n_queries,)
            How many items have the label of each query, or 0 for queries that are left out.
        own : ndarray or None
            As in ``_search``.

        Returns
        -------
        query, item, ranks : ndarray of int of shape (counts.sum(),)
            Query numbers, ascending; or None where whole rankings are cheaper.
        """
        if counts.sum() * _COUNTED_SHARE > len(counts) * self.n_samples_fit_:
            return None
        # A run of the gallery items in the order of their labels for each query.
        by_label = np.argsort(gallery_labels, kind="stable")
        first = np.searchsorted(gallery_labels[by_label], query_labels)
        query, item = np.repeat(np.arange(len(counts)), counts), by_label[ragged_arange(first, counts)]
        ranks = self._ranks(queries, query, item, own)
        return None if ranks is None else (query, item, ranks)

    def _find_own(self, queries):
        """Gallery item that each query is, if a wrapper asks for it."""
        return self._index._own_items(queries) if self._uses_own else None

    def _check_n_neighbors(self, n_neighbors, *, without_query=False):
        """Return the number of neighbours; the limit is the gallery, less the query when that is in it."""
        size = self.n_samples_fit_
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
    def _n_features_out(self):
        return self.n_samples_fit_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def check_items(indices, n_items):
    """Return gallery indices as an integer array.

    Raises
    ------
    ValueError
        If they are not integers.
    IndexError
        That names the first one outside ``0..n_items - 1``.
    """
    indices = np.asarray(indices)
    if indices.size and indices.dtype.kind not in "iu":
        raise ValueError(f"Gallery indices must be integers, got an array of {indices.dtype}.")
    bad = indices[(indices < 0) | (indices >= n_items)]
    if bad.size:
        raise IndexError(
            f"Index {bad.flat[0]} is outside the gallery of {n_items} items (0 to {n_items - 1})."
        )
    return indices.astype(np.intp)
