"""The maths of convolutional kernel networks: patches, whitening, spherical k-means, kernel map, pooling.

Pure functions and modules over torch tensors on any device; `_kernel.py` reads photographs and calls them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# The elements of the kernel map, before it is pooled and subsampled, that may exist at one time (16 MiB of
# float32). Channels are independent of one another, so they can be made and pooled block by block; on a CPU that
# is also the fastest, as blocks of this size are reused by the allocator instead of mapped anew.
_BLOCK_ELEMENTS = 2**22


def pad_for_patches(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the border so that every cell is the centre of a `size` x `size` patch."""
    before, after = (size - 1) // 2, size // 2
    return functional.pad(maps, (before, after, before, after), mode="replicate")


def gather_patches(maps: torch.Tensor, size: int, cells: torch.Tensor) -> torch.Tensor:
    """Cut out the patches around given cells of one map.

    Parameters
    ----------
    maps : tensor of shape (C, H, W)
        One feature map or image.
    size : int
        Side of the patches.
    cells : long tensor of shape (n,)
        Row-major numbers of the central cells; an even side has its centre above and left of the middle.

    Returns
    -------
    patches : tensor of shape (n, C, size, size)
        The border is repeated where a patch reaches over it.
    """
    width = maps.shape[-1]
    padded = pad_for_patches(maps[None], size)[0]
    reach = torch.arange(size, device=maps.device)
    rows = (cells // width)[:, None, None] + reach[:, None]
    columns = (cells % width)[:, None, None] + reach
    return padded[:, rows, columns].movedim(0, 1).contiguous()


def normalise_patches(
    patches: torch.Tensor, center: bool, contrast: float, reference: float | None = None
) -> tuple[torch.Tensor, float]:
    """Remove the mean of each patch and divide by its contrast.

    With ``v(x)`` the mean square of a patch (after its mean is removed, channel by channel, where `center`) and
    ``v0`` the `reference`, a patch becomes ``x / sqrt(v(x) + contrast * v0)``. The second term keeps the noise of
    flat patches from being blown up; a flat patch becomes exactly 0 where `center`.

    Parameters
    ----------
    patches : tensor of shape (n, C, k, k)
        The patches.
    center : bool
        Whether to remove the mean of each channel of each patch.
    contrast : float
        Weight of the reference.
    reference : float, optional
        ``v0``; None takes the mean of ``v`` over the patches.

    Returns
    -------
    patches : tensor of shape (n, C, k, k)
        Normalised.
    reference : float
        The ``v0`` that was used.
    """
    if center:
        # the float64 mean of equal float32 numbers rounds to that number: flat patches become exactly 0
        means = patches.mean(dim=(2, 3), keepdim=True, dtype=torch.float64)
        patches = patches - means.to(patches.dtype)
    power = (patches * patches).mean(dim=(1, 2, 3))
    if reference is None:
        reference = float(power.mean(dtype=torch.float64))
    scale = torch.sqrt(power + contrast * reference)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return patches / scale[:, None, None, None], reference


def whitening(vectors: torch.Tensor, n_components: int | None, regularisation: float) -> torch.Tensor:
    """Learn the projection that makes patches white.

    ``W = diag((l_i + regularisation * mean(l))^(-1/2)) U^T`` with the eigenpairs (l_i, U_i) of the second moment
    ``E[x x^T]``, largest first. It is not centred, so that 0 stays 0. Dot products of whitened vectors, all that
    a kernel network uses, are those of ZCA whitening ``U W``, which differs by a rotation only.

    Parameters
    ----------
    vectors : tensor of shape (n, D)
        The patches as rows.
    n_components : int or None
        Rows of ``W``; None, or more than the rank, keeps the rank.
    regularisation : float
        Relative to the mean eigenvalue; damps the directions of little energy, which are mostly noise.

    Returns
    -------
    projection : tensor of shape (d, D)
        ``W``, d >= 1.

    Raises
    ------
    ValueError
        If all vectors are 0.
    """
    moment = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64)
    for rows in vectors.split(8192):  # float64 without a float64 copy of everything
        rows = rows.double()
        moment += rows.T @ rows
    values, axes = torch.linalg.eigh(moment / len(vectors))
    values, axes = values.flip(0), axes.flip(1)
    # The patches come from float32 arithmetic: what lies below its resolution is no direction of the data.
    rank = int((values > values[0] * vectors.shape[1] * torch.finfo(torch.float32).eps).sum())
    if values[0] <= 0 or rank == 0:
        raise ValueError("all patches are flat")
    kept = rank if n_components is None else min(n_components, rank)
    scale = (values[:kept] + regularisation * values.clamp_min(0).mean()).rsqrt()
    return (axes[:, :kept] * scale).T.to(vectors.dtype).contiguous()


def spherical_kmeans(
    vectors: torch.Tensor, n_clusters: int, rng: np.random.RandomState, n_iter: int = 10
) -> torch.Tensor:
    """Cluster unit vectors by cosine (spherical k-means).

    Starts from distinct vectors chosen at random and alternates ``a_i = argmax_j <z_j, x_i>`` and
    ``z_j = l2(sum_{a_i = j} x_i)``. A cluster that lost all its vectors starts anew from the vector that is
    farthest from its centre.

    Parameters
    ----------
    vectors : tensor of shape (n, d)
        Unit vectors, at least `n_clusters` of them distinct.
    n_clusters : int
        The number of centres.
    rng : RandomState
        Chooses the first centres.
    n_iter : int, default=10
        At most so many rounds; fewer when no vector changes its cluster.

    Returns
    -------
    centres : tensor of shape (n_clusters, d)
        Unit vectors.

    Raises
    ------
    ValueError
        If there are fewer distinct vectors than clusters.
    """
    _, first = np.unique(vectors.numpy(), axis=0, return_index=True)
    if len(first) < n_clusters:
        raise ValueError(f"{len(first)} distinct patches for {n_clusters} filters")
    # np.unique sorts its rows; the order of the patches themselves does not depend on rounding
    chosen = rng.choice(np.sort(first), n_clusters, replace=False)
    centres = vectors[torch.from_numpy(chosen)].clone()
    assigned: torch.Tensor | None = None
    for _ in range(n_iter):
        pairs = [(rows @ centres.T).max(dim=1) for rows in vectors.split(8192)]
        similarity = torch.cat([pair.values for pair in pairs])
        previous, assigned = assigned, torch.cat([pair.indices for pair in pairs])
        if previous is not None and torch.equal(previous, assigned):
            break
        sums = torch.zeros(centres.shape, dtype=torch.float64).index_add_(0, assigned, vectors.double())
        norms = sums.norm(dim=1)
        lost = norms < 1e-6  # nobody's centre; or, in theory, vectors that cancel out
        if lost.any():
            farthest = torch.argsort(similarity, stable=True)[: int(lost.sum())]
            sums[lost] = vectors[farthest].double()
            norms = sums.norm(dim=1)
        centres = (sums / norms[:, None]).to(vectors.dtype)
    return centres


def gaussian_taps(subsampling: int) -> torch.Tensor:
    """Return the ``2 s + 1`` taps of the Gaussian of standard deviation ``s / 2`` cells; they sum to 1."""
    offsets = torch.arange(-subsampling, subsampling + 1, dtype=torch.float64)
    taps = torch.exp(-2.0 * (offsets / subsampling) ** 2)
    return taps / taps.sum()


def gaussian_pool(maps: torch.Tensor, subsampling: int) -> torch.Tensor:
    """Average with Gaussian weights around every `subsampling`-th cell.

    At the border the weights of the cells that exist are scaled to sum to 1.

    Parameters
    ----------
    maps : tensor of shape (N, C, H, W)
        Any maps; non-negative ones stay so, constant ones stay constant.
    subsampling : int
        1 leaves the maps as they are.

    Returns
    -------
    pooled : tensor of shape (N, C, ceil(H / subsampling), ceil(W / subsampling))
        Cell (i, j) is centred on cell (i s, j s) of the input.
    """
    if subsampling == 1:
        return maps
    channels, height, width = maps.shape[1:]
    taps = gaussian_taps(subsampling).to(maps)
    weights = (
        torch.outer(taps, taps).expand(channels, 1, -1, -1).contiguous(memory_format=torch.channels_last)
    )
    pooled = functional.conv2d(maps, weights, stride=subsampling, padding=subsampling, groups=channels)
    present = [
        functional.conv1d(
            maps.new_ones(1, 1, side), taps[None, None], stride=subsampling, padding=subsampling
        )[0, 0]
        for side in (height, width)
    ]
    return pooled.div_(torch.outer(*present))


class KernelLayer(nn.Module):
    """One layer of a convolutional kernel network, with learned filters.

    For the patch around every cell: ``y = W x / sqrt(v(x) + contrast v0)`` (see `normalise_patches`,
    `whitening`), then channel k of the kernel map is ``||y|| exp(beta (<z_k, y> / ||y|| - 1))`` (0 where y = 0),
    then `gaussian_pool`.

    Parameters
    ----------
    projection : tensor of shape (d, C, k, k)
        ``W``.
    filters : tensor of shape (K, d)
        Unit vectors ``z_k``.
    beta : float
        Sharpness of the kernel.
    subsampling : int
        Of the pooling.
    center : bool
        Whether the mean of each channel of each patch is removed.
    contrast, reference : float
        Contrast normalisation.
    """

    projection: torch.Tensor
    filters: torch.Tensor

    def __init__(
        self,
        projection: torch.Tensor,
        filters: torch.Tensor,
        *,
        beta: float,
        subsampling: int,
        center: bool,
        contrast: float,
        reference: float,
    ):
        super().__init__()
        self.register_buffer("projection", projection)
        self.register_buffer("filters", filters)
        self.beta = beta
        self.subsampling = subsampling
        self.center = center
        self.floor = contrast * reference

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to non-negative (N, K, ceil(H / s), ceil(W / s))."""
        direction, norm = self._directions(maps)
        n, _, height, width = direction.shape
        block = max(1, _BLOCK_ELEMENTS // max(1, n * height * width))
        return torch.cat(
            [
                gaussian_pool(self._kernel_map(direction, norm, filters), self.subsampling)
                for filters in self.filters.split(block)
            ],
            dim=1,
        )

    def _directions(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whitened patches as unit vectors (N, d, H, W), 0 where flat, and their norms (N, 1, H, W)."""
        size = self.projection.shape[-1]
        # channels last is the layout in which all of this is fastest on a CPU (measured: 2 to 3 times)
        padded = pad_for_patches(maps, size).contiguous(memory_format=torch.channels_last)
        # A variance as a difference of squares cancels; float64, which Apple's MPS lacks, makes that harmless.
        exact = padded if padded.device.type == "mps" else padded.double()
        power = functional.avg_pool2d((exact * exact).mean(dim=1, keepdim=True), size, stride=1)
        projection = self.projection
        if self.center:
            projection = projection - projection.mean(dim=(2, 3), keepdim=True)
            means = functional.avg_pool2d(exact, size, stride=1)
            spread = power - (means * means).mean(dim=1, keepdim=True)
            flat = spread <= 64 * torch.finfo(exact.dtype).eps * power  # what is left is rounding
            power = spread.masked_fill(flat, 0.0)
        else:
            flat = power <= 0
        projected = functional.conv2d(padded, projection).masked_fill(flat, 0.0)
        power = power.to(projected.dtype)
        scale = torch.sqrt(power + self.floor)
        projected = projected / torch.where(scale > 0, scale, torch.ones_like(scale))
        norm = projected.norm(dim=1, keepdim=True)
        return projected / torch.where(norm > 0, norm, torch.ones_like(norm)), norm

    def _kernel_map(self, direction, norm, filters) -> torch.Tensor:
        bias = torch.full_like(filters[:, 0], -self.beta)
        return functional.conv2d(direction, self.beta * filters[:, :, None, None], bias).exp_().mul_(norm)


class KernelNetwork(nn.Sequential):
    """A chain of `KernelLayer`."""
