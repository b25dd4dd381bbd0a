"""Scores of sparse galleries: products over the stored numbers only, exact scores from dense rows.

The coarse and fine scores differ from those of dense galleries within their error bounds, so the candidates may
differ too, but what decides does not: the exact score of a pair is computed from the dense rows, by the same
reduction, and has the same bits.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .._descriptors import DescriptorSet
from ._distances import Euclidean, Manhattan
from ._scorer import BLOCK_SIZE, Cosine, Scorer, coarse_dtype, slack

# Stored gallery numbers times queries in one step of the Manhattan distance.
_STEP = 2**20


def _squared_lengths(rows: Any) -> NDArray[np.float64]:
    """Squared Euclidean lengths of CSR rows."""
    squares = type(rows)((rows.data**2, rows.indices, rows.indptr), shape=rows.shape)
    return squares @ np.ones(rows.shape[1])


class _SparseGallery(Scorer):
    """What the scorers of sparse galleries share; ``same`` means nothing here, as all items have one row."""

    def _set_coarse_rows(self) -> None:
        """Put the queries in columns, in the cheapest precision whose error bound is good enough."""
        # A sum has no more terms than a gallery row has numbers.
        n_terms = int(np.diff(self.gallery.rows.indptr).max())
        dtype = coarse_dtype(n_terms, self.gallery.dtype)
        self.coarse_columns = np.ascontiguousarray(self.query_rows.T, dtype=dtype)
        self.fine_columns = np.ascontiguousarray(self.query_rows.T)
        self.error = slack(n_terms, dtype)
        # Nothing is made dense but the scores.
        self.coarse_converts = self.fine_converts = False
        self.block_size, self.fine_block_size = max(self.block_size, BLOCK_SIZE), BLOCK_SIZE

    def _part(self, low: int, high: int, dtype: Any) -> Any:
        return self.gallery.rows[low:high].astype(dtype, copy=False)

    @staticmethod
    def _sparse_products(part: Any, columns: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray((part @ columns).T)


class SparseCosine(_SparseGallery, Cosine):
    """Cosine of sparse unit rows."""

    def __init__(self, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> None:
        super().__init__(queries, gallery, same)
        self._set_coarse_rows()

    def _coarse_rows(self, low: int, high: int) -> NDArray[Any]:
        return self._sparse_products(self._part(low, high, self.coarse_columns.dtype), self.coarse_columns)

    def known(self, scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Say that a zero is exact where no number is negative: the rows have no column in common.

        That is most of a gallery of histograms, whose ties need not be computed pair by pair.
        """
        zero = scores == 0
        return zero if zero.any() and self._is_positive else np.zeros(scores.shape, dtype=bool)

    @cached_property
    def _is_positive(self) -> bool:
        """Whether all numbers are zero or so far above it that no product of two vanishes."""
        smallest = [
            numbers.min(where=numbers != 0, initial=1.0)
            for numbers in (self.query_rows, self.gallery.rows.data)
        ]
        return min(smallest) > 1e-15

    def _fine_rows(self, low: int, high: int) -> NDArray[Any]:
        part = self._part(low, high, np.float64)
        return self._cosines(self._sparse_products(part, self.fine_columns), _squared_lengths(part))


class SparseEuclidean(_SparseGallery, Euclidean):
    """Euclidean distance of sparse rows, which stay where they are: centring would fill them."""

    def __init__(self, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> None:
        super().__init__(queries, gallery, same)
        self._set_coarse_rows()

    def find_centre(self) -> float:
        return 0.0

    def _coarse_rows(self, low: int, high: int) -> NDArray[Any]:
        part = self._part(low, high, np.float64)
        return self._distances(self._sparse_products(part, self.fine_columns), _squared_lengths(part))


class SparseManhattan(_SparseGallery, Manhattan):
    """Manhattan distance of sparse rows: ``sum_d |q| + sum over the numbers of g (|q - g| - |q|)``."""

    def __init__(self, queries: DescriptorSet, gallery: DescriptorSet, same: bool = False) -> None:
        super().__init__(queries, gallery, same)
        self._set_coarse_rows()
        self.dtype = np.dtype(np.float64)

    def find_centre(self) -> float:
        return 0.0

    def _coarse_rows(self, low: int, high: int) -> NDArray[Any]:
        part = self._part(low, high, np.float64)
        ones = np.ones(part.shape[1])
        norms = abs(part) @ ones
        self.largest = max(self.largest, float(norms.max()))
        scores = np.empty((len(self.query_rows), high - low))
        # Whole rows whose numbers, times the queries, fit into a step.
        limit = max(1, _STEP // len(self.query_rows))
        start = 0
        while start < high - low:
            stop = int(np.searchsorted(part.indptr, part.indptr[start] + limit, side="right")) - 1
            stop = min(max(stop, start + 1), high - low)
            first, last = part.indptr[start], part.indptr[stop]
            columns = self.fine_columns[part.indices[first:last]]
            change = np.abs(columns - part.data[first:last, None]) - np.abs(columns)
            # Sums over the numbers of each row; a row without numbers has the sum 0.
            sums = sparse.csr_array(
                (np.ones(last - first), np.arange(last - first), part.indptr[start : stop + 1] - first),
                shape=(stop - start, last - first),
            )
            scores[:, start:stop] = -(sums @ change).T - self.norms[:, None]
            start = stop
        return scores

    def _fine_rows(self, low: int, high: int) -> NDArray[Any]:
        return self._coarse_rows(low, high)
