"""What all re-rankers share: a retriever inside, and its first candidates in a new order."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from .._linalg import row_blocks
from ._base import RetrieverMixin
from ._descriptors import DescriptorSet
from ._rerank._order import ascending

# Query rows, and numbers of a block's rankings, that are worked on at a time.
_QUERY_ROWS, _RANKED = 256, 2**23


class BaseReranker(RetrieverMixin, MetaEstimatorMixin, BaseEstimator):
    """Rank the first results of a retriever anew.

    A subclass gives ``_n_pool`` and ``_distances``, and may give ``_learn``.
    """

    retriever: Any
    _takes_regions = False

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Index a gallery with a clone of ``retriever``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or list of arrays (M_i, n_features)
            Gallery descriptors; region sets where the re-ranker takes them.
        y : array-like of shape (n_samples,), default=None
            Labels of the items; only ``score`` uses them.

        Returns
        -------
        self : object
            The fitted retriever.

        Raises
        ------
        ValueError
            If the metric inside is not the cosine, or X has region sets where there is no formula for them.
        """
        if not isinstance(self.retriever, RetrieverMixin):
            raise TypeError(
                "retriever must be a NearestNeighborsRetriever or a wrapper around one, got "
                f"{type(self.retriever).__name__}."
            )
        self.retriever_ = clone(self.retriever).fit(X, y)
        return self._examine()

    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Append items to the gallery; the first call is a ``fit``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or list of arrays (M_i, n_features)
            Descriptors to append.
        y : array-like of shape (n_samples,), default=None
            Their labels, if and only if the gallery has labels.

        Returns
        -------
        self : object
            The retriever with the larger gallery.
        """
        if not hasattr(self, "retriever_"):
            return self.fit(X, y)
        self.retriever_.partial_fit(X, y)
        return self._examine()

    def remove(self, indices: ArrayLike) -> Self:
        """Delete items from the gallery; the remaining ones close up and keep their order.

        Parameters
        ----------
        indices : int or array-like of int
            Gallery items; repetitions count once.

        Returns
        -------
        self : object
            The retriever with the smaller gallery.
        """
        check_is_fitted(self)
        self.retriever_.remove(indices)
        return self._examine()

    def _examine(self) -> Self:
        """Check and learn what the gallery is, after each change of it."""
        name, gallery = type(self).__name__, self._index._gallery
        if self.metric_ != "cosine":
            raise ValueError(f"{name} needs a retriever with metric='cosine', got {self.metric_!r}.")
        if gallery.offsets is not None and not self._takes_regions:
            raise ValueError(f"{name} takes one descriptor per image, got region sets.")
        rows = gallery.rows
        if gallery.is_sparse:
            filled = np.asarray(abs(rows).sum(axis=1)).ravel() > 0
        else:
            filled = np.concatenate([rows[part].any(axis=1) for part in row_blocks(rows)])
        self._zero = np.logical_or.reduceat(filled, gallery.starts) == 0
        self._learn(gallery)
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if isinstance(self.retriever, RetrieverMixin):
            tags.input_tags.sparse = get_tags(self.retriever).input_tags.sparse
        return tags

    gallery_ = property(lambda self: self.retriever_.gallery_, doc="Rows as searched.")
    region_offsets_ = property(lambda self: self.retriever_.region_offsets_, doc="First row of each item.")
    labels_ = property(lambda self: self.retriever_.labels_, doc="Labels of the gallery items, or None.")
    metric_ = property(lambda self: self.retriever_.metric_, doc="Metric of the index.")
    n_samples_fit_ = property(lambda self: self.retriever_.n_samples_fit_, doc="Number of gallery items.")
    n_features_in_ = property(lambda self: self.retriever_.n_features_in_, doc="Number of features.")
    feature_names_in_ = property(lambda self: self.retriever_.feature_names_in_, doc="Feature names.")

    @property
    def _index(self) -> Any:
        return self.retriever_._index

    @property
    def _uses_own(self) -> bool:
        return self.retriever_._uses_own

    # What a re-ranker is.

    def _n_pool(self) -> int:
        """Return the number of the first results that get a new order."""
        raise NotImplementedError

    def _depth(self) -> int:
        """Return the number of the first results that the new order needs."""
        return self._n_pool()

    def _learn(self, gallery: DescriptorSet) -> None:
        """Compute what depends on the gallery only."""

    def _distances(self, queries: DescriptorSet, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        """Compute distances of the candidates of queries; ``indices`` has at least as many columns as candidates."""
        raise NotImplementedError

    def _ranks(
        self,
        queries: DescriptorSet,
        query: NDArray[np.intp],
        item: NDArray[np.intp],
        own: NDArray[np.intp] | None,
    ) -> NDArray[np.intp] | None:
        return None

    def _search(
        self, queries: DescriptorSet, n_neighbors: int, own: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        if queries.offsets is not None and not self._takes_regions:
            raise ValueError(f"{type(self).__name__} takes one descriptor per query, got region sets.")
        depth = max(n_neighbors, self._depth())
        step = max(1, min(_QUERY_ROWS, _RANKED // depth))
        found = []
        for start, stop in queries.blocks(step):
            part_own = None if own is None else own[start:stop]
            part = queries.slice(start, stop)
            distances, indices = self._reranked(part, *self.retriever_._search(part, depth, part_own))
            found.append((distances[:, :n_neighbors], indices[:, :n_neighbors]))
        distances, indices = zip(*found)
        return np.concatenate(distances), np.concatenate(indices)

    def _reranked(
        self, queries: DescriptorSet, distances: NDArray[Any], indices: NDArray[np.intp]
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Order the candidates by their new distances, from which those of the others go on."""
        n_pool = self._n_pool()
        new = self._distances(queries, indices)
        if queries.offsets is None:
            new[~queries.dense().any(axis=1)] = 1.0  # a zero query says nothing: the order stays
        pool = indices[:, :n_pool]
        order = ascending(new, self._zero[pool], distances.dtype)
        new = np.maximum.accumulate(np.take_along_axis(new, order, axis=1), axis=1)
        below = distances[:, n_pool:].astype(np.float64) - distances[:, n_pool - 1 : n_pool]
        new = np.concatenate([new, below + new[:, -1:]], axis=1).astype(distances.dtype)
        ranked = np.concatenate([np.take_along_axis(pool, order, axis=1), indices[:, n_pool:]], axis=1)
        return new, ranked

    def _rows(self, items: NDArray[np.intp]) -> NDArray[Any]:
        """Return unit rows of gallery items, of shape (..., n_features)."""
        rows = self._index._gallery.dense(items.ravel())
        return rows.reshape(*items.shape, rows.shape[1])
