"""A learned convolutional kernel network: patches, kernel map, pooling.

Functions and modules over torch tensors on any device; `_kernel_learning.py` learns what they need, `_kernel.py`
reads photographs and calls both.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# The elements of the kernel map, before it is pooled and subsampled, that may exist at one time (16 MiB of
# float32). Channels are independent of one another, so they can be made and pooled block by block; on a CPU that
# is also the fastest, as blocks of this size are reused by the allocator instead of mapped anew.
_BLOCK_ELEMENTS = 2**22

# Settings of a layer. name: (type of one entry, smallest, whether the smallest itself is allowed, whether None is)
PER_LAYER = {
    "patch_size": (Integral, 1, True, False),
    "subsampling": (Integral, 1, True, False),
    "beta": (Real, 0, False, False),
    "center": (bool | np.bool_, None, True, False),
    "n_components": (Integral, 1, True, True),
    "contrast": (Real, 0, True, False),
    "reg": (Real, 0, True, False),
}


def pad_for_patches(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the border so that every cell is the centre of a `size` x `size` patch."""
    before, after = (size - 1) // 2, size // 2
    return functional.pad(maps, (before, after, before, after), mode="replicate")


def gaussian_taps(subsampling: int) -> torch.Tensor:
    """Return the ``2 s + 1`` taps of the Gaussian of standard deviation ``s / 2`` cells; they sum to 1."""
    offsets = torch.arange(-subsampling, subsampling + 1, dtype=torch.float64)
    taps = torch.exp(-2.0 * (offsets / subsampling) ** 2)
    return taps / taps.sum()


def gaussian_pool(maps: torch.Tensor, subsampling: int) -> torch.Tensor:
    """Average with Gaussian weights around every `subsampling`-th cell.

    At the border the weights of the cells that exist are scaled to sum to 1.

    Parameters
    ----------
    maps : tensor of shape (N, C, H, W)
        Any maps; non-negative ones stay so, constant ones stay constant.
    subsampling : int
        1 leaves the maps as they are.

    Returns
    -------
    pooled : tensor of shape (N, C, ceil(H / subsampling), ceil(W / subsampling))
        Cell (i, j) is centred on cell (i s, j s) of the input.
    """
    if subsampling == 1:
        return maps
    channels, height, width = maps.shape[1:]
    taps = gaussian_taps(subsampling).to(maps)
    weights = (
        torch.outer(taps, taps).expand(channels, 1, -1, -1).contiguous(memory_format=torch.channels_last)
    )
    pooled = functional.conv2d(maps, weights, stride=subsampling, padding=subsampling, groups=channels)
    present = [
        functional.conv1d(
            maps.new_ones(1, 1, side), taps[None, None], stride=subsampling, padding=subsampling
        )[0, 0]
        for side in (height, width)
    ]
    return pooled.div_(torch.outer(*present))


class KernelLayer(nn.Module):
    """One layer of a convolutional kernel network, with learned filters.

    For the patch around every cell: ``y = W x / sqrt(v(x) + contrast v0)`` (see `normalise_patches`
    and `whitening`), then channel k of the kernel map is ``||y|| exp(beta (<z_k, y> / ||y|| - 1))`` (0 where y = 0),
    then `gaussian_pool`.

    Parameters
    ----------
    projection : tensor of shape (d, C, k, k)
        ``W``.
    filters : tensor of shape (K, d)
        Unit vectors ``z_k``.
    beta : float
        Sharpness of the kernel.
    subsampling : int
        Of the pooling.
    center : bool
        Whether the mean of each channel of each patch is removed.
    contrast, reference : float
        Contrast normalisation.
    """

    projection: torch.Tensor
    filters: torch.Tensor

    def __init__(
        self,
        projection: torch.Tensor,
        filters: torch.Tensor,
        *,
        beta: float,
        subsampling: int,
        center: bool,
        contrast: float,
        reference: float,
    ):
        super().__init__()
        self.register_buffer("projection", projection)
        self.register_buffer("filters", filters)
        self.beta = beta
        self.subsampling = subsampling
        self.center = center
        self.floor = contrast * reference

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to non-negative (N, K, ceil(H / s), ceil(W / s))."""
        direction, norm = self._directions(maps)
        n, _, height, width = direction.shape
        block = max(1, _BLOCK_ELEMENTS // max(1, n * height * width))
        return torch.cat(
            [
                gaussian_pool(self._kernel_map(direction, norm, filters), self.subsampling)
                for filters in self.filters.split(block)
            ],
            dim=1,
        )

    def _directions(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whitened patches as unit vectors (N, d, H, W), 0 where flat, and their norms (N, 1, H, W)."""
        size = self.projection.shape[-1]
        # channels last is the layout in which all of this is fastest on a CPU (measured: 2 to 3 times)
        padded = pad_for_patches(maps, size).contiguous(memory_format=torch.channels_last)
        # A variance as a difference of squares cancels; float64, which Apple's MPS lacks, makes that harmless.
        exact = padded if padded.device.type == "mps" else padded.double()
        power = functional.avg_pool2d((exact * exact).mean(dim=1, keepdim=True), size, stride=1)
        projection = self.projection
        if self.center:
            projection = projection - projection.mean(dim=(2, 3), keepdim=True)
            means = functional.avg_pool2d(exact, size, stride=1)
            spread = power - (means * means).mean(dim=1, keepdim=True)
            flat = spread <= 64 * torch.finfo(exact.dtype).eps * power  # what is left is rounding
            power = spread.masked_fill(flat, 0.0)
        else:
            flat = power <= 0
        projected = functional.conv2d(padded, projection).masked_fill(flat, 0.0)
        power = power.to(projected.dtype)
        scale = torch.sqrt(power + self.floor)
        projected = projected / torch.where(scale > 0, scale, torch.ones_like(scale))
        norm = projected.norm(dim=1, keepdim=True)
        return projected / torch.where(norm > 0, norm, torch.ones_like(norm)), norm

    def _kernel_map(self, direction: torch.Tensor, norm: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        bias = torch.full_like(filters[:, 0], -self.beta)
        return functional.conv2d(direction, self.beta * filters[:, :, None, None], bias).exp_().mul_(norm)


class KernelNetwork(nn.Sequential):
    """A chain of `KernelLayer`."""


def assemble(learned: list[dict]) -> KernelNetwork:
    """Make the network of learned layers; with none it returns its input.

    Parameters
    ----------
    learned : list of dict
        ``ConvKernelExtractor.layers_``.

    Returns
    -------
    network : KernelNetwork
        On the CPU, in evaluation mode.
    """
    layers = []
    for layer in learned:
        arrays = {name: torch.from_numpy(np.array(layer[name])) for name in ("projection", "filters")}
        layers.append(KernelLayer(**{**layer, **arrays}))
    return KernelNetwork(*layers).eval()


def as_input(pixels: np.ndarray) -> torch.Tensor:
    """Return a photograph, uint8 (H, W, 3), as the network takes it: (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255.0


def checked_entry(name: str, value: Any, kind: Any, low: int | None, closed: bool, none_allowed: bool) -> Any:
    """Return one entry of a per-layer parameter as a plain Python value, or say what it should have been."""
    if value is None and none_allowed:
        return None
    fits = isinstance(value, kind) and (low is None or value > low or (closed and value == low))
    if low is not None and isinstance(value, bool | np.bool_):
        fits = False  # Python calls True an integer
    if not fits or (kind is Real and not np.isfinite(value)):
        words = {Integral: "an int", Real: "a finite number"}.get(kind, "a bool")
        bound = "" if low is None else f" {'>=' if closed else '>'} {low}"
        raise ValueError(f"{name} must be {words}{bound}{' or None' if none_allowed else ''}, got {value!r}.")
    return {Integral: int, Real: float}.get(kind, bool)(value)
