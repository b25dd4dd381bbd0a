"""SJW: saliency joint weighting."""

from __future__ import annotations

from numbers import Real

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from .._grammar._channel import sparsity_deviation
from .._grammar._reductions import sum_cells
from .._grammar._regions import whole
from .._grammar._spatial import saliency_from
from .._grammar._spec import Spec, SpecPooler


class SJWPooler(SpecPooler):
    """Sum pooling with saliency joint weights (SJW).

    Channels weigh by the rarity of ``(N / #zeros) * deviation``; cells by the weighted sum of the channels that
    vary most plus `rho` times the global contrast of that map.

    Parameters
    ----------
    n_channels : float, default=0.3
        Fraction of the channels, those of largest deviation, that make the saliency map (the paper's n).

    rho : float, default=100.0
        Weight of the global contrast.

    saliency_norm : {"sum", "none", "l2", "max", "minmax"}, default="sum"
        Normalisation of the contrast before it is added. The paper prints none, but then `rho` would change
        nothing, against its own Table 10: "sum" is inferred, being the one form in which the paper's range of
        rho moves the result. "none" is the formula as printed.

    eps : float, default=1e-6
        Guard of the logarithm in the channel weights.

    channel_combine : {"product", "sum"}, default="product"
        How sparsity and deviation make the channel weight: as eq 16 prints it, or as the text before it says.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first; without it they are an error.
        "auto" cuts them off only where the network gives none (it ends in a ReLU); in other maps they are an error.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, section 3.3, eqs 14-24.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import SJWPooler
    >>> maps = np.random.default_rng(0).random((2, 8, 5, 7))
    >>> SJWPooler(rho=10).fit_transform(maps).shape
    (2, 8)
    """

    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "n_channels": [Interval(Real, 0, 1, closed="right")],
        "rho": [Interval(Real, 0, None, closed="left")],
        "saliency_norm": [StrOptions({"sum", "none", "l2", "max", "minmax"})],
        "eps": [Interval(Real, 0, None, closed="neither")],
        "channel_combine": [StrOptions({"product", "sum"})],
    }

    def __init__(
        self,
        n_channels=0.3,
        rho=100.0,
        *,
        saliency_norm="sum",
        eps=1e-6,
        channel_combine="product",
        rectify=True,
    ):
        self.n_channels = n_channels
        self.rho = rho
        self.saliency_norm = saliency_norm
        self.eps = eps
        self.channel_combine = channel_combine
        self.rectify = rectify

    def _weights(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # the spatial weights need the channel weights: both from one look at the channels
        channel, spread = sparsity_deviation(maps, self.eps, self.channel_combine, return_deviation=True)
        return saliency_from(maps, channel, spread, self.n_channels, self.rho, self.saliency_norm), channel

    def _spec(self) -> Spec:
        return Spec(weights=self._weights, regions=whole, reduce=sum_cells, needs_nonnegative=True)
