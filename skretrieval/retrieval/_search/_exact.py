"""Exact nearest neighbours by blocked matrix products.

The block product finds the *candidates*: every item whose coarse score is so close to the k-th best that
rounding could have hidden it. Their exact scores (see ``_scorer``) decide the order, equal scores in the order
of the gallery. So the ranking is the one of a plain float64 loop over all pairs and independent of the block
sizes, at the cost of one float32 matrix product.

For rankings of a large part of the gallery all pairs of a small one are scored exactly. In a larger one they
come from a float64 product, where only items that rounding could have swapped are decided by their exact
scores: the same order again, but distances that may differ in their last bits.
"""

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._descriptors import DescriptorSet
from ._distances import Euclidean, Manhattan
from ._scorer import BLOCK_SIZE, Cosine, Scorer
from ._sparse import SparseCosine, SparseEuclidean, SparseManhattan
from ._threads import in_threads

# Numbers in a block of queries: fewer rows at a time where they are wide.
_QUERY_ELEMENTS = 2**23

# Scores sorted at a time by one thread.
_SORTED = 2**17

# A ranking of this share of the gallery or more is cheaper from a full float64 block than from candidates.
FULL_SHARE = 8

# Scorers of each metric: of a dense gallery, and of a sparse one.
SCORERS: dict[str, tuple[type[Scorer], type[Scorer]]] = {
    "cosine": (Cosine, SparseCosine),
    "euclidean": (Euclidean, SparseEuclidean),
    "manhattan": (Manhattan, SparseManhattan),
}
_PARAMS = ("block_size", "query_block_size")


def check_exact_params(params: dict[str, Any] | None) -> dict[str, Any]:
    """Check the ``engine_params`` of the engine "exact".

    Parameters
    ----------
    params : dict or None
        As given; see :class:`~skretrieval.retrieval.NearestNeighborsRetriever`.

    Returns
    -------
    dict
        Those of :func:`search` that were given.

    Raises
    ------
    ValueError
        For an unknown parameter, or one that is not an integer of at least 1.
    """
    params = dict(params or {})
    unknown = sorted(set(params) - set(_PARAMS), key=str)
    if unknown:
        raise ValueError(f"Unknown engine_params {unknown} for engine 'exact'; it knows {list(_PARAMS)}.")
    for name, value in params.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"engine_params[{name!r}] must be an integer of at least 1, got {value!r}.")
    return params


def make_scorer(metric: str, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> Scorer:
    """Scorer of a metric for one block of queries and a dense or sparse gallery.

    Parameters
    ----------
    metric : {"cosine", "euclidean", "manhattan"}
        Metric.
    queries, gallery : DescriptorSet
        As :class:`~skretrieval.retrieval._search._scorer.Scorer` takes them.
    same : bool, default=False
        Whether only regions of the same number are compared.

    Returns
    -------
    Scorer
    """
    return SCORERS[metric][gallery.is_sparse](queries, gallery, same)


def search(
    queries: DescriptorSet,
    gallery: DescriptorSet,
    n_neighbors: int,
    *,
    metric: str = "cosine",
    same: bool = False,
    block_size: int | None = None,
    query_block_size: int = 1024,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find the nearest gallery items of every query.

    Parameters
    ----------
    queries, gallery : DescriptorSet
        Rows as the metric wants them (unit rows for "cosine"), of the same dtype and number of features.
        The score of two items with several rows is that of their best pair of rows.
    n_neighbors : int
        Between 1 and the number of gallery items.
    metric : {"cosine", "euclidean", "manhattan"}, default="cosine"
        Distance: 1 - cosine, L2 or L1.
    same : bool, default=False
        Whether only rows of the same number within their items are compared; every item then needs equally
        many rows.
    block_size, query_block_size : int
        Gallery and query rows that are multiplied at a time; working memory grows with their product. They
        change the speed, never the neighbours. ``block_size=None`` is 8192, or more for a few queries.

    Returns
    -------
    distances : ndarray of shape (n_queries, n_neighbors)
        In the dtype of the gallery, smallest first.
    indices : ndarray of shape (n_queries, n_neighbors)
        Gallery items; equal distances in the order of the gallery.
    """
    distances = np.empty((queries.n_items, n_neighbors), dtype=gallery.dtype)
    indices = np.empty((queries.n_items, n_neighbors), dtype=np.intp)
    query_block_size = query_rows_at_a_time(query_block_size, gallery)
    full = FULL_SHARE * n_neighbors >= gallery.n_items
    if full and n_neighbors < gallery.n_items:  # the scores of all items need more room than the answer
        rows = (block_size or BLOCK_SIZE) * query_block_size // gallery.n_rows
        query_block_size = max(1, min(query_block_size, rows))
    for start, stop in queries.blocks(query_block_size):
        scorer = make_scorer(metric, queries.slice(start, stop), gallery, same)
        if full:
            _rank_all(scorer, block_size, distances[start:stop], indices[start:stop])
        else:
            scores, indices[start:stop] = _top_k(scorer, n_neighbors, block_size)
            distances[start:stop] = scorer.distance(scores)
    return distances, indices


def query_rows_at_a_time(query_block_size: int, gallery: DescriptorSet) -> int:
    """Rows of a block of queries: fewer where they are wide."""
    return max(1, min(query_block_size, _QUERY_ELEMENTS // gallery.n_features))


def _top_k(scorer: Scorer, k: int, block_size: int | None) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Best k of every query, in exact order: ``(scores, indices)``, each of shape (n_queries, k)."""
    n_queries, n_items = scorer.queries.n_items, scorer.gallery.n_items
    # Tables of candidates, padded by -inf. While kth is -inf nothing has been dropped and there is no padding.
    values: NDArray[Any] | None = None
    index = kth = None
    for start, stop in scorer.gallery.blocks(block_size or scorer.block_size):
        scores = scorer.coarse(start, stop)
        if kth is None:
            kth = _kth_best(scores[:, : max(BLOCK_SIZE, k)], k)  # of a part: not above that of the whole
        # flatnonzero of a flat mask is several times faster than nonzero of a 2-D one.
        flat = np.flatnonzero(scores >= _lowest(scorer, kth)[:, None])
        if len(flat) == 0:
            continue
        row, column = np.divmod(flat, stop - start)
        new_values, new_index = pack(row, scores.ravel()[flat], column + start, n_queries, n_items)
        if values is None or index is None:
            values, index = new_values, new_index
        else:
            values = np.concatenate([values, new_values], axis=1)
            index = np.concatenate([index, new_index], axis=1)
        kth = _kth_best(values, k)
        row, column = np.nonzero(values >= _lowest(scorer, kth)[:, None])
        values, index = pack(row, values[row, column], index[row, column], n_queries, n_items)
        if values.shape[1] > max(4 * k, 4096):
            # So many near ties that the bound cannot part them: decide exactly, or memory would grow.
            exact, index = order_candidates(scorer, values, index, k)
            values = exact.astype(values.dtype)
    assert values is not None  # the first block has candidates
    assert index is not None
    return order_candidates(scorer, values, index, k)


def _kth_best(values: NDArray[Any], k: int) -> NDArray[Any]:
    """Return the k-th best coarse score of every query so far; -inf while there are fewer than k."""
    width = values.shape[1]
    if width < k:
        return np.full(len(values), -np.inf, dtype=values.dtype)
    return np.partition(values, width - k, axis=1)[:, width - k]


def _lowest(scorer: Scorer, kth: NDArray[Any]) -> NDArray[Any]:
    """Coarse score that an item must reach to be among the best k, with room for rounding."""
    lowest = np.asarray(scorer.loosen(kth.astype(np.float64)), dtype=kth.dtype)
    return np.nextafter(lowest, kth.dtype.type(-np.inf))


def pack(
    row: NDArray[np.intp], values: NDArray[Any], index: NDArray[Any], n_rows: int, n_items: int
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Left-aligned table of ragged candidates; padding has value -inf and index ``n_items``.

    ``row`` ascends.
    """
    counts = np.bincount(row, minlength=n_rows)
    column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((n_rows, counts.max()), -np.inf, dtype=values.dtype)
    places = np.full(table.shape, n_items, dtype=np.intp)
    table[row, column] = values
    places[row, column] = index
    return table, places


def order_candidates(
    scorer: Scorer, values: NDArray[Any], index: NDArray[Any], k: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Exact scores of the candidates, sorted by falling score, then by gallery index; the best k."""
    row, column = np.nonzero(index < scorer.gallery.n_items)
    exact = np.full(index.shape, -np.inf)
    exact[row, column] = exact_scores(scorer, row, index[row, column], values[row, column])
    order = np.lexsort((index, -exact), axis=1)[:, :k]
    return np.take_along_axis(exact, order, axis=1), np.take_along_axis(index, order, axis=1)


def exact_scores(
    scorer: Scorer, query: NDArray[np.intp], item: NDArray[np.intp], values: NDArray[Any]
) -> NDArray[np.float64]:
    """Exact scores of pairs whose coarse or fine scores are ``values``."""
    known = scorer.known(values)
    if not known.any():
        return scorer.pairs(query, item)
    exact = values.astype(np.float64)
    exact[~known] = scorer.pairs(query[~known], item[~known])
    return exact


def _rank_all(
    scorer: Scorer, block_size: int | None, distances: NDArray[Any], indices: NDArray[np.intp]
) -> None:
    """Rank the whole gallery from full float64 blocks; the order is that of ``_top_k``.

    Writes the best into ``distances`` and ``indices``, of shape (n_queries, k).
    """
    n_queries, n_items, k = scorer.queries.n_items, scorer.gallery.n_items, indices.shape[1]
    # One pass over the gallery for all queries. Scores of whole rankings wait where their indices will be.
    in_place = k == n_items and indices.itemsize == 8
    scores = indices.view(np.float64) if in_place else np.empty((n_queries, n_items))
    for start, stop in scorer.gallery.blocks(block_size or scorer.fine_block_size):
        scores[:, start:stop] = scorer.fine(start, stop)
    error, near = (np.broadcast_to(limit, (n_queries, 1)) for limit in scorer.fine_error())
    step = max(1, _SORTED // n_items)

    def sort(start: int) -> None:
        part = slice(start, start + step)
        best, order = _sort(scorer, start, scores[part], error[part], near[part])
        distances[part], indices[part] = scorer.distance(best[:, :k]), order[:, :k]

    starts = range(0, n_queries, step)
    if len(starts) == 1:
        sort(0)
    else:
        in_threads(sort, starts)


def _sort(
    scorer: Scorer, first: int, scores: NDArray[Any], error: NDArray[Any], near: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Scores in falling order, exact where rounding may have swapped them, and their items."""
    if not error.any():
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(scores, order, axis=1), order
    order, step = _order(scores)
    scores = np.take_along_axis(scores, order, axis=1)
    # Neighbours in the ranking that rounding may have swapped or torn apart form groups.
    close = np.zeros((len(scores), scores.shape[1] + 1), dtype=bool)
    close[:, 1:-1] = scores[:, :-1] - scores[:, 1:] <= 2 * (error + step)
    row, column = np.nonzero(close[:, :-1] | close[:, 1:] | (scores >= near))
    item = order[row, column]
    exact = exact_scores(scorer, first + row, item, scores[row, column])
    group = np.cumsum(~close[row, column])
    best = np.lexsort((item, -exact, group))
    scores[row, column], order[row, column] = exact[best], item[best]
    return scores, order


def _order(scores: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Items by falling score, where scores less than ``step`` apart count as equal: ``(order, step)``.

    Sorted are integers of a coarse score and the item below it, in half the time of a sort of indices.
    """
    n_items = scores.shape[1]
    bits = (n_items - 1).bit_length()
    best = scores.max(axis=1, keepdims=True)
    width = best - scores.min(axis=1, keepdims=True)
    steps = 2.0 ** (62 - bits)
    keys = best - scores
    keys /= np.where(width > 0, width, 1.0)
    keys *= steps
    keys = keys.astype(np.int64)
    keys <<= bits
    keys |= np.arange(n_items)
    keys.sort(axis=1)
    keys &= (1 << bits) - 1
    return keys.astype(np.intp, copy=False), width * (1.001 / steps)
