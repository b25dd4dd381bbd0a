"""How the cells of a region become one value per channel.

Each function takes maps (N, K, H, W), boxes (R, 4) and spatial weights (N or 1, H, W) or None, and returns
(N, R, K). No loop runs over images, channels or regions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ._regions import membership

# Powers up to 4 of maps whose largest activation lies here stay within float32; others are scaled first.
_SAFE_POWER = 4
_SAFE_RANGE = (1e-6, 1e7)


def _is_whole(boxes: np.ndarray, maps: torch.Tensor) -> bool:
    return len(boxes) == 1 and tuple(boxes[0]) == (0, 0, maps.shape[2], maps.shape[3])


def sum_cells(maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None) -> torch.Tensor:
    """Sum: one matrix product of the maps with the regions' membership matrix."""
    cells = maps.flatten(2)
    if spatial is None:
        if _is_whole(boxes, maps):
            return cells.sum(dim=2)[:, None, :]
        member = membership(boxes, maps)
        return (cells @ member.T).transpose(1, 2)
    weights = spatial.flatten(1)[:, None, :]  # (N or 1, 1, H*W)
    if not _is_whole(boxes, maps):
        weights = weights * membership(boxes, maps)
    if len(weights) == 1:
        return (cells @ weights[0].T).transpose(1, 2)
    return torch.bmm(cells, weights.transpose(1, 2)).transpose(1, 2)


def mean_cells(maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the cells of the region."""
    return sum_cells(maps, boxes, spatial) / _areas(boxes, maps)


def max_cells(maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None) -> torch.Tensor:
    """Maximum, separably: over the distinct row windows, then over the distinct column windows."""
    maps = _weighted(maps, spatial)
    if _is_whole(boxes, maps):
        return maps.flatten(2).amax(dim=2)[:, None, :]
    rows, at_row = np.unique(boxes[:, [0, 2]], axis=0, return_inverse=True)
    cols, at_col = np.unique(boxes[:, [1, 3]], axis=0, return_inverse=True)
    by_rows = torch.stack(
        [maps[:, :, start : start + size].amax(dim=2) for start, size in rows.tolist()], dim=2
    )
    both = torch.stack(
        [by_rows[..., start : start + size].amax(dim=3) for start, size in cols.tolist()], dim=3
    )
    picked = torch.from_numpy(at_row.reshape(-1) * len(cols) + at_col.reshape(-1)).to(maps.device)
    return both.flatten(2).index_select(2, picked).transpose(1, 2)


def power_mean_cells(
    maps: torch.Tensor, boxes: np.ndarray, spatial: torch.Tensor | None = None, p: float = 3.0
) -> torch.Tensor:
    """Power mean ``(mean x^p)^(1/p)``: mean for p = 1, maximum for p = inf (S000 eq 12; GeM)."""
    if not p >= 1:
        raise ValueError(f"p must be at least 1, got {p}")
    if p == 1:
        return mean_cells(maps, boxes, spatial)
    if np.isinf(p):
        return max_cells(maps, boxes, spatial)
    maps = _weighted(maps, spatial)
    if p > _SAFE_POWER or not _is_moderate(maps):
        return _scaled_power_mean(maps, boxes, p)
    powered = maps * maps * maps if p == 3 else maps.pow(p)
    mean = sum_cells(powered, boxes) / _areas(boxes, maps)
    # odd integer powers keep the sign of ReLU-free maps; fractional ones come rectified
    return mean.pow(1 / p) if int(p) != p or int(p) % 2 == 0 else mean.sign() * mean.abs().pow(1 / p)


def _is_moderate(maps: torch.Tensor) -> bool:
    low, high = torch.aminmax(maps.flatten(1), dim=1)
    largest = torch.maximum(-low, high)
    return bool(((largest == 0) | ((largest >= _SAFE_RANGE[0]) & (largest <= _SAFE_RANGE[1]))).all())


def _scaled_power_mean(maps: torch.Tensor, boxes: np.ndarray, p: float) -> torch.Tensor:
    """``mx * (mean (x / mx)^p)^(1/p)`` with the largest magnitude per channel and region, which never overflows."""
    values = maps.new_empty(maps.shape[0], len(boxes), maps.shape[1])
    sizes, of_size = np.unique(boxes[:, 2:], axis=0, return_inverse=True)
    for index, (high, wide) in enumerate(sizes.tolist()):  # one gather per scale
        members = np.flatnonzero(of_size.reshape(-1) == index)
        row = boxes[members, 0][:, None, None] + np.arange(high)[:, None]
        col = boxes[members, 1][:, None, None] + np.arange(wide)
        at = torch.from_numpy((row * maps.shape[3] + col).reshape(-1)).to(maps.device)
        cells = maps.flatten(2)[:, :, at].unflatten(2, (len(members), high * wide))
        largest = cells.abs().amax(dim=3, keepdim=True)
        ratio = torch.where(largest > 0, cells / largest.clamp_min(torch.finfo(maps.dtype).tiny), cells)
        mean = ratio.pow(p).mean(dim=3)
        root = mean.pow(1 / p) if int(p) != p or int(p) % 2 == 0 else mean.sign() * mean.abs().pow(1 / p)
        values[:, torch.from_numpy(members)] = (largest[..., 0] * root).transpose(1, 2)
    return values


def _weighted(maps: torch.Tensor, spatial: torch.Tensor | None) -> torch.Tensor:
    return maps if spatial is None else maps * spatial[:, None]


def _areas(boxes: np.ndarray, maps: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(boxes[:, 2] * boxes[:, 3]).to(device=maps.device, dtype=maps.dtype)[:, None]


#: Reduction words of the grammar: functions (maps, boxes, spatial, **params) -> (N, R, K).
REDUCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "sum": sum_cells,
    "mean": mean_cells,
    "max": max_cells,
    "power_mean": power_mean_cells,
}
