"""Batches of feature maps with their weights and candidate regions (Jeong et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from ..._linalg import StreamedAxes, l2
from .._engine._batches import Batch
from .._grammar._channel import sparsity
from .._grammar._salient_points import detections, photographs_of, salient_cells, salient_points, stacked
from ._candidate_regions import ImageRegions, candidate_regions, whole_region

_PIECE_BYTES = 128 * 2**20  # working memory of the images described together


@dataclass(frozen=True)
class RegionSettings:
    """How candidate regions are found: parameters of the pooler of the same names."""

    n_clusters: int
    points: str
    n_max: int
    n_min: int
    min_cells: int
    regions: str
    n_jobs: int | None

    @classmethod
    def of(cls, pooler: Any) -> RegionSettings:
        """Take them from a pooler."""
        return cls(**{field.name: getattr(pooler, field.name) for field in fields(cls)})

    @property
    def most(self) -> int:
        """The largest number of regions an image can have."""
        return 1 if self.regions == "whole" else 2**self.n_clusters


@dataclass
class Piece:
    """Images of one batch that are described together.

    Attributes
    ----------
    indices : ndarray of shape (N,)
        Their places in the sequence.
    maps : tensor of shape (N, K, H, W)
        Feature maps, rectified or not.
    spatial : tensor of shape (N, P), float64
        Spatial weights alpha: the response of each cell, normalised (Jeong et al. 2017, eq 1).
    channel : tensor of shape (N, K)
        Channel weights beta.
    masks : tensor of shape (N, M, P), dtype bool
        Cells of the regions; images with fewer regions are filled up with empty ones.
    counts : ndarray of shape (N,)
        Regions of each image.
    """

    indices: np.ndarray
    maps: torch.Tensor
    spatial: torch.Tensor
    channel: torch.Tensor
    masks: torch.Tensor
    counts: np.ndarray

    def valid(self, vectors: torch.Tensor) -> torch.Tensor:
        """Rows (sum of counts, d) of the regions that there are, of vectors (N, M, d)."""
        there = np.arange(vectors.shape[1]) < self.counts[:, None]
        return vectors[torch.from_numpy(there).to(vectors.device)]


@dataclass
class Gathered:
    """What a pass of the fit gathers.

    Attributes
    ----------
    axes : StreamedAxes
        Of the first-order region vectors for the local axes, or of the region vectors for the whitening.
    local : bool
        Which of them.
    masks : dict of int to ndarray
        Cells of the regions of each image, by its place, as packed bits: they are found in the first pass.
    kept : list of (indices, counts, rows)
        All region vectors, while they are few.
    """

    axes: StreamedAxes
    local: bool
    masks: dict[int, np.ndarray] = field(default_factory=dict)
    kept: list[tuple[np.ndarray, np.ndarray, torch.Tensor]] = field(default_factory=list)


def cut(batch: Batch, elements: int) -> Iterator[Batch]:
    """Cut a batch so that `elements` float64 numbers of working memory per image stay within bounds."""
    step = max(1, _PIECE_BYTES // (8 * elements))
    for low in range(0, len(batch.indices), step):
        yield batch[low : low + step]


def response_of(batch: Batch) -> torch.Tensor:
    """Sum the positive activations over channels (N, H, W), in float64: it decides about regions."""
    return batch.rectified.sum(dim=1, dtype=torch.float64)


def piece_of(
    batch: Batch, settings: RegionSettings, maps: torch.Tensor, known: dict[int, np.ndarray] | None
) -> Piece:
    """Return the images of a batch with their weights and regions.

    Parameters
    ----------
    batch : Batch
        Some maps.
    settings : RegionSettings
        How regions are found.
    maps : tensor of shape (N, K, H, W)
        Those of the batch that give the local descriptors, rectified or not; the weights and regions always follow
        positive activations.
    known : dict of int to ndarray, or None
        Regions of images by their place in the sequence, as packed bits, for a next pass. Those missing are found and
        added.
    """
    response = response_of(batch)
    n_cells = response[0].numel()
    if settings.regions == "whole":
        masks = np.ones((len(batch.indices), 1, n_cells), dtype=bool)
        counts = np.ones(len(masks), dtype=int)
    else:
        known = {} if known is None else known
        if not all(index in known for index in batch.indices):
            found = find_regions(batch, response.cpu().numpy(), settings)
            for index, own in zip(batch.indices, found, strict=True):
                known[index] = np.packbits(own.masks.reshape(-1, n_cells), axis=1)
        packed = [known[index] for index in batch.indices]
        counts = np.array([len(own) for own in packed])
        there = np.arange(counts.max()) < counts[:, None]
        masks = np.zeros((*there.shape, n_cells), dtype=bool)
        masks[there] = np.unpackbits(np.concatenate(packed), axis=1, count=n_cells)
    return Piece(
        indices=batch.indices,
        maps=maps,
        spatial=l2(response.flatten(1)),
        channel=sparsity(batch.rectified),
        masks=torch.from_numpy(masks).to(batch.maps.device),
        counts=counts,
    )


def find_regions(batch: Batch, response: np.ndarray, settings: RegionSettings) -> list[ImageRegions]:
    """Find the candidate regions of the images of a batch.

    Parameters
    ----------
    batch : Batch
        Some maps; the photographs of their source are read for ``points="hessian"``.
    response : ndarray of shape (N, H, W)
        Their response.
    settings : RegionSettings
        How regions are found.

    Returns
    -------
    regions : list of ImageRegions
        One entry per image.
    """
    height, width = response.shape[1:]
    if settings.regions == "whole":
        return [whole_region(height, width) for _ in batch.indices]
    if settings.points == "grid":
        sizes = np.tile([float(width), float(height)], (len(response), 1))
        points, valid = salient_cells(response, settings.n_min)
    else:
        detected, sizes = detections(photographs_of(batch.source), batch.indices, response, settings.n_jobs)
        points, valid = stacked(
            [
                salient_points(*image, settings.n_max, settings.n_min)
                for image in zip(response, detected, sizes, strict=True)
            ]
        )
    found = candidate_regions(response, points, valid, sizes, settings.n_clusters, settings.min_cells)
    return [
        regions._replace(points=own[there] / size)
        for regions, own, there, size in zip(found, points, valid, sizes, strict=True)
    ]
