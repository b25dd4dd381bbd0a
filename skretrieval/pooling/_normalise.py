"""Normalisation of vectors on the device."""

from __future__ import annotations

import torch


def l2(vectors: torch.Tensor) -> torch.Tensor:
    """Divide by the Euclidean norm along the last axis; zero stays zero (S000 eq 1).

    The largest entry is divided out first, so that no scale of the activations overflows or vanishes.

    Parameters
    ----------
    vectors : tensor of shape (..., K)
        Any values.

    Returns
    -------
    unit : tensor of shape (..., K)
        Of length one, or zero.
    """
    largest = vectors.abs().amax(dim=-1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / torch.where(norm > 0, norm, 1)
