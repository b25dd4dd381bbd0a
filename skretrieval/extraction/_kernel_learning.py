"""The learning of convolutional kernel networks: patches, whitening, spherical k-means.

Functions over torch tensors; `_kernel.py` reads photographs and calls them.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from .._io import new_hash
from ._kernel_network import pad_for_patches


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
        raise ValueError("all patches are flat.")
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
        raise ValueError(f"{len(first)} distinct patches for {n_clusters} filters are too few.")
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


@torch.inference_mode()
def learn_layer(patches: torch.Tensor, setting: dict, rng: np.random.RandomState) -> dict:
    """Learn whitening and filters from raw patches (n, C, k, k); always on the CPU, in float32."""
    normalised, reference = normalise_patches(patches, setting["center"], setting["contrast"])
    vectors = normalised.flatten(start_dim=1)
    projection = whitening(vectors, setting["n_components"], setting["reg"])
    white = vectors @ projection.T
    norms = white.norm(dim=1)
    directions = white[norms > 0] / norms[norms > 0, None]
    filters = spherical_kmeans(directions, setting["n_channels"], rng)
    return {
        "projection": projection.reshape(-1, *patches.shape[1:]).numpy(),
        "filters": filters.numpy(),
        "beta": setting["beta"],
        "subsampling": setting["subsampling"],
        "center": setting["center"],
        "contrast": setting["contrast"],
        "reference": reference,
    }


def layers_fingerprint(learned: list[dict]) -> str:
    """Hash what was learned and set for each layer."""
    digest = new_hash(16)
    for layer in learned:
        numbers = {name: value for name, value in layer.items() if not isinstance(value, np.ndarray)}
        digest.update(json.dumps(numbers, sort_keys=True).encode())
        for name in ("projection", "filters"):
            digest.update(f"{name}{layer[name].shape}".encode() + layer[name].tobytes())
    return digest.hexdigest()
