"""Dense local descriptors, the columns of a feature map, and what all codebook poolers share.

A column (one cell, all channels) is l2-normalised, optionally PCA-whitened and l2-normalised again. Cells without
any activation have no direction and are no descriptors: they are left out of fitting and of aggregation. So are,
with ``points`` other than "all", the cells that are not salient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from ..._linalg import (
    WhiteningAxes,
    check_rank,
    l2,
    l2_normalize,
    principal_axes,
    project,
)
from .._engine._base import BasePooler
from .._engine._batches import BATCH_BYTES, Batch, n_entries
from .._grammar._salient_points import (
    detections,
    hit_cells,
    import_detector,
    packed,
    photographs_of,
    strongest,
)

#: Numbers in the largest intermediate tensor of an aggregation (128 MiB in float64).
BLOCK_NUMBERS = 2**24


class CodebookPooler(BasePooler):
    """Learn a codebook from a sample of local descriptors, and aggregate those of each image with it.

    A subclass implements ``_learn_codebook(sample, rng)``, which sets its attributes and `_n_features_out`,
    ``_aggregate(cells, valid)``, a function of tensors (N, n, D) and (N, n) that returns (N, d), and
    ``_numbers(n_cells, n_local)``, the size of its largest intermediate result per image. One with visual words says
    where a descriptor belongs, for its own use and for displays: ``_words(cells)`` gives the nearest (N, n), or
    ``_shares(cells)`` the share of each (N, n, k).
    """

    _parameter_constraints: dict = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_local": [Interval(Integral, 1, None, closed="left"), StrOptions({"all"}), None],
        "points": [StrOptions({"all", "grid", "hessian"})],
        "n_points": [Interval(Integral, 1, None, closed="left")],
        "sample_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "rectify": ["boolean"],
    }
    _learning_bytes = BATCH_BYTES  # detections run in threads over the photographs of a batch
    _exact = True  # aggregate in float64: round-off would be magnified by intra-normalisation and roots

    n_clusters: int
    n_local: Any
    points: str
    n_points: int
    sample_size: int
    random_state: Any
    rectify: bool

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
            state[0].add(block.indices, *self._descriptors(block))

    def _finish(self, state: tuple[LocalSample, np.random.RandomState], X: Any) -> None:
        taken, rng = state
        sample = taken.finish()
        if len(sample) < self.n_clusters:
            raise ValueError(
                f"{type(self).__name__}: n_samples={len(sample)} local descriptors that are not zero, "
                f"but n_clusters={self.n_clusters} needs at least as many"
            )
        if self.n_local is not None:
            self.local_axes_ = local_axes(sample, self.n_local, n_entries(X))
            sample = l2_normalize(project(sample, self.local_axes_.mean, self.local_axes_.components))
        self._learn_codebook(sample, rng)

    # ------------------------------------------------------------------ describe
    def _blocks(self, batch: Batch) -> Iterator[Batch]:
        """Yield batches of rectified maps small enough to work on at once."""
        maps = batch.rectified if self.rectify else batch.maps
        n_cells = maps.shape[2] * maps.shape[3] * self._upsample**2
        axes = self.__dict__.get("local_axes_")
        numbers = self._numbers(n_cells, maps.shape[1] if axes is None else len(axes.components))
        size = max(1, BLOCK_NUMBERS // max(numbers, n_cells * maps.shape[1]))
        for start in range(0, len(maps), size):
            images = slice(start, start + size)
            yield Batch(batch.indices[images], maps[images], batch.nonnegative, batch.source)

    def _descriptors(self, block: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the l2-normalised columns (N, n, K) that are salient, and which of them (N, n) are any."""
        cells, valid = local_descriptors(block.maps, self._upsample)
        if self.points == "all":
            return cells, valid
        chosen = salient_mask(block, self.points, self.n_points, self._upsample)
        places, there = (torch.from_numpy(part).to(cells.device) for part in packed(chosen))
        cells = cells.gather(1, places[:, :, None].expand(-1, -1, cells.shape[2]))
        return cells * there[:, :, None], valid.gather(1, places) & there

    def _local(self, block: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the descriptors (N, n, D) of maps, and which of them (N, n) are any."""
        exact = replace(block, maps=block.maps.double()) if self._exact else block
        cells, valid = self._descriptors(exact)
        if self.n_local is not None:
            cells = self.local_axes_.apply(cells)
        return cells, valid

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        parts = [self._aggregate(*self._local(block)) for block in self._blocks(batches[0])]
        return torch.cat(parts).to(batches[0].maps.dtype)


def local_descriptors(maps: torch.Tensor, upsample: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the l2-normalised columns of feature maps.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    upsample : int, default=1
        Enlarge the maps bilinearly by this factor first (cells keep their place in the field of view).

    Returns
    -------
    cells : tensor of shape (N, n, K)
        n = H * W * upsample ** 2 descriptors, row by row; unit vectors, or zero.
    valid : bool tensor of shape (N, n)
        False where the cell has no activation.
    """
    if upsample > 1:
        # divided by the largest first: no scale of the activations vanishes between neighbours
        largest = maps.abs().amax(dim=(1, 2, 3), keepdim=True)
        maps = _enlarged(maps / torch.where(largest > 0, largest, 1), upsample)
    cells = l2(maps.flatten(2).transpose(1, 2).contiguous())
    return cells, (cells != 0).any(dim=2)


def _enlarged(maps: torch.Tensor, factor: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)


def salient_mask(batch: Batch, points: str, n_points: int, upsample: int = 1) -> np.ndarray:
    """Mark the salient cells of each map. Decided on the host, in float64.

    Parameters
    ----------
    batch : Batch
        The maps; ``points="hessian"`` reads the photographs of its source.
    points : {"grid", "hessian"}
        The cells of largest response (sum of positive activations), what ties with the last of them included; or
        those in which detections lie (see :func:`hit_cells`).
    n_points : int
        Cells, or detections, that count.
    upsample : int, default=1
        Factor by which the maps are enlarged.

    Returns
    -------
    chosen : ndarray of shape (N, n), dtype bool
        At least one per map, in the order of :func:`local_descriptors`.
    """
    total = batch.maps.clamp_min(0).sum(dim=1, keepdim=True, dtype=torch.float64)
    response = (total if upsample == 1 else _enlarged(total, upsample))[:, 0].cpu().numpy()
    if points == "grid":
        return strongest(response.reshape(len(response), -1), n_points)
    source = photographs_of(batch.source)
    n_jobs = source.extractor.n_jobs  # threads, as many as read the photographs for the network
    n_jobs = min(8, cpu_count()) if n_jobs is None else n_jobs
    images = zip(response, *detections(source, batch.indices, response, n_jobs), strict=True)
    return np.stack([hit_cells(*image, n_points).reshape(-1) for image in images])


def local_axes(sample: np.ndarray, n_local: int | str, n_images: int | None = None) -> WhiteningAxes:
    """Return the PCA-whitening of sampled local descriptors (rank-safe).

    Parameters
    ----------
    sample : ndarray of shape (n, K)
        Local descriptors.
    n_local : int or "all"
        Dimensions to keep; "all" keeps as many as the sample has.
    n_images : int, default=None
        Images that they come from, for the messages; None for one each.

    Raises
    ------
    ValueError
        If all descriptors are equal.
    """
    wanted = None if n_local == "all" else int(n_local)
    axes = principal_axes(sample, wanted)
    n_images = len(sample) if n_images is None else n_images
    check_rank(axes, "n_local", wanted, n_images, sample.shape[1], "local descriptors")
    return axes.whitening()


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
                "Found no local descriptor to learn from: every cell of every feature map is zero"
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


def k_means(sample: np.ndarray, n_clusters: int, rng: np.random.RandomState) -> np.ndarray:
    """Return the centres (n_clusters, D) of k-means, started by k-means++ once."""
    seed = rng.randint(np.iinfo(np.int32).max)
    return KMeans(n_clusters, n_init=1, random_state=seed).fit(sample).cluster_centers_


def nearest(cells: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Return the index of the nearest centre; the lowest one where distances tie.

    Distances come from one matrix product. Its round-off could decide between centres that are equally far, and
    would do so differently in batches of other sizes: such cells are looked at again in float64.

    Parameters
    ----------
    cells : tensor of shape (M, D)
        Unit vectors, or zero.
    centers : tensor of shape (k, D)
        Centres, of length 1 at most.

    Returns
    -------
    indices : int64 tensor of shape (M,)
        In 0 .. k - 1.
    """
    centers = centers.to(cells)
    found = torch.empty(len(cells), dtype=torch.int64, device=cells.device)
    size = max(1, BLOCK_NUMBERS // len(centers))
    for start in range(0, len(cells), size):
        rows = cells[start : start + size]
        halves = _half_distances(rows, centers)
        smallest, indices = halves.min(dim=1)
        tied = (halves <= smallest[:, None] + 64 * torch.finfo(cells.dtype).eps).sum(dim=1) > 1
        if bool(tied.any()):
            halves = _half_distances(rows[tied].double(), centers.double())
            indices[tied] = (halves <= halves.amin(dim=1, keepdim=True) + 1e-13).int().argmax(dim=1)
        found[start : start + size] = indices
    return found


def _half_distances(cells: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Half the squared distance to each centre, less what is the same for all: ``|c|^2 / 2 - <x, c>``."""
    return (centers * centers).sum(dim=1) / 2 - cells @ centers.T


def rounding(centers: np.ndarray) -> float:
    """Return below what the difference of a unit vector and a fitted centre is only rounding."""
    return 4 * float(np.finfo(centers.dtype).eps)


def aggregate_residuals(
    cells: torch.Tensor, assignment: torch.Tensor, centers: torch.Tensor, floor: float
) -> torch.Tensor:
    """Return ``V_c = sum_i a_ic (x_i - c)``, the weighted residuals of each centre (VLAD, NetVLAD).

    Parameters
    ----------
    cells : tensor of shape (N, n, D)
        Local descriptors.
    assignment : tensor of shape (N, n, k)
        Weights a_ic, zero for cells that are no descriptors.
    centers : tensor of shape (k, D)
        Centres.
    floor : float
        What is below ``floor * sum_i a_ic`` counts as zero: the rounding of the centres, which
        intra-normalisation would blow up to unit length.

    Returns
    -------
    residuals : tensor of shape (N, k, D)
        Raw sums.
    """
    totals = assignment.sum(dim=1)[:, :, None]
    residuals = assignment.transpose(1, 2) @ cells - totals * centers
    return torch.where(residuals.abs() > floor * totals, residuals, 0)
