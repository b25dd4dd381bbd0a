"""What all codebook poolers share: a sample, a codebook learned from it, descriptors aggregated with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from ..._linalg import l2_normalize, project
from .._engine._base import BasePooler
from .._engine._batches import BATCH_BYTES, Batch, iter_batches, n_entries
from .._engine._signs import RECTIFY
from .._grammar._salient_points import import_detector, packed, photographs_of
from ._local_descriptors import (
    BLOCK_NUMBERS,
    LocalDescriptors,
    local_axes,
    local_descriptors,
    salient_mask,
)
from ._sample import LocalSample


class CodebookPooler(BasePooler):
    """Learn a codebook from a sample of local descriptors, and aggregate those of each image with it.

    A subclass implements ``_learn_codebook(sample, rng)``, which sets its attributes and `_n_features_out`,
    ``_aggregate(cells, valid)``, a function of tensors (N, n, D) and (N, n) that returns (N, d), and
    ``_numbers(n_cells, n_local)``, the size of its largest intermediate result per image.
    """

    _parameter_constraints: dict = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_local": [Interval(Integral, 1, None, closed="left"), StrOptions({"all"}), None],
        "points": [StrOptions({"all", "grid", "hessian"})],
        "n_points": [Interval(Integral, 1, None, closed="left")],
        "sample_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        **RECTIFY,
    }
    _several_threads = True
    _learning_bytes = BATCH_BYTES  # detections run in threads over the photographs of a batch
    _exact = True  # aggregate in float64: round-off would be magnified by intra-normalisation and roots

    n_clusters: int
    n_local: Any
    points: str
    n_points: int
    sample_size: int
    random_state: Any
    rectify: bool | str

    @property
    def _learns(self) -> bool:
        return True

    @property
    def _upsample(self) -> int:
        return 1

    def _learn_codebook(self, sample: np.ndarray, rng: np.random.RandomState) -> None:
        raise NotImplementedError

    def _aggregate(self, cells: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _numbers(self, n_cells: int, n_local: int) -> int:
        return n_cells * (n_local + self.n_clusters)

    # ------------------------------------------------------------------ fit
    def _begin(self, X: Any) -> tuple[LocalSample, np.random.RandomState]:
        if self.points == "hessian":
            photographs_of(X)
            import_detector()
        rng = check_random_state(self.random_state)
        self.__dict__.pop("local_axes_", None)
        return LocalSample(self.sample_size, rng.randint(np.iinfo(np.int32).max)), rng

    def _update(self, state: tuple[LocalSample, np.random.RandomState], batches: tuple[Batch, ...]) -> None:
        for block in self._blocks(batches[0]):
            local = self._descriptors(block)
            state[0].add(block.indices, local.vectors, local.valid)

    def _finish(self, state: tuple[LocalSample, np.random.RandomState], X: Any) -> None:
        taken, rng = state
        sample = taken.finish()
        if len(sample) < self.n_clusters:
            raise ValueError(
                f"{type(self).__name__}: n_samples={len(sample)} local descriptors that are not zero, "
                f"but n_clusters={self.n_clusters} needs at least as many."
            )
        if self.n_local is not None:
            self.local_axes_ = local_axes(sample, self.n_local, n_entries(X))
            sample = l2_normalize(project(sample, self.local_axes_.mean, self.local_axes_.components))
        self._learn_codebook(sample, rng)

    # ------------------------------------------------------------------ describe
    def _blocks(self, batch: Batch) -> Iterator[Batch]:
        """Yield batches of rectified maps small enough to work on at once."""
        rectified = replace(batch, maps=self._activations(batch))
        maps = rectified.maps
        n_cells = maps.shape[2] * maps.shape[3] * self._upsample**2
        axes = self.__dict__.get("local_axes_")
        numbers = self._numbers(n_cells, maps.shape[1] if axes is None else len(axes.components))
        size = max(1, BLOCK_NUMBERS // max(numbers, n_cells * maps.shape[1]))
        for start in range(0, len(maps), size):
            yield rectified[start : start + size]

    def _descriptors(self, block: Batch) -> LocalDescriptors:
        """Return the l2-normalised columns (N, n, K) that are salient."""
        cells, valid = local_descriptors(block.maps, self._upsample)
        if self.points == "all":
            return LocalDescriptors(cells, valid)
        chosen = salient_mask(block, self.points, self.n_points, self._upsample)
        places, there = (torch.from_numpy(part).to(cells.device) for part in packed(chosen))
        cells = cells.gather(1, places[:, :, None].expand(-1, -1, cells.shape[2]))
        return LocalDescriptors(cells * there[:, :, None], valid.gather(1, places) & there, places)

    def _local(self, block: Batch) -> LocalDescriptors:
        """Return the descriptors (N, n, D) of maps."""
        exact = replace(block, maps=block.maps.double()) if self._exact else block
        local = self._descriptors(exact)
        if self.n_local is not None:
            local.vectors = self.local_axes_.apply(local.vectors)
        return local

    def _located(self, X: Any) -> Iterator[tuple[np.ndarray, LocalDescriptors, tuple[int, int]]]:
        """Yield the places of images in `X`, their local descriptors, and the height and width of their maps."""
        for (batch,) in iter_batches(X, self._channels):
            for block in self._blocks(batch):
                height, width = block.maps.shape[2:]
                yield block.indices, self._local(block), (height * self._upsample, width * self._upsample)

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        located = (self._local(block) for block in self._blocks(batches[0]))
        parts = [self._aggregate(local.vectors, local.valid) for local in located]
        return torch.cat(parts).to(batches[0].maps.dtype)
