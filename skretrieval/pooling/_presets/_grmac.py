"""GR-MAC: generalised regional maximum activations of convolutions."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions

from .._grammar._reductions import power_mean_cells
from .._grammar._regions import rmac
from .._grammar._spec import Spec, SpecPooler


class GRMACPooler(SpecPooler):
    """Sum over R-MAC's regions of the power mean of each channel (GR-MAC).

    ``g_k = sum_r (1/|R_r| sum_{x in R_r} x_k^p)^(1/p)``.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid (the paper's L).

    p : float, default=3.0
        Exponent, at least 1: 1 is the mean, ``numpy.inf`` the maximum.

    region_norm : {"l2", None}, default=None
        Normalisation of each region's vector before the sum. The default sums raw values, as the
        paper's eq 13 does; R-MAC, which the method follows, normalises.

    include_global : bool, default=False
        Whether the whole map is one more region. The paper counts the regions of the grid only.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first. Without it a fractional `p` refuses negative activations.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and takes the signed power mean of
        other maps: see the notes of :class:`WeightedPooler`.

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
    Journal of Geo-Information 10(4):249, 2021, section 3.2, eqs 11-13.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import GRMACPooler
    >>> GRMACPooler().fit_transform(np.full((1, 2, 6, 8), 3.0)).round(6)  # 20 regions
    array([[60., 60.]])
    """

    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "n_levels": [Interval(Integral, 1, None, closed="left")],
        "p": [Interval(Real, 1, None, closed="both")],
        "region_norm": [StrOptions({"l2"}), None],
        "include_global": ["boolean"],
    }

    def __init__(self, n_levels=3, p=3.0, *, region_norm=None, include_global=False, rectify=True):
        self.n_levels = n_levels
        self.p = p
        self.region_norm = region_norm
        self.include_global = include_global
        self.rectify = rectify

    def _spec(self) -> Spec:
        return Spec(
            weights=None,
            regions=partial(rmac, n_levels=self.n_levels, include_global=self.include_global),
            reduce=partial(power_mean_cells, p=self.p),
            region_norm=self.region_norm,
        )
