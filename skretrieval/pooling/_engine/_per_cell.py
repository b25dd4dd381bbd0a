"""Values of single cells, of maps in any accepted form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ._batches import BLOCK_BYTES, Batch, iter_batches, n_entries, one_thread


def per_cell(
    X: Any, channels: list[int] | None, values: Callable[[Batch], torch.Tensor], layers: bool = False
) -> list[np.ndarray]:
    """Compute something for each cell of each map.

    Parameters
    ----------
    X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
        Feature maps.
    channels : list of int or None
        The channel counts seen in fit, one per layer; None before.
    values : callable
        Of a :class:`Batch` of N maps, the first layer of the entries; returns a tensor (N or 1, ..., H, W).
    layers : bool, default=False
        Whether entries are tuples of maps.

    Returns
    -------
    cells : list of n ndarrays of shape (..., H_i, W_i)
        In the order of `X`.
    """
    found: list[Any] = [None] * n_entries(X)
    with torch.inference_mode():
        for batches in iter_batches(X, channels, layers, BLOCK_BYTES):
            batch = batches[0]
            with one_thread(batch.maps):
                cells = values(batch)
            cells = cells.expand(len(batch.indices), *cells.shape[1:]).contiguous().cpu()
            for index, own in zip(batch.indices, cells.numpy(), strict=True):
                found[index] = own
    return found
