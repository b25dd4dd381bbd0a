"""Fusion of several poolers over the same maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.metaestimators import _BaseComposition

from ._base import BasePooler
from ._batches import Batch
from ._normalise import l2


class PoolerFusion(BasePooler, _BaseComposition):
    """Weighted sum of l2-normalised descriptors, from one pass over the maps (S000 eq 10).

    ``v = l2( sum_i w_i l2(pooler_i(maps)) )``. A part that is zero leaves the others alone. GSW is
    ``PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4])``.

    Parameters
    ----------
    poolers : list of (str, pooler)
        The parts; their descriptors must have the same length. Parameters of a part are reached as
        ``name__parameter``.

    weights : sequence of float, default=None
        One finite number per part; None weighs all alike.

    Attributes
    ----------
    poolers_ : list of (str, pooler)
        The fitted parts.

    n_features_in_ : int
        Channels K of the maps.

    References
    ----------
    S000: Zhao et al., "GSW", ISPRS International Journal of Geo-Information 2021, sections 3.1 and 4.6.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import GRMACPooler, PoolerFusion, SJWPooler
    >>> maps = np.random.default_rng(0).random((2, 8, 5, 7))
    >>> gsw = PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4])
    >>> np.linalg.norm(gsw.fit_transform(maps), axis=1).round(6)
    array([1., 1.])
    """

    _parameter_constraints: dict = {"poolers": [list, tuple], "weights": ["array-like", None]}

    def __init__(self, poolers, *, weights=None):
        self.poolers = poolers
        self.weights = weights

    def get_params(self, deep=True):
        """Return the parameters, those of the parts as ``name__parameter``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parts and their parameters.

        Returns
        -------
        params : dict
            Names to values.
        """
        return self._get_params("poolers", deep=deep)

    def set_params(self, **params):
        """Set parameters; a part's are reached as ``name__parameter``.

        Parameters
        ----------
        **params : dict
            Names to values.

        Returns
        -------
        self : object
            The estimator.
        """
        self._set_params("poolers", **params)
        return self

    @property
    def _learns(self) -> bool:
        return any(pooler._learns for _, pooler in self.poolers)

    def _check_parameters(self) -> None:
        check_named_poolers(self, self.poolers)
        if self.weights is not None:
            weights = np.asarray(self.weights, dtype=float)
            if weights.shape != (len(self.poolers),) or not np.isfinite(weights).all() or not weights.any():
                raise ValueError(
                    f"weights must be {len(self.poolers)} finite numbers, not all 0, one per pooler, got {self.weights}"
                )
        for _, pooler in self.poolers:
            pooler._validate_params()
            pooler._check_parameters()

    def _start(self, channels: list[int]) -> None:
        super()._start(channels)
        self.poolers_ = [(name, clone(pooler)) for name, pooler in self.poolers]
        for _, pooler in self.poolers_:
            pooler._start(channels)

    def _learn(self, X: Any) -> None:
        for _, pooler in self.poolers_:
            pooler.fit(X)
        self._n_features_out = self.poolers_[0][1]._n_features_out

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        parts = [pooler._describe(batches) for _, pooler in self.poolers_]
        lengths = {name: part.shape[1] for (name, _), part in zip(self.poolers_, parts, strict=True)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"PoolerFusion sums descriptors of equal length, got {lengths}")
        weights = np.ones(len(parts)) if self.weights is None else self.weights
        weighted = [float(weight) * l2(part) for weight, part in zip(weights, parts, strict=True)]
        return l2(torch.stack(weighted).sum(dim=0))


def check_named_poolers(owner: Any, poolers: Any) -> None:
    """Check a list of (name, pooler): names unique and free, poolers of this package."""
    if not poolers:
        raise ValueError(f"{type(owner).__name__} needs at least one (name, pooler)")
    if not all(isinstance(part, tuple | list) and len(part) == 2 for part in poolers):
        raise ValueError(f"{type(owner).__name__}: poolers must be a list of (name, pooler) tuples")
    owner._validate_names([name for name, _ in poolers])
    for name, pooler in poolers:
        if not isinstance(pooler, BasePooler):
            raise TypeError(f"{type(owner).__name__}: {name!r} is no pooler but {type(pooler).__name__}")
