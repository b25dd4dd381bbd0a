"""Dense local descriptors: the columns of a feature map, and which of them are salient.

A column (one cell, all channels) is l2-normalised, optionally PCA-whitened and l2-normalised again. Cells without
any activation have no direction and are no descriptors: they are left out of fitting and of aggregation. So are,
with ``points`` other than "all", the cells that are not salient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from joblib import cpu_count

from ..._linalg import WhiteningAxes, check_rank, l2, principal_axes
from .._engine._batches import Batch
from .._grammar._salient_points import detections, hit_cells, photographs_of, strongest

#: Numbers in the largest intermediate tensor of an aggregation (128 MiB in float64).
BLOCK_NUMBERS = 2**24


@dataclass
class LocalDescriptors:
    """The local descriptors of maps of equal shape.

    Attributes
    ----------
    vectors : tensor of shape (N, n, D)
        Unit vectors, or zero.
    valid : bool tensor of shape (N, n)
        Which of them are any.
    places : int64 tensor of shape (N, n), or None
        The cell of each, counted row by row, distinct within a map; None where descriptor p is that of cell p.
    """

    vectors: torch.Tensor
    valid: torch.Tensor
    places: torch.Tensor | None = None

    def over_cells(self, values: torch.Tensor, shape: tuple[int, int], fill: float) -> torch.Tensor:
        """Put a value per descriptor where its cell is.

        Parameters
        ----------
        values : tensor of shape (N, n)
            The values.
        shape : tuple of int
            Height and width of the maps in cells.
        fill : float
            Value of the cells that are no local descriptor.

        Returns
        -------
        cells : tensor of shape (N, height, width)
            Of the dtype of the values.
        """
        values = torch.where(self.valid, values, fill)
        if self.places is not None:
            cells = values.new_full((len(values), shape[0] * shape[1]), fill)
            values = cells.scatter_(1, self.places, values)
        return values.unflatten(1, shape)


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
