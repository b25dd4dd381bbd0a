"""Brute-force float64 part weights (SBA, PWA) and region entropies (FDE), one feature map at a time."""

import math
from collections import Counter

import numpy as np

from references.pooling import as_map, l2, rmac_grid


def part_channels(feature_maps, n_parts, rectify=True):
    """The channels whose sum over the cells varies most over the maps, largest first, ties to the lower index."""
    sums = np.array([[math.fsum(x.ravel()) for x in as_map(m, rectify)] for m in feature_maps])
    variances = []
    for column in sums.T:
        mean = math.fsum(column) / len(column)
        variances.append(math.fsum((value - mean) ** 2 for value in column) / len(column))
    order = sorted(range(len(variances)), key=lambda k: (-variances[k], k))
    return order[:n_parts], np.array(variances)


def part_weighted(feature_map, channels, alpha=2.0, beta=2.0):
    """psi_n = sum_ij w_n(ij) x(ij), w_n = (x_n / (sum x_n^alpha)^(1/alpha))^(1/beta), for each part, concatenated."""
    feature_map = as_map(feature_map)
    n_channels, height, width = feature_map.shape
    blocks = []
    for n in channels:
        part = feature_map[n]
        largest = part.max()
        scale = largest and largest * math.fsum((x / largest) ** alpha for x in part.ravel()) ** (1 / alpha)
        block = np.zeros(n_channels)
        if scale > 0:
            for k in range(n_channels):
                block[k] = math.fsum(
                    (part[i, j] / scale) ** (1 / beta) * feature_map[k, i, j]
                    for i in range(height)
                    for j in range(width)
                )
        blocks.append(block)
    return np.concatenate(blocks)


def entropy(feature_map, n_levels=3, n_bins=10, rectify=True):
    """Sum over the R-MAC grid of the l2-normalised entropies of each channel's histogram in the region, l2.

    Bins of equal width from the smallest to the largest value of the channel in the whole map.
    """
    feature_map = as_map(feature_map, rectify)
    n_channels, height, width = feature_map.shape
    total = np.zeros(n_channels)
    for top, left, side in rmac_grid(height, width, n_levels):
        entropies = np.zeros(n_channels)
        for k in range(n_channels):
            low, high = feature_map[k].min(), feature_map[k].max()
            if high > low:
                window = feature_map[k, top : top + side, left : left + side].ravel()
                bins = Counter(min(int((x - low) / (high - low) * n_bins), n_bins - 1) for x in window)
                shares = [count / len(window) for count in bins.values()]
                entropies[k] = -math.fsum(p * math.log(p) for p in shares)
        total += l2(entropies)
    return l2(total)
