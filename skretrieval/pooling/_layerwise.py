"""Poolers over several layers or resolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metaestimators import _BaseComposition

from ..extraction import FeatureMaps
from ._base import BasePooler
from ._batches import Batch, n_entries, raw_batches
from ._fusion import check_named_poolers
from ._normalise import l2


class LayerwisePooler(BasePooler, _BaseComposition):
    """Pool each map of a tuple (layers, resolutions) and combine the descriptors.

    Concatenation over the layers of a network is S003's multi-layer form and, with `weights`, MS-RMAC; the sum
    over resolutions is late fusion (Gordo et al.).

    Parameters
    ----------
    poolers : pooler or list of (str, pooler)
        One pooler, cloned for every map of the tuple, or one named pooler per map.

    combine : {"concat", "sum", "mean", "max"}, default="concat"
        How the descriptors become one; all but "concat" need equal lengths.

    norm : {"l2", None}, default="l2"
        Normalisation of each descriptor before they are combined. The result itself is not normalised.

    weights : sequence of float, default=None
        Factors of the (normalised) descriptors, one per map; None for 1.

    Attributes
    ----------
    poolers_ : list of (str, pooler)
        The fitted poolers, one per map.

    n_features_in_ : int
        Channels of all maps of a tuple together.

    References
    ----------
    S003, sections on multi-layer features; Gordo et al., "End-to-end learning of deep visual representations for
    image retrieval", IJCV 2017 (late fusion of resolutions).

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import GeMPooler, LayerwisePooler
    >>> rng = np.random.default_rng(0)
    >>> maps = [(rng.random((8, 6, 7)), rng.random((16, 3, 4))) for _ in range(2)]
    >>> LayerwisePooler(GeMPooler()).fit_transform(maps).shape
    (2, 24)
    """

    _layers = True
    _parameter_constraints: dict = {
        "poolers": [HasMethods(["fit", "transform"]), list, tuple],
        "combine": [StrOptions({"concat", "sum", "mean", "max"})],
        "norm": [StrOptions({"l2"}), None],
        "weights": ["array-like", None],
    }

    def __init__(self, poolers, *, combine="concat", norm="l2", weights=None):
        self.poolers = poolers
        self.combine = combine
        self.norm = norm
        self.weights = weights

    def get_params(self, deep=True):
        """Return the parameters, those of the poolers as ``name__parameter`` (or ``poolers__parameter``).

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the poolers' parameters.

        Returns
        -------
        params : dict
            Names to values.
        """
        if isinstance(self.poolers, list | tuple):
            return self._get_params("poolers", deep=deep)
        return super().get_params(deep=deep)

    def set_params(self, **params):
        """Set parameters; those of the poolers as in :meth:`get_params`.

        Parameters
        ----------
        **params : dict
            Names to values.

        Returns
        -------
        self : object
            The estimator.
        """
        if isinstance(params.get("poolers", self.poolers), list | tuple):
            self._set_params("poolers", **params)
            return self
        return super().set_params(**params)

    def _named(self) -> bool:
        return isinstance(self.poolers, list | tuple)

    @property
    def _learns(self) -> bool:
        return any(pooler._learns for _, pooler in self.poolers) if self._named() else self.poolers._learns

    def _check_parameters(self) -> None:
        if self._named():
            check_named_poolers(self, self.poolers)
        elif not isinstance(self.poolers, BasePooler):
            raise TypeError(
                f"poolers must be a pooler or a list of (name, pooler), got {type(self.poolers).__name__}"
            )
        for _, pooler in self.poolers if self._named() else [("", self.poolers)]:
            pooler._validate_params()
            pooler._check_parameters()

    def _start(self, channels: list[int]) -> None:
        super()._start(channels)
        if self._named() and len(self.poolers) != len(channels):
            raise ValueError(f"{len(self.poolers)} poolers were given for tuples of {len(channels)} maps")
        if self.weights is not None:
            weights = np.asarray(self.weights, dtype=float)
            if weights.shape != (len(channels),) or not np.isfinite(weights).all():
                raise ValueError(
                    f"weights must be {len(channels)} finite numbers, one per map, got {self.weights}"
                )
        named = self.poolers if self._named() else [(f"map{i}", self.poolers) for i in range(len(channels))]
        self.poolers_ = [(name, clone(pooler)) for name, pooler in named]
        for (_, pooler), count in zip(self.poolers_, channels, strict=True):
            pooler._start([count])

    def _learn(self, X: Any) -> None:
        lengths = []
        for layer, (_, pooler) in enumerate(self.poolers_):
            pooler.fit(_Layer(X, layer))
            lengths.append(pooler._n_features_out)
        self._n_features_out = sum(lengths) if self.combine == "concat" else lengths[0]

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        parts = [
            pooler._describe((batch,)) for (_, pooler), batch in zip(self.poolers_, batches, strict=True)
        ]
        if self.norm == "l2":
            parts = [l2(part) for part in parts]
        if self.weights is not None:
            parts = [float(weight) * part for weight, part in zip(self.weights, parts, strict=True)]
        if self.combine == "concat":
            return torch.cat(parts, dim=1)
        lengths = [part.shape[1] for part in parts]
        if len(set(lengths)) > 1:
            raise ValueError(f"combine={self.combine!r} needs descriptors of equal length, got {lengths}")
        stacked = torch.stack(parts)
        if self.combine == "max":
            return stacked.amax(dim=0)
        return stacked.sum(dim=0) if self.combine == "sum" else stacked.mean(dim=0)


class _Layer(FeatureMaps):
    """One layer of a sequence of tuples, as a sequence of maps that poolers can be fitted on."""

    def __init__(self, X: Any, layer: int):
        self.X, self.layer = X, layer
        self.images = range(n_entries(X))  # type: ignore[assignment]

    def __getitem__(self, key):
        return _Layer(self.X[key], self.layer) if isinstance(key, slice) else self.X[key][self.layer]

    def head(self) -> FeatureMaps:
        """Return the first entry as a sequence."""
        return _Layer(self.X.head() if isinstance(self.X, FeatureMaps) else self.X[:1], self.layer)

    def batches(self):
        """Yield the batches of one layer."""
        for indices, maps in raw_batches(self.X, layers=True):
            yield indices, maps[self.layer]
