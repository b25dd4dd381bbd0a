"""torchvision's ViT and MaxViT for photographs of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.maxvit import MaxVit, PartitionAttentionLayer
from torchvision.models.vision_transformer import VisionTransformer

from ._network_maps import as_map


class ViTReader:
    """The maps of torchvision's ViT: position embeddings are resized (bicubic) to the photograph's patches."""

    n_prefix, has_cls, channels_last = 1, True, False

    def __init__(self, network: VisionTransformer):
        self.network: Any = network
        self.native, self.step = network.image_size, network.patch_size
        self.n_blocks = len(network.encoder.layers)

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the tokens after the final norm."""
        return self.network.encoder.ln(self._states(images, [self.n_blocks - 1])[0])

    def _grid(self, images: torch.Tensor) -> tuple[int, int]:
        return images.shape[2] // self.step, images.shape[3] // self.step

    def _states(self, images: torch.Tensor, indices: Sequence[int]) -> list[torch.Tensor]:
        encoder = self.network.encoder
        tokens = self.network.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.network.class_token.expand(len(images), -1, -1), tokens], dim=1)
        tokens = encoder.dropout(tokens + self._positions(self._grid(images)))
        states = []
        for number, block in enumerate(encoder.layers[: max(indices) + 1]):
            tokens = block(tokens)
            if number in indices:
                states.append(tokens)
        return states

    def _positions(self, grid: tuple[int, int]) -> torch.Tensor:
        own = self.network.encoder.pos_embedding
        side = self.native // self.step
        if grid == (side, side):
            return own
        patches = own[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        resized = functional.interpolate(
            patches.float(), grid, mode="bicubic", antialias=True, align_corners=False
        )
        return torch.cat([own[:, :1], resized.to(own.dtype).flatten(2).transpose(1, 2)], dim=1)

    def last(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the last map, after the final norm, and the CLS token."""
        return self.blocks(images, [self.n_blocks - 1])[0]

    def blocks(
        self, images: torch.Tensor, indices: Sequence[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the maps after some blocks and the final norm, and their CLS tokens."""
        states = self._states(images, indices)
        return [as_map(self.network.encoder.ln(state), 1, self._grid(images)) for state in states]


class MaxVitReader:
    """The maps of torchvision's MaxViT, for sides that are multiples of the side it was made for."""

    n_prefix, has_cls, channels_last = 0, False, False

    def __init__(self, network: MaxVit):
        self.network: Any = network
        self.n_blocks = len(network.blocks)
        window = next(part for part in network.modules() if isinstance(part, PartitionAttentionLayer)).p
        self.native = self.step = int(window * 2 ** (self.n_blocks + 1))

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last map."""
        return self.last(images)[0]

    def last(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the last map."""
        return self.blocks(images, [self.n_blocks - 1])[0]

    def blocks(
        self, images: torch.Tensor, indices: Sequence[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the maps after some stages."""
        maps = self.network.stem(images)
        found: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        for number, block in enumerate(self.network.blocks[: max(indices) + 1]):
            for layer in block.layers:
                for part in layer.layers:
                    maps = _attend(part, maps) if isinstance(part, PartitionAttentionLayer) else part(maps)
            if number in indices:
                found.append((maps, None))
        return found


def _attend(part: Any, maps: torch.Tensor) -> torch.Tensor:
    """Do what the layer does, for a map of any shape: neighbours attend to each other, or cells of a grid."""
    n, channels, height, width = maps.shape
    if part.partition_type == "window":
        side = part.p
        cut = maps.reshape(n, channels, height // side, side, width // side, side)
        order, back = (0, 2, 4, 3, 5, 1), (0, 5, 1, 3, 2, 4)
    else:
        side = part.g
        cut = maps.reshape(n, channels, side, height // side, side, width // side)
        order, back = (0, 3, 5, 2, 4, 1), (0, 5, 3, 1, 4, 2)
    cells = cut.permute(order)
    rows, cols = cells.shape[1:3]
    tokens = cells.reshape(n, rows * cols, side * side, channels)
    tokens = tokens + part.stochastic_dropout(part.attn_layer(tokens))
    tokens = tokens + part.stochastic_dropout(part.mlp_layer(tokens))
    return (
        tokens.reshape(n, rows, cols, side, side, channels).permute(back).reshape(n, channels, height, width)
    )


def reader_of(module: nn.Module) -> ViTReader | MaxVitReader | None:
    """Return what reads a network of torchvision that layers alone do not give maps of, or None."""
    if type(module) is VisionTransformer:
        return ViTReader(module)
    return MaxVitReader(module) if type(module) is MaxVit else None
