"""Descriptors and region sets in one form: stacked rows plus the offsets of the items they belong to."""

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import validate_data

from .._linalg import unit_rows
from .._region_sets import is_region_sets, ragged_arange, stack_region_sets
from ._half_precision import half_to_single, halves_are_finite
from ._plain import plain

# Numbers converted at a time: they and their temporary arrays in float64 stay in the processor's cache.
CACHE_ELEMENTS = 2**17


def _row_lengths(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Euclidean lengths of rows, in float64."""
    lengths = np.empty(len(rows))
    step = max(1, CACHE_ELEMENTS // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        part = (half_to_single(part) if part.dtype == np.float16 else part).astype(np.float64)
        lengths[start : start + step] = np.sqrt(np.einsum("id,id->i", part, part))
    return lengths


@dataclass(frozen=True)
class DescriptorSet:
    """One or several descriptor rows per item (image).

    Attributes
    ----------
    rows : ndarray or CSR matrix or array of shape (n_rows, d)
        Rows of all items, item after item.
    offsets : ndarray of shape (n_items + 1,) or None
        Rows ``offsets[i]:offsets[i + 1]`` belong to item i; None when every item has exactly one row.
    lengths : ndarray of shape (n_rows,) or None
        Euclidean lengths of rows that stand for the unit rows in their directions; None for rows that are what
        they are. So a gallery on disk need not be copied to be normalised.
    """

    rows: Any
    offsets: np.ndarray | None = None
    lengths: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows of all items."""
        return self.rows.shape[0]

    @property
    def n_features(self) -> int:
        """Length of a row."""
        return self.rows.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what is computed from the rows: theirs, or float32 for float16."""
        return np.dtype(np.float32) if self.rows.dtype == np.float16 else self.rows.dtype

    @property
    def is_sparse(self) -> bool:
        """Whether the rows are a sparse matrix or array."""
        return sparse.issparse(self.rows)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.n_rows if self.offsets is None else len(self.offsets) - 1

    @property
    def starts(self) -> NDArray[np.intp]:
        """First row of every item, shape (n_items,)."""
        return np.arange(self.n_rows) if self.offsets is None else self.offsets[:-1]

    @property
    def counts(self) -> NDArray[np.intp]:
        """Number of rows of every item, shape (n_items,)."""
        return np.ones(self.n_rows, dtype=np.intp) if self.offsets is None else np.diff(self.offsets)

    def dense(self, key: Any = slice(None)) -> NDArray[Any]:
        """Rows of a slice or an index array as an ndarray of ``dtype``, which may be a view.

        Rows that stand for unit rows are normalised, to the same bits as a gallery normalised beforehand.
        """
        rows = self.raw(key)
        return rows if self.lengths is None else unit_rows(rows)

    def raw(self, key: Any = slice(None)) -> NDArray[Any]:
        """Rows as :meth:`dense`, but not normalised."""
        rows = self.rows[key].toarray() if self.is_sparse else self.rows[key]
        return half_to_single(rows) if rows.dtype == np.float16 else rows

    def fill(
        self, out: NDArray[Any], low: int, *, unit: bool = True, centre: NDArray[Any] | float | None = None
    ) -> None:
        """Write the rows from ``low`` on into an array, converted to its dtype.

        Nothing is as large as the array but the array itself, which can be used again.

        Parameters
        ----------
        out : ndarray of shape (n, d)
            Float32 or float64.
        low : int
            First row.
        unit : bool, default=True
            Whether rows that stand for unit rows are normalised.
        centre : ndarray of shape (d,), default=None
            What to subtract from each.
        """
        read = self.dense if unit else self.raw
        halves = out.dtype == np.float32 and self.rows.dtype == np.float16 and centre is None
        if halves and (self.lengths is None or not unit):
            half_to_single(self.rows[low : low + len(out)], out)
            return
        step = max(1, CACHE_ELEMENTS // self.n_features)
        for start in range(0, len(out), step):
            part = out[start : start + step]
            rows = read(slice(low + start, low + start + len(part)))
            if centre is None:
                part[...] = rows
            else:
                np.subtract(rows, centre, out=part, casting="same_kind")

    def row_range(self, start: int, stop: int) -> tuple[int, int]:
        """Row limits of the items ``start:stop``."""
        return (start, stop) if self.offsets is None else (int(self.offsets[start]), int(self.offsets[stop]))

    def slice(self, start: int, stop: int) -> "DescriptorSet":
        """Items ``start:stop`` as views."""
        low, high = self.row_range(start, stop)
        offsets = None if self.offsets is None else self.offsets[start : stop + 1] - low
        lengths = None if self.lengths is None else self.lengths[low:high]
        return DescriptorSet(self.rows[low:high], offsets, lengths)

    def take(self, items: NDArray[np.intp]) -> "DescriptorSet":
        """Copy the given items, in the given order."""
        rows, offsets = items, None
        if self.offsets is not None:
            counts = self.counts[items]
            rows = ragged_arange(self.starts[items], counts)
            offsets = np.concatenate([[0], np.cumsum(counts)])
        return DescriptorSet(self.rows[rows], offsets, None if self.lengths is None else self.lengths[rows])

    def append(self, other: "DescriptorSet") -> "DescriptorSet":
        """Items of ``self`` followed by those of ``other``, whose rows take the form of those of ``self``.

        Neither may have ``lengths``.
        """
        if self.is_sparse:
            added = other.rows if other.is_sparse else type(self.rows)(other.rows)
            rows = sparse.vstack([self.rows, added], format="csr")
        else:
            with np.errstate(over="ignore"):
                added = other.dense().astype(self.rows.dtype, copy=False)
            if added.dtype == np.float16:
                _check_finite(added, other.offsets)  # too large for float16
            rows = np.concatenate([self.rows, added])
        if self.offsets is None and other.offsets is None:
            return DescriptorSet(rows)
        counts = np.concatenate([self.counts, other.counts])
        return DescriptorSet(rows, np.concatenate([[0], np.cumsum(counts)]))

    def blocks(self, max_rows: int) -> Iterator[tuple[int, int]]:
        """Yield ``(start, stop)`` item ranges of at most ``max_rows`` rows, but at least one item."""
        start, n_items = 0, self.n_items
        while start < n_items:
            if self.offsets is None:
                stop = min(start + max_rows, n_items)
            else:
                stop = int(np.searchsorted(self.offsets, self.offsets[start] + max_rows, side="right")) - 1
                stop = min(max(stop, start + 1), n_items)
            yield start, stop
            start = stop


def prepare(descriptors: DescriptorSet, metric: str, *, in_place: bool | None = None) -> DescriptorSet:
    """Rows as the metric wants them: unit rows for the cosine.

    Parameters
    ----------
    descriptors : DescriptorSet
        Rows as given.
    metric : str
        Metric.
    in_place : bool, default=None
        Whether to keep rows that are to be of unit length as they are, and their lengths beside them. None:
        where they are float16, which would lose digits, or mapped from a file, which would come into memory.

    Returns
    -------
    DescriptorSet
    """
    if metric != "cosine":
        return descriptors
    rows = descriptors.rows
    if in_place is None:
        in_place = rows.dtype == np.float16 or _is_mapped(rows)
    if in_place:
        lengths = _row_lengths(rows)
        # Far from 1, float32 products of the rows as they are could over- or underflow.
        if ((lengths == 0) | ((lengths > 1e-15) & (lengths < 1e15))).all():
            return DescriptorSet(rows, descriptors.offsets, lengths)
    return DescriptorSet(unit_rows(rows), descriptors.offsets)


def _is_mapped(rows: Any) -> bool:
    """Whether an array is a view of a memory-mapped file."""
    while isinstance(rows, np.ndarray):
        rows = rows.base  # copies of parts of a numpy.memmap do not end at the map
    return isinstance(rows, mmap)


def check_descriptors(
    estimator: Any, X: Any, *, reset: bool, dtype: Any = None, accept_sparse: bool = False
) -> DescriptorSet:
    """Validate descriptors or region sets and stack them.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set (``reset=True``) or compared.
    X : {array-like, sparse matrix or array} of shape (n, d) or sequence of n arrays of shape (M_i, d)
        Descriptors, or the region descriptors of each image. Sparse ones become CSR.
    reset : bool
        True in ``fit``.
    dtype : dtype, default=None
        Type of the rows; None keeps float16, float32 and float64 and turns everything else into float64.
    accept_sparse : bool, default=False
        Whether X may be sparse.

    Returns
    -------
    DescriptorSet

    Raises
    ------
    ValueError
        For an empty X, an item without regions, a wrong rank or number of features, NaN or infinity; the
        message names the item.
    TypeError
        If X is sparse and must not be, or the regions of an item are sparse.
    """
    offsets = None
    X = plain(X)
    if sparse.issparse(X) and not accept_sparse:
        raise TypeError(
            "X is sparse: give NearestNeighborsRetriever accept_sparse=True, or a dense array (X.toarray())."
        )
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("X is empty: found 0 descriptors while a minimum of 1 is required.")
    if is_region_sets(X):
        expected = None if reset else estimator.n_features_in_
        X, offsets = stack_region_sets(X, expected, type(estimator).__name__)
    rows = validate_data(
        estimator,
        X,
        reset=reset,
        accept_sparse="csr",
        dtype=[np.float64, np.float32, np.float16] if dtype is None else dtype,
        order="C",
        ensure_all_finite=False,
    )
    _check_finite(rows, offsets)
    return DescriptorSet(rows, offsets)


def check_regions(descriptors: DescriptorSet, expected: int, whose: str) -> None:
    """Raise a ValueError that names the first item with another number of regions than expected."""
    counts = descriptors.counts
    wrong = np.flatnonzero(counts != expected)
    if len(wrong):
        raise ValueError(
            f"Item {wrong[0]} has {counts[wrong[0]]} region(s), but {whose} {expected}: region_pairs='same' "
            "compares region m with region m, so every image needs the same number of regions."
        )


def _check_finite(rows: Any, offsets: NDArray[np.intp] | None) -> None:
    """Raise a ValueError that names the first item with a NaN or an infinity."""
    values = rows.data if sparse.issparse(rows) else rows
    if values.dtype == np.float16:
        if halves_are_finite(values):
            return
    else:
        # The sum is one fast pass without a temporary array; it may overflow, so it only triggers the search.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum(dtype=np.float64)):
                return
    if sparse.issparse(rows):
        entries = np.flatnonzero(~np.isfinite(values))
        bad = np.unique(np.searchsorted(rows.indptr, entries, side="right") - 1)
    else:
        step = max(1, 2**20 // rows.shape[1])
        parts = (np.isfinite(rows[start : start + step]).all(axis=1) for start in range(0, len(rows), step))
        bad = np.flatnonzero(~np.concatenate(list(parts)))
    if len(bad) == 0:
        return
    row = int(bad[0])
    numbers = rows[[row]].data if sparse.issparse(rows) else rows[row]
    kind = "NaN" if np.isnan(numbers).any() else "infinity (inf)"
    if offsets is None:
        where = f"item {row}"
    else:
        item = int(np.searchsorted(offsets, row, side="right")) - 1
        where = f"item {item}, region {row - int(offsets[item])}"
    raise ValueError(f"X contains {kind} in {where} ({len(bad)} row(s) with NaN or infinity in all).")
