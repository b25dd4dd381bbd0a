"""How the cells of a region become one value per channel.

Each function takes maps (N, K, H, W), boxes (R, 4) and spatial weights (N or 1, H, W) or None, and returns
(N, R, K). No loop runs over images, channels or regions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..._linalg import power, power_mean, root, without_rounding
from ._regions import membership

# Powers up to 4 of maps whose largest activation lies here stay within float32; others are scaled first.
_SAFE_POWER = 4
_SAFE_RANGE = (1e-6, 1e7)


def _is_whole(boxes: np.ndarray, maps: torch.Tensor) -> bool:
    return len(boxes) == 1 and tuple(boxes[0]) == (0, 0, maps.shape[2], maps.shape[3])


def sum_cells(maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None) -> torch.Tensor:
    """Sum: one matrix product ``sum_p a_rp x_kp`` with ``a_rp = spatial_p`` where cell p lies in region r, else 0."""
    cells = maps.flatten(2)
    if _is_whole(boxes, maps):
        if spatial is None:
            return cells.sum(dim=2)[:, None, :]
        weights = spatial.flatten(1)[:, None, :]
    else:
        weights = membership(boxes, maps)[None]
        if spatial is not None:
            weights = weights * spatial.flatten(1)[:, None, :]
    # the few rows on the left, the cells contiguous in both: several times as fast as the transposed product
    return torch.bmm(weights.expand(len(cells), -1, -1), cells.transpose(1, 2))


def mean_cells(maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the cells of the region."""
    return sum_cells(maps, boxes, spatial) / _areas(boxes, maps)


def max_cells(maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None) -> torch.Tensor:
    """Maximum: over the stripes between the borders of all regions, then over the stripes of each region.

    The maximum over a box is that over its rows and then over its columns. Along either side the borders of all boxes
    cut the map into stripes; every cell is read once for the maxima of the stripes, and the maximum of a box is that
    of the stripes it consists of.

    References
    ----------
    Tolias, Sicre, Jegou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016 (MAC and
    R-MAC).
    """
    maps = _weighted(maps, spatial)
    if _is_whole(boxes, maps):
        return maps.flatten(2).amax(dim=2)[:, None, :]
    row, col, high, wide = (side.tobytes() for side in boxes.astype(np.int64).T)
    row_borders, row_windows, at_row = _stripes(row, high)
    col_borders, col_windows, at_col = _stripes(col, wide)
    by_rows = [_fold_rows(maps[:, :, start:end]) for start, end in pairwise(row_borders)]  # each (N, K, W)
    # the short sides first, images and channels last: what follows has long runs of memory
    stripes = torch.stack([rows.permute(2, 0, 1) for rows in by_rows], dim=1)
    stripes = torch.stack([stripes[start:end].amax(dim=0) for start, end in pairwise(col_borders)])
    windows = torch.stack([stripes[:, first:end].amax(dim=1) for first, end in row_windows], dim=1)
    windows = torch.stack([windows[first:end].amax(dim=0) for first, end in col_windows])
    picked = torch.from_numpy(at_col * len(row_windows) + at_row).to(maps.device)
    return windows.flatten(0, 1).index_select(0, picked).transpose(0, 1)


@lru_cache(maxsize=1024)
def _stripes(starts: bytes, sizes: bytes) -> tuple[list[int], list[list[int]], np.ndarray]:
    """Cut one side of the map at the borders of all windows.

    Returns
    -------
    borders : list of int
        Stripe s covers the cells ``borders[s]`` to ``borders[s + 1] - 1``.
    windows : list of [first, end]
        The distinct windows, in stripes.
    window : ndarray of shape (R,)
        Which of them each box has.
    """
    start, size = np.frombuffer(starts, dtype=np.int64), np.frombuffer(sizes, dtype=np.int64)
    windows, window = np.unique(np.stack([start, start + size], axis=1), axis=0, return_inverse=True)
    borders = np.unique(windows)
    return borders.tolist(), np.searchsorted(borders, windows).tolist(), window.reshape(-1)


def _fold_rows(maps: torch.Tensor) -> torch.Tensor:
    """Maximum over the rows (N, K, W), by folding the map in two until one row is left.

    Halves are long runs of memory; a reduction would go through them row by row, several times slower.
    """
    while (height := maps.shape[2]) > 1:
        half = (height + 1) // 2  # the middle one of an odd number of rows counts twice: no difference
        maps = torch.maximum(maps[:, :, :half], maps[:, :, height - half :])
    return maps[:, :, 0]


def power_mean_cells(
    maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None, p: float = 3.0
) -> torch.Tensor:
    """Power mean ``(mean x^p)^(1/p)``: mean for p = 1, maximum for p = inf.

    References
    ----------
    Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", IEEE Transactions on Pattern
    Analysis and Machine Intelligence 2019, eq 3 (GeM).

    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, eq 12 (GR-MAC).
    """
    if not p >= 1:
        raise ValueError(f"p must be at least 1, got {p}.")
    if p == 1:
        return mean_cells(maps, boxes, spatial)
    if np.isinf(p):
        return max_cells(maps, boxes, spatial)
    maps = _weighted(maps, spatial)
    if p <= _SAFE_POWER:
        values = root(sum_cells(power(maps, p), boxes) / _areas(boxes, maps), p)
        if _is_moderate(values, maps):
            return values
    return _scaled_power_mean(maps, boxes, p)


def signed_power_mean_cells(
    maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None, p: float = 3.0
) -> torch.Tensor:
    """Power mean that keeps signs: ``m = mean sign(x) |x|^p``, then ``sign(m) |m|^(1/p)``, for any real p >= 1.

    GeM for features without a ReLU, such as the tokens of a transformer (with ``rectify=False``). With
    ``rectify="auto"`` it takes the place of "power_mean" where the maps are signed. For odd integers p
    it is the power mean, for features that are not negative, too; p = 1 is the mean. There is no limit p = inf: the
    largest magnitude may occur with both signs.

    Computed in float64: where signs cancel, the root magnifies what is left of them, and what is left below the
    rounding of float64 counts as zero.
    """
    if not 1 <= p < np.inf:
        raise ValueError(f"p must be finite and at least 1, got {p}.")
    if p == 1:
        return mean_cells(maps, boxes, spatial)
    exact = _weighted(maps, spatial).double()
    if p <= _SAFE_POWER:
        powered = power(exact, p, signed=True)
        areas = _areas(boxes, exact)
        magnitude = sum_cells(powered.abs(), boxes) / areas
        if _is_moderate(root(magnitude, p), maps):
            mean = without_rounding(sum_cells(powered, boxes) / areas, magnitude)
            return root(mean, p, signed=True).to(maps.dtype)
    return _scaled_power_mean(exact, boxes, p, signed=True).to(maps.dtype)


def relup_power_mean_cells(
    maps: torch.Tensor,
    boxes: np.ndarray,
    spatial: torch.Tensor | None = None,
    p: float = 4.6,
    alpha: float = 0.014,
) -> torch.Tensor:
    """Power mean of activations that are raised to `alpha` where they lie below it (ReLUP, then GeM).

    ``x'_p = max(x_p, alpha)``, times the weights if there are some, then the power mean of exponent `p` over each
    region. A map of zeros stays one: a photograph without activation has no descriptor.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    boxes : ndarray of shape (R, 4)
        Regions.
    spatial : tensor of shape (N or 1, H, W) or None
        Weight of each cell.
    p : float, default=4.6
        Exponent of the power mean over a region, at least 1; inf for the maximum.
    alpha : float, default=0.014
        The threshold, at least 0, which is the ReLU.

    Returns
    -------
    values : tensor of shape (N, R, K)
        One value per region and channel.

    Notes
    -----
    The publication puts ReLUP in the place of the ReLU at the end of the residual blocks before the last stage, inside
    a network trained for retrieval; its threshold is of the scale of those activations. Here it stands before the
    pooling of any network's maps.

    References
    ----------
    Shao, Chen, Karpur, Cui, Araujo, Cao, "Global features are all you need for image retrieval and reranking", ICCV
    2023, section 3.1.
    """
    return power_mean_cells(_relup(maps, alpha), boxes, spatial, p)


def _relup(maps: torch.Tensor, alpha: float) -> torch.Tensor:
    if not 0 <= alpha < np.inf:
        raise ValueError(f"alpha must be finite and at least 0, got {alpha}.")
    active = maps.flatten(1).any(dim=1)[:, None, None, None]
    return torch.where(active, maps.clamp_min(alpha), maps)


def regional_power_mean_cells(
    maps: torch.Tensor,
    boxes: np.ndarray,
    spatial: torch.Tensor | None = None,
    p: float = 4.6,
    region_p: float = 2.5,
    window: int = 5,
    alpha: float | None = None,
    signed: bool = False,
) -> torch.Tensor:
    """Power mean of cells that were averaged with the power mean of their neighbourhood (regional GeM).

    ``x'_p = x_p / 2 + (mean over q around p of x_q^region_p)^(1 / region_p) / 2`` over the whole map, weighted cells
    if there are weights, then the power mean of exponent `p` over each region. Beyond the border the map is mirrored
    at its outermost cells; a map smaller than half the window is mirrored back and forth, and a side of one cell
    repeats it, so that there is a neighbourhood in maps of any size.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps; not negative, unless `p` and `region_p` are integers or `signed`.
    boxes : ndarray of shape (R, 4)
        Regions.
    spatial : tensor of shape (N or 1, H, W) or None
        Weight of each cell.
    p : float, default=4.6
        Exponent of the power mean over a region, at least 1; inf for the maximum.
    region_p : float, default=2.5
        Exponent of that over a neighbourhood, at least 1; inf for the maximum.
    window : int, default=5
        Side of a neighbourhood in cells, odd.
    alpha : float or None, default=None
        Threshold of ReLUP, which comes first (see :func:`relup_power_mean_cells`); None leaves it out.
    signed : bool, default=False
        Whether both power means keep signs (see :func:`signed_power_mean_cells`); maxima remain maxima.

    Returns
    -------
    values : tensor of shape (N, R, K)
        One value per region and channel.

    References
    ----------
    Shao, Chen, Karpur, Cui, Araujo, Cao, "Global features are all you need for image retrieval and reranking", ICCV
    2023, section 3.1.
    """
    if not region_p >= 1:
        raise ValueError(f"region_p must be at least 1, got {region_p}.")
    if window != int(window) or window < 1 or window % 2 == 0:
        raise ValueError(f"window must be an odd number of cells, got {window}.")
    weighted = _weighted(maps if alpha is None else _relup(maps, alpha), spatial)
    if signed:
        weighted = weighted.double()
    mixed = (weighted + _neighbourhood(weighted, region_p, int(window), signed)) / 2
    reduce = signed_power_mean_cells if signed and np.isfinite(p) else power_mean_cells
    return reduce(mixed, boxes, None, p).to(maps.dtype)


def _neighbourhood(maps: torch.Tensor, p: float, window: int, signed: bool) -> torch.Tensor:
    """Power mean of the cells around each cell, (N, K, H, W)."""
    rows, cols = (torch.from_numpy(mirrored(size, window // 2)).to(maps.device) for size in maps.shape[2:])
    around = maps.index_select(2, rows).index_select(3, cols)
    pool: Callable = torch.nn.functional.avg_pool2d
    if np.isinf(p):
        return torch.nn.functional.max_pool2d(around, window, stride=1)
    if p <= _SAFE_POWER:
        powered = power(around, p, signed)
        mean = pool(powered, window, stride=1)
        magnitude = pool(powered.abs(), window, stride=1) if signed else mean
        if _is_moderate(root(magnitude, p), maps):
            return root(without_rounding(mean, magnitude) if signed else mean, p, signed)
    # what overflows is divided by the largest magnitude of its neighbourhood, one place of the window after another
    largest = torch.nn.functional.max_pool2d(around.abs(), window, stride=1)
    divisor = largest.clamp_min(torch.finfo(maps.dtype).tiny)
    mean = torch.zeros_like(maps)
    height, width = maps.shape[2:]
    for i in range(window):
        for j in range(window):
            mean += power(around[:, :, i : i + height, j : j + width] / divisor, p, signed)
    return largest * root(mean / window**2, p, signed)


def mirrored(size: int, margin: int) -> np.ndarray:
    """Extend the indices 0 .. size - 1 by `margin` on both sides, mirrored at the ends as often as it takes."""
    period = max(2 * (size - 1), 1)
    folded = np.arange(-margin, size + margin) % period
    return np.minimum(folded, period - folded) if size > 1 else folded


def roots_of_negatives(reduce: Any) -> bool:
    """Tell whether a reduction, perhaps a ``functools.partial``, takes roots that negative values don't have."""
    given = {} if not isinstance(reduce, partial) else reduce.keywords
    if given.get("signed") or given.get("alpha") is not None:
        return False
    exponents = (given.get(name, p) for name, p in _ROOTS.get(_function_of(reduce), {}).items())
    return any(bool(np.isfinite(p)) and int(p) != p for p in exponents)


def with_signs(reduce: Any) -> Any:
    """Return the form of a reduction for maps of both signs: power means that keep signs, all others as they are."""
    given = dict(reduce.keywords) if isinstance(reduce, partial) else {}
    if _function_of(reduce) is power_mean_cells and np.isfinite(given.get("p", 3.0)):
        return partial(signed_power_mean_cells, **given)
    if _function_of(reduce) is regional_power_mean_cells:
        return partial(regional_power_mean_cells, **{**given, "signed": True})
    return reduce


def _function_of(reduce: Any) -> Any:
    return reduce.func if isinstance(reduce, partial) else reduce


def _is_moderate(values: torch.Tensor, maps: torch.Tensor) -> bool:
    """Tell by the power means (N, ...) of each map, without a look at the map, that no power left the float's range.

    The largest activation lies above the largest mean, by a factor below the root of the number of cells. Only where
    all means of a map are zero, it has to be asked whether the map is.
    """
    largest = values.abs().flatten(1).amax(dim=1)
    outside = ~((largest >= _SAFE_RANGE[0]) & (largest <= _SAFE_RANGE[1]))  # also NaN
    return not (bool(outside.any()) and bool(maps[outside].any()))


def _scaled_power_mean(maps: torch.Tensor, boxes: np.ndarray, p: float, signed: bool = False) -> torch.Tensor:
    """``mx * (mean (x / mx)^p)^(1/p)`` with the largest magnitude per channel and region, which never overflows."""
    values = maps.new_empty(maps.shape[0], len(boxes), maps.shape[1])
    sizes, of_size = np.unique(boxes[:, 2:], axis=0, return_inverse=True)
    for index, (high, wide) in enumerate(sizes.tolist()):  # one gather per scale
        members = np.flatnonzero(of_size.reshape(-1) == index)
        row = boxes[members, 0][:, None, None] + np.arange(high)[:, None]
        col = boxes[members, 1][:, None, None] + np.arange(wide)
        at = torch.from_numpy((row * maps.shape[3] + col).reshape(-1)).to(maps.device)
        cells = maps.flatten(2)[:, :, at].unflatten(2, (len(members), high * wide))
        values[:, torch.from_numpy(members)] = power_mean(cells, p, 3, signed).transpose(1, 2)
    return values


def _weighted(maps: torch.Tensor, spatial: torch.Tensor | None) -> torch.Tensor:
    return maps if spatial is None else maps * spatial[:, None]


def _areas(boxes: np.ndarray, maps: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(boxes[:, 2] * boxes[:, 3]).to(device=maps.device, dtype=maps.dtype)[:, None]


#: Reduction terms of the grammar: functions (maps, boxes, spatial, **params) -> (N, R, K).
REDUCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "sum": sum_cells,
    "mean": mean_cells,
    "max": max_cells,
    "power_mean": power_mean_cells,
    "signed_power_mean": signed_power_mean_cells,
    "relup_power_mean": relup_power_mean_cells,
    "regional_power_mean": regional_power_mean_cells,
}
# Exponents, with their defaults, of reductions that take roots.
_ROOTS: dict[Any, dict[str, float]] = {
    power_mean_cells: {"p": 3.0},
    regional_power_mean_cells: {"p": 4.6, "region_p": 2.5},
}
