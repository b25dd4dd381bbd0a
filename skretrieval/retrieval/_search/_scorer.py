"""Similarity of descriptors in two precisions: a coarse one that is fast, an exact one that is final.

A scorer holds one block of queries and the gallery. *Scores* are larger for nearer items: the cosine, minus
the squared Euclidean distance, minus the Manhattan distance. The coarse score comes from one matrix product
and carries a proven error bound; the exact score of a pair is computed in float64 by a reduction of fixed
order over that pair alone, so it depends neither on the blocks nor on the position of an item, and equal rows
get equal scores to the last bit.

For region sets the score of two images is the largest over all pairs of their regions [1]_, or over the pairs
of regions of the same number [2]_, of which every image then has equally many.

References
----------
.. [1] J. Jeong et al., regional second-order pooling, eq. 7.
.. [2] Multi-resolution features (S003): the distance is the smaller one of global to global, local to local.
"""

from threading import local

import numpy as np

from .._descriptors import ragged_arange
from ._threads import in_threads

# Rows converted and multiplied at a time in float64: 1 MB, so that the parts stay in the processor's cache.
CACHE_ELEMENTS = 2**17

# Up to this many gallery rows whole blocks are scored pair by pair: no slower to speak of, and bit by bit exact.
_SMALL_GALLERY = 1024
_SMALL_WIDTH = 4096

# Units of rounding (of the rows' dtype, relative to the query row) within which region scores count as equal: what
# descriptors of one image differ by when a network computes it in batches of other shapes.
_TIED_ULPS = 32

# Gallery rows in one product, and numbers in a block of rows. Blocks of a few queries have more rows.
BLOCK_SIZE = 8192
_BLOCK_ELEMENTS = 2**22
# Numbers that one thread converts and multiplies at a time: they stay in the processor's cache.
_PART_ELEMENTS = 2**19


def slack(n_features, dtype):
    """Relative error bound of a sum of ``n_features`` products in any order of summation.

    Twice the textbook bound ``n u`` (u: half the machine epsilon) plus a few roundings of the operands.
    """
    return (n_features + 16) * float(np.finfo(dtype).eps)


def coarse_dtype(n_features, dtype):
    """Gallery dtype, or float64 where the float32 bound would let too many candidates through."""
    return np.dtype(np.float64) if slack(n_features, dtype) > 1e-3 else np.dtype(dtype)


def chunks(sizes, limit):
    """Yield ``(start, stop)`` over consecutive entries whose ``sizes`` add up to at most ``limit``."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield start, stop
        start = stop


class Scorer:
    """Base of the metrics: reduces row scores to image scores and walks over pairs.

    Parameters
    ----------
    queries, gallery : DescriptorSet
        Prepared rows (unit rows for the cosine) of the same dtype.
    same : bool, default=False
        Whether region m is compared with region m only, instead of with all regions. All items of both sets
        must have the same number of rows.
    """

    def __init__(self, queries, gallery, same=False):
        self.queries = queries
        self.gallery = gallery
        self.n_slots = gallery.n_rows // gallery.n_items if same else 1
        self.same = self.n_slots > 1
        self.query_rows = queries.dense().astype(np.float64)
        self.fine_is_exact = gallery.n_rows <= _SMALL_GALLERY and gallery.n_features <= _SMALL_WIDTH
        # Wide rows are converted fewer at a time.
        self.fine_block_size = max(1, min(BLOCK_SIZE, _BLOCK_ELEMENTS // gallery.n_features))
        self.block_size = self.fine_block_size
        # Whether rows are converted before they are multiplied, and the dtype of coarse scores.
        self.coarse_converts = self.fine_converts = False
        self.dtype = np.dtype(np.float64)
        self._converted = local()

    def coarse(self, start, stop):
        """Coarse scores of the gallery items ``start:stop``, shape (n_queries, stop - start)."""
        if not self.coarse_converts:
            return self._block(self._coarse_rows, start, stop)
        return self._in_parts(self._coarse_rows, start, stop, self.dtype)

    def fine(self, start, stop):
        """Scores of the same block in float64; see ``fine_error`` for how far they may be from exact."""
        if self.fine_is_exact:
            return self._block(self._exact_rows, start, stop)
        if not self.fine_converts:
            return self._block(self._fine_rows, start, stop)
        return self._in_parts(self._fine_rows, start, stop, np.dtype(np.float64))

    def _in_parts(self, function, start, stop, dtype):
        """Scores of a block, parts of which are converted and multiplied by one thread each."""
        scores = np.empty((self.queries.n_items, stop - start), dtype=dtype)

        def work(part):
            scores[:, slice(*part)] = self._block(function, start + part[0], start + part[1])

        rows = max(1, _PART_ELEMENTS // self.gallery.n_features)
        in_threads(work, list(self.gallery.slice(start, stop).blocks(rows)), products=True)
        return scores

    def _block(self, function, start, stop):
        low, high = self.gallery.row_range(start, stop)
        scores = function(low, high)
        if self.same:
            return scores
        if self.gallery.offsets is not None:
            scores = np.maximum.reduceat(scores, self.gallery.offsets[start:stop] - low, axis=1)
        if self.queries.offsets is not None:
            scores = np.maximum.reduceat(scores, self.queries.offsets[:-1], axis=0)
        return scores

    def _rows(self, low, high, dtype, *, unit=True, centre=None):
        """Gallery rows in a dtype: a view where nothing is to be done, else an array that is written again.

        Otherwise the memory of each block would be handed back to the system and faulted in again, page by page.
        """
        gallery = self.gallery
        if gallery.rows.dtype == dtype and centre is None and not (unit and gallery.lengths is not None):
            return gallery.rows[low:high]
        rows = getattr(self._converted, dtype.name, None)  # of this thread
        if rows is None or len(rows) < high - low:
            rows = np.empty((high - low, gallery.n_features), dtype=dtype)
            setattr(self._converted, dtype.name, rows)
        rows = rows[: high - low]
        gallery.fill(rows, low, unit=unit, centre=centre)
        return rows

    def _convert_in_parts(self, *, coarse):
        """Let threads convert parts of a block, which may then be as large as the scores of a few queries allow."""
        self.coarse_converts, self.fine_converts = coarse, True
        self.block_size = max(BLOCK_SIZE, 2**22 // len(self.query_rows))
        self.fine_block_size = max(BLOCK_SIZE, 2**21 // len(self.query_rows))

    def find_centre(self):
        """Mean of the first gallery rows: distances of centred rows keep more digits."""
        return self.gallery.dense(slice(0, 1024)).mean(axis=0, dtype=np.float64)

    def known(self, scores):
        """Where coarse or fine scores are exact as they are, shape of ``scores``."""
        return np.zeros(scores.shape, dtype=bool)

    # The rows of the same region number form a slot. Products are (n_query_rows, n_gallery_rows) matrices or, for
    # regions of the same number, stacks of them (n_slots, n_queries, n_items): one product for each slot.

    def _products(self, query_rows, rows):
        """Inner products of all queries and the given gallery rows."""
        if not self.same:
            return query_rows @ rows.T
        n_features = rows.shape[1]
        left = query_rows.reshape(-1, self.n_slots, n_features).transpose(1, 0, 2)
        return left @ rows.reshape(-1, self.n_slots, n_features).transpose(1, 2, 0)

    def _of_queries(self, row_values):
        """Values of the query rows, to combine with products."""
        return row_values.reshape(-1, self.n_slots).T[:, :, None] if self.same else row_values[:, None]

    def _of_gallery(self, row_values):
        """Values of gallery rows, to combine with products."""
        return row_values.reshape(-1, self.n_slots).T[:, None] if self.same else row_values

    def _best_slot(self, scores):
        """Scores of the best slot, where the products have slots."""
        return scores.max(axis=0) if self.same else scores

    def fine_error(self):
        """``(error, near)``: bound of the error of ``fine``, and the score above which it is not enough.

        Both of shape (n_queries, 1). Zero and infinity say that ``fine`` is already exact.
        """
        shape = (self.queries.n_items, 1)
        return np.zeros(shape), np.full(shape, np.inf)

    def pairs(self, query, item):
        """Exact scores of pairs.

        Parameters
        ----------
        query, item : ndarray of shape (n_pairs,)
            Query numbers within the block and gallery item numbers.

        Returns
        -------
        ndarray of shape (n_pairs,), float64
        """
        scores = np.empty(len(query))
        if self._single:
            step = max(1, CACHE_ELEMENTS // self.query_rows.shape[1])
            for start in range(0, len(query), step):
                part = slice(start, start + step)
                scores[part] = self._pair_rows(query[part], item[part])
            return scores
        for start, stop, region_scores, _, _, first in self._region_pairs(query, item):
            scores[start:stop] = np.maximum.reduceat(region_scores, first)
        return scores

    def best_rows(self, query, item):
        """Rows of the best region pair: ``(query_row, gallery_row)``, each of shape (n_pairs,).

        Among equal pairs, the first query region and then the first gallery region. Equal are scores ``s`` with

        ``s >= largest - 32 eps (size + |largest|)``

        where ``eps`` is the rounding unit of the dtype and ``size`` of the query row 1 for the cosine, else its
        squared or absolute length. So rounding does not choose, as it would where a query that is in the gallery
        matches itself by each of its regions.
        """
        if self._single:
            return query, item
        room = _TIED_ULPS * float(np.finfo(self.gallery.dtype).eps)
        sizes = self._row_sizes()
        best = np.empty((2, len(query)), dtype=np.intp)
        for start, stop, region_scores, query_row, gallery_row, first in self._region_pairs(query, item):
            counts = np.diff(first, append=len(region_scores))
            largest = np.repeat(np.maximum.reduceat(region_scores, first), counts)
            hits = np.flatnonzero(region_scores >= largest - room * (sizes[query_row] + np.abs(largest)))
            winner = hits[np.searchsorted(hits, first)]
            best[:, start:stop] = query_row[winner], gallery_row[winner]
        return best[0], best[1]

    def _row_sizes(self):
        """Sizes of the query rows in units of the scores: minus their scores against zero."""
        return -self._reduce(self.query_rows.copy())

    @property
    def _single(self):
        """Whether every query and every gallery item has one row."""
        return self.queries.offsets is None and self.gallery.offsets is None

    def _region_pairs(self, query, item):
        """Yield exact scores of all region pairs of consecutive image pairs, in cache-sized parts."""
        query_counts, query_starts = self.queries.counts[query], self.queries.starts[query]
        item_counts, item_starts = self.gallery.counts[item], self.gallery.starts[item]
        sizes = item_counts if self.same else query_counts * item_counts
        for start, stop in chunks(sizes, max(1, CACHE_ELEMENTS // self.query_rows.shape[1])):
            part = slice(start, stop)
            first = np.cumsum(sizes[part]) - sizes[part]
            number = ragged_arange(np.zeros(stop - start, dtype=np.intp), sizes[part])
            width = np.repeat(item_counts[part], sizes[part])
            query_region, gallery_region = (number, number) if self.same else np.divmod(number, width)
            query_row = np.repeat(query_starts[part], sizes[part]) + query_region
            gallery_row = np.repeat(item_starts[part], sizes[part]) + gallery_region
            yield start, stop, self._pair_rows(query_row, gallery_row), query_row, gallery_row, first

    def _from_differences(self, query_rows, low, high):
        """Scores of all queries and the gallery rows ``low:high`` from their differences, in cache-sized parts."""
        n_slots, n_features = self.n_slots, query_rows.shape[1]
        query_rows = query_rows.reshape(-1, n_slots, n_features)
        n_queries, n_items = len(query_rows), (high - low) // n_slots
        scores = np.empty((n_queries, n_items), dtype=query_rows.dtype)
        size = n_slots * n_features
        n_rows = min(n_items, max(1, CACHE_ELEMENTS // size))
        n_together = max(1, CACHE_ELEMENTS // (size * n_rows))
        for start in range(0, n_items, n_rows):
            stop = min(start + n_rows, n_items)
            rows = self.gallery.dense(slice(low + start * n_slots, low + stop * n_slots))
            rows = rows.astype(query_rows.dtype, copy=False).reshape(-1, n_slots, n_features)
            for first in range(0, n_queries, n_together):
                difference = query_rows[first : first + n_together, None] - rows
                part = self._reduce(difference.reshape(-1, n_features)).reshape(difference.shape[:3])
                scores[first : first + n_together, start:stop] = part.max(axis=2)
        return scores

    def _per_query(self, row_values):
        """Largest value over the regions of each query."""
        if self.queries.offsets is None:
            return row_values
        return np.maximum.reduceat(row_values, self.queries.offsets[:-1])
