"""Slow float64 references of what combines and masks: scale GeM, class activation, principal features.

Nothing here imports ``skretrieval``; loops and ``math.fsum`` throughout, one image at a time.
"""

import math

import numpy as np

from .pooling import power_mean


def scale_gem(parts, p):
    """((1/S) sum_s (x_s - gamma)^p)^(1/p) + gamma per entry, gamma the smallest entry of any scale of the image."""
    parts = [np.asarray(part, dtype=np.float64) for part in parts]
    gamma = min(float(part.min()) for part in parts)
    length = len(parts[0])
    return np.array([power_mean([part[t] - gamma for part in parts], p) + gamma for t in range(length)])


def class_activation_mask(feature_map, weight, bias, threshold=0.9, n_resolutions=1):
    """Cells (H, W) whose heat for the winning class is at least a share of the mean; all cells if none is."""
    n_channels, height, width = feature_map.shape
    mean = [math.fsum(feature_map[k].ravel()) / (height * width) / n_resolutions for k in range(n_channels)]
    scores = [
        math.fsum(w * m for w, m in zip(row, mean, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]
    row = weight[scores.index(max(scores))]
    heat = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            heat[i, j] = math.fsum(row[k] * feature_map[k, i, j] for k in range(n_channels))
    mask = heat >= threshold * (math.fsum(heat.ravel()) / heat.size)
    return mask if mask.any() else np.ones_like(mask)


def nearest_mask(mask, height, width):
    """The mask at another size: every cell takes the value of the cell it falls into."""
    rows = [i * mask.shape[0] // height for i in range(height)]
    columns = [j * mask.shape[1] // width for j in range(width)]
    return np.array([[mask[i, j] for j in columns] for i in rows])
