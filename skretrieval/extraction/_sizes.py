"""Which sizes of photographs a network takes, found by running it on shapes without numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ._network_maps import NetworkMaps, called_modules, is_too_small, take_out, unused_parts

SIZE_ERRORS = (RuntimeError, AssertionError, ValueError, IndexError, TypeError)


class SizedMaps(nn.Module):
    """The maps of a network, for the sizes that it takes; an error in one line for others.

    Parameters
    ----------
    maps : NetworkMaps
        Changed: what the asked layers do not need is taken out.
    make_empty : callable
        Makes the same of a network without numbers, on torch's meta device.
    """

    def __init__(self, maps: NetworkMaps, make_empty: Callable[[], NetworkMaps]):
        super().__init__()
        self.maps = maps
        self.native = maps.reader.native
        own = (self.native, self.native)
        try:
            with torch.device("meta"):
                empty: Any = make_empty().eval()
                unused = unused_parts(empty, called_modules(empty, torch.zeros(1, 3, *own)))
        except (
            *SIZE_ERRORS,
            NotImplementedError,
        ):  # a network that computes with its numbers: run it as it is
            empty = maps
            unused = unused_parts(maps, _called(maps, torch.zeros(1, 3, *own)))
        take_out(maps, unused)
        if empty is not maps:
            take_out(empty, unused)
        self.size_multiple = _multiple(empty)
        self.fixed_size = own if self.size_multiple is None else None

    def extra_repr(self) -> str:
        """Name what the maps depend on besides the network."""
        return f"size_multiple={self.size_multiple}"

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a tuple of maps (N, C, h, w) of photographs (N, 3, H, W)."""
        height, width = images.shape[2:]
        name, native = self.maps.name, self.native
        if self.fixed_size is not None and (height, width) != self.fixed_size:
            raise ValueError(
                f"{name} takes photographs of {native} x {native} pixels only, got one of {width} x {height} after "
                f"resizing: give squares and image_size={native}, or take another network."
            )
        try:
            return self.maps(images)
        except SIZE_ERRORS as error:
            if isinstance(error, torch.OutOfMemoryError | ValueError) or is_too_small(error):
                raise
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise ValueError(
                f"{name} cannot take photographs of {width} x {height} pixels; it was made for {native} x {native} "
                f"({reason})."
            ) from error


def _called(maps: NetworkMaps, images: torch.Tensor) -> set[str]:
    try:
        with torch.inference_mode():
            return called_modules(maps, images)
    except ValueError:
        raise
    except SIZE_ERRORS as error:
        side = images.shape[2]
        raise ValueError(
            f"{maps.name} cannot be run on a photograph of {side} x {side} pixels, for which it was made ({error})."
        ) from error


def _multiple(maps: NetworkMaps) -> int | None:
    """Return of what the sides of photographs must be multiples; None if only the network's own size works."""
    reader = maps.reader
    device = next((tensor.device for tensor in maps.parameters()), torch.device("cpu"))
    candidates = dict.fromkeys(
        (reader.step, reader.native) if _cuts(maps) else (1, reader.step, reader.native)
    )
    for step in candidates:
        if step >= 1 and _takes(maps, step, device):
            return step
    return None


def _cuts(maps: nn.Module) -> bool:
    """Whether the first layer cuts the photograph into patches, and so leaves out what makes no whole one."""
    first = next((part for part in maps.modules() if isinstance(part, nn.Conv2d)), None)
    return (
        first is not None and first.stride == first.kernel_size and first.stride != (1, 1)
        and first.padding in ((0, 0), "valid")
    )  # fmt: skip


def _takes(maps: NetworkMaps, step: int, device: torch.device) -> bool:
    n: int = max(1, maps.reader.native // step)
    sizes = [(step * n, step * (n + 1)), (step * (n + 2), step * n)]
    if step == 1:
        sizes = [(n + 5, n - 3), (n - 11, n + 9)]
    try:
        with torch.inference_mode():
            for height, width in sizes:
                maps(torch.zeros(1, 3, height, width, device=device))
    except SIZE_ERRORS:
        return False
    return True
