"""What poolers made of other poolers share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import _BaseComposition

from ..._cache import pooler_key
from ..._linalg import l2
from ..._region_sets import ragged_arange
from .._engine._base import BasePooler, head_of, n_columns
from .._engine._batches import Batch, RegionRows, one_thread


class PoolerComposition(BasePooler, _BaseComposition):
    """Describe with several poolers, and combine their descriptors.

    A subclass says with ``_shared_batches`` which maps a part gets, starts the parts with ``_start_parts``, and
    combines descriptors of equal length in ``_merge``; "concat" and "regions" are known here. All parts that learn do
    so from the same passes over the maps, as many as the part that needs most. Where parts give region sets, their
    rows are combined one by one, for which they need as many; "regions" takes any.

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

    @property
    def _gives_region_sets(self) -> bool:  # type: ignore[override]
        return self.combine == "regions" or any(pooler._gives_region_sets for _, pooler in self._named())

    @property
    def _several_threads(self) -> bool:  # type: ignore[override]
        return any(pooler._several_threads for _, pooler in self._named())

    @property
    def _learning_bytes(self) -> int:  # type: ignore[override]
        own = (pooler._learning_bytes for _, pooler in self._named() if pooler._learns)
        return max(own, default=BasePooler._learning_bytes)

    @property
    def _describing_bytes(self) -> int:  # type: ignore[override]
        return max(pooler._describing_bytes for _, pooler in self._named())

    def _check_parameters(self) -> None:
        title = type(self).__name__
        if isinstance(self.poolers, list | tuple):
            if not self.poolers:
                raise ValueError(f"{title} needs at least one (name, pooler), got an empty list.")
            if not all(isinstance(part, tuple | list) and len(part) == 2 for part in self.poolers):
                raise ValueError(
                    f"{title}: poolers must be a list of (name, pooler) tuples, got {self.poolers!r}."
                )
            self._validate_names([name for name, _ in self.poolers])
        for name, pooler in self._named():
            if not isinstance(pooler, BasePooler):
                raise TypeError(f"{title}: {name!r} is no pooler but {type(pooler).__name__}.")
            pooler._validate_params()
            pooler._check_parameters()

    def _check_input(self, X: Any) -> None:
        for _, pooler in self._named():
            pooler._check_input(X)

    @property
    def _asks_signs(self) -> bool:
        return any(pooler._asks_signs for _, pooler in self._named())

    def _settle(self, signed: list[bool] | None) -> None:
        self.__dict__.pop("_signed", None)
        if self._asks_signs:
            self._signed = signed

    def _settled(self) -> dict[str, Any]:
        return {"_signed": self.__dict__.get("_signed")} if self._asks_signs else {}

    def cache_state(self) -> dict[str, Any] | None:
        """Tell what was learned; None also where the parts that describe are no longer those of the parameters.

        Returns
        -------
        state : dict or None
            As of any pooler.
        """
        state = super().cache_state()
        return None if not self._learns and not self._parts_are_as_given() else state

    def _parts_are_as_given(self) -> bool:
        """Tell whether the fitted parts are copies of those that the parameters name, also after `set_params`."""
        parts = [part for _, part in getattr(self, "poolers_", [])]
        if not parts:
            return True
        given = [part for _, part in self._named()]
        if not isinstance(self.poolers, list | tuple):
            given = given * len(parts)
        if len(given) != len(parts):
            return False
        keys = [
            (pooler_key(part, False), pooler_key(own, False)) for part, own in zip(parts, given, strict=True)
        ]
        return all(own == asked and own is not None for own, asked in keys)

    # ------------------------------------------------------------------ parts
    def _shared_batches(self, batches: tuple[Batch, ...], place: int) -> tuple[Batch, ...]:
        """Return the batches that a part learns from and describes."""
        raise NotImplementedError

    def _merge(self, parts: torch.Tensor) -> torch.Tensor:
        """Combine the descriptors (parts, N, d)."""
        raise NotImplementedError

    def _start_parts(
        self, named: list[tuple[str, Any]], channels: list[list[int]], signed: list[list[bool] | None]
    ) -> None:
        """Check the weights, now that the number of parts is known, and start copies of the parts."""
        if self.weights is not None:
            weights = np.asarray(self.weights, dtype=float)
            if weights.shape != (len(named),) or not np.isfinite(weights).all() or not weights.any():
                raise ValueError(
                    f"weights must be {len(named)} finite numbers, one per descriptor, not all 0, got {self.weights}."
                )
        self.poolers_ = [(name, clone(pooler)) for name, pooler in named]
        for (_, pooler), own, signs in zip(self.poolers_, channels, signed, strict=True):
            pooler._settle(signs)
            pooler._start(own)

    def _threads_of(self, pooler: Any, batches: tuple[Batch, ...]) -> AbstractContextManager:
        """Give one part its number of threads; where no part takes several, the pass has seen to it."""
        return one_thread(batches[0].maps, unless=pooler._several_threads or not self._several_threads)

    def _begin(self, X: Any) -> list:
        return [pooler._begin(X) if pooler._learns else None for _, pooler in self.poolers_]

    def _update(self, state: list, batches: tuple[Batch, ...]) -> None:
        for place, (_, pooler) in enumerate(self.poolers_):
            own = self._shared_batches(batches, place)
            with self._threads_of(pooler, own):
                if state[place] is not None:
                    pooler._update(state[place], own)
                elif not hasattr(pooler, "_n_features_out"):
                    # it learns nothing, and is fitted by a look at one map
                    pooler._n_features_out = n_columns(pooler._describe(head_of(own)))

    def _finish(self, state: list, X: Any) -> list | None:
        following = [
            None if own is None else pooler._finish(own, X)
            for (_, pooler), own in zip(self.poolers_, state, strict=True)
        ]
        if any(own is not None for own in following):
            return following
        self._n_features_out = self._combined_length()
        return None

    def _combined_length(self) -> int:
        """Return the length of the result, or raise if the parts do not fit together."""
        lengths = {name: pooler._n_features_out for name, pooler in self.poolers_}
        if self.combine == "concat":
            return sum(lengths.values())
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"{type(self).__name__}: combine={self.combine!r} needs descriptors of equal length, got {lengths}."
            )
        return next(iter(lengths.values()))

    def _describe(self, batches: tuple[Batch, ...]) -> Any:
        parts: list[torch.Tensor] = []
        counts: list[np.ndarray | None] = []  # rows of each image; None for one
        for place, (_, pooler) in enumerate(self.poolers_):
            own = self._shared_batches(batches, place)
            with self._threads_of(pooler, own):
                part = pooler._describe(own)
            part, count = part if isinstance(part, RegionRows) else (part, None)
            pooler._n_features_out = part.shape[1]  # a part that learns nothing is fitted by this
            part = l2(part) if self.norm == "l2" else part
            parts.append(part if self.weights is None else float(self.weights[place]) * part)
            counts.append(count)
        self._combined_length()
        if self.combine == "regions":
            return side_by_side(parts, counts, len(batches[0].indices))
        alike = self._one_number_of_regions(counts, batches[0].indices)
        rows = torch.cat(parts, dim=1) if self.combine == "concat" else self._merge(torch.stack(parts))
        return rows if alike is None else RegionRows(rows, alike)

    def _one_number_of_regions(
        self, counts: list[np.ndarray | None], indices: np.ndarray
    ) -> np.ndarray | None:
        """Return the rows of each image, of all parts alike, or None where no part gives region sets."""
        if all(count is None for count in counts):
            return None
        table = np.stack([np.ones(len(indices), dtype=int) if count is None else count for count in counts])
        unlike = np.flatnonzero((table != table[0]).any(axis=0))
        if len(unlike):
            numbers = {name: int(n) for (name, _), n in zip(self.poolers_, table[:, unlike[0]], strict=True)}
            raise ValueError(
                f"Entry {indices[unlike[0]]}: {type(self).__name__} with combine={self.combine!r} needs as many "
                f"regions from each part, got {numbers}; PoolerFusion with combine='regions' takes any numbers."
            )
        return table[0]


def side_by_side(parts: list[torch.Tensor], counts: list[np.ndarray | None], n_images: int) -> RegionRows:
    """Make one region set per image of the rows of all parts, in the order of the parts.

    Parameters
    ----------
    parts : list of tensors of shape (rows, d)
        Descriptors of each part, image after image.
    counts : list of ndarrays of shape (n_images,), or None
        Rows of each image in each part; None for one.
    n_images : int
        Images of the batch.
    """
    if all(count is None for count in counts):
        return RegionRows(torch.stack(parts, dim=1).flatten(0, 1), np.full(n_images, len(parts)))
    table = np.stack([np.ones(n_images, dtype=int) if count is None else count for count in counts], axis=1)
    # rows as they come, part after part, have these places when image follows image
    starts = np.cumsum(table.ravel()).reshape(table.shape) - table
    places = [ragged_arange(start, count) for start, count in zip(starts.T, table.T, strict=True)]
    order = torch.from_numpy(np.argsort(np.concatenate(places)))
    rows = torch.cat(parts)
    return RegionRows(rows[order.to(rows.device)], table.sum(axis=1))
