"""The last layer of a network: from averaged maps to class scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn


class Classifier(NamedTuple):
    """A linear classifier of averaged maps.

    Attributes
    ----------
    weights : float32 ndarray of shape (n_classes, K)
        One row per class.
    bias : float32 ndarray of shape (n_classes,)
        Zeros if there is none.
    """

    weights: np.ndarray
    bias: np.ndarray


def last_linear(module: nn.Module, name: str, n_channels: int | None) -> Classifier:
    """Copy the last linear (or 1 x 1 convolutional) layer of a network.

    Parameters
    ----------
    module : nn.Module
        The network.
    name : str
        What messages call it.
    n_channels : int or None
        Channels of the map that the layer has to take; None for any.

    Raises
    ------
    ValueError
        If there is none, or it takes another number of channels.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    last = layers[-1] if layers else None
    if last is None or (n_channels is not None and last.weight[0].numel() != n_channels):
        inputs = "none" if last is None else last.weight[0].numel()
        raise ValueError(
            f"The classifier of {name} takes {inputs} values, but the first map has {n_channels} channels: "
            "give the map that the classifier sees first."
        )
    weight = last.weight.detach().flatten(1).float().cpu()
    bias = torch.zeros(len(weight)) if last.bias is None else last.bias.detach().float().cpu()
    return Classifier(weight.numpy().copy(), bias.numpy().copy())
