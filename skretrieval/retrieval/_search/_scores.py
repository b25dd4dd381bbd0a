"""The metrics: cosine, Euclidean and Manhattan distance, each with its error bounds."""

import numpy as np

from ._scorer import CACHE_ELEMENTS, Scorer, coarse_dtype, slack
from ._threads import in_threads

# Numbers compared at a time by one thread.
_MAXIMA_ELEMENTS = 2**16


class Cosine(Scorer):
    """Cosine of unit rows; a zero row has cosine 0 with everything."""

    def __init__(self, queries, gallery, same=False):
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

    def _coarse_rows(self, low, high):
        rows = self._rows(low, high, self.dtype, unit=False)
        scores = self._products(self.coarse_rows, rows)
        if self.lengths is not None:
            scores /= self._of_gallery(self.lengths[low:high])
        return self._best_slot(scores)

    def loosen(self, scores):
        """Coarse score below which no item can be exactly as near as the item with ``scores``."""
        return scores - 2 * self.error

    def _fine_rows(self, low, high):
        rows = self._rows(low, high, np.dtype(np.float64))
        squares = np.einsum("id,id->i", rows, rows, optimize=False)
        return self._cosines(self._products(self.query_rows, rows), squares)

    def _cosines(self, scores, squares):
        """Cosines of inner products and the squared lengths of the gallery rows."""
        scores /= self._of_queries(np.sqrt(np.where(self.squares > 0, self.squares, 1.0)))
        scores /= self._of_gallery(np.sqrt(np.where(squares > 0, squares, 1.0)))
        return self._best_slot(np.clip(scores, -1.0, 1.0, out=scores))

    def fine_error(self):
        error, near = super().fine_error()
        return error if self.fine_is_exact else error + slack(self.query_rows.shape[1], np.float64), near

    def _exact_rows(self, low, high):
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

    def _row_sizes(self):
        return self.squares  # 1, or 0 of a zero row

    def _pair_rows(self, query_row, gallery_row):
        left, right = self.query_rows[query_row], self.gallery.dense(gallery_row).astype(np.float64)
        squares = np.einsum("pd,pd->p", right, right, optimize=False)
        products = np.einsum("pd,pd->p", left, right, optimize=False)
        return self._divide(products, squares * self.squares[query_row])

    @staticmethod
    def _divide(products, squares):
        # The root of the product of two squared lengths, not two roots, gives exactly 1 for two equal rows.
        return np.clip(products / np.sqrt(np.where(squares > 0, squares, 1.0)), -1.0, 1.0)

    @staticmethod
    def distance(scores):
        """Cosine distance, 1 - cosine."""
        return 1.0 - scores


class Euclidean(Scorer):
    """Euclidean distance; the coarse score is centred, so a common offset of all rows costs no digits."""

    def __init__(self, queries, gallery, same=False):
        super().__init__(queries, gallery, same)
        self.centre = self.find_centre()
        self.centred = self.query_rows - self.centre
        self.squares = np.einsum("id,id->i", self.centred, self.centred, optimize=False)
        self._met = [0.0]  # largest squared norms of the parts met so far
        self._convert_in_parts(coarse=True)

    def _coarse_rows(self, low, high):
        rows = self._rows(low, high, np.dtype(np.float64), centre=self.centre)
        squares = np.einsum("id,id->i", rows, rows, optimize=False)
        return self._distances(self._products(self.centred, rows), squares)

    def _distances(self, scores, squares):
        """Squared distances, negative, of inner products and the squared lengths of the gallery rows."""
        self._met.append(float(squares.max()))
        scores *= 2.0
        scores -= self._of_gallery(squares)
        scores -= self._of_queries(self.squares)
        return self._best_slot(scores)

    def _fine_rows(self, low, high):
        return self._coarse_rows(low, high)

    def _scale(self):
        return self._per_query(self.squares) + max(self._met)

    def loosen(self, scores):
        """Coarse score below which no item can be exactly as near as the item with ``scores``."""
        return scores - 2 * slack(self.centred.shape[1], np.float64) * self._scale()

    def fine_error(self):
        if self.fine_is_exact:
            return super().fine_error()
        scale = self._scale()[:, None]
        # Small distances are differences of large norms: those are recomputed from the rows themselves.
        return slack(self.centred.shape[1], np.float64) * scale, -1e-3 * scale

    def _exact_rows(self, low, high):
        return self._from_differences(self.query_rows, low, high)

    def _pair_rows(self, query_row, gallery_row):
        return self._reduce(self.query_rows[query_row] - self.gallery.dense(gallery_row))

    @staticmethod
    def _reduce(difference):
        return -np.einsum("pd,pd->p", difference, difference, optimize=False)

    @staticmethod
    def distance(scores):
        """Euclidean distance of squared ones."""
        return np.sqrt(np.maximum(-scores, 0.0))


class Manhattan(Scorer):
    """Manhattan distance (S003), ``sum |q - g| = 2 sum max(q, g) - sum q - sum g`` over the coordinates.

    Coordinates are centred, so a common offset of all rows costs no digits. The sums of maxima need one pass less
    than those of differences; the parts of a block are shared out to threads.
    """

    def __init__(self, queries, gallery, same=False):
        super().__init__(queries, gallery, same)
        self.dtype = coarse_dtype(gallery.n_features, gallery.dtype)
        self.centre = self.find_centre()
        self.centred = self.query_rows - self.centre
        self.norms = np.abs(self.centred).sum(axis=1)
        self.largest = 0.0  # largest norm among the gallery rows met so far

    def _coarse_rows(self, low, high):
        return self._from_maxima(low, high, self.dtype)

    def _fine_rows(self, low, high):
        return self._from_maxima(low, high, np.dtype(np.float64))

    def _from_maxima(self, low, high, dtype):
        rows = self._rows(low, high, dtype, centre=self.centre)
        self.largest = max(self.largest, float(np.abs(rows).sum(axis=1, dtype=np.float64).max()))
        query_rows = self.centred.astype(dtype, copy=False)
        sums = _sums_of_maxima(query_rows, rows, self.n_slots)
        sums *= -2
        sums += self._of_queries(self.centred.sum(axis=1)).astype(dtype)
        sums += self._of_gallery(rows.sum(axis=1, dtype=np.float64)).astype(dtype)
        return self._best_slot(sums)

    def _exact_rows(self, low, high):
        return self._from_differences(self.query_rows, low, high)

    @staticmethod
    def _reduce(difference):
        np.abs(difference, out=difference)
        return -np.einsum("pd->p", difference, optimize=False)

    def _bound(self, dtype):
        # The sums are of numbers up to twice those of the rows.
        return 2 * slack(self.gallery.n_features, dtype) * (self._per_query(self.norms) + self.largest)

    def loosen(self, scores):
        """Coarse score below which no item can be exactly as near as the item with ``scores``."""
        return scores - 2 * self._bound(self.dtype)

    def fine_error(self):
        if self.fine_is_exact:
            return super().fine_error()
        scale = (self._per_query(self.norms) + self.largest)[:, None]
        # Small distances are differences of large sums: those are recomputed from the rows themselves.
        return self._bound(np.float64)[:, None], -1e-3 * scale

    def _pair_rows(self, query_row, gallery_row):
        return self._reduce(self.query_rows[query_row] - self.gallery.dense(gallery_row))

    @staticmethod
    def distance(scores):
        """Manhattan distance."""
        return -scores


def _sums_of_maxima(query_rows, rows, n_slots):
    """Sum the larger coordinates, in the shape of :meth:`Scorer._products`."""
    n_features = rows.shape[1]
    left = query_rows.reshape(-1, n_slots, n_features).transpose(1, 0, 2)
    right = rows.reshape(-1, n_slots, n_features).transpose(1, 0, 2)
    n_queries, n_items = left.shape[1], right.shape[1]
    sums = np.empty((n_slots, n_queries, n_items), dtype=rows.dtype)
    step = max(1, _MAXIMA_ELEMENTS // n_features)

    def work(where):
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


SCORERS = {"cosine": Cosine, "euclidean": Euclidean, "manhattan": Manhattan}
