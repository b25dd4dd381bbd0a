"""Fusion of several poolers over the same maps."""

from __future__ import annotations

import torch
from sklearn.utils._param_validation import StrOptions

from ..._linalg import l2
from .._engine._batches import Batch
from ._composition import PoolerComposition


class PoolerFusion(PoolerComposition):
    """Several poolers over the same maps, from one pass: their weighted sum (GSW), or all side by side.

    By default ``v = l2( sum_i w_i l2(pooler_i(maps)) )``. A part that is zero leaves the others alone. GSW is
    ``PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4])``.

    Parameters
    ----------
    poolers : list of (str, pooler)
        The parts. Parameters of a part are reached as ``name__parameter``. All take single maps, or all take
        tuples of maps (:class:`LayerwisePooler`, or :class:`ClassActivationMask` around one). Those that learn do so
        from the same passes over the maps in `fit`, as many as the part that needs most, each with its own sample of
        them in memory.

    combine : {"sum", "concat", "regions"}, default="sum"
        What the descriptors of the parts become: their sum, l2-normalised; one long descriptor; or a region set,
        with the descriptor of each part as a row. Only "concat" takes descriptors of unlike length. Of parts that give
        region sets themselves, such as :class:`RegionalSecondOrderPooler`, "regions" makes one set of all their rows,
        in the order of the parts; "sum" and "concat" combine first with first, second with second, and so on, which
        needs as many regions from each part.

    norm : {"l2", None}, default="l2"
        Normalisation of each descriptor before they are combined. Only the sum is normalised afterwards.

    weights : sequence of float, default=None
        Factors of the (normalised) descriptors, one finite number per part; None weighs all alike.

    Attributes
    ----------
    poolers_ : list of (str, pooler)
        The fitted parts.

    n_features_in_ : int
        Channels K of the maps; of all maps of a tuple together.

    See Also
    --------
    LayerwisePooler : One pooler per map of a tuple.

    Notes
    -----
    With ``combine="regions"`` the output is a list of n arrays of shape (n_parts, d), or of as many rows as the parts
    have regions, as :class:`RegionalSecondOrderPooler` gives: Seddati et al. (2017) compare the descriptor of the
    whole image and that of its most telling cells (:class:`ClassActivationMask`) in this way. Containers of
    ``set_output`` are no use for it.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, section 3.1, eq 10.

    Seddati, Dupont, Mahmoudi, Parian, "Towards good practices for image retrieval based on CNN features", ICCV
    Workshops 2017, section 4.1 (the region set of two).

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import GRMACPooler, PoolerFusion, SJWPooler
    >>> maps = np.random.default_rng(0).random((2, 8, 5, 7))
    >>> gsw = PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4])
    >>> np.linalg.norm(gsw.fit_transform(maps), axis=1).round(6)
    array([1., 1.])
    >>> gsw.set_params(combine="concat").fit_transform(maps).shape
    (2, 16)
    >>> [regions.shape for regions in gsw.set_params(combine="regions").fit_transform(maps)]
    [(2, 8), (2, 8)]
    """

    _parameter_constraints: dict = {
        **PoolerComposition._parameter_constraints,
        "poolers": [list, tuple],
        "combine": [StrOptions({"sum", "concat", "regions"})],
    }

    def __init__(self, poolers, *, combine="sum", norm="l2", weights=None):
        self.poolers = poolers
        self.combine = combine
        self.norm = norm
        self.weights = weights

    @property
    def _layers(self) -> bool:  # type: ignore[override]
        return self._named()[0][1]._layers

    def _check_parameters(self) -> None:
        super()._check_parameters()
        tuples = [name for name, pooler in self.poolers if pooler._layers]
        single = [name for name, pooler in self.poolers if not pooler._layers]
        if tuples and single:
            raise ValueError(
                f"PoolerFusion: {', '.join(map(repr, tuples))} take tuples of maps, but {', '.join(map(repr, single))} "
                "single ones; LayerwisePooler makes a pooler of tuples out of a pooler of single maps."
            )

    def _check_values(self, batch: Batch) -> None:
        for _, pooler in self.poolers_:
            pooler._check_values(batch)

    def _start(self, channels: list[int]) -> None:
        super()._start(channels)
        n_parts = len(self.poolers)
        self._start_parts(self._named(), [channels] * n_parts, [self.__dict__.get("_signed")] * n_parts)

    def _shared_batches(self, batches: tuple[Batch, ...], place: int) -> tuple[Batch, ...]:
        return batches

    def _merge(self, parts: torch.Tensor) -> torch.Tensor:
        return l2(parts.sum(dim=0))
