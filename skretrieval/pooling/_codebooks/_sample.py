"""A bounded sample of the local descriptors that pass by, from which a codebook is learned."""

from __future__ import annotations

import numpy as np
import torch


class LocalSample:
    """Uniform sample without replacement of the descriptors that pass by, in bounded memory.

    Every descriptor draws a number from a hash of the seed, its image and its cell, and those with the smallest
    numbers are kept. So the sample does not depend on how the images were put into batches, nor on their order
    of arrival.

    Parameters
    ----------
    size : int
        Descriptors to keep.
    seed : int
        Another seed gives another sample.
    """

    def __init__(self, size: int, seed: int):
        self.size = size
        self.seed = seed
        self.threshold = np.uint64(2**64 - 1)
        self.kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.n_kept = 0

    def add(self, indices: np.ndarray, cells: torch.Tensor, valid: torch.Tensor) -> None:
        """Offer the descriptors (N, n, K) of the images `indices` (N,), those that are `valid` (N, n)."""
        places = np.stack(np.broadcast_arrays(indices[:, None], np.arange(cells.shape[1])), axis=-1)
        seeds = _hash(np.uint64(self.seed) + places[..., 0].astype(np.uint64))
        keys = _hash(seeds ^ places[..., 1].astype(np.uint64))
        chosen = valid.cpu().numpy() & (keys <= self.threshold)
        picked = cells[torch.from_numpy(chosen).to(cells.device)]
        self.kept.append((keys[chosen], places[chosen], picked.cpu().numpy()))
        self.n_kept += len(picked)
        if self.n_kept > 2 * self.size:
            self._compact()

    def finish(self) -> np.ndarray:
        """Return the sample (n, K) in the order of images and cells.

        Raises
        ------
        ValueError
            If every cell was zero.
        """
        if self.n_kept == 0:
            raise ValueError(
                "Found no local descriptor to learn from: every cell of every feature map is zero."
            )
        self._compact()
        _, places, vectors = self.kept[0]
        return vectors[np.lexsort((places[:, 1], places[:, 0]))]

    def _compact(self) -> None:
        keys, places, vectors = (np.concatenate(parts) for parts in zip(*self.kept, strict=True))
        if len(keys) > self.size:
            smallest = np.argpartition(keys, self.size - 1)[: self.size]
            keys, places, vectors = keys[smallest], places[smallest], vectors[smallest]
            self.threshold = keys.max()
        self.kept, self.n_kept = [(keys, places, vectors)], len(keys)


def _hash(values: np.ndarray) -> np.ndarray:
    """Scatter 64-bit integers over their range (the finaliser of the SplitMix64 generator)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
