"""Spatial weights: one weight per cell. Functions of maps (N, K, H, W) that return (N, H, W), or (1, H, W)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage

from ..._linalg import l2, lengths, out_of_range
from ._channel import selected_channels, sparsity_deviation

_ROUND_OFF = 1e-12  # relative: a map of equal cells comes out of a float64 sum this equal


def center_prior(maps: torch.Tensor) -> torch.Tensor:
    """Gaussian around the centre of the map; sigma is a third of the way to the closest border (SPoC).

    ``exp(-((i - (H-1)/2)^2 + (j - (W-1)/2)^2) / (2 sigma^2))`` with ``sigma = min(H, W) / 6``.

    References
    ----------
    Babenko, Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015, eq 5.
    """
    height, width = maps.shape[2:]
    i = torch.arange(height, dtype=torch.float64, device=maps.device) - (height - 1) / 2
    j = torch.arange(width, dtype=torch.float64, device=maps.device) - (width - 1) / 2
    sigma = min(height, width) / 6
    gaussian = torch.exp(-(i[:, None] ** 2 + j**2) / (2 * sigma**2))
    return gaussian[None].to(maps.dtype)


def response(maps: torch.Tensor) -> torch.Tensor:
    """Sum over channels, divided by its Euclidean norm; zero for a zero map.

    References
    ----------
    Jeong, Choo, Seo, Cho, "Regional deep feature aggregation for image retrieval", ICASSP 2017, eq 1.
    """
    return l2(_total(maps).flatten(1)).view(len(maps), *maps.shape[2:]).to(maps.dtype)


def crow(maps: torch.Tensor) -> torch.Tensor:
    """Square root of the normalised response (CroW with alpha = beta = 2).

    References
    ----------
    Kalantidis, Mellina, Osindero, "Cross-dimensional weighting for aggregated deep convolutional features",
    ECCV Workshops 2016, section 4.1.

    Liao, Fan, Zheng, Lin, Cao, "Image retrieval based on the weighted and regional integration of CNN features", KSII
    Transactions on Internet and Information Systems 16(3):894-907, 2022, section 3.2, eqs 2-3.
    """
    return response(maps).sqrt()


def activation_norm(maps: torch.Tensor) -> torch.Tensor:
    """Euclidean norm over channels: how strongly a cell responds, in whatever channels.

    With ``reduce="sum"`` the weighted SPoC of HOW, without its smoothing and reduction of the local descriptors (both
    of which need training). Defined for maps with negative activations, too.

    The weighted sums are of second degree in the activations. In maps whose largest norm lies beyond the cube root of
    the float's range (about 1e-13 to 7e12 in float32) they would over- or underflow: there the norms are relative to
    the largest one, and the descriptor is that of the scaled map, as good after l2-normalisation.

    References
    ----------
    Tolias, Jenicek, Chum, "Learning and aggregating deep local descriptors for instance-level recognition", ECCV
    2020, section 3.1.
    """
    norms = lengths(maps, dim=1)
    outside = out_of_range(norms)
    if bool(outside.any()):
        largest = norms.flatten(1).amax(dim=1)[:, None, None]
        norms = torch.where(outside[:, None, None] & (largest > 0), norms / largest, norms)
    return norms


def scda(maps: torch.Tensor, connectivity: int = 4) -> torch.Tensor:
    """Mask of the main object: 1 in the largest connected part of the cells above the mean, else 0 (SCDA).

    Cells take part whose sum over channels exceeds its mean over the map. Of parts of equal size, the one is taken
    whose first cell, row by row, comes first. A map in which no cell exceeds the mean, one of equal cells, is kept
    as a whole.

    The descriptor of the paper is the mean and the maximum over these cells side by side, each l2-normalised:
    two poolers with ``spatial="scda"``, one with ``reduce="mean"`` and one with ``reduce="max"``. The mean of a
    `WeightedPooler` divides by all cells instead of those of the mask, a factor that the normalisation removes; its
    maximum counts the cells left out as 0, which makes no difference for maps that are not negative.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    connectivity : {4, 8}, default=4
        Whether cells that touch at a corner only are connected (8) or not.

    Returns
    -------
    mask : tensor of shape (N, H, W)
        Of 0 and 1. Found on the host.

    References
    ----------
    Wei, Luo, Wu, Zhou, "Selective convolutional descriptor aggregation for fine-grained image retrieval", IEEE
    Transactions on Image Processing 26(6), 2017, sections III-B and III-C.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}.")
    total = _total(maps)
    scale = total.abs().amax(dim=(1, 2), keepdim=True)
    above = total - total.mean(dim=(1, 2), keepdim=True) > _ROUND_OFF * scale
    # all maps are labelled at once: in the neighbourhood of a cell there is no cell of another map
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = ndimage.generate_binary_structure(2, connectivity // 4)
    labels = ndimage.label(above.cpu().numpy(), structure)[0].reshape(len(maps), -1)
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0  # of the cells that are not above the mean; where there are no others, they are taken
    first_of_largest = sizes[labels].argmax(axis=1)
    mask = labels == np.take_along_axis(labels, first_of_largest[:, None], axis=1)
    return torch.from_numpy(mask).to(maps).view_as(total)


def adaptive_gaussian(maps: torch.Tensor, alpha: float = 0.1, sigma_scale: float = 0.25) -> torch.Tensor:
    """Gaussian around the strongest cells (aGaussian).

    The centre is the mean place of the cells whose sum over channels reaches the ``ceil(alpha * H * W)``-th largest,
    all ties included: taking the first cells would pull the centre of a map of equal cells to its top.
    ``sigma = sigma_scale * max(H, W)`` is by default half of the way from the centre of the map to its farther border.
    With ``alpha=1`` the centre is that of the map (nGaussian).

    References
    ----------
    Wang, Zhu, Pang, Li, Li, Qian, "Adaptive co-weighting deep convolutional features for object retrieval", ICME
    2018, section 2.2, eqs 1-3.
    """
    height, width = maps.shape[2:]
    n_cells = height * width
    total = _total(maps).flatten(1)
    n_top = max(1, math.ceil(alpha * n_cells - 1e-9))
    threshold = total.topk(n_top, dim=1).values[:, -1:]
    strong = (total >= threshold).double().unflatten(1, (height, width))
    i = torch.arange(height, dtype=torch.float64, device=maps.device)
    j = torch.arange(width, dtype=torch.float64, device=maps.device)
    count = strong.sum(dim=(1, 2))
    at_i = (strong.sum(dim=2) @ i / count)[:, None]
    at_j = (strong.sum(dim=1) @ j / count)[:, None]
    sigma = sigma_scale * max(height, width)
    # the exponential factorises: one Gaussian along each side
    rows = torch.exp(-((i - at_i) ** 2) / (2 * sigma**2))
    cols = torch.exp(-((j - at_j) ** 2) / (2 * sigma**2))
    return (rows[:, :, None] * cols[:, None, :] / (2 * math.pi * sigma**2)).to(maps.dtype)


def saliency(
    maps: torch.Tensor,
    n_channels: float = 0.3,
    rho: float = 100.0,
    saliency_norm: str = "sum",
    eps: float = 1e-6,
    channel_combine: str = "product",
) -> torch.Tensor:
    """Weighted selected channels plus their global contrast.

    ``M = sqrt(Sal / ||Sal||)`` with ``Sal`` the channel-weighted sum of the channels that vary most, and
    ``S = M + rho * Sw'`` where ``Sw`` sums each cell's distance to every other cell in the grey levels of M.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Non-negative feature maps.
    n_channels : float, default=0.3
        Fraction of channels taken: those of largest standard deviation.
    rho : float, default=100
        Weight of the global contrast.
    saliency_norm : {"sum", "none", "l2", "max", "minmax"}, default="sum"
        Normalisation of Sw before it is added. The paper prints none, with which its own table over rho
        cannot arise; dividing by the sum is inferred.
    eps : float, default=1e-6
        Guard of the logarithm in the channel weights.
    channel_combine : {"product", "sum"}, default="product"
        How sparsity and deviation make the channel weight: as the paper's eq 16 prints it, or as the text
        before it says.

    Returns
    -------
    weights : tensor of shape (N, H, W)
        Non-negative.

    References
    ----------
    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, section 3.3, eqs 18-22.
    """
    weights, deviation = sparsity_deviation(maps, eps, channel_combine, return_deviation=True)
    return saliency_from(maps, weights, deviation, n_channels, rho, saliency_norm)


def saliency_from(
    maps: torch.Tensor,
    weights: torch.Tensor,
    deviation: torch.Tensor,
    n_channels: float,
    rho: float,
    saliency_norm: str,
) -> torch.Tensor:
    """Compute :func:`saliency` with the channel weights and deviations (N, K) at hand."""
    # in float64: the contrast below stretches whatever differs between cells, round-off included
    selected = _combined(maps, weights, selected_channels(deviation, n_channels))  # eq 18
    empty = selected.amax(dim=(1, 2)) == 0
    if bool(empty.any()):
        # the chosen channels are zero although others may not be: all deviations tie at 0
        every = torch.arange(maps.shape[1], device=maps.device).expand(int(empty.sum()), -1)
        selected[empty] = _combined(maps[empty], weights[empty], every)
    map_ = l2(selected.flatten(1)).view_as(selected).sqrt()  # eq 19
    low, high = map_.amin(dim=(1, 2), keepdim=True), map_.amax(dim=(1, 2), keepdim=True)
    # eqs 20 and 21: the contrast of 255 (M - min) / (max - min) is that of M, stretched
    stretch = torch.where(high - low > _ROUND_OFF * high, 255 / (high - low), 0)
    contrast = stretch * global_contrast(map_.flatten(1)).view_as(map_)
    return (map_ + rho * _normalised(contrast, saliency_norm)).to(maps.dtype)  # eq 22


def global_contrast(values: torch.Tensor) -> torch.Tensor:
    """Sum of distances from each value to all values of its row, in O(n log n) (Zhao et al. 2021, eq 21).

    With the values ascending and gaps ``g_t = v_t - v_{t-1}``, each gap is crossed by ``t`` pairs from the left and
    ``n - t`` from the right; sums of non-negative numbers only, so nothing cancels.

    Parameters
    ----------
    values : tensor of shape (N, n)
        Any real values.

    Returns
    -------
    contrast : tensor of shape (N, n)
        ``sum_q |v_i - v_q|``.
    """
    n = values.shape[1]
    ascending, order = values.sort(dim=1)
    gaps = torch.diff(ascending, dim=1)
    place = torch.arange(1, n, dtype=values.dtype, device=values.device)
    zero = values.new_zeros(len(values), 1)
    left = torch.cat([zero, torch.cumsum(place * gaps, dim=1)], dim=1)
    right = torch.cat([torch.cumsum(((n - place) * gaps).flip(1), dim=1).flip(1), zero], dim=1)
    return torch.empty_like(values).scatter_(1, order, left + right)


def _total(maps: torch.Tensor) -> torch.Tensor:
    """Sum over the channels, (N, H, W) in float64, of which cells of equal activations get equal values.

    The channels are folded in two three times first: a sum of float32 maps that converts as it goes, or a matrix
    product, is slower, and the product rounds differently from cell to cell.
    """
    for _ in range(3):
        half = maps.shape[1] // 2
        if maps.shape[1] % 2 == 0:
            maps = maps[:, :half] + maps[:, half:]
    return maps.double().sum(dim=1)


def _combined(maps: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Add the chosen channels (N, n), weighted, in float64: (N, H, W)."""
    start = torch.arange(len(maps), device=maps.device)[:, None] * maps.shape[1]
    cells = maps.flatten(2).flatten(0, 1).index_select(0, (chosen + start).flatten())
    cells = cells.double().view(*chosen.shape, -1)
    factors = weights.double().gather(1, chosen)
    return torch.bmm(factors[:, None, :], cells).view(len(maps), *maps.shape[2:])


def _normalised(contrast: torch.Tensor, how: str) -> torch.Tensor:
    if how == "none":
        return contrast
    low = (
        contrast.amin(dim=(1, 2), keepdim=True) if how == "minmax" else torch.zeros_like(contrast[:, :1, :1])
    )
    scale = {
        "sum": lambda: contrast.sum(dim=(1, 2), keepdim=True),
        "l2": lambda: torch.linalg.vector_norm(contrast, dim=(1, 2), keepdim=True),
        "max": lambda: contrast.amax(dim=(1, 2), keepdim=True),
        "minmax": lambda: contrast.amax(dim=(1, 2), keepdim=True) - low,
    }[how]()
    return torch.where(scale > 0, (contrast - low) / torch.where(scale > 0, scale, 1), 0)


#: Spatial terms of the grammar: functions (maps, **params) -> (N, H, W) or (1, H, W).
SPATIAL: dict[str, Callable[..., torch.Tensor]] = {
    "center_prior": center_prior,
    "response": response,
    "crow": crow,
    "saliency": saliency,
    "adaptive_gaussian": adaptive_gaussian,
    "activation_norm": activation_norm,
    "scda": scda,
}
