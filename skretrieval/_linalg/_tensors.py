"""Tensors on their device: fitted arrays brought there, lengths and normalisation of vectors."""

from __future__ import annotations

import numpy as np
import torch


def tensor_of(fitted: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return a fitted array with the dtype, and on the device, of `like`."""
    # copied if joblib has mapped the model from disk: it is read-only then, which torch cannot wrap
    return torch.from_numpy(fitted if fitted.flags.writeable else fitted.copy()).to(like)


def l2(vectors: torch.Tensor) -> torch.Tensor:
    """Divide by the Euclidean norm along the last axis; zero stays zero.

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


def lengths(vectors: torch.Tensor, dim: int) -> torch.Tensor:
    """Euclidean lengths of vectors of any scale, in one pass over those of moderate scale.

    Parameters
    ----------
    vectors : tensor of shape (N, ...)
        The vectors of N images.
    dim : int
        Axis along which a vector runs, not the first.

    Returns
    -------
    lengths : tensor of shape (N, ...) without that axis
        Vectors that are short beside the longest one of the same image may have length 0.
    """
    found = torch.linalg.vector_norm(vectors, dim=dim)
    outside = out_of_range(found)
    if not bool(outside.any()) or not bool((scaled := vectors[outside]).any()):
        return found
    largest = scaled.abs().flatten(1).amax(dim=1).view(-1, *[1] * (vectors.ndim - 1))
    # tiny: an image of zeros among them
    scaled = scaled / largest.clamp_min(torch.finfo(vectors.dtype).tiny)
    found[outside] = torch.linalg.vector_norm(scaled, dim=dim) * largest.squeeze(dim)
    return found


def out_of_range(lengths: torch.Tensor) -> torch.Tensor:
    """Tell for which images the largest length is 0, or lies beyond the cube root of the float's range.

    Parameters
    ----------
    lengths : tensor of shape (N, ...)
        Numbers that are not negative, infinite where they overflowed.

    Returns
    -------
    outside : tensor of bool of shape (N,)
        Whether products of a few such numbers may over- or underflow.
    """
    limits = torch.finfo(lengths.dtype)
    largest = lengths.flatten(1).amax(dim=1)
    return ~((largest > limits.tiny ** (1 / 3)) & (largest < limits.max ** (1 / 3)))
