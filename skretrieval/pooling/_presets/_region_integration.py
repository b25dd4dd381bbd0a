"""Region integration: weighted maps, sum-pooled over regions, each region whitened."""

from __future__ import annotations

from functools import partial
from numbers import Integral

from sklearn.utils._param_validation import Interval

from .._grammar._channel import count_sparsity
from .._grammar._reductions import sum_cells
from .._grammar._regions import rmac
from .._grammar._spatial import crow
from .._grammar._spec import Spec, SpecPooler


class RegionIntegrationPooler(SpecPooler):
    """Sum of whitened regions of cross-dimensionally weighted maps.

    Cells weigh by CroW's spatial weight, channels by ``b_k = log(sum_h N_h / (1 + N_k))`` with N_k the number of
    positive cells, both from the whole map. The regions of R-MAC's grid and the whole map are sum-pooled, each is
    l2-normalised, PCA-whitened, l2-normalised again, and all are added.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid (the paper's L).

    n_components : int or None, default=None
        Dimensions kept by the whitening; None keeps as many as the data has.

    whiten : bool, default=True
        False leaves the whitening out: the sum of l2-normalised regions.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first; without it they are an error.
        "auto" cuts them off only where the network gives none (it ends in a ReLU); in other maps they are an error.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    region_whitening_ : WhiteningAxes
        Mean, components and eigenvalues, learned in fit from all regions of all images.

    Notes
    -----
    A region without activation is left out of the fit and of the sum: whitened, its zero vector would
    become a direction of its own. The paper's Table 1 names Oxford5k
    and L = 3 as the best, but shows Paris6k's values and L = 2 ahead; the default stays 3.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Liao, Fan, Zheng, Lin, Cao, "Image retrieval based on the weighted and regional integration of CNN features", KSII
    Transactions on Internet and Information Systems 16(3):894-907, 2022, sections 3.2 and 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import RegionIntegrationPooler
    >>> maps = np.random.default_rng(0).random((4, 8, 6, 8))
    >>> RegionIntegrationPooler(n_components=3).fit_transform(maps).shape
    (4, 3)
    """

    _parameter_constraints: dict = {
        **SpecPooler._parameter_constraints,
        "n_levels": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "whiten": ["boolean"],
    }

    def __init__(self, n_levels=3, n_components=None, *, whiten=True, rectify=True):
        self.n_levels = n_levels
        self.n_components = n_components
        self.whiten = whiten
        self.rectify = rectify

    def _spec(self) -> Spec:
        return Spec(
            weights=lambda maps: (crow(maps), count_sparsity(maps)),
            regions=partial(rmac, n_levels=self.n_levels, include_global=True),
            reduce=sum_cells,
            region_norm="l2",
            needs_nonnegative=True,
        )
