"""Powers and power means that keep signs where that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

_CANCELLED = 1e-14  # relative: a mean of terms of both signs this small is the rounding of float64


def signed_power(x: Any, exponent: float) -> Any:
    """``sign(x) |x|^exponent``.

    Parameters
    ----------
    x : ndarray, sparse matrix or array, or tensor
        Any values; of sparse ones the exponent must be positive.
    exponent : float
        Any power.

    Returns
    -------
    powers : as `x`
        A new one.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval._linalg import signed_power
    >>> signed_power(np.array([4.0, -9.0, 0.0]), 0.5)
    array([ 2., -3.,  0.])
    """
    if sparse.issparse(x):
        powers = x.copy()
        powers.data = signed_power(x.data, exponent)
        return powers
    library: Any = torch if isinstance(x, torch.Tensor) else np
    return library.copysign(library.abs(x) ** exponent, x)


def power(values: torch.Tensor, p: float, signed: bool = False) -> torch.Tensor:
    """``x^p``, or ``sign(x) |x|^p``."""
    return signed_power(values, p) if signed else values.pow(p)


def root(mean: torch.Tensor, p: float, signed: bool = False) -> torch.Tensor:
    """Undo :func:`power`."""
    # odd integer powers keep the sign of ReLU-free maps; fractional ones come rectified
    odd = int(p) == p and int(p) % 2 == 1
    return signed_power(mean, 1 / p) if signed or odd else mean.pow(1 / p)


def without_rounding(mean: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Set to zero the means in which terms of both signs, of this mean magnitude, cancelled but for rounding."""
    return torch.where(mean.abs() > _CANCELLED * magnitude, mean, 0)


def power_mean(values: torch.Tensor, p: float, dim: int, signed: bool = False) -> torch.Tensor:
    """``mx (mean (x / mx)^p)^(1/p)`` with the largest magnitude mx, so that no power overflows.

    Parameters
    ----------
    values : tensor
        Not negative, unless `p` is an integer or `signed`.
    p : float
        Finite exponent, above 0.
    dim : int
        Axis along which the mean is taken.
    signed : bool, default=False
        Whether powers keep the sign of what they are of.

    Returns
    -------
    means : tensor
        Of the shape of `values` without that axis.
    """
    largest = values.abs().amax(dim=dim, keepdim=True)
    ratio = torch.where(largest > 0, values / largest.clamp_min(torch.finfo(values.dtype).tiny), values)
    powered = power(ratio, p, signed)
    mean = powered.mean(dim=dim)
    if signed:
        mean = without_rounding(mean, powered.abs().mean(dim=dim))
    return largest.squeeze(dim) * root(mean, p, signed)
