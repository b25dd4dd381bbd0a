"""Centres of local descriptors: learn them, find the nearest, sum the residuals to it."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans

from ._local_descriptors import BLOCK_NUMBERS


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
    """Return the size below which the difference of a unit vector and a fitted centre is only rounding."""
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
