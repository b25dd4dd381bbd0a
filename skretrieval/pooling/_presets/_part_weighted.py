"""SBA and PWA: the channels that vary most as detectors of parts."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from .._engine._base import BasePooler
from .._engine._batches import Batch


class PartWeightedPooler(BasePooler):
    """Sum pooling once per part, weighted by the channel that detects it (PWA, SBA).

    The parts are the `n_parts` channels whose sum over the map varies most over the images of fit. Each gives weights
    ``w_n = (x_n / (sum x_n^alpha)^(1/alpha))^(1/beta)`` to the cells, and ``psi_n = sum_ij w_n(ij) x(ij)`` are K
    numbers; all psi, one after the other, are the descriptor of ``n_parts * K`` numbers. A part that does not show in
    an image gives zeros.

    Parameters
    ----------
    n_parts : int, default=25
        Channels taken as detectors, at most K.

    alpha : float, default=2.0
        Exponent of the norm that the detector's response is divided by.

    beta : float, default=2.0
        The weights are the beta-th root of the divided response.

    rectify : bool, default=True
        Replace negative activations by zero first; without it they are an error.

    Attributes
    ----------
    parts_ : ndarray of shape (n_parts,)
        The channels, from the largest variance down; of equal variances the lower channel first.

    variances_ : ndarray of shape (K,)
        Variance (divisor n) of each channel's sum over the images of fit.

    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    SBA, by the same authors, describes the same construction; what its tuning changes is not known, so this is PWA
    as published. The papers go on with l2, PCA-whitening to 4096 dimensions and l2.

    References
    ----------
    Xu, Shi, Qi, Wang, Xiao, "Unsupervised part-based weighting aggregation of deep convolutional features for image
    retrieval", AAAI 2018.

    Xu, Wang, Qi, Shi, Xiao, "Unsupervised semantic-based aggregation of deep convolutional features", IEEE Transactions
    on Image Processing 2019.

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.pooling import PartWeightedPooler
    >>> maps, _ = make_feature_maps(6, 16, random_state=0)
    >>> PartWeightedPooler(n_parts=3).fit_transform(maps).shape
    (6, 48)
    """

    _parameter_constraints: dict = {
        "n_parts": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "rectify": ["boolean"],
    }

    def __init__(self, n_parts=25, *, alpha=2.0, beta=2.0, rectify=True):
        self.n_parts = n_parts
        self.alpha = alpha
        self.beta = beta
        self.rectify = rectify

    @property
    def _learns(self) -> bool:
        return True

    def _maps(self, batch: Batch) -> torch.Tensor:
        if not self.rectify and not batch.nonnegative:
            bad = int(torch.nonzero(batch.maps.flatten(1).amin(dim=1) < 0)[0])
            raise ValueError(
                f"Entry {batch.indices[bad]}: negative activations have no meaning for {type(self).__name__}; "
                "use rectify=True"
            )
        return batch.rectified

    def _begin(self, X: Any) -> StreamedVariance:
        n_channels = self._channels[0]
        if self.n_parts > n_channels:
            raise ValueError(f"n_parts={self.n_parts} exceeds the channels, n_features={n_channels}")
        return StreamedVariance(n_channels)

    def _update(self, state: StreamedVariance, batches: tuple[Batch, ...]) -> None:
        state.update(self._maps(batches[0]).sum(dim=(2, 3), dtype=torch.float64).cpu().numpy())

    def _finish(self, state: StreamedVariance, X: Any) -> None:
        self.variances_ = state.variance()
        self.parts_ = np.argsort(-self.variances_, kind="stable")[: self.n_parts]
        self._n_features_out = self.n_parts * self._channels[0]

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        maps = self._maps(batches[0])
        parts = torch.tensor(self.parts_).to(maps.device)  # a copy: it may be mapped from disk, read-only
        return part_sums(maps, parts, float(self.alpha), float(self.beta)).flatten(1)


def part_sums(maps: torch.Tensor, parts: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Return ``psi`` (N, n_parts, K): the maps summed with the weights of each part, one matrix product.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Non-negative feature maps.
    parts : int64 tensor of shape (n_parts,)
        Channels that detect parts.
    alpha, beta : float
        Exponents of the norm and of the root.
    """
    return part_weights(maps, parts, alpha, beta).flatten(2) @ maps.flatten(2).transpose(1, 2)


def part_weights(maps: torch.Tensor, parts: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Return the weight (N, n_parts, H, W) of each cell for each part; arguments as for :func:`part_sums`."""
    detectors = maps[:, parts].flatten(2)
    # divided by the largest first: powers of large or small activations leave the range of float32
    largest = detectors.amax(dim=2, keepdim=True)
    scaled = detectors / torch.where(largest > 0, largest, 1)
    norm = scaled.pow(alpha).sum(dim=2, keepdim=True).pow(1 / alpha)
    weights = (scaled / torch.where(norm > 0, norm, 1)).pow(1 / beta)
    return weights.unflatten(2, maps.shape[2:])


class StreamedVariance:
    """Mean and variance of rows that arrive in batches, in float64, without the cancellation of sums of squares.

    Parameters
    ----------
    size : int
        Numbers in a row.
    """

    def __init__(self, size: int):
        self.n = 0
        self.mean = np.zeros(size)
        self.square = np.zeros(size)  # sum of squared differences from the mean

    def update(self, rows: np.ndarray) -> None:
        """Add rows (N, size): the moments of both parts, and what their means differ by."""
        n = len(rows)
        mean = rows.mean(axis=0)
        gap = mean - self.mean
        total = self.n + n
        self.square += ((rows - mean) ** 2).sum(axis=0) + gap**2 * (self.n * n / total)
        self.mean += gap * (n / total)
        self.n = total

    def variance(self) -> np.ndarray:
        """Return the variance with divisor n."""
        return self.square / max(1, self.n)
