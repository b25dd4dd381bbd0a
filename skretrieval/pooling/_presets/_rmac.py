"""R-MAC: regional maximum activations of convolutions."""

from __future__ import annotations

from functools import partial
from numbers import Integral

from sklearn.utils._param_validation import Interval

from .._grammar._reductions import max_cells
from .._grammar._regions import rmac
from .._grammar._spec import Spec, SpecPooler


class RMACPooler(SpecPooler):
    """Sum of the l2-normalised channel maxima of overlapping regions at several scales.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid.

    include_global : bool, default=False
        Whether the whole map is one more region. The original R-MAC has none; later code adds it.

    whiten : bool, default=False
        PCA-whiten and re-normalise each region's vector with axes learned in fit from all regions: the complete
        published method. False is the plain form that most libraries call R-MAC.

    n_components : int or None, default=None
        Dimensions kept by `whiten`; None keeps as many as the data has.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    region_whitening_ : WhiteningAxes
        Mean, components and eigenvalues, only with `whiten`.

    Notes
    -----
    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Tolias, Sicre, Jegou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import RMACPooler
    >>> RMACPooler().fit_transform(np.ones((1, 4, 6, 8)))  # 20 regions, each (1/2, 1/2, 1/2, 1/2)
    array([[10., 10., 10., 10.]])
    """

    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "n_levels": [Interval(Integral, 1, None, closed="left")],
        "include_global": ["boolean"],
        "whiten": ["boolean"],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(self, n_levels=3, *, include_global=False, whiten=False, n_components=None, rectify=True):
        self.n_levels = n_levels
        self.include_global = include_global
        self.whiten = whiten
        self.n_components = n_components
        self.rectify = rectify

    def _spec(self) -> Spec:
        regions = partial(rmac, n_levels=self.n_levels, include_global=self.include_global)
        return Spec(weights=None, regions=regions, reduce=max_cells, region_norm="l2")
