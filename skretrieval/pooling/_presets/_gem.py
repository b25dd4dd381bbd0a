"""GeM: generalised mean."""

from __future__ import annotations

from functools import partial
from numbers import Real

from sklearn.utils._param_validation import Interval

from .._grammar._reductions import power_mean_cells
from .._grammar._regions import whole
from .._grammar._spec import Spec, SpecPooler


class GeMPooler(SpecPooler):
    """Power mean of each channel over the map: ``(mean_ij x_kij^p)^(1/p)``.

    Parameters
    ----------
    p : float, default=3.0
        Exponent, at least 1: 1 is the mean, ``numpy.inf`` the maximum (MAC).

    rectify : bool or "auto", default=True
        Replace negative activations by zero first. Without it a fractional `p` refuses negative activations; odd
        whole numbers keep the sign of the mean.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and takes the signed power mean of
        other maps: see the notes of :class:`WeightedPooler`.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    Activations are cut at 0, not at 1e-6 as in the authors' code, which turns empty maps into uniform
    descriptors.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", IEEE Transactions on Pattern
    Analysis and Machine Intelligence 2019, eq 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import GeMPooler
    >>> GeMPooler(p=2).fit_transform(np.array([[[[3.0, 4.0]]]])).round(4)
    array([[3.5355]])
    """

    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "p": [Interval(Real, 1, None, closed="both")],
    }

    def __init__(self, p=3.0, *, rectify=True):
        self.p = p
        self.rectify = rectify

    def _spec(self) -> Spec:
        reduce = partial(power_mean_cells, p=self.p)
        return Spec(weights=None, regions=whole, reduce=reduce)
