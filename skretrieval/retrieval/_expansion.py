"""Query expansion: search again with the query moved towards its first results."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import HasMethods, Interval

from .._linalg import unit_rows
from .._region_sets import ragged_arange
from ._descriptors import DescriptorSet
from ._wrapper import RetrieverWrapper

# Query rows expanded at a time: bounds the memory of their vectors and candidates.
_QUERY_ROWS = 1024


class QueryExpansion(RetrieverWrapper):
    """Average and alpha-weighted query expansion around any retriever.

    Each query ``q`` is searched once, replaced by

    ``q' = l2([q] + sum_i max(s_i, 0)**alpha * d_i)``

    over its ``n_expand`` first gallery rows ``d_i`` with similarities ``s_i``, and searched again. All rows and
    ``q`` have unit length. ``alpha=0`` is average query expansion [1]_, ``alpha=3`` with ``n_expand=50`` the
    usual alpha-weighted one [2]_. Wrappers nest: the inner one then ranks both times.

    Parameters
    ----------
    retriever : estimator
        :class:`NearestNeighborsRetriever` or a wrapper around one; cloned by ``fit``.
    n_expand : int, default=10
        Number of gallery items to add. More than the gallery has means all of it; 0 leaves the queries alone.
    alpha : float, default=0.0
        Exponent of the similarities as weights, with ``0**0 = 1``.
    include_query : bool, default=True
        Whether the query itself, with weight 1, is in the sum; [4]_ leaves it out.
    exclude_self : bool, default=False
        Whether to leave the query's own gallery item out of the sum, for queries that are gallery items: with
        ``kneighbors(X=None)`` that is the item itself, otherwise what :meth:`search` is told or, untold, the first
        item at distance zero from the query, if there is one. By default, as in the papers, the own item counts
        as a result like any other.

    Attributes
    ----------
    retriever_ : estimator
        The fitted retriever.
    gallery_, region_offsets_, labels_, n_samples_fit_, n_features_in_, feature_names_in_
        Those of the index inside, see :class:`NearestNeighborsRetriever`.

    See Also
    --------
    NearestNeighborsRetriever : The index itself.

    Notes
    -----
    A query whose sum is the zero vector (or has no weight at all) is searched as it is.

    With the metrics "euclidean" and "manhattan" the vectors are not normalised: q' is the weighted mean, and
    the similarity in the weights is ``1 / (1 + distance)`` (equation 7 of [3]_).

    Region sets: ``d_i`` is the region that matches the query best (equation 8 of [4]_), the first of those equally
    good up to rounding, and the expanded query is a single vector. If the query has several regions,
    ``include_query`` adds the one that matches its first result best. With ``region_pairs="same"`` the expanded query
    has as many regions as before: each result adds the region by which it matches to the query's region of the same
    number, and the formula holds for each region by itself. Regions by which no result matches stay as they are.

    ``kneighbors(X=None)`` leaves each item out of its own final ranking. Whether it takes part in its own
    expansion is up to ``exclude_self``.

    Threads: as for the retriever that it holds; ``set_params`` needs it for itself.

    References
    ----------
    .. [1] O. Chum, J. Philbin, J. Sivic, M. Isard, A. Zisserman, "Total recall: automatic query expansion with
           a generative feature model for object retrieval", ICCV 2007.
    .. [2] F. Radenovic, G. Tolias, O. Chum, "Fine-tuning CNN image retrieval with no human annotation",
           IEEE Transactions on Pattern Analysis and Machine Intelligence 2019. The weights ``s ** alpha``.
    .. [3] H. Zhao, J. Wu, D. Zhang, P. Liu, "Toward improving image retrieval via global saliency weighted feature",
           ISPRS International Journal of Geo-Information 10(4):249, 2021. Section 2.4.
    .. [4] D. Jeong, S. Choo, W. Seo, N. I. Cho, "Regional deep feature aggregation for image retrieval", ICASSP 2017.
           Section 4.2, equation 8.

    Examples
    --------
    >>> from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion
    >>> gallery = [[10.0, 2.0], [10.0, 4.0], [10.0, 6.0], [10.0, -3.0]]
    >>> plain = NearestNeighborsRetriever().fit(gallery)
    >>> plain.predict([[10.0, 1.0]])
    array([[0, 1, 3, 2]])
    >>> QueryExpansion(plain, n_expand=2).fit(gallery).predict([[10.0, 1.0]])
    array([[0, 1, 2, 3]])
    """

    _parameter_constraints: dict = {
        "retriever": [HasMethods(["fit", "kneighbors"])],
        "n_expand": [Interval(Integral, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "include_query": ["boolean"],
        "exclude_self": ["boolean"],
    }

    def __init__(
        self,
        retriever: Any,
        n_expand: int = 10,
        *,
        alpha: float = 0.0,
        include_query: bool = True,
        exclude_self: bool = False,
    ) -> None:
        self.retriever = retriever
        self.n_expand = n_expand
        self.alpha = alpha
        self.include_query = include_query
        self.exclude_self = exclude_self

    @property
    def _uses_own(self) -> bool:
        return self.exclude_self or super()._uses_own

    def _expanded_blocks(
        self, queries: DescriptorSet, own: NDArray[np.intp] | None
    ) -> Iterator[tuple[int, int, DescriptorSet, NDArray[np.intp] | None]]:
        """Yield ``(start, stop, expanded, own)`` of blocks of queries."""
        for start, stop in queries.blocks(max(1, min(_QUERY_ROWS, 2**23 // queries.n_features))):
            part_own = None if own is None else own[start:stop]
            yield start, stop, self._expand(queries.slice(start, stop), part_own), part_own

    def _ranks(
        self,
        queries: DescriptorSet,
        query: NDArray[np.intp],
        item: NDArray[np.intp],
        own: NDArray[np.intp] | None,
    ) -> NDArray[np.intp] | None:
        ranks = np.empty(len(query), dtype=np.intp)
        for start, stop, expanded, part_own in self._expanded_blocks(queries, own):
            part = slice(*np.searchsorted(query, [start, stop]))
            found = self.retriever_._ranks(expanded, query[part] - start, item[part], part_own)
            if found is None:
                return None
            ranks[part] = found
        return ranks

    def _search(
        self, queries: DescriptorSet, n_neighbors: int, own: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        found = []
        for _, _, expanded, part_own in self._expanded_blocks(queries, own):
            found.append(self.retriever_._search(expanded, n_neighbors, part_own))
        distances, indices = zip(*found)
        return np.concatenate(distances), np.concatenate(indices)

    def _expand(self, queries: DescriptorSet, own: NDArray[np.intp] | None) -> DescriptorSet:
        """Return expanded queries: one row each, or the regions of the query where there is nothing to add."""
        if self.n_expand == 0:
            return queries
        queries = DescriptorSet(queries.dense(), queries.offsets)
        k = min(self.n_expand + (self.exclude_self and own is not None), self.n_samples_fit_)
        distances, indices = self.retriever_._search(queries, k, own)
        weights = self._weights(distances, indices, own)
        query_rows, gallery_rows = self._index._best_rows(queries, indices)
        if self._index._same:  # results add to the regions they match, each to one
            slots = np.arange(queries.counts[0])
            weights = weights[:, None] * (
                query_rows - queries.starts[:, None] == slots[:, None, None]
            ).swapaxes(0, 1)
            query_vectors = queries.rows
        else:
            weights = weights[:, None]
            query_vectors = queries.rows[query_rows[:, 0]]
        gallery = self._index._gallery
        expanded = np.empty((*weights.shape[:2], gallery.n_features))
        step = max(1, 2**22 // (k * gallery.n_features))
        for start in range(0, len(expanded), step):
            part = slice(start, start + step)
            rows = gallery.dense(gallery_rows[part].ravel()).astype(np.float64)
            rows = rows.reshape(-1, k, gallery.n_features)
            expanded[part] = np.einsum("qmk,qkd->qmd", weights[part], rows, optimize=False)
        expanded = expanded.reshape(-1, gallery.n_features)
        if self.include_query:
            expanded += query_vectors
        if self.metric_ == "cosine":
            expanded = unit_rows(expanded)
            unchanged = ~expanded.any(axis=1)
        else:
            total = weights.sum(axis=2).ravel() + self.include_query
            unchanged = total == 0
            expanded /= np.where(unchanged, 1.0, total)[:, None]
        expanded = expanded.astype(queries.rows.dtype)
        if self._index._same:
            return DescriptorSet(np.where(unchanged[:, None], queries.rows, expanded), queries.offsets)
        return _replace(queries, expanded, unchanged)

    def _weights(
        self, distances: NDArray[Any], indices: NDArray[np.intp], own: NDArray[np.intp] | None
    ) -> NDArray[np.float64]:
        """Weight of each result in the sum, shape (n_queries, k)."""
        distances = distances.astype(np.float64)
        similarity = 1.0 - distances if self.metric_ == "cosine" else 1.0 / (1.0 + distances)
        weights = np.maximum(similarity, 0.0) ** self.alpha
        if self.exclude_self and own is not None:
            is_own = indices == own[:, None]
            weights[is_own] = 0.0
            if indices.shape[1] > self.n_expand:
                weights[~is_own.any(axis=1), -1] = 0.0  # one result was fetched to make up for the own item
        return weights


def _replace(queries: DescriptorSet, expanded: NDArray[Any], unchanged: NDArray[np.bool_]) -> DescriptorSet:
    """Set of the expanded rows, with the rows of the original query where ``unchanged``."""
    if not unchanged.any():
        return DescriptorSet(expanded)
    if queries.offsets is None:
        return DescriptorSet(np.where(unchanged[:, None], queries.rows, expanded))
    counts = np.where(unchanged, queries.counts, 1)
    starts = np.where(unchanged, len(expanded) + queries.starts, np.arange(len(expanded)))
    rows = np.concatenate([expanded, queries.rows])[ragged_arange(starts, counts)]
    return DescriptorSet(rows, np.concatenate([[0], np.cumsum(counts)]))
