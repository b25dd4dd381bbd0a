"""Pairs of regions of two images: the best one gives the score of the images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._region_sets import ragged_arange
from .._descriptors import CACHE_ELEMENTS

# Units of rounding (of the rows' dtype, relative to the query row) within which region scores count as equal: what
# descriptors of one image differ by when a network computes it in batches of other shapes.
_TIED_ULPS = 32

RegionPairs = tuple[int, int, NDArray[Any], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


def chunks(sizes: NDArray[np.integer], limit: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over consecutive entries whose ``sizes`` add up to at most ``limit``."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield start, stop
        start = stop


def best_scores(scorer: Any, query: NDArray[np.integer], item: NDArray[np.integer]) -> NDArray[np.float64]:
    """Exact scores of pairs of images, each that of the best pair of their regions.

    Parameters
    ----------
    scorer : Scorer
        Of one block of queries and the gallery.
    query, item : ndarray of shape (n_pairs,)
        Query numbers within the block and gallery item numbers.

    Returns
    -------
    ndarray of shape (n_pairs,)
    """
    scores = np.empty(len(query))
    for start, stop, region_scores, _, _, first in _region_pairs(scorer, query, item):
        scores[start:stop] = np.maximum.reduceat(region_scores, first)
    return scores


def best_rows(
    scorer: Any, query: NDArray[np.integer], item: NDArray[np.integer]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the best region pair: ``(query_row, gallery_row)``, each of shape (n_pairs,).

    Among equal pairs, the first query region and then the first gallery region. Equal are scores ``s`` with

    ``s >= largest - 32 eps (size + |largest|)``

    where ``eps`` is the rounding unit of the dtype and ``size`` of the query row 1 for the cosine, else its
    squared or absolute length. So rounding does not choose, as it would where a query that is in the gallery
    matches itself by each of its regions.

    Parameters
    ----------
    scorer, query, item
        As for :func:`best_scores`.
    """
    room = _TIED_ULPS * float(np.finfo(scorer.gallery.dtype).eps)
    sizes = scorer.row_sizes()
    best = np.empty((2, len(query)), dtype=np.intp)
    for start, stop, region_scores, query_row, gallery_row, first in _region_pairs(scorer, query, item):
        counts = np.diff(first, append=len(region_scores))
        largest = np.repeat(np.maximum.reduceat(region_scores, first), counts)
        hits = np.flatnonzero(region_scores >= largest - room * (sizes[query_row] + np.abs(largest)))
        winner = hits[np.searchsorted(hits, first)]
        best[:, start:stop] = query_row[winner], gallery_row[winner]
    return best[0], best[1]


def _region_pairs(
    scorer: Any, query: NDArray[np.integer], item: NDArray[np.integer]
) -> Iterator[RegionPairs]:
    """Yield exact scores of all region pairs of consecutive image pairs, in cache-sized parts."""
    queries, gallery = scorer.queries, scorer.gallery
    query_counts, query_starts = queries.counts[query], queries.starts[query]
    item_counts, item_starts = gallery.counts[item], gallery.starts[item]
    sizes = item_counts if scorer.same else query_counts * item_counts
    for start, stop in chunks(sizes, max(1, CACHE_ELEMENTS // gallery.n_features)):
        part = slice(start, stop)
        first = np.cumsum(sizes[part]) - sizes[part]
        number = ragged_arange(np.zeros(stop - start, dtype=np.intp), sizes[part])
        width = np.repeat(item_counts[part], sizes[part])
        query_region, gallery_region = (number, number) if scorer.same else np.divmod(number, width)
        query_row = np.repeat(query_starts[part], sizes[part]) + query_region
        gallery_row = np.repeat(item_starts[part], sizes[part]) + gallery_region
        yield start, stop, scorer.pair_rows(query_row, gallery_row), query_row, gallery_row, first
