"""Descriptors that arrive in any order, put in the order of the images."""

from __future__ import annotations

from typing import Any

import numpy as np


class Rows:
    """Descriptors of n images, one row each, that arrive in any order.

    Parameters
    ----------
    n : int
        How many.
    """

    def __init__(self, n: int):
        self.n = n
        self._array: np.ndarray | None = None

    def add(self, indices: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> None:
        """Take the rows (N, d) of images."""
        if self._array is None:
            self._array = np.zeros((self.n, rows.shape[1]), dtype=rows.dtype)
        elif rows.dtype.itemsize > self._array.dtype.itemsize:
            self._array = self._array.astype(rows.dtype)
        self._array[indices] = rows

    def finish(self) -> np.ndarray | None:
        """Return the rows, of one dtype, the widest."""
        return self._array


class RegionSets:
    """Region sets of n images that arrive in any order.

    Parameters
    ----------
    n : int
        How many.
    """

    def __init__(self, n: int):
        self._sets: list[Any] = [None] * n

    def add(self, indices: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> None:
        """Take the sets of images, one after the other in `rows`."""
        for index, own in zip(indices, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            self._sets[index] = own

    def finish(self) -> list[np.ndarray]:
        """Return the sets, of one dtype, the widest."""
        widest = np.result_type(*{own.dtype for own in self._sets})
        return [own.astype(widest, copy=False) for own in self._sets]
