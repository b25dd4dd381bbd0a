"""Networks of timm, transformers and torchvision that need more than a tapped layer: tokens to maps, facets, sizes."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from ._feature_maps import TOO_SMALL

FACETS = ("query", "key", "value")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Reader(Protocol):
    """What a library's networks have in common: how its outputs are read."""

    network: nn.Module
    n_blocks: int  # what numbers in `layers` count
    n_prefix: int  # tokens before those of the patches
    has_cls: bool  # whether the first of them is the CLS token
    channels_last: bool  # whether outputs of four dimensions are (N, H, W, C)
    native: int  # side in pixels of what the network was made for
    step: int  # of what the sides must be multiples, as far as its layers tell

    def last(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the last map, after the final norm, and the prefix tokens."""

    def blocks(
        self, images: torch.Tensor, indices: Sequence[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the maps after some blocks, and their prefix tokens."""

    def run(self, images: torch.Tensor) -> Any:
        """Run all layers that make maps."""


class _Enough(Exception):
    """All asked layers have been seen."""


class NetworkMaps(nn.Module):
    """The maps of a network, in the asked order.

    Parameters
    ----------
    reader : Reader
        Of a network in evaluation mode.
    layers : None, int, str, or sequence of them
        None for the last map; numbers of blocks; names of layers; names of attentions with a facet, "NAME:value".
    tokens : {"patch", "cls", "patch+cls"}
        Which tokens make the maps.
    name : str
        Of the network, for messages.
    """

    def __init__(self, reader: Reader, layers: Any, tokens: str, name: str):
        super().__init__()
        self.network = reader.network
        self.reader = reader
        self.name = name
        self.tokens = tokens
        asked = [layers] if layers is None or isinstance(layers, str | Integral) else list(layers)
        if not asked:
            raise ValueError("layers is empty; use None for the last layer.")
        kinds = {type(layer) if not isinstance(layer, Integral) else int for layer in asked}
        if len(kinds) > 1:
            raise ValueError(f"layers={layers!r} mixes numbers of blocks and names; give one kind.")
        if tokens != "patch" and not reader.has_cls:
            raise ValueError(f"tokens={tokens!r}: {name} has no CLS token; only tokens='patch' works.")
        self.asked = [self._checked(layer) for layer in asked]
        self._seen = threading.local()
        if kinds == {str}:
            for place, layer in enumerate(self.asked):
                self._watch(place, layer)

    def _checked(self, layer: Any) -> Any:
        if layer is None:
            return None
        if isinstance(layer, Integral):
            number = int(layer) + (self.reader.n_blocks if layer < 0 else 0)
            if not 0 <= number < self.reader.n_blocks:
                raise ValueError(
                    f"layers={int(layer)}: {self.name} has {self.reader.n_blocks} blocks, numbered from 0."
                )
            return number
        if not isinstance(layer, str):
            raise ValueError(f"layers: {layer!r} is neither a number of a block nor a name.")
        name, _, facet = layer.partition(":")
        if facet and facet not in FACETS:
            raise ValueError(f"layers: {layer!r} asks for {facet!r}; facets are {', '.join(FACETS)}.")
        names = [known for known, _ in self.network.named_modules() if known]
        if name not in names:
            near = [known for known in names if known.count(".") == name.count(".")] or names
            raise ValueError(
                f"layers: {layer!r} is no layer of {self.name}; the last ones are {', '.join(near[-12:])}."
            )
        return layer

    def _watch(self, place: int, layer: str) -> None:
        name, _, facet = layer.partition(":")
        part = self.network.get_submodule(name)

        def note(value):
            seen = self._seen.maps
            seen[place] = value
            if len(seen) == len(self.asked):
                raise _Enough

        if facet:
            check_attention(part, layer, self.name)
            part.register_forward_pre_hook(
                lambda module, args, kwargs: note(
                    project(module, args[0] if args else kwargs["hidden_states"], facet)
                ),
                with_kwargs=True,
            )
        else:
            part.register_forward_hook(
                lambda _, __, output: note(output[0] if isinstance(output, tuple | list) else output)
            )

    def extra_repr(self) -> str:
        """Name what the maps depend on besides the network."""
        return f"layers={self.asked}, tokens={self.tokens!r}"

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a tuple of maps (N, C, h, w).

        Parameters
        ----------
        images : tensor of shape (N, 3, H, W)
            Normalised photographs.

        Returns
        -------
        maps : tuple of tensors of shape (N, C, h, w)
            For each layer its map, its CLS token as (N, C, 1, 1), or both.

        Raises
        ------
        ValueError
            If the network cannot take photographs of this size, or a layer gives no map.
        """
        if isinstance(self.asked[0], str):
            outputs = [self._map_of(output, images, layer) for output, layer in self._named(images)]
        elif self.asked == [None]:
            outputs = [self.reader.last(images)]
        else:
            wanted = sorted(set(self.asked))
            found = dict(zip(wanted, self.reader.blocks(images, wanted), strict=True))
            outputs = [found[number] for number in self.asked]
        maps: list[torch.Tensor] = []
        for patches, prefix in outputs:
            if "patch" in self.tokens:
                maps.append(patches)
            if "cls" in self.tokens:
                if prefix is None:
                    raise ValueError(f"tokens={self.tokens!r}: this layer of {self.name} has no CLS token.")
                maps.append(prefix[:, 0, :, None, None])
        return tuple(maps)

    def _named(self, images: torch.Tensor) -> list[tuple[Any, str]]:
        self._seen.maps = {}
        with contextlib.suppress(_Enough):
            self.reader.run(images)
        seen = self._seen.maps
        self._seen.maps = {}
        missing = [layer for place, layer in enumerate(self.asked) if place not in seen]
        if missing:
            raise ValueError(f"layers: {', '.join(missing)} of {self.name} did not run, and so give no map.")
        return [(seen[place], layer) for place, layer in enumerate(self.asked)]

    def _map_of(self, output: Any, images: torch.Tensor, layer: str) -> tuple[torch.Tensor, Any]:
        if isinstance(output, torch.Tensor) and len(output) == len(images):
            if output.ndim == 4:
                return (output.permute(0, 3, 1, 2) if self.reader.channels_last else output), None
            if output.ndim == 3:
                for n_prefix in dict.fromkeys((self.reader.n_prefix, 0)):
                    grid = grid_of(output.shape[1] - n_prefix, *images.shape[2:])
                    if grid is not None:
                        return as_map(output, n_prefix, grid)
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(
            f"layers: {layer!r} of {self.name} gives {shape}, which is no map of the whole photograph."
        )


def grid_of(n_tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Arrange tokens in rows and columns as the photograph's sides have it; None if that does not work out."""
    if n_tokens < 1:
        return None
    rows = round(math.sqrt(n_tokens * height / width))
    cols = n_tokens // rows if rows else 0
    if rows * cols != n_tokens or abs(rows * width - cols * height) > max(height, width):
        return None
    return rows, cols


def as_map(tokens: torch.Tensor, n_prefix: int, grid: tuple[int, int]) -> tuple[torch.Tensor, Any]:
    """Turn tokens (N, n_prefix + rows * columns, C) into a map (N, C, rows, columns) and the prefix tokens."""
    patches = tokens[:, n_prefix:].transpose(1, 2).unflatten(2, grid)
    return patches, tokens[:, :n_prefix] if n_prefix else None


def check_attention(part: nn.Module, layer: str, name: str) -> None:
    """Raise a ValueError unless the queries, keys and values of a module are known."""
    if _projections(part) is None:
        raise ValueError(
            f"layers: {layer!r}: {type(part).__name__} of {name} has no linear layer of queries, keys and values "
            "that is known."
        )


def _projections(part: Any) -> tuple[Any, ...] | None:
    for names in (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v")):
        found = tuple(getattr(part, name, None) for name in names)
        if all(isinstance(linear, nn.Linear) for linear in found):
            return found
    if isinstance(getattr(part, "qkv", None), nn.Linear) and part.qkv.out_features % 3 == 0:
        return (part.qkv,)
    packed = getattr(part, "in_proj_weight", None)
    return (part,) if isinstance(part, nn.MultiheadAttention) and packed is not None else None


def project(part: Any, tokens: torch.Tensor, facet: str) -> torch.Tensor:
    """Return the queries, keys or values that an attention makes of its input: the outputs of its linear layer."""
    place = FACETS.index(facet)
    found: Any = _projections(part)
    weight: torch.Tensor
    bias: torch.Tensor | None
    if len(found) == 3:
        return found[place](tokens)
    if isinstance(part, nn.MultiheadAttention):
        weight, bias = part.in_proj_weight, part.in_proj_bias
    else:
        weight, bias = part.qkv.weight, part.qkv.bias
        if bias is None and getattr(part, "q_bias", None) is not None:  # BEiT and EVA keep it apart
            bias = torch.cat([part.q_bias, part.k_bias, part.v_bias])
    return functional.linear(tokens, weight.chunk(3)[place], None if bias is None else bias.chunk(3)[place])


def unused_parts(maps: NetworkMaps, called: set[str]) -> list[str]:
    """Name the parts that the asked layers do not need, so that no classifier and no later block is kept.

    Parameters
    ----------
    maps : NetworkMaps
        Its direct parts, and those of lists in it, are looked at.
    called : set of str
        Names of the modules of the network that ran.

    Returns
    -------
    names : list of str
        Parts that hold weights and did not run.
    """
    found = []

    def walk(part: nn.Module, prefix: str) -> None:
        for name, child in part.named_children():
            path = f"{prefix}{name}"
            inside = f"{path}."
            if path not in called and not any(other.startswith(inside) for other in called):
                if child.state_dict():
                    found.append(path)
            elif isinstance(child, _CONTAINERS) or path not in called:
                walk(child, inside)

    walk(maps.network, "")
    return found


def take_out(maps: NetworkMaps, names: Sequence[str]) -> None:
    """Replace parts of the network by nothing, so that lists of parts keep their length."""
    for name in names:
        above, _, own = name.rpartition(".")
        maps.network.get_submodule(above)._modules[own] = nn.Identity()


def called_modules(maps: NetworkMaps, images: torch.Tensor) -> set[str]:
    """Run a network and return the names of its modules that ran."""
    called: set[str] = set()
    names = {part: name for name, part in maps.network.named_modules() if name}
    hooks = [part.register_forward_pre_hook(lambda module, _: called.add(names[module])) for part in names]
    try:
        maps(images)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def is_too_small(error: Exception) -> bool:
    """Whether a network complains that a photograph has too few pixels for it."""
    return any(words in str(error) for words in TOO_SMALL)
