"""Channel weights: one weight per channel. Functions of maps (N, K, H, W) and spatial weights; return (N, K)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ._reductions import sum_cells
from ._regions import whole


def idf(amounts: torch.Tensor, eps: float) -> torch.Tensor:
    """Weigh rare channels up: ``log((K * eps + sum_h a_h) / (eps + a_k))``.

    Parameters
    ----------
    amounts : tensor of shape (N, K)
        Non-negative: how much of each channel there is.
    eps : float
        Guard; all amounts zero give the uniform weight log K.

    Returns
    -------
    weights : tensor of shape (N, K)
        Non-negative; zero when K = 1.

    References
    ----------
    Kalantidis, Mellina, Osindero, "Cross-dimensional weighting for aggregated deep convolutional features",
    ECCV Workshops 2016, section 4.2.

    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, eq 17, which
    prints no ``K * eps``; without it a map of equal cells would give the logarithm of 0.
    """
    return ((amounts.shape[1] * eps + amounts.sum(dim=1, keepdim=True)) / (eps + amounts)).log()


def sparsity(maps: torch.Tensor, spatial: torch.Tensor | None = None, eps: float = 1e-6) -> torch.Tensor:
    """Inverse frequency of the fraction of non-zero cells (CroW's channel weight).

    References
    ----------
    Kalantidis, Mellina, Osindero, "Cross-dimensional weighting for aggregated deep convolutional features",
    ECCV Workshops 2016, section 4.2.
    """
    return idf(_nonzero(maps) / (maps.shape[2] * maps.shape[3]), eps)


def sparsity_deviation(
    maps: torch.Tensor,
    eps: float = 1e-6,
    channel_combine: str = "product",
    return_deviation: bool = False,
):
    """Inverse frequency of sparsity and standard deviation together (SJW).

    ``c1 = N / max(#zeros, 1)``, ``c2`` the population standard deviation, ``c = c1 * c2`` (as printed) or the sum
    of both scaled to sum 1 (as the text before eq 16 says), then :func:`idf`.

    Returns
    -------
    weights : tensor of shape (N, K)
        Channel weights.
    deviation : tensor of shape (N, K)
        c2, only with `return_deviation`.

    References
    ----------
    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, section 3.3, eqs 14-17.
    """
    n_cells = maps.shape[2] * maps.shape[3]
    zeros = (n_cells - _nonzero(maps)).clamp_min(1)  # floored at 1: a channel without zeros stays finite
    rarity = n_cells / zeros
    spread = deviation(maps)
    if channel_combine == "product":
        amounts = rarity * spread
    else:
        total = spread.sum(dim=1, keepdim=True)
        amounts = rarity / rarity.sum(dim=1, keepdim=True) + torch.where(total > 0, spread / total, 0)
    weights = idf(amounts, eps)
    return (weights, spread) if return_deviation else weights


def _sparsity_deviation_term(
    maps: torch.Tensor,
    spatial: torch.Tensor | None = None,
    eps: float = 1e-6,
    channel_combine: str = "product",
) -> torch.Tensor:
    return sparsity_deviation(maps, eps, channel_combine)


def deviation(maps: torch.Tensor) -> torch.Tensor:
    """Return the population standard deviation of each channel, float64 (N, K).

    Computed in float64; what is below the round-off of the mean counts as zero, so that constant channels give
    exactly 0. For float64 maps that is ``mean (x - mean)^2``, for float32 maps ``mean x^2 - mean^2``: the squares are
    exact, and digits beyond those of float64 are lost only where the deviation is below the round-off of the maps.
    """
    # converted as a whole: reductions that convert as they go, and torch.std, are several times slower
    cells = maps.flatten(2).to(torch.float64, copy=True)
    mean = cells.mean(dim=2)
    if maps.dtype == torch.float64:
        cells -= mean[:, :, None]
    variance = cells.square_().mean(dim=2)
    if maps.dtype != torch.float64:
        variance -= mean.square()
    spread = variance.clamp_min_(0).sqrt_()
    floor = 16 * torch.finfo(maps.dtype).eps * mean.abs()
    return torch.where(spread > floor, spread, 0)


def selected_channels(deviation: torch.Tensor, n_channels: float) -> torch.Tensor:
    """Return the fraction `n_channels` of channels that vary most, (N, n) indices.

    Ties go to the lower index; deviations that differ by round-off are ties.
    """
    n_selected = max(
        1, int(n_channels * deviation.shape[1] + 1e-9)
    )  # the guard keeps 0.29 * 100 from becoming 28
    largest = deviation.amax(dim=1, keepdim=True)
    rounded = (deviation / torch.where(largest > 0, largest, 1) * 2**36).round()
    return rounded.sort(dim=1, descending=True, stable=True).indices[:, :n_selected]


def _nonzero(maps: torch.Tensor) -> torch.Tensor:
    """Count the positive cells of each channel (N, K): the maps are non-negative, so signs sum to the count.

    A sum of ones in float32 is exact up to 2^24 of them; `count_nonzero` is several times slower.
    """
    return maps.flatten(2).sign().sum(dim=2).double()


def count_sparsity(maps: torch.Tensor, spatial: torch.Tensor | None = None, eps: float = 1.0) -> torch.Tensor:
    """Inverse frequency of the number of positive cells: ``log(sum_h N_h / (eps + N_k))``.

    Counts, not fractions, and nothing is added to the numerator; a zero map gets zero weights.

    References
    ----------
    Liao, Fan, Zheng, Lin, Cao, "Image retrieval based on the weighted and regional integration of CNN features", KSII
    Transactions on Internet and Information Systems 16(3):894-907, 2022, section 3.2.
    """
    counts = _nonzero(maps)
    total = counts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, (torch.where(total > 0, total, 1) / (eps + counts)).log(), 0)


def element(maps: torch.Tensor, spatial: torch.Tensor | None = None, eps: float = 1e-12) -> torch.Tensor:
    """Inverse frequency of the squared mean of the weighted channel (eChannel).

    ``b_k = (Omega_k / (H W))^2`` with ``Omega_k`` the spatially weighted sum. eps is a mere guard against empty maps:
    the values span seven orders of magnitude, so a larger one would change the result.

    References
    ----------
    Wang, Zhu, Pang, Li, Li, Qian, "Adaptive co-weighting deep convolutional features for object retrieval", ICME
    2018, section 2.3, eqs 4-5.
    """
    height, width = maps.shape[2:]
    weighted = sum_cells(maps, whole(height, width), spatial)[:, 0].double()
    return idf((weighted / (height * width)).square(), eps)


#: Channel terms of the grammar: functions (maps, spatial, **params) -> (N, K).
CHANNEL: dict[str, Callable[..., torch.Tensor]] = {
    "sparsity": sparsity,
    "count_sparsity": count_sparsity,
    "element": element,
    "sparsity_deviation": _sparsity_deviation_term,
}
