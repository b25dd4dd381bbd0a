"""Vectors of a network for windows of a photograph, arranged as maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from . import _backbones as backbones
from ._layers import tap


class PatchNetwork(nn.Module):
    """A layer of vectors, such as a fully connected one, for the whole photograph or for windows of it.

    Each window is resized to the square input that the network was trained with, and its vector becomes one cell of
    a map: with ``patches=(None,)`` the photograph gives one cell (neural codes); windows on a grid give a map of as
    many cells (MOP-CNN). Used inside :class:`~skretrieval.extraction.ConvFeatureExtractor`, as a factory::

        ConvFeatureExtractor(partial(PatchNetwork, "vgg16", layer="classifier.4"), weights="DEFAULT")

    The extractor then loads `weights` into the network inside: torchvision's default ones, the path of a state dict
    of that network, or none and random ones from `random_state`. It keeps and stores those that the layer needs.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="vgg16"
        A torchvision classification network by name, a module, or a module-level function that returns one. Given a
        name and not built by an extractor, the network has random weights.

    layer : str, default="classifier.4"
        torchvision's name of a node whose output is one vector per image, (N, D) or (N, D, 1, 1): for VGG16
        "classifier.1" and "classifier.4" are fc6 and fc7 after their ReLU (AlexNet: "classifier.2",
        "classifier.5"); "flatten" is what the classifier sees in networks with one layer of it.

    patches : sequence of None or (side, stride), default=(None,)
        What windows to take, one output for each: None is the whole photograph, warped to a square (the aspect is
        lost, as in the papers); (side, stride) are square windows, `stride` pixels apart.

    input_size : int, default=224
        Side in pixels to which windows are resized (bilinearly, with antialiasing).

    chunk_size : int, default=16
        Windows that go through the network together, of all photographs of a batch. Bounds the memory.

    Notes
    -----
    Where the side of the photograph is no multiple of the stride, the last window is moved back to end at its
    border, so that all of it is seen. On a side shorter than a window, the window shrinks to the photograph: no pixels
    are invented, and what is taken is warped like the whole.

    The whole of a photograph is that which the extractor hands over: it has been resized to `image_size` before.
    The vectors of VGG16 cost one run of the network per window: MOP-CNN at 256 pixels needs up to 75 per photograph.

    Threads: any number may call one network at the same time, as long as nobody changes it.

    References
    ----------
    Babenko, Slesarev, Chigorin, Lempitsky, "Neural codes for image retrieval", ECCV 2014.

    Gong, Wang, Guo, Lazebnik, "Multi-scale orderless pooling of deep convolutional activation features", ECCV 2014.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> from skretrieval.extraction import ConvFeatureExtractor, PatchNetwork
    >>> network = partial(
    ...     PatchNetwork, "squeezenet1_1", layer="flatten", patches=(None, (32, 16)), input_size=64
    ... )
    >>> extractor = ConvFeatureExtractor(network, weights=None, image_size=64, random_state=0)
    >>> image = np.zeros((48, 64, 3), dtype=np.uint8)
    >>> [maps.shape for maps in extractor.fit_transform([image])[0]]
    [(1000, 1, 1), (1000, 2, 3)]
    """

    wraps_backbone = (
        True  # an extractor builds the network, loads its weights, and hands it over as `backbone`
    )

    def __init__(
        self,
        backbone: str | nn.Module | Callable = "vgg16",
        *,
        layer: str = "classifier.4",
        patches: Sequence[tuple[int, int] | None] = (None,),
        input_size: int = 224,
        chunk_size: int = 16,
    ):
        super().__init__()
        for name, value in (("input_size", input_size), ("chunk_size", chunk_size)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
        if not isinstance(layer, str):
            raise ValueError(f"layer must be the name of one node, got {layer!r}.")
        self.layer = layer
        self.patches = _checked_patches(patches)
        self.input_size = input_size
        self.chunk_size = chunk_size
        backbones.check_backbone(backbone)
        if not isinstance(backbone, nn.Module):
            backbone = backbones.build_module(backbone, None, None)[0]
        self.network = tap(backbone.eval(), layer)

    def extra_repr(self) -> str:
        """Name what the vectors depend on besides the network."""
        return f"layer={self.layer!r}, patches={self.patches}, input_size={self.input_size}"

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one map of vectors for each entry of `patches`.

        Parameters
        ----------
        images : tensor of shape (N, 3, H, W)
            Normalised photographs.

        Returns
        -------
        maps : tuple of tensors of shape (N, D, n_rows, n_columns)
            Vectors of the windows, where the windows are.
        """
        return tuple(self._vectors(images, patch) for patch in self.patches)

    def _vectors(self, images: torch.Tensor, patch: tuple[int, int] | None) -> torch.Tensor:
        n, _, height, width = images.shape
        side, stride = (max(height, width), 1) if patch is None else patch
        high, wide = min(side, height), min(side, width)
        rows, cols = window_starts(height, high, stride), window_starts(width, wide, stride)
        every = torch.cartesian_prod(torch.arange(n), torch.tensor(rows), torch.tensor(cols)).to(
            images.device
        )
        windows = images.unfold(2, high, 1).unfold(3, wide, 1)  # a view: (N, 3, rows, columns, high, wide)
        parts = []
        for image, row, col in (chunk.unbind(1) for chunk in every.split(self.chunk_size)):
            parts.append(self._run(windows[image, :, row, col]))
        return torch.cat(parts).view(n, len(rows), len(cols), -1).permute(0, 3, 1, 2).contiguous()

    def _run(self, windows: torch.Tensor) -> torch.Tensor:
        """Send windows (M, 3, h, w) through the network: (M, D)."""
        size = (self.input_size, self.input_size)
        square = functional.interpolate(windows.float(), size, mode="bilinear", antialias=True)
        (vectors,) = self.network(square.to(windows.dtype, memory_format=torch.channels_last))
        if isinstance(vectors, torch.Tensor) and vectors.ndim == 4 and vectors.shape[2:] == (1, 1):
            vectors = vectors.flatten(1)
        if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2:
            shape = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
            raise ValueError(
                f"layer={self.layer!r} gives {shape} for {len(windows)} windows; PatchNetwork takes a layer of vectors "
                '(N, D), such as a fully connected one or "flatten".'
            )
        return vectors


def window_starts(size: int, side: int, stride: int) -> list[int]:
    """Return where windows begin: `stride` apart, the last one moved back to end at `size`.

    Examples
    --------
    >>> from skretrieval.extraction._patch_network import window_starts
    >>> window_starts(256, 128, 32), window_starts(170, 128, 32), window_starts(100, 100, 32)
    ([0, 32, 64, 96, 128], [0, 32, 42], [0])
    """
    return [*range(0, size - side, stride), size - side]


def _checked_patches(patches: Any) -> tuple[tuple[int, int] | None, ...]:
    if isinstance(patches, str) or not isinstance(patches, Sequence) or not patches:
        raise ValueError(f"patches must be a sequence of None or (side, stride), got {patches!r}.")
    checked: list[tuple[int, int] | None] = []
    for patch in patches:
        if patch is not None:
            whole = isinstance(patch, tuple | list) and all(isinstance(value, Integral) for value in patch)
            if not whole or len(patch) != 2 or min(patch) < 1:
                raise ValueError(f"patches: {patch!r} is neither None nor (side, stride) in pixels.")
            patch = (int(patch[0]), int(patch[1]))
        checked.append(patch)
    return tuple(checked)
