"""The spec of a method: the four terms that make its descriptor, and the pooler that is one spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from ..._linalg import l2
from .._engine._base import BasePooler
from .._engine._batches import Batch, n_entries
from .._engine._numbers import check_nonnegative
from .._engine._per_cell import per_cell
from .._engine._signs import RECTIFY, signs_of
from ._boxes import BoxesMixin
from ._reductions import roots_of_negatives, with_signs
from ._region_whitening import RegionWhitening


@dataclass(frozen=True)
class Spec:
    """The terms of one method, resolved to functions.

    Attributes
    ----------
    weights : callable or None
        maps (N, K, H, W) -> (spatial (N or 1, H, W) or None, channel (N, K) or None).
    regions : callable
        (height, width) -> boxes (R, 4).
    reduce : callable
        (maps, boxes, spatial) -> (N, R, K).
    region_norm : {"l2", None}
        What happens to each region's vector.
    needs_nonnegative : bool
        Whether the weights have no meaning for negative activations, which are an error then unless rectified. Of
        the reduction its exponents tell.
    """

    weights: Callable | None
    regions: Callable
    reduce: Callable
    region_norm: str | None = None
    needs_nonnegative: bool = False


def region_vectors(maps: torch.Tensor, spec: Spec) -> torch.Tensor:
    """Return the weighted, normalised vector of each region, before they are summed.

    ``normalise_r(channel_k * REDUCE over cells p in r of spatial_p * x_kp)``: the channel weight stands inside
    the region's normalisation, as Liao et al. (2022) have it; without one the place makes no difference.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    spec : Spec
        The method.

    Returns
    -------
    vectors : tensor of shape (N, R, K)
        A region without activation is zero.
    """
    spatial, channel = (None, None) if spec.weights is None else spec.weights(maps)
    vectors = spec.reduce(maps, spec.regions(*maps.shape[2:]), spatial)
    if channel is not None:
        vectors = vectors * channel[:, None, :].to(vectors.dtype)
    return l2(vectors) if spec.region_norm == "l2" else vectors


class SpecPooler(BoxesMixin, BasePooler):
    """A pooler that is one spec of the grammar; subclasses give ``_spec()``."""

    _parameter_constraints: dict = {**RECTIFY}
    # Presets without region whitening have no such parameters.
    whiten: Any = False
    n_components: Any = None

    def _spec(self) -> Spec:
        raise NotImplementedError

    def _settled_spec(self) -> Spec:
        """Return the spec for the maps of fit: with ``rectify="auto"`` power means of signed maps keep signs."""
        spec = self._spec()
        if self.rectify == "auto" and not self._rectifies():
            return replace(spec, reduce=with_signs(spec.reduce))
        return spec

    def _region_boxes(self, height: int, width: int) -> np.ndarray:
        return self._spec().regions(height, width)

    def cell_weights(self, X: Any) -> list[np.ndarray]:
        """Tell how much each cell of the maps weighs. Needs no fit.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps.

        Returns
        -------
        weights : list of n ndarrays of shape (H_i, W_i)
            The spatial weights by which the cells are multiplied.

        Raises
        ------
        ValueError
            If the method has no spatial weights: all cells weigh alike. Empty input, wrong rank, NaN or infinity: the
            entry is named.

        Examples
        --------
        CroW's weights are the root of the normalised response:

        >>> import numpy as np
        >>> from skretrieval.pooling import CroWPooler
        >>> maps = np.array([[[[9.0, 0.0], [16.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])
        >>> CroWPooler().cell_weights(maps)[0].round(3)
        array([[0.7  , 0.   ],
               [0.934, 0.   ]])
        """
        self._validate_params()
        self._check_parameters()
        if self._asks_signs and "rectify_" not in self.__dict__:
            looking = clone(self)
            looking._settle(signs_of(X, False))
            return looking.cell_weights(X)
        weights = self._spec().weights

        def spatial(batch: Batch) -> torch.Tensor:
            cells = None if weights is None else weights(self._maps(batch))[0]
            if cells is None:
                raise ValueError(f"{self!r} weighs all cells alike.")
            return cells

        return per_cell(X, self.__dict__.get("_channels"), spatial)

    @property
    def _learns(self) -> bool:
        return bool(self.whiten)

    def _begin(self, X: Any) -> RegionWhitening:
        return RegionWhitening()

    def _update(self, state: RegionWhitening, batches: tuple[Batch, ...]) -> None:
        state.update(region_vectors(self._maps(batches[0]), self._settled_spec()))

    def _finish(self, state: RegionWhitening, X: Any) -> None:
        self.region_whitening_ = state.finish(self.n_components, n_entries(X), self.n_features_in_)
        self._n_features_out = len(self.region_whitening_.components)

    def _maps(self, batch: Batch) -> torch.Tensor:
        self._check_values(batch)
        return self._activations(batch)

    def _check_values(self, batch: Batch) -> None:
        if batch.nonnegative or self._rectifies():
            return
        spec = self._settled_spec()
        if spec.needs_nonnegative or roots_of_negatives(spec.reduce):
            check_nonnegative(batch, f"{type(self).__name__} with these parameters")

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        vectors = region_vectors(self._maps(batches[0]), self._settled_spec())
        if self.whiten:
            vectors = self.region_whitening_.apply(vectors)
        return vectors.sum(dim=1)
