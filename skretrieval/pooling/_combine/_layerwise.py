"""Poolers over several layers or resolutions."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from ..._linalg import power_mean
from .._engine._batches import Batch
from ._composition import PoolerComposition


class LayerwisePooler(PoolerComposition):
    """Pool each map of a tuple (layers, resolutions) and combine the descriptors.

    Concatenation over the layers of a network is the multi-layer form of Seddati et al. (2017) and, with `weights`,
    MS-RMAC; the sum over resolutions is late fusion (Gordo et al. 2017), the maximum and the power mean SuperGlobal's
    scale GeM (Shao et al. 2023).

    Parameters
    ----------
    poolers : pooler or list of (str, pooler)
        One pooler, cloned for every map of the tuple, or one named pooler per map. Their parameters are reached as
        ``poolers__parameter`` or ``name__parameter``.

    combine : {"concat", "sum", "mean", "max", "power_mean"}, default="concat"
        How the descriptors become one; all but "concat" need equal lengths. The regions of parts that give region
        sets are combined first with first, second with second, and so on, which needs as many from each map.

    norm : {"l2", None}, default="l2"
        Normalisation of each descriptor before they are combined. The result itself is not normalised.

    weights : sequence of float, default=None
        Factors of the (normalised) descriptors, one finite number per map; None for 1.

    p : float, default=10.0
        Exponent of the power mean; ``inf`` makes it the maximum.

    Attributes
    ----------
    poolers_ : list of (str, pooler)
        The fitted poolers, one per map.

    n_features_in_ : int
        Channels of all maps of a tuple together.

    See Also
    --------
    PoolerFusion : Several poolers over the same maps.

    Notes
    -----
    Scale GeM is ``((1/S) sum_s (x_s - gamma)^p)^(1/p) + gamma`` for the descriptors ``x_s`` of S scales, with the
    smallest entry gamma subtracted because descriptors may be negative. In the code of its authors gamma is the
    smallest entry of everything in a batch, so that the descriptor of an image would depend on its neighbours;
    here it is the smallest entry of any scale of the same image, which is what that code gives for one image at a
    time. Their default is an infinite exponent with l2-normalised descriptors, ``combine="max"``; their finite
    exponent, 10, goes with descriptors as they are, ``combine="power_mean", norm=None``.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Seddati, Dupont, Mahmoudi, Parian, "Towards good practices for image retrieval based on CNN features", ICCV
    Workshops 2017, section 3.4 (layers side by side) and section 3.2 (MS-RMAC).

    Gordo, Almazan, Revaud, Larlus, "End-to-end learning of deep visual representations for image retrieval",
    International Journal of Computer Vision 2017 (late fusion of resolutions).

    Shao, Chen, Karpur, Cui, Araujo, Cao, "Global features are all you need for image retrieval and reranking", ICCV
    2023, section 3.1 (scale GeM).

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import GeMPooler, LayerwisePooler
    >>> rng = np.random.default_rng(0)
    >>> maps = [(rng.random((8, 6, 7)), rng.random((16, 3, 4))) for _ in range(2)]
    >>> LayerwisePooler(GeMPooler()).fit_transform(maps).shape
    (2, 24)
    >>> scales = [(rng.random((8, 6, 7)), rng.random((8, 3, 4))) for _ in range(2)]
    >>> LayerwisePooler(GeMPooler(), combine="power_mean").fit_transform(scales).shape
    (2, 8)
    """

    _layers = True
    _parameter_constraints: dict = {
        **PoolerComposition._parameter_constraints,
        "poolers": [HasMethods(["fit", "transform"]), list, tuple],
        "combine": [StrOptions({"concat", "sum", "mean", "max", "power_mean"})],
        "p": [Interval(Real, 0, None, closed="right")],
    }

    def __init__(self, poolers, *, combine="concat", norm="l2", weights=None, p=10.0):
        self.poolers = poolers
        self.combine = combine
        self.norm = norm
        self.weights = weights
        self.p = p

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name, pooler in self._named():
            if pooler._layers:
                raise ValueError(f"LayerwisePooler: {name!r} takes tuples of maps itself.")

    def _start(self, channels: list[int]) -> None:
        super()._start(channels)
        named = self._named()
        if not isinstance(self.poolers, list | tuple):
            named = [(f"map{i}", self.poolers) for i in range(len(channels))]
        elif len(named) != len(channels):
            raise ValueError(f"{len(named)} poolers were given for tuples of {len(channels)} maps.")
        known = self.__dict__.get("_signed")
        signed: list[list[bool] | None] = [None] * len(named) if known is None else [[own] for own in known]
        self._start_parts(named, [[count] for count in channels], signed)

    def _shared_batches(self, batches: tuple[Batch, ...], place: int) -> tuple[Batch, ...]:
        return (batches[place],)

    def _merge(self, parts: torch.Tensor) -> torch.Tensor:
        if self.combine == "max" or (self.combine == "power_mean" and np.isinf(self.p)):
            return parts.amax(dim=0)
        if self.combine == "power_mean":
            return scale_power_mean(parts, self.p)
        return parts.sum(dim=0) if self.combine == "sum" else parts.mean(dim=0)


def scale_power_mean(parts: torch.Tensor, p: float) -> torch.Tensor:
    """Return the power mean over scales, about the smallest entry of each image (scale GeM).

    Parameters
    ----------
    parts : tensor of shape (S, N, d)
        Descriptors of N images at S scales.
    p : float
        Finite exponent, above 0.

    Returns
    -------
    means : tensor of shape (N, d)
        Between the smallest and the largest of the scales.
    """
    smallest = parts.amin(dim=(0, 2))[:, None]
    return power_mean(parts - smallest, p, dim=0) + smallest
