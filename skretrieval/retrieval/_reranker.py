"""What all re-rankers share: a retriever inside, and its first candidates in a new order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._linalg import row_blocks
from ._descriptors import DescriptorSet
from ._rerank._order import ascending
from ._wrapper import RetrieverWrapper

# Query rows, and numbers of a block's rankings, that are worked on at a time.
_QUERY_ROWS, _RANKED = 256, 2**23


class BaseReranker(RetrieverWrapper):
    """Rank the first results of a retriever anew.

    A subclass gives ``_n_pool`` and ``_distances``, and may give ``_learn``.
    """

    _takes_regions = False

    def _examine(self) -> None:
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
