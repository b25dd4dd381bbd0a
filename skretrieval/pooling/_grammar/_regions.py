"""Regions of a feature map: boxes (row, column, height, width) in cells, from its size alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

_MAX_WINDOWS = 7  # R-MAC tries 2 to 7 windows along the long side


def whole(height: int, width: int) -> np.ndarray:
    """Return the whole map as the only region.

    Parameters
    ----------
    height, width : int
        Cells of the map.

    Returns
    -------
    boxes : ndarray of shape (1, 4)
        (row, column, height, width).
    """
    return np.array([[0, 0, height, width]])


@lru_cache(maxsize=4096)
def _rmac_grid(height: int, width: int, n_levels: int) -> tuple[tuple[int, int, int, int], ...]:
    short, excess = min(height, width), abs(height - width)
    extra = 0
    if excess:
        # overlap of neighbours as close as possible to 40 % of the side; |3 w (m-1) - 5 D| / (5 w (m-1)) compared
        # as fractions over the common denominator (m-1), so that ties are exact and go to the smaller m
        candidates = range(1, _MAX_WINDOWS)
        extra = min(candidates, key=lambda gaps: (_Fraction(abs(3 * short * gaps - 5 * excess), gaps), gaps))
    boxes = []
    for level in range(1, n_levels + 1):
        side = 2 * short // (level + 1)
        if side == 0:
            continue
        n_rows = level + (extra if height > width else 0)
        n_cols = level + (extra if width > height else 0)
        rows = _starts(height, side, n_rows)
        cols = _starts(width, side, n_cols)
        boxes += [(row, col, side, side) for row in rows for col in cols]
    return tuple(boxes)


class _Fraction:
    """Non-negative fraction with a positive denominator, compared by cross-multiplying."""

    def __init__(self, numerator: int, denominator: int):
        self.numerator, self.denominator = numerator, denominator

    def __lt__(self, other: _Fraction) -> bool:
        return self.numerator * other.denominator < other.numerator * self.denominator

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Fraction)
            and self.numerator * other.denominator == other.numerator * self.denominator
        )

    __hash__ = None  # type: ignore[assignment]


def _starts(size: int, side: int, n: int) -> list[int]:
    return [0] if n == 1 else [t * (size - side) // (n - 1) for t in range(n)]


def rmac(height: int, width: int, n_levels: int = 3, include_global: bool = False) -> np.ndarray:
    """Return the R-MAC grid: square windows at several scales, about 40 % overlap.

    Integer arithmetic throughout, so the last window is always flush with the border.

    Parameters
    ----------
    height, width : int
        Cells of the map.
    n_levels : int, default=3
        Number of scales; scale l has windows of side ``2 * min(H, W) // (l + 1)``.
    include_global : bool, default=False
        Whether the whole map is one more, last region (Liao et al. 2022 have it, Zhao et al. 2021 and the
        original R-MAC do not).

    Returns
    -------
    boxes : ndarray of shape (R, 4)
        (row, column, height, width), by scale, row, column.

    References
    ----------
    Tolias, Sicre, Jegou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016.

    Examples
    --------
    >>> from skretrieval.pooling import regions
    >>> len(regions.rmac(24, 32)), len(regions.rmac(24, 24))
    (20, 14)
    """
    if n_levels < 1:
        raise ValueError(f"n_levels must be at least 1, got {n_levels}.")
    boxes = np.array(_rmac_grid(height, width, n_levels)).reshape(-1, 4)
    return np.concatenate([boxes, whole(height, width)]) if include_global else boxes


def grid(height: int, width: int, n_levels: int = 4) -> np.ndarray:
    """Return the cells of grids of 1 x 1, 2 x 2, ... parts: the regions of Patchify.

    The borders of a grid of g parts lie at ``round(k H / g)``, halves to the even number. A part that would be empty,
    because the map has fewer cells, is one cell.

    Parameters
    ----------
    height, width : int
        Cells of the map.
    n_levels : int, default=4
        Parts along each side of the last grid.

    Returns
    -------
    boxes : ndarray of shape (R, 4)
        (row, column, height, width), by grid, row, column; 30 with four grids.

    References
    ----------
    Patchify, IEEE/CVF Winter Conference on Applications of Computer Vision, 2026.

    Examples
    --------
    >>> from skretrieval.pooling import regions
    >>> regions.grid(3, 4, n_levels=2)
    array([[0, 0, 3, 4],
           [0, 0, 2, 2],
           [0, 2, 2, 2],
           [2, 0, 1, 2],
           [2, 2, 1, 2]])
    """
    if n_levels < 1:
        raise ValueError(f"n_levels must be at least 1, got {n_levels}.")
    boxes = []
    for parts in range(1, n_levels + 1):
        row, high = _parts(height, parts)
        col, wide = _parts(width, parts)
        corners = np.meshgrid(np.arange(parts), np.arange(parts), indexing="ij")
        i, j = (corner.ravel() for corner in corners)
        boxes.append(np.stack([row[i], col[j], high[i], wide[j]], axis=1))
    return np.concatenate(boxes)


def _parts(size: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return first cell and number of cells of each of `n` parts of a side."""
    borders = np.rint(np.arange(n + 1) * size / n).astype(np.int64)
    first = np.minimum(borders[:-1], size - 1)
    return first, np.maximum(borders[1:] - first, 1)


#: Region terms of the grammar: functions (height, width, **params) -> (R, 4) boxes.
REGIONS: dict[str, Callable[..., np.ndarray]] = {"whole": whole, "rmac": rmac, "grid": grid}


def check_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Check the boxes of a user's function against the map."""
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) == 0 or boxes.dtype.kind not in "iu":
        raise ValueError(
            f"regions must return an integer array of shape (R, 4), got {boxes.dtype} {boxes.shape}."
        )
    row, col, high, wide = boxes.T
    bad = (row < 0) | (col < 0) | (high < 1) | (wide < 1) | (row + high > height) | (col + wide > width)
    if bad.any():
        raise ValueError(
            f"regions: box {boxes[bad][0].tolist()} lies outside a map of {height}x{width} cells."
        )
    return boxes


def membership(boxes: np.ndarray, maps: torch.Tensor) -> torch.Tensor:
    """Return the 0/1 matrix (R, H * W) that tells which cells lie in which region, typed as `maps`."""
    boxes = np.ascontiguousarray(boxes, dtype=np.int64)
    member = _membership(boxes.tobytes(), maps.shape[2], maps.shape[3])
    return member.to(device=maps.device, dtype=maps.dtype)


@lru_cache(maxsize=256)
def _membership(boxes: bytes, height: int, width: int) -> torch.Tensor:
    row, col, high, wide = torch.frombuffer(bytearray(boxes), dtype=torch.int64).view(-1, 4).T[:, :, None]
    i, j = torch.arange(height), torch.arange(width)
    in_rows = (i >= row) & (i < row + high)
    in_cols = (j >= col) & (j < col + wide)
    return (in_rows[:, :, None] & in_cols[:, None, :]).flatten(1).to(torch.float32)
