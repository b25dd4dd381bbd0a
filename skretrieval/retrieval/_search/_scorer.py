"""Similarity of descriptors in two precisions, and the cosine: coarse scores are fast, exact scores are final.

A scorer holds one block of queries and the gallery. *Scores* are larger for nearer items: the cosine, minus
the squared Euclidean distance, minus the Manhattan distance. The coarse score comes from one matrix product
and carries a proven error bound; the exact score of a pair is computed in float64 by a reduction of fixed
order over that pair alone, so it depends neither on the blocks nor on the position of an item, and equal rows
get equal scores to the last bit.

For region sets the score of two images is the largest over all pairs of their regions [1]_, or over the pairs
of regions of the same number [2]_, of which every image then has equally many.

References
----------
.. [1] Jeong, D., Choo, S., Seo, W. and Cho, N. I. (2017). Regional deep feature aggregation for image
   retrieval. ICASSP. Equation 7.
.. [2] Seddati, O., Dupont, S., Mahmoudi, S. and Parian, M. (2017). Towards good practices for image retrieval based
   on CNN features. ICCV Workshops.
   The distance is the smaller one of global to global and local to local descriptors.
"""

from collections.abc import Callable
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._descriptors import CACHE_ELEMENTS, DescriptorSet
from ._region_pairs import best_rows, best_scores
from ._threads import in_threads

# Up to this many gallery rows whole blocks are scored pair by pair: no slower to speak of, and bit by bit exact.
_SMALL_GALLERY = 1024
_SMALL_WIDTH = 4096

# Gallery rows in one product, and numbers in a block of rows. Blocks of a few queries have more rows.
BLOCK_SIZE = 8192
_BLOCK_ELEMENTS = 2**22
# Numbers that one thread converts and multiplies at a time: they stay in the processor's cache.
_PART_ELEMENTS = 2**19


def slack(n_features: int, dtype: Any) -> float:
    """Relative error bound of a sum of ``n_features`` products in any order of summation.

    Twice the textbook bound ``n u`` (u: half the machine epsilon) plus a few roundings of the operands.
    """
    return (n_features + 16) * float(np.finfo(dtype).eps)


def coarse_dtype(n_features: int, dtype: Any) -> np.dtype[Any]:
    """Gallery dtype, or float64 where the float32 bound would let too many candidates through."""
    return np.dtype(np.float64) if slack(n_features, dtype) > 1e-3 else np.dtype(dtype)


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

    def __init__(self, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> None:
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

    # What a metric says.

    def _coarse_rows(self, low: int, high: int) -> NDArray[Any]:
        """Coarse scores of all query rows and the gallery rows ``low:high``."""
        raise NotImplementedError

    def _fine_rows(self, low: int, high: int) -> NDArray[Any]:
        """Scores of the same rows in float64."""
        raise NotImplementedError

    def _exact_rows(self, low: int, high: int) -> NDArray[Any]:
        """Scores of the same rows with the bits of :meth:`pair_rows`."""
        raise NotImplementedError

    def pair_rows(self, query_row: NDArray[np.intp], gallery_row: NDArray[np.intp]) -> NDArray[np.float64]:
        """Exact scores of pairs of rows."""
        raise NotImplementedError

    def row_sizes(self) -> NDArray[np.float64]:
        """Sizes of the query rows in units of the scores: minus their scores against zero."""
        raise NotImplementedError

    def loosen(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Coarse score below which no item can be exactly as near as the item with ``scores``."""
        raise NotImplementedError

    @staticmethod
    def distance(scores: NDArray[Any]) -> NDArray[Any]:
        """Distances of scores."""
        raise NotImplementedError

    # What all metrics share.

    def coarse(self, start: int, stop: int) -> NDArray[Any]:
        """Coarse scores of the gallery items ``start:stop``, shape (n_queries, stop - start)."""
        if not self.coarse_converts:
            return self._block(self._coarse_rows, start, stop)
        return self._in_parts(self._coarse_rows, start, stop, self.dtype)

    def fine(self, start: int, stop: int) -> NDArray[Any]:
        """Scores of the same block in float64; see ``fine_error`` for how far they may be from exact."""
        if self.fine_is_exact:
            return self._block(self._exact_rows, start, stop)
        if not self.fine_converts:
            return self._block(self._fine_rows, start, stop)
        return self._in_parts(self._fine_rows, start, stop, np.dtype(np.float64))

    def _in_parts(
        self, function: Callable[..., Any], start: int, stop: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Scores of a block, parts of which are converted and multiplied by one thread each."""
        rows = max(1, _PART_ELEMENTS // self.gallery.n_features)
        parts = list(self.gallery.slice(start, stop).blocks(rows))
        if len(parts) == 1:
            return self._block(function, start, stop)
        scores = np.empty((self.queries.n_items, stop - start), dtype=dtype)

        def work(part: Any) -> None:
            scores[:, slice(*part)] = self._block(function, start + part[0], start + part[1])

        in_threads(work, parts, products=True)
        return scores

    def _block(self, function: Callable[..., Any], start: int, stop: int) -> NDArray[Any]:
        low, high = self.gallery.row_range(start, stop)
        scores = function(low, high)
        if self.same:
            return scores
        if self.gallery.offsets is not None:
            scores = np.maximum.reduceat(scores, self.gallery.offsets[start:stop] - low, axis=1)
        if self.queries.offsets is not None:
            scores = np.maximum.reduceat(scores, self.queries.offsets[:-1], axis=0)
        return scores

    def _rows(
        self,
        low: int,
        high: int,
        dtype: np.dtype[Any],
        *,
        unit: bool = True,
        centre: NDArray[Any] | float | None = None,
    ) -> NDArray[Any]:
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

    def _convert_in_parts(self, *, coarse: bool) -> None:
        """Let threads convert parts of a block, which may then be as large as the scores of a few queries allow."""
        self.coarse_converts, self.fine_converts = coarse, True
        self.block_size = max(BLOCK_SIZE, 2**22 // len(self.query_rows))
        self.fine_block_size = max(BLOCK_SIZE, 2**21 // len(self.query_rows))

    def find_centre(self) -> Any:
        """Mean of the first gallery rows: distances of centred rows keep more digits."""
        return self.gallery.dense(slice(0, 1024)).mean(axis=0, dtype=np.float64)

    def known(self, scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Where coarse or fine scores are exact as they are, shape of ``scores``."""
        return np.zeros(scores.shape, dtype=bool)

    # The rows of the same region number form a slot. Products are (n_query_rows, n_gallery_rows) matrices or, for
    # regions of the same number, stacks of them (n_slots, n_queries, n_items): one product for each slot.

    def _products(self, query_rows: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        """Inner products of all queries and the given gallery rows."""
        if not self.same:
            return query_rows @ rows.T
        n_features = rows.shape[1]
        left = query_rows.reshape(-1, self.n_slots, n_features).transpose(1, 0, 2)
        return left @ rows.reshape(-1, self.n_slots, n_features).transpose(1, 2, 0)

    def _of_queries(self, row_values: NDArray[Any]) -> NDArray[Any]:
        """Values of the query rows, to combine with products."""
        return row_values.reshape(-1, self.n_slots).T[:, :, None] if self.same else row_values[:, None]

    def _of_gallery(self, row_values: NDArray[Any]) -> NDArray[Any]:
        """Values of gallery rows, to combine with products."""
        return row_values.reshape(-1, self.n_slots).T[:, None] if self.same else row_values

    def _best_slot(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Scores of the best slot, where the products have slots."""
        return scores.max(axis=0) if self.same else scores

    def fine_error(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``(error, near)``: bound of the error of ``fine``, and the score above which it is not enough.

        Both of shape (n_queries, 1). Zero and infinity say that ``fine`` is already exact.
        """
        shape = (self.queries.n_items, 1)
        return np.zeros(shape), np.full(shape, np.inf)

    def pairs(self, query: NDArray[np.intp], item: NDArray[np.intp]) -> NDArray[np.float64]:
        """Exact scores of pairs.

        Parameters
        ----------
        query, item : ndarray of shape (n_pairs,)
            Query numbers within the block and gallery item numbers.

        Returns
        -------
        ndarray of shape (n_pairs,), float64
        """
        if self._single:
            scores = np.empty(len(query))
            step = max(1, CACHE_ELEMENTS // self.query_rows.shape[1])
            for start in range(0, len(query), step):
                part = slice(start, start + step)
                scores[part] = self.pair_rows(query[part], item[part])
            return scores
        return best_scores(self, query, item)

    def best_rows(
        self, query: NDArray[np.intp], item: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of the best region pair: ``(query_row, gallery_row)``, each of shape (n_pairs,).

        Among equal pairs, the first query region and then the first gallery region; see
        :func:`~skretrieval.retrieval._search._region_pairs.best_rows` for which are equal.
        """
        return (query, item) if self._single else best_rows(self, query, item)

    @property
    def _single(self) -> bool:
        """Whether every query and every gallery item has one row."""
        return self.queries.offsets is None and self.gallery.offsets is None

    def _per_query(self, row_values: NDArray[Any]) -> NDArray[Any]:
        """Largest value over the regions of each query."""
        if self.queries.offsets is None:
            return row_values
        return np.maximum.reduceat(row_values, self.queries.offsets[:-1])


class Cosine(Scorer):
    """Cosine of unit rows; a zero row has cosine 0 with everything."""

    def __init__(self, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> None:
        super().__init__(queries, gallery, same)
        n_features = gallery.n_features
        self.dtype = dtype = coarse_dtype(n_features, gallery.dtype)
        self.coarse_rows = self.query_rows.astype(dtype)
        self._convert_in_parts(coarse=dtype != gallery.rows.dtype)
        self.lengths = None
        if gallery.lengths is not None:
            self.lengths = np.where(gallery.lengths > 0, gallery.lengths, 1.0).astype(dtype)
        # The sums of exact scores are rounded, too, by nothing to speak of unless these are in float64 as well.
        self.error = slack(n_features, dtype) / (2 if dtype == np.float32 else 1)
        self.squares = np.einsum("id,id->i", self.query_rows, self.query_rows, optimize=False)

    def _coarse_rows(self, low: int, high: int) -> NDArray[Any]:
        rows = self._rows(low, high, self.dtype, unit=False)
        scores = self._products(self.coarse_rows, rows)
        if self.lengths is not None:
            scores /= self._of_gallery(self.lengths[low:high])
        return self._best_slot(scores)

    def loosen(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Coarse score below which no item can be exactly as near as the item with ``scores``."""
        return scores - 2 * self.error

    def _fine_rows(self, low: int, high: int) -> NDArray[Any]:
        rows = self._rows(low, high, np.dtype(np.float64))
        squares = np.einsum("id,id->i", rows, rows, optimize=False)
        return self._cosines(self._products(self.query_rows, rows), squares)

    def _cosines(self, scores: NDArray[Any], squares: NDArray[Any]) -> NDArray[Any]:
        """Cosines of inner products and the squared lengths of the gallery rows."""
        scores /= self._of_queries(np.sqrt(np.where(self.squares > 0, self.squares, 1.0)))
        scores /= self._of_gallery(np.sqrt(np.where(squares > 0, squares, 1.0)))
        return self._best_slot(np.clip(scores, -1.0, 1.0, out=scores))

    def fine_error(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        error, near = super().fine_error()
        return error if self.fine_is_exact else error + slack(self.query_rows.shape[1], np.float64), near

    def _exact_rows(self, low: int, high: int) -> NDArray[Any]:
        n_slots, n_features = self.n_slots, self.query_rows.shape[1]
        query_rows = self.query_rows.reshape(-1, n_slots, n_features)
        query_squares = self.squares.reshape(-1, 1, n_slots)
        scores = np.empty((len(query_rows), (high - low) // n_slots))
        step = max(1, CACHE_ELEMENTS // (n_slots * n_features))
        for start in range(0, scores.shape[1], step):
            rows = self.gallery.dense(slice(low + start * n_slots, min(low + (start + step) * n_slots, high)))
            rows = rows.astype(np.float64).reshape(-1, n_slots, n_features)
            # For each pair the same loop over d as for a list of pairs, hence the same bits.
            products = np.einsum("imd,jmd->ijm", query_rows, rows, optimize=False)
            squares = np.einsum("jmd,jmd->jm", rows, rows, optimize=False)
            scores[:, start : start + step] = self._divide(products, squares * query_squares).max(axis=2)
        return scores

    def row_sizes(self) -> NDArray[np.float64]:
        return self.squares  # 1, or 0 of a zero row

    def pair_rows(self, query_row: NDArray[np.intp], gallery_row: NDArray[np.intp]) -> NDArray[np.float64]:
        left, right = self.query_rows[query_row], self.gallery.dense(gallery_row).astype(np.float64)
        squares = np.einsum("pd,pd->p", right, right, optimize=False)
        products = np.einsum("pd,pd->p", left, right, optimize=False)
        return self._divide(products, squares * self.squares[query_row])

    @staticmethod
    def _divide(products: NDArray[Any], squares: NDArray[Any]) -> NDArray[np.float64]:
        # The root of the product of two squared lengths, not two roots, gives exactly 1 for two equal rows.
        return np.clip(products / np.sqrt(np.where(squares > 0, squares, 1.0)), -1.0, 1.0)

    @staticmethod
    def distance(scores: NDArray[Any]) -> NDArray[Any]:
        """Cosine distance, 1 - cosine."""
        return 1.0 - scores
