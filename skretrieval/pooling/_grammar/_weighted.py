"""The general estimator of the pooling grammar: one spec from spatial, channel, region and reduction terms."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ._channel import CHANNEL
from ._reductions import REDUCTIONS
from ._regions import REGIONS, check_boxes
from ._spatial import SPATIAL
from ._spec import Spec, SpecPooler
from ._term_params import TermParameters

# Terms with logarithms of counts or square roots: negative activations have no meaning there.
_NONNEGATIVE_TERMS = {
    *(SPATIAL[name] for name in ("response", "crow", "saliency")),
    *(CHANNEL[name] for name in ("sparsity", "sparsity_deviation", "count_sparsity")),
}


class WeightedPooler(TermParameters, SpecPooler):
    """Any spec of the pooling grammar.

    ``descriptor_k = SUM over regions r of normalise_r( channel_k * REDUCE over cells p in r of spatial_p * x_kp )``

    The named poolers are specs with a published name; this one makes the others, and a grid search over
    its parameters searches all combinations.

    Parameters
    ----------
    spatial : str, callable or None, default=None
        Weight of each cell: "center_prior" (SPoC), "crow" (CroW), "response" (Jeong et al. 2017), "saliency" (SJW,
        Zhao et al. 2021), "adaptive_gaussian" (Wang et al. 2018), "activation_norm" (HOW), "scda" (mask of the main
        object), or a function of maps (N, K, H, W) that returns (N, H, W) or (1, H, W).

    channel : str, callable or None, default=None
        Weight of each channel: "sparsity" (CroW), "count_sparsity" (Liao et al. 2022), "sparsity_deviation" (SJW,
        Zhao et al. 2021), "element" (Wang et al. 2018), or a function of the maps and the spatial weights (or None)
        that returns (N, K).

    regions : str or callable, default="whole"
        "whole", "rmac" (grid of R-MAC), "grid" (parts of 1 x 1, 2 x 2 ... grids), or a function of (height, width) in
        cells that returns boxes (row, column, height, width), an integer array (R, 4).

    reduce : str or callable, default="sum"
        "sum", "mean", "max", "power_mean" (``p``, default 3), "signed_power_mean" (``p``; for features of both signs,
        with ``rectify=False``), "relup_power_mean" (``p``, ``alpha``) and "regional_power_mean" (``p``, ``region_p``,
        ``window``, ``alpha``), both of SuperGlobal, or a function of (maps, boxes, spatial) that returns (N, R, K).

    region_norm : {"l2", None}, default=None
        Normalisation of each region's vector before the sum.

    spatial_params, channel_params, region_params, reduce_params : dict, default=None
        Keyword arguments of the terms, such as ``{"p": 5}`` or ``{"n_levels": 2, "include_global": True}``. Each has
        a nested name, too, ``reduce_params__p``, for ``set_params`` and for a grid search.

    whiten : bool, default=False
        PCA-whiten each region's vector, with axes learned in fit from all regions of all images, and l2-normalise
        it again, as R-MAC and Liao et al. (2022) do. Regions without activation are left out of both: whitened, their
        zero vectors would become a direction of their own.

    n_components : int or None, default=None
        Dimensions kept by `whiten`; None keeps as many as the data has.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and takes the signed power mean of
        other maps: see the notes of :class:`WeightedPooler`.

    Attributes
    ----------
    n_features_in_ : int
        Channels of the maps.

    region_whitening_ : WhiteningAxes
        Mean, components and eigenvalues, only with `whiten`.

    rectify_ : bool
        Whether negative activations are replaced, only with ``rectify="auto"``.

    Notes
    -----
    With ``rectify="auto"`` every pooler asks, in fit, whether the maps are meant to have negative values:
    `FeatureMaps` know it of their network (``FeatureMaps.signed``), of maps in memory those of fit are looked at. What
    comes later is treated alike, one map as a batch. Maps without negative values by design are described as with
    True. Of others nothing is cut off: power means keep signs ("signed_power_mean", and in the same way
    "regional_power_mean"), a maximum is one, and weights with roots, logarithms or counts ("response", "crow",
    "saliency", "sparsity", ...) refuse negative values with a ValueError. With True, a UserWarning says once that the
    maps of a network of both signs are cut.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    The functions behind the names, in ``skretrieval.pooling.spatial``, ``channel``, ``regions`` and ``reductions``,
    cite the publication of each term.

    Examples
    --------
    CroW's weights over R-MAC's regions, which nobody has published:

    >>> import numpy as np
    >>> from skretrieval.pooling import WeightedPooler
    >>> maps = np.random.default_rng(0).random((2, 16, 9, 12))
    >>> pooler = WeightedPooler(spatial="crow", channel="sparsity", regions="rmac", region_norm="l2")
    >>> pooler.fit_transform(maps).shape
    (2, 16)
    >>> pooler.set_params(reduce="power_mean", reduce_params__p=5).reduce_params
    {'p': 5}
    """

    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "spatial": [StrOptions(set(SPATIAL)), callable, None],
        "channel": [StrOptions(set(CHANNEL)), callable, None],
        "regions": [StrOptions(set(REGIONS)), callable],
        "reduce": [StrOptions(set(REDUCTIONS)), callable],
        "region_norm": [StrOptions({"l2"}), None],
        "spatial_params": [dict, None],
        "channel_params": [dict, None],
        "region_params": [dict, None],
        "reduce_params": [dict, None],
        "whiten": ["boolean"],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        spatial=None,
        channel=None,
        regions="whole",
        reduce="sum",
        region_norm=None,
        *,
        spatial_params=None,
        channel_params=None,
        region_params=None,
        reduce_params=None,
        whiten=False,
        n_components=None,
        rectify=True,
    ):
        self.spatial = spatial
        self.channel = channel
        self.regions = regions
        self.reduce = reduce
        self.region_norm = region_norm
        self.spatial_params = spatial_params
        self.channel_params = channel_params
        self.region_params = region_params
        self.reduce_params = reduce_params
        self.whiten = whiten
        self.n_components = n_components
        self.rectify = rectify

    _registries = {"spatial": SPATIAL, "channel": CHANNEL, "regions": REGIONS, "reduce": REDUCTIONS}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_term_parameters()

    def _spec(self) -> Spec:
        spatial = _term(self.spatial, SPATIAL, self.spatial_params)
        channel = _term(self.channel, CHANNEL, self.channel_params)
        regions: Any = _term(self.regions, REGIONS, self.region_params)
        reduce: Any = _term(self.reduce, REDUCTIONS, self.reduce_params)

        def weights(maps):
            cells = None if spatial is None else _checked(spatial(maps), "spatial", maps, maps.shape[2:])
            channels = (
                None if channel is None else _checked(channel(maps, cells), "channel", maps, maps.shape[1:2])
            )
            return cells, channels

        return Spec(
            weights=weights,
            regions=lambda height, width: check_boxes(regions(height, width), height, width),
            reduce=reduce,
            region_norm=self.region_norm,
            needs_nonnegative=any(
                term.func is known for term in (spatial, channel) if term for known in _NONNEGATIVE_TERMS
            ),
        )


def _term(term: Any, registry: dict, params: dict | None) -> partial | None:
    if term is None:
        return None
    return partial(registry[term] if isinstance(term, str) else term, **(params or {}))


def _checked(weights: torch.Tensor, kind: str, maps: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Check the weights that a function returned (a user's may return anything)."""
    if (
        not isinstance(weights, torch.Tensor)
        or weights.shape[1:] != shape
        or len(weights) not in (1, len(maps))
    ):
        got = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise ValueError(f"{kind} must return a tensor of shape {(len(maps), *shape)}, got {got}.")
    return weights.to(maps.dtype)
