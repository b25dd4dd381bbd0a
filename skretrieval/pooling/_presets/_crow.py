"""CroW: cross-dimensional weighting."""

from __future__ import annotations

from .._grammar._channel import sparsity
from .._grammar._reductions import sum_cells
from .._grammar._regions import whole
from .._grammar._spatial import crow
from .._grammar._spec import Spec, SpecPooler


class CroWPooler(SpecPooler):
    """Sum pooling with cross-dimensional weights: strong cells and rare channels weigh more.

    ``I_k * sum_ij S_ij x_kij`` with ``S = (s / ||s||)^(1/2)``, s the sum over channels, and
    ``I_k = log((K eps + sum_h Q_h) / (eps + Q_k))``, Q_k the fraction of non-zero cells of channel k.

    Parameters
    ----------
    rectify : bool or "auto", default=True
        Replace negative activations by zero first; without it they are an error.
        "auto" cuts them off only where the network gives none (it ends in a ReLU); in other maps they are an error.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    eps is 1e-6. With one channel the channel weight is log 1 = 0, so is the descriptor, as in the authors' code.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Kalantidis, Mellina, Osindero, "Cross-dimensional weighting for aggregated deep convolutional features",
    ECCV Workshops 2016, sections 4.1 and 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import CroWPooler
    >>> maps = np.random.default_rng(0).random((2, 8, 5, 7))
    >>> CroWPooler().fit_transform(maps).shape
    (2, 8)
    """

    def __init__(self, *, rectify=True):
        self.rectify = rectify

    def _spec(self) -> Spec:
        return Spec(
            weights=lambda maps: (crow(maps), sparsity(maps)),
            regions=whole,
            reduce=sum_cells,
            needs_nonnegative=True,
        )
