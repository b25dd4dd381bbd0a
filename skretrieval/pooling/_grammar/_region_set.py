"""The grammar without its last sum: a descriptor for each region."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from .._engine._batches import Batch, RegionRows
from ._channel import CHANNEL
from ._reductions import REDUCTIONS
from ._regions import REGIONS
from ._spatial import SPATIAL
from ._spec import Spec, SpecPooler, region_vectors
from ._term_params import TermParameters
from ._weighted import WeightedPooler


class RegionSetPooler(TermParameters, SpecPooler):
    """Describe each region by itself: what finds a part of one photograph in another.

    ``descriptor_rk = normalise_r( channel_k * REDUCE over cells p in r of spatial_p * x_kp )``: the grammar of
    :class:`WeightedPooler` without its sum over the regions. Two photographs are as alike as their most alike regions
    (:class:`~skretrieval.retrieval.NearestNeighborsRetriever`), and :meth:`boxes` tells where a region lies.

    Parameters
    ----------
    regions : str or callable, default="grid"
        "grid" (parts of 1 x 1, 2 x 2 ... grids, of Patchify), "rmac" (grid of R-MAC), "whole", or a function of
        (height, width) in cells that returns boxes (row, column, height, width), an integer array (R, 4).

    spatial : str, callable or None, default=None
        Weight of each cell, as in :class:`WeightedPooler`.

    channel : str, callable or None, default=None
        Weight of each channel, as in :class:`WeightedPooler`.

    reduce : str or callable, default="mean"
        How the cells of a region become one value per channel, as in :class:`WeightedPooler`.

    n_levels : int, default=4
        Grids of "grid": up to n_levels x n_levels parts, 30 regions with four. Scales of "rmac".

    region_norm : {"l2", None}, default=None
        Normalisation of each region's vector.

    spatial_params, channel_params, reduce_params : dict, default=None
        Keyword arguments of the terms, such as ``{"p": 5}``. Each has a nested name, too, ``reduce_params__p``.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first; "auto" only where the maps are meant to have none
        (:class:`WeightedPooler`).

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    See Also
    --------
    WeightedPooler : The sum over the regions: one descriptor per photograph.
    RegionalSecondOrderPooler : Regions that depend on what the photograph shows.

    Notes
    -----
    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Patchify, IEEE/CVF Winter Conference on Applications of Computer Vision, 2026 (regions "grid").

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import RegionSetPooler
    >>> maps = np.random.default_rng(0).random((2, 16, 9, 12))
    >>> pooler = RegionSetPooler()
    >>> [regions.shape for regions in pooler.fit_transform(maps)]
    [(30, 16), (30, 16)]
    >>> pooler.boxes((9, 12), (640, 480))[1]  # the first of the four quarters
    array([  0.        ,   0.        , 320.        , 213.33333333])
    """

    _gives_region_sets = True
    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "regions": [StrOptions(set(REGIONS)), callable],
        "spatial": [StrOptions(set(SPATIAL)), callable, None],
        "channel": [StrOptions(set(CHANNEL)), callable, None],
        "reduce": [StrOptions(set(REDUCTIONS)), callable],
        "n_levels": [Interval(Integral, 1, None, closed="left")],
        "region_norm": [StrOptions({"l2"}), None],
        "spatial_params": [dict, None],
        "channel_params": [dict, None],
        "reduce_params": [dict, None],
    }
    _registries = {"spatial": SPATIAL, "channel": CHANNEL, "regions": REGIONS, "reduce": REDUCTIONS}

    def __init__(
        self,
        regions="grid",
        spatial=None,
        channel=None,
        reduce="mean",
        *,
        n_levels=4,
        region_norm=None,
        spatial_params=None,
        channel_params=None,
        reduce_params=None,
        rectify=True,
    ):
        self.regions = regions
        self.spatial = spatial
        self.channel = channel
        self.reduce = reduce
        self.n_levels = n_levels
        self.region_norm = region_norm
        self.spatial_params = spatial_params
        self.channel_params = channel_params
        self.reduce_params = reduce_params
        self.rectify = rectify

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_term_parameters()

    def _spec(self) -> Spec:
        scaled = self.regions in ("grid", "rmac") if isinstance(self.regions, str) else False
        return WeightedPooler(
            self.spatial,
            self.channel,
            self.regions,
            self.reduce,
            self.region_norm,
            spatial_params=self.spatial_params,
            channel_params=self.channel_params,
            region_params={"n_levels": self.n_levels} if scaled else None,
            reduce_params=self.reduce_params,
        )._spec()

    def _describe(self, batches: tuple[Batch, ...]) -> Any:
        vectors = region_vectors(self._maps(batches[0]), self._settled_spec())
        n_images, n_regions, _ = vectors.shape
        return RegionRows(vectors.flatten(0, 1), np.full(n_images, n_regions))
