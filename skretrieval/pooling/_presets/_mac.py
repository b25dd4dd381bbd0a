"""MAC: maximum activations of convolutions."""

from __future__ import annotations

from .._grammar._reductions import max_cells
from .._grammar._regions import whole
from .._grammar._spec import Spec, SpecPooler


class MACPooler(SpecPooler):
    """Maximum of each channel over the map.

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
    Razavian, Sullivan, Carlsson, Maki, "Visual instance retrieval with deep convolutional networks", arXiv:1412.6574,
    2014.

    Tolias, Sicre, Jegou, "Particular object retrieval with integral max-pooling of CNN activations",
    ICLR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import MACPooler
    >>> MACPooler().fit_transform(np.arange(12.0).reshape(1, 2, 2, 3))
    array([[ 5., 11.]])
    """

    def __init__(self, *, rectify=True):
        self.rectify = rectify

    def _spec(self) -> Spec:
        return Spec(weights=None, regions=whole, reduce=max_cells)
