"""Scores of the Euclidean and the Manhattan distance, with their error bounds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._descriptors import CACHE_ELEMENTS, DescriptorSet
from ._scorer import Scorer, coarse_dtype, slack
from ._threads import in_threads

# Numbers compared at a time by one thread.
_MAXIMA_ELEMENTS = 2**16


class _OfDifferences(Scorer):
    """Scores that are sums over the coordinates of the difference of two rows, which :meth:`_reduce` takes."""

    def _exact_rows(self, low: int, high: int) -> NDArray[Any]:
        """Scores of all queries and the gallery rows ``low:high`` from their differences, in cache-sized parts."""
        n_slots, n_features = self.n_slots, self.query_rows.shape[1]
        query_rows = self.query_rows.reshape(-1, n_slots, n_features)
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

    @staticmethod
    def _reduce(difference: NDArray[Any]) -> NDArray[np.float64]:
        """Scores of differences of rows, which it may overwrite."""
        raise NotImplementedError

    def pair_rows(self, query_row: NDArray[np.intp], gallery_row: NDArray[np.intp]) -> NDArray[np.float64]:
        return self._reduce(self.query_rows[query_row] - self.gallery.dense(gallery_row))

    def row_sizes(self) -> NDArray[np.float64]:
        return -self._reduce(self.query_rows.copy())


class Euclidean(_OfDifferences):
    """Euclidean distance; the coarse score is centred, so a common offset of all rows costs no digits."""

    def __init__(self, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> None:
        super().__init__(queries, gallery, same)
        self.centre = self.find_centre()
        self.centred = self.query_rows - self.centre
        self.squares = np.einsum("id,id->i", self.centred, self.centred, optimize=False)
        self._met = [0.0]  # largest squared norms of the parts met so far
        self._convert_in_parts(coarse=True)

    def _coarse_rows(self, low: int, high: int) -> NDArray[Any]:
        rows = self._rows(low, high, np.dtype(np.float64), centre=self.centre)
        squares = np.einsum("id,id->i", rows, rows, optimize=False)
        return self._distances(self._products(self.centred, rows), squares)

    def _distances(self, scores: NDArray[Any], squares: NDArray[Any]) -> NDArray[Any]:
        """Squared distances, negative, of inner products and the squared lengths of the gallery rows."""
        self._met.append(float(squares.max()))
        scores *= 2.0
        scores -= self._of_gallery(squares)
        scores -= self._of_queries(self.squares)
        return self._best_slot(scores)

    def _fine_rows(self, low: int, high: int) -> NDArray[Any]:
        return self._coarse_rows(low, high)

    def _scale(self) -> NDArray[Any]:
        return self._per_query(self.squares) + max(self._met)

    def loosen(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Coarse score below which no item can be exactly as near as the item with ``scores``."""
        return scores - 2 * slack(self.centred.shape[1], np.float64) * self._scale()

    def fine_error(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.fine_is_exact:
            return super().fine_error()
        scale = self._scale()[:, None]
        # Small distances are differences of large norms: those are recomputed from the rows themselves.
        return slack(self.centred.shape[1], np.float64) * scale, -1e-3 * scale

    @staticmethod
    def _reduce(difference: NDArray[Any]) -> NDArray[np.float64]:
        return -np.einsum("pd,pd->p", difference, difference, optimize=False)

    @staticmethod
    def distance(scores: NDArray[Any]) -> NDArray[Any]:
        """Euclidean distance of squared ones."""
        return np.sqrt(np.maximum(-scores, 0.0))


class Manhattan(_OfDifferences):
    """Manhattan distance, ``sum |q - g| = 2 sum max(q, g) - sum q - sum g`` over the coordinates.

    Coordinates are centred, so a common offset of all rows costs no digits. The sums of maxima need one pass less
    than those of differences; the parts of a block are shared out to threads.
    """

    def __init__(self, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> None:
        super().__init__(queries, gallery, same)
        self.dtype = coarse_dtype(gallery.n_features, gallery.dtype)
        self.centre = self.find_centre()
        self.centred = self.query_rows - self.centre
        self.norms = np.abs(self.centred).sum(axis=1)
        self.largest = 0.0  # largest norm among the gallery rows met so far

    def _coarse_rows(self, low: int, high: int) -> NDArray[Any]:
        return self._from_maxima(low, high, self.dtype)

    def _fine_rows(self, low: int, high: int) -> NDArray[Any]:
        return self._from_maxima(low, high, np.dtype(np.float64))

    def _from_maxima(self, low: int, high: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        rows = self._rows(low, high, dtype, centre=self.centre)
        self.largest = max(self.largest, float(np.abs(rows).sum(axis=1, dtype=np.float64).max()))
        query_rows = self.centred.astype(dtype, copy=False)
        sums = _sums_of_maxima(query_rows, rows, self.n_slots)
        sums *= -2
        sums += self._of_queries(self.centred.sum(axis=1)).astype(dtype)
        sums += self._of_gallery(rows.sum(axis=1, dtype=np.float64)).astype(dtype)
        return self._best_slot(sums)

    @staticmethod
    def _reduce(difference: NDArray[Any]) -> NDArray[np.float64]:
        np.abs(difference, out=difference)
        return -np.einsum("pd->p", difference, optimize=False)

    def _bound(self, dtype: Any) -> NDArray[Any]:
        # The sums are of numbers up to twice those of the rows.
        return 2 * slack(self.gallery.n_features, dtype) * (self._per_query(self.norms) + self.largest)

    def loosen(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Coarse score below which no item can be exactly as near as the item with ``scores``."""
        return scores - 2 * self._bound(self.dtype)

    def fine_error(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.fine_is_exact:
            return super().fine_error()
        scale = (self._per_query(self.norms) + self.largest)[:, None]
        # Small distances are differences of large sums: those are recomputed from the rows themselves.
        return self._bound(np.float64)[:, None], -1e-3 * scale

    @staticmethod
    def distance(scores: NDArray[Any]) -> NDArray[Any]:
        """Manhattan distance."""
        return -scores


def _sums_of_maxima(query_rows: NDArray[Any], rows: NDArray[Any], n_slots: int) -> NDArray[Any]:
    """Sum the larger coordinates, in the shape of :meth:`Scorer._products`."""
    n_features = rows.shape[1]
    left = query_rows.reshape(-1, n_slots, n_features).transpose(1, 0, 2)
    right = rows.reshape(-1, n_slots, n_features).transpose(1, 0, 2)
    n_queries, n_items = left.shape[1], right.shape[1]
    sums = np.empty((n_slots, n_queries, n_items), dtype=rows.dtype)
    step = max(1, _MAXIMA_ELEMENTS // n_features)

    def work(where: tuple[int, int]) -> None:
        slot, start = where
        # One query and a few gallery rows at a time: they and their maxima stay in the processor's cache.
        part = right[slot, start : start + step]
        larger = np.empty(part.shape, dtype=rows.dtype)
        for row, out in zip(left[slot], sums[slot, :, start : start + step]):
            np.maximum(part, row, out=larger)
            np.einsum("pd->p", larger, out=out, optimize=False)

    parts = [(slot, start) for slot in range(n_slots) for start in range(0, n_items, step)]
    if len(parts) * n_queries < 64:
        for part in parts:
            work(part)
    else:
        in_threads(work, parts)
    return sums if n_slots > 1 else sums[0]
