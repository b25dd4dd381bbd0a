"""SPoC: sum pooling with a centre prior."""

from __future__ import annotations

from .._grammar._reductions import sum_cells
from .._grammar._regions import whole
from .._grammar._spatial import center_prior
from .._grammar._spec import Spec, SpecPooler


class SPoCPooler(SpecPooler):
    """Sum of each channel over the map, cells near the centre weighing more.

    ``sum_ij g_ij x_kij`` with ``g_ij = exp(-((i - (H-1)/2)^2 + (j - (W-1)/2)^2) / (2 sigma^2))`` and
    ``sigma = min(H, W) / 6``, a third of the way from the centre to the closest border.

    Parameters
    ----------
    center_prior : bool, default=True
        Whether cells are weighted; the paper leaves the prior out for Holidays.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
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
    Babenko, Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import SPoCPooler
    >>> SPoCPooler().fit_transform(np.ones((1, 2, 6, 8))).round(3)
    array([[6.272, 6.272]])
    """

    _parameter_constraints: dict = {**SpecPooler._parameter_constraints, "center_prior": ["boolean"]}

    def __init__(self, center_prior=True, *, rectify=True):
        self.center_prior = center_prior
        self.rectify = rectify

    def _spec(self) -> Spec:
        weights = (lambda maps: (center_prior(maps), None)) if self.center_prior else None
        return Spec(weights=weights, regions=whole, reduce=sum_cells)
