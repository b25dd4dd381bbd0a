"""SBA and PWA: the channels that vary most as detectors of parts."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Hidden, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._engine._base import BasePooler
from .._engine._batches import Batch
from .._engine._deprecations import warn_caller
from .._engine._numbers import check_nonnegative
from .._engine._per_cell import per_cell
from .._engine._signs import RECTIFY


class PartWeightedPooler(BasePooler):
    """Sum pooling once per part, weighted by the channel that detects it (PWA, SBA).

    The parts are the `n_parts` channels whose sum over the map varies most over the images of fit. Each gives weights
    ``w_n = (x_n / (sum x_n^a)^(1/a))^(1/b)`` to the cells, with a the `norm_order` and b the `root`, and
    ``psi_n = sum_ij w_n(ij) x(ij)`` are K numbers; all psi, one after the other, are the descriptor of ``n_parts * K``
    numbers. A part that does not show in an image gives zeros.

    Parameters
    ----------
    n_parts : int, default=25
        Channels taken as detectors, at most K.

    norm_order : float, default=2.0
        Order of the norm that the detector's response is divided by (alpha in the papers).

    root : float, default=2.0
        The weights are this root of the divided response (beta in the papers).

    rectify : bool or "auto", default=True
        Replace negative activations by zero first; without it they are an error.
        "auto" cuts them off only where the network gives none (it ends in a ReLU); in other maps they are an error.

    alpha : float
        Deprecated, will be removed in version 0.2; use `norm_order`.

    beta : float
        Deprecated, will be removed in version 0.2; use `root`.

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

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

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
        "norm_order": [Interval(Real, 0, None, closed="neither")],
        "root": [Interval(Real, 0, None, closed="neither")],
        **RECTIFY,
        "alpha": [Interval(Real, 0, None, closed="neither"), Hidden(StrOptions({"deprecated"}))],
        "beta": [Interval(Real, 0, None, closed="neither"), Hidden(StrOptions({"deprecated"}))],
    }

    def __init__(
        self,
        n_parts=25,
        *,
        norm_order=2.0,
        root=2.0,
        rectify=True,
        alpha="deprecated",
        beta="deprecated",
    ):
        self.n_parts = n_parts
        self.norm_order = norm_order
        self.root = root
        self.rectify = rectify
        self.alpha = alpha
        self.beta = beta

    def _check_parameters(self) -> None:
        for old, new in (("alpha", "norm_order"), ("beta", "root")):
            if getattr(self, old) != "deprecated":
                warn_caller(
                    f"PartWeightedPooler: {old} is called {new} now; the old name will be removed in version 0.2."
                )

    @property
    def _exponents(self) -> tuple[float, float]:
        """Return order of the norm and root; the deprecated names count where they are given."""
        norm_order = self.norm_order if self.alpha == "deprecated" else self.alpha
        return float(norm_order), float(self.root if self.beta == "deprecated" else self.beta)

    @property
    def _learns(self) -> bool:
        return True

    def _maps(self, batch: Batch) -> torch.Tensor:
        if not self._rectifies():
            check_nonnegative(batch, type(self).__name__)
        return self._activations(batch)

    def _begin(self, X: Any) -> StreamedVariance:
        n_channels = self._channels[0]
        if self.n_parts > n_channels:
            raise ValueError(f"n_parts={self.n_parts} exceeds the channels, n_features={n_channels}.")
        return StreamedVariance(n_channels)

    def _update(self, state: StreamedVariance, batches: tuple[Batch, ...]) -> None:
        state.update(self._maps(batches[0]).sum(dim=(2, 3), dtype=torch.float64).cpu().numpy())

    def _finish(self, state: StreamedVariance, X: Any) -> None:
        self.variances_ = state.variance()
        if not np.isfinite(self.variances_).all():
            raise ValueError("The variances of the channels reach infinity.")
        self.parts_ = np.argsort(-self.variances_, kind="stable")[: self.n_parts]
        self._n_features_out = self.n_parts * self._channels[0]

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        maps = self._maps(batches[0])
        parts = torch.tensor(self.parts_).to(maps.device)  # a copy: it may be mapped from disk, read-only
        return part_sums(maps, parts, *self._exponents).flatten(1)

    def cell_weights(self, X: Any, part: int | None = 0) -> list[np.ndarray]:
        """Tell how much each cell of the maps weighs for a part.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit.

        part : int or None, default=0
            Which part, as it stands in ``parts_``; None for all.

        Returns
        -------
        weights : list of n ndarrays of shape (H_i, W_i), or (n_parts, H_i, W_i) for all parts
            Zero everywhere in a map in which the part does not show.

        Raises
        ------
        NotFittedError
            If the parts are not known yet.

        IndexError
            If there is no such part.

        ValueError
            Empty input, wrong rank, another channel count than in fit, NaN or infinity: the entry is named.

        Examples
        --------
        >>> from skretrieval.datasets import make_feature_maps
        >>> from skretrieval.pooling import PartWeightedPooler
        >>> maps, _ = make_feature_maps(6, 16, random_state=0)
        >>> pooler = PartWeightedPooler(n_parts=3).fit(maps)
        >>> pooler.cell_weights(maps)[0].shape == maps[0].shape[1:]
        True
        >>> len(pooler.cell_weights(maps, part=None)[0])
        3
        """
        check_is_fitted(self)
        self._validate_params()
        n_parts = len(self.parts_)
        if part is not None and not 0 <= part < n_parts:
            raise IndexError(f"part {part} is out of range for {n_parts} parts (0 to {n_parts - 1}).")
        parts = torch.tensor(self.parts_ if part is None else self.parts_[part : part + 1])

        def weights(batch: Batch) -> torch.Tensor:
            maps = self._maps(batch)
            found = part_weights(maps, parts.to(maps.device), *self._exponents)
            return found if part is None else found[:, 0]

        return per_cell(X, self._channels, weights)


def part_sums(maps: torch.Tensor, parts: torch.Tensor, norm_order: float, root: float) -> torch.Tensor:
    """Return ``psi`` (N, n_parts, K): the maps summed with the weights of each part, one matrix product.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Non-negative feature maps.
    parts : int64 tensor of shape (n_parts,)
        Channels that detect parts.
    norm_order, root : float
        Order of the norm that the detectors are divided by, and the root that is taken then.
    """
    return part_weights(maps, parts, norm_order, root).flatten(2) @ maps.flatten(2).transpose(1, 2)


def part_weights(maps: torch.Tensor, parts: torch.Tensor, norm_order: float, root: float) -> torch.Tensor:
    """Return the weight (N, n_parts, H, W) of each cell for each part; arguments as for :func:`part_sums`."""
    detectors = maps[:, parts].flatten(2)
    # divided by the largest first: powers of large or small activations leave the range of float32
    largest = detectors.amax(dim=2, keepdim=True)
    scaled = detectors / torch.where(largest > 0, largest, 1)
    norm = scaled.pow(norm_order).sum(dim=2, keepdim=True).pow(1 / norm_order)
    weights = (scaled / torch.where(norm > 0, norm, 1)).pow(1 / root)
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
        """Add rows (N, size): combine the moments of both parts and the difference of their means."""
        n = len(rows)
        mean = rows.mean(axis=0)
        gap = mean - self.mean
        total = self.n + n
        with np.errstate(over="ignore", invalid="ignore"):  # looked at when all is gathered
            self.square += ((rows - mean) ** 2).sum(axis=0) + gap**2 * (self.n * n / total)
        self.mean += gap * (n / total)
        self.n = total

    def variance(self) -> np.ndarray:
        """Return the variance with divisor n."""
        return self.square / max(1, self.n)
