"""Adaptive Gaussian spatial weights and element-value channel weights."""

from __future__ import annotations

from numbers import Real

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from .._grammar._channel import element, sparsity
from .._grammar._reductions import sum_cells
from .._grammar._regions import whole
from .._grammar._spatial import adaptive_gaussian
from .._grammar._spec import Spec, SpecPooler


class AdaptiveGaussianPooler(SpecPooler):
    """Sum pooling under a Gaussian centred on the strongest cells (aGaussian and eChannel).

    ``beta_k = B_k * Omega_k`` with ``Omega_k = sum_ij x_kij S_ij``, S a Gaussian around the mean place of the strongest
    cells, and ``B_k = log((K eps + sum_h b_h) / (eps + b_k))``, ``b_k = (Omega_k / (H W))^2``.

    Parameters
    ----------
    alpha : float, default=0.1
        Fraction of the cells that set the centre. 1 is the centre of the map (the paper's nGaussian).

    channel : {"element", "sparsity", None}, default="element"
        Channel weight: of the weighted sums (eChannel), CroW's sparsity (sChannel), or none. With ``alpha=1`` these
        are the six combinations of the paper's figure 4.

    eps : float, default=1e-12
        Guard of the logarithm in "element". The squared means span seven orders of magnitude, so that a larger guard
        would change the result.

    sigma_scale : float, default=0.25
        Standard deviation of the Gaussian as a fraction of the longer side. A quarter is the paper's "half the
        distance" from the centre of the map to its farthest border.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first; without it ``channel="sparsity"`` refuses them.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

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
    Wang, Zhu, Pang, Li, Li, Qian, "Adaptive co-weighting deep convolutional features for object retrieval", ICME
    2018, sections 2.2 and 2.3, Algorithm 1 and eqs 1-5.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import AdaptiveGaussianPooler
    >>> maps = np.random.default_rng(0).random((2, 8, 5, 7))
    >>> AdaptiveGaussianPooler().fit_transform(maps).shape
    (2, 8)
    """

    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "alpha": [Interval(Real, 0, 1, closed="right")],
        "channel": [StrOptions({"element", "sparsity"}), None],
        "eps": [Interval(Real, 0, None, closed="neither")],
        "sigma_scale": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, alpha=0.1, channel="element", *, eps=1e-12, sigma_scale=0.25, rectify=True):
        self.alpha = alpha
        self.channel = channel
        self.eps = eps
        self.sigma_scale = sigma_scale
        self.rectify = rectify

    def _weights(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        spatial = adaptive_gaussian(maps, self.alpha, self.sigma_scale)
        if self.channel == "element":
            return spatial, element(maps, spatial, self.eps)
        return spatial, sparsity(maps) if self.channel == "sparsity" else None

    def _spec(self) -> Spec:
        return Spec(
            weights=self._weights,
            regions=whole,
            reduce=sum_cells,
            needs_nonnegative=self.channel == "sparsity",
        )
