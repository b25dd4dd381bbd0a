"""Sum pooling."""

from __future__ import annotations

from .._grammar._reductions import sum_cells
from .._grammar._regions import whole
from .._grammar._spec import Spec, SpecPooler


class SumPooler(SpecPooler):
    """Sum of each channel over the map: uCroW, and SPoC without its prior.

    Parameters
    ----------
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
    Kalantidis, Mellina, Osindero, "Cross-dimensional weighting for aggregated deep convolutional features",
    ECCV Workshops 2016 ("uCroW").

    Babenko, Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015, section 3 (SPoC, of
    which this is the sum without the centre prior).

    Jeong, Choo, Seo, Cho, "Regional deep feature aggregation for image retrieval", ICASSP 2017 (uCroW as a baseline).

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import SumPooler
    >>> SumPooler().fit_transform(np.ones((1, 3, 4, 5)))
    array([[20., 20., 20.]])
    """

    def __init__(self, *, rectify=True):
        self.rectify = rectify

    def _spec(self) -> Spec:
        return Spec(weights=None, regions=whole, reduce=sum_cells)
