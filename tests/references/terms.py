"""Brute-force float64 references of terms of the pooling grammar that no paper's pooler of its own has.

As in ``references.pooling``: one map of shape ``(K, H, W)`` at a time, loops, ``math.fsum``, no ``skretrieval``.
"""

import math

import numpy as np

from references.pooling import as_map, power_mean, regions_of


def activation_norm_weights(feature_map):
    """||x_p||_2 over the channels of each cell."""
    _, height, width = feature_map.shape
    weights = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            weights[i, j] = math.hypot(*feature_map[:, i, j])
    return weights


def activation_norm(feature_map, rectify=True):
    feature_map = as_map(feature_map, rectify)
    weights = activation_norm_weights(feature_map)
    return np.array([math.fsum((channel * weights).ravel()) for channel in feature_map])


def scda_mask(feature_map, connectivity=4):
    """The largest connected part of the cells above the mean, found by flooding from one cell after another."""
    n_channels, height, width = feature_map.shape
    cells = [(i, j) for i in range(height) for j in range(width)]
    total = {(i, j): math.fsum(feature_map[k, i, j] for k in range(n_channels)) for i, j in cells}
    mean = math.fsum(total.values()) / len(cells)
    # equal cells have a mean that is theirs up to rounding
    waiting = [cell for cell in cells if total[cell] - mean > 1e-12 * max(map(abs, total.values()))]
    if not waiting:
        return np.ones((height, width))
    steps = [
        (di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1) if connectivity == 8 or abs(di) + abs(dj) == 1
    ]
    largest = []
    while waiting:
        part, edge = [], [waiting.pop(0)]
        while edge:
            i, j = edge.pop()
            part.append((i, j))
            for di, dj in steps:
                if (i + di, j + dj) in waiting:
                    waiting.remove((i + di, j + dj))
                    edge.append((i + di, j + dj))
        if len(part) > len(largest):
            largest = part
    mask = np.zeros((height, width))
    for cell in largest:
        mask[cell] = 1
    return mask


def scda(feature_map, reduce="mean", connectivity=4):
    """Mean over all cells, or maximum, of the cells in the mask."""
    feature_map = as_map(feature_map)
    masked = feature_map * scda_mask(feature_map, connectivity)
    if reduce == "max":
        return np.array([max(channel.ravel()) for channel in masked])
    return np.array([math.fsum(channel.ravel()) / channel.size for channel in masked])


def signed_power_mean(values, p):
    """m = mean sign(x) |x|^p; sign(m) |m|^(1/p)."""
    values = np.asarray(values, dtype=np.float64).ravel()
    largest = max(abs(values))
    if largest == 0:
        return 0.0
    terms = [math.copysign(abs(value / largest) ** p, value) for value in values]
    mean = math.fsum(terms) / len(terms)
    return largest * math.copysign(abs(mean) ** (1 / p), mean)


def signed_gem(feature_map, p=3.0, n_levels=None):
    """Over the whole map, or summed over the regions of R-MAC; nothing is cut off."""
    feature_map = as_map(feature_map, rectify=False)
    regions = [feature_map] if n_levels is None else regions_of(feature_map, n_levels)
    return np.array(
        [math.fsum(signed_power_mean(region[k], p) for region in regions) for k in range(len(feature_map))]
    )


def relup(feature_map, alpha):
    """max(x, alpha), but for a map of zeros."""
    return np.maximum(feature_map, alpha) if feature_map.any() else feature_map


def relup_gem(feature_map, alpha=0.014, p=4.6, n_levels=None):
    """GeM of activations that are at least alpha, over the whole map or summed over the regions of R-MAC."""
    feature_map = relup(as_map(feature_map), alpha)
    regions = [feature_map] if n_levels is None else regions_of(feature_map, n_levels)
    return np.array([math.fsum(power_mean(r[k], p) for r in regions) for k in range(len(feature_map))])


def regional_gem(
    feature_map, p=4.6, region_p=2.5, window=5, n_levels=None, weights=None, alpha=None, signed=False
):
    """Each cell half itself, half the power mean of its neighbourhood (numpy's reflection); then GeM."""
    mean = signed_power_mean if signed else power_mean
    feature_map = as_map(feature_map, rectify=not signed)
    if alpha is not None:
        feature_map = relup(feature_map, alpha)
    if weights is not None:
        feature_map = feature_map * weights(feature_map)
    margin = window // 2
    around = np.pad(feature_map, [(0, 0), (margin, margin), (margin, margin)], mode="reflect")
    mixed = np.empty_like(feature_map)
    for k, i, j in np.ndindex(*feature_map.shape):
        neighbours = around[k, i : i + window, j : j + window]
        mixed[k, i, j] = (feature_map[k, i, j] + mean(neighbours, region_p)) / 2
    regions = [mixed] if n_levels is None else regions_of(mixed, n_levels)
    return np.array([math.fsum(mean(region[k], p) for region in regions) for k in range(len(mixed))])
