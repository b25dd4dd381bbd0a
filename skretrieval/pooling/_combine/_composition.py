"""What poolers made of other poolers share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import _BaseComposition

from ..._linalg._tensors import l2
from .._engine._base import BasePooler, head_of
from .._engine._batches import Batch
from .._engine._region_set_output import RegionSetOutput


class PoolerComposition(BasePooler, _BaseComposition):
    """Describe with several poolers, and combine their descriptors.

    A subclass says with ``_shared_batches`` which maps a part gets, starts the parts with ``_start_parts``, and
    combines descriptors of equal length in ``_merge``; "concat" is known here. All parts that learn do so from one
    pass over the maps.

    Parameters
    ----------
    poolers : list of (str, pooler), or pooler
        The parts; a single one stands for as many as are needed.

    combine : str
        How the descriptors of the parts become the result.

    norm : {"l2", None}
        Normalisation of each descriptor before they are combined.

    weights : sequence of float or None
        Factors of the (normalised) descriptors.
    """

    _parameter_constraints: dict = {
        "norm": [StrOptions({"l2"}), None],
        "weights": ["array-like", None],
    }

    poolers: Any
    combine: str
    norm: str | None
    weights: Any

    # ------------------------------------------------------------------ parameters
    def get_params(self, deep=True):
        """Return the parameters, those of the parts as ``name__parameter``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parts and their parameters; those of a single pooler are ``poolers__parameter``.

        Returns
        -------
        params : dict
            Names to values.
        """
        if isinstance(self.poolers, list | tuple):
            return self._get_params("poolers", deep=deep)
        return super().get_params(deep=deep)

    def set_params(self, **params):
        """Set parameters; those of the parts are named as in :meth:`get_params`.

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

    def _named(self) -> list[tuple[str, Any]]:
        """Return the parts with their names, a single pooler under that of the parameter."""
        return list(self.poolers) if isinstance(self.poolers, list | tuple) else [("poolers", self.poolers)]

    @property
    def _learns(self) -> bool:
        return any(pooler._learns for _, pooler in self._named())

    def _check_parameters(self) -> None:
        title = type(self).__name__
        if isinstance(self.poolers, list | tuple):
            if not self.poolers:
                raise ValueError(f"{title} needs at least one (name, pooler)")
            if not all(isinstance(part, tuple | list) and len(part) == 2 for part in self.poolers):
                raise ValueError(f"{title}: poolers must be a list of (name, pooler) tuples")
            self._validate_names([name for name, _ in self.poolers])
        for name, pooler in self._named():
            if not isinstance(pooler, BasePooler):
                raise TypeError(f"{title}: {name!r} is no pooler but {type(pooler).__name__}")
            pooler._validate_params()
            pooler._check_parameters()
            check_one_descriptor(self, name, pooler)

    # ------------------------------------------------------------------ parts
    def _shared_batches(self, batches: tuple[Batch, ...], place: int) -> tuple[Batch, ...]:
        """Return the batches that a part learns from and describes."""
        raise NotImplementedError

    def _merge(self, parts: torch.Tensor) -> torch.Tensor:
        """Combine the descriptors (parts, N, d)."""
        raise NotImplementedError

    def _start_parts(self, named: list[tuple[str, Any]], channels: list[list[int]]) -> None:
        """Check the weights, now that the number of parts is known, and start copies of the parts."""
        if self.weights is not None:
            weights = np.asarray(self.weights, dtype=float)
            if weights.shape != (len(named),) or not np.isfinite(weights).all() or not weights.any():
                raise ValueError(
                    f"weights must be {len(named)} finite numbers, one per descriptor and not all 0, got {self.weights}"
                )
        self.poolers_ = [(name, clone(pooler)) for name, pooler in named]
        for (_, pooler), own in zip(self.poolers_, channels, strict=True):
            pooler._start(own)

    @property
    def _learning_bytes(self) -> int:  # type: ignore[override]
        own = (pooler._learning_bytes for _, pooler in self._named() if pooler._learns)
        return max(own, default=BasePooler._learning_bytes)

    def _begin(self, X: Any) -> list:
        return [pooler._begin(X) if pooler._learns else None for _, pooler in self.poolers_]

    def _update(self, state: list, batches: tuple[Batch, ...]) -> None:
        for place, (_, pooler) in enumerate(self.poolers_):
            own = self._shared_batches(batches, place)
            if pooler._learns:
                pooler._update(state[place], own)
            elif not hasattr(
                pooler, "_n_features_out"
            ):  # it learns nothing, and is fitted by a look at one map
                pooler._n_features_out = pooler._describe(head_of(own)).shape[1]

    def _finish(self, state: list, X: Any) -> None:
        for (_, pooler), own in zip(self.poolers_, state, strict=True):
            if pooler._learns:
                pooler._finish(own, X)
        self._n_features_out = self._combined_length()

    def _combined_length(self) -> int:
        """Return the length of the result, or raise if the parts do not fit together."""
        lengths = {name: pooler._n_features_out for name, pooler in self.poolers_}
        if self.combine == "concat":
            return sum(lengths.values())
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"{type(self).__name__}: combine={self.combine!r} needs descriptors of equal length, got {lengths}"
            )
        return next(iter(lengths.values()))

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        parts = []
        for place, (_, pooler) in enumerate(self.poolers_):
            part = pooler._describe(self._shared_batches(batches, place))
            pooler._n_features_out = part.shape[1]  # a part that learns nothing is fitted by this
            part = l2(part) if self.norm == "l2" else part
            parts.append(part if self.weights is None else float(self.weights[place]) * part)
        self._combined_length()
        return torch.cat(parts, dim=1) if self.combine == "concat" else self._merge(torch.stack(parts))


def check_one_descriptor(owner: Any, name: str, pooler: Any) -> None:
    """Raise a ValueError if a pooler inside another gives region sets."""
    if isinstance(pooler, RegionSetOutput) and pooler._gives_region_sets:
        raise ValueError(
            f"{type(owner).__name__}: {name!r} gives region sets, but has to give one descriptor per image"
        )
