"""Brute-force float64 pooling, one feature map at a time, straight from the formulas.

Nothing here imports ``skretrieval`` and nothing here is fast: every function takes one map of shape ``(K, H, W)``,
loops over channels, regions and cells, and returns a float64 vector of ``K`` numbers. Sums go through ``math.fsum``
and the region grid through exact fractions, so that a disagreement of 1e-8 is the fault of the code under test.

Symbols follow the papers: ``K`` channels, ``k`` channel, ``i`` row, ``j`` column, ``N = H * W`` cells, ``L`` scales.
"""

import math
from fractions import Fraction

import numpy as np

# ---------------------------------------------------------------------------------------------------------------------
# Shared pieces


def as_map(feature_map, rectify=True):
    """One map in float64, negative responses cut off when ``rectify``."""
    feature_map = np.array(feature_map, dtype=np.float64)
    assert feature_map.ndim == 3
    return np.where(feature_map > 0, feature_map, 0.0) if rectify else feature_map


def l2(vector):
    """Unit length, and the zero vector stays zero (no eps in the denominator)."""
    vector = np.asarray(vector, dtype=np.float64)
    norm = math.sqrt(math.fsum(value * value for value in vector.ravel()))
    return vector / norm if norm > 0 else np.zeros_like(vector)


def power_mean(values, p):
    """((1/n) sum x^p)^(1/p); the maximum for p = inf; the real root for negative means of an odd integer p."""
    values = np.asarray(values, dtype=np.float64).ravel()
    if p == math.inf:
        return max(values)
    largest = max(abs(values))
    if largest == 0:
        return 0.0
    if float(p).is_integer():
        mean = math.fsum((value / largest) ** int(p) for value in values) / len(values)
    else:
        mean = math.fsum((value / largest) ** p for value in values) / len(values)
    return largest * math.copysign(abs(mean) ** (1.0 / p), mean)


def rmac_grid(height, width, n_levels):
    """Windows of R-MAC as ``(top, left, side)``, in the order scale, row, column (0.4 overlap, exact fractions)."""
    short, long_minus_short = min(height, width), abs(height - width)
    extra = 0
    if height != width:
        errors = {
            m: abs(1 - Fraction(long_minus_short, short * (m - 1)) - Fraction(2, 5)) for m in range(2, 8)
        }
        extra = min(errors, key=lambda m: (errors[m], m)) - 1
    extra_rows, extra_columns = (extra, 0) if height > width else (0, extra)

    def positions(size, side, count):
        if count == 1:
            return [0]
        return [math.floor(Fraction(t * (size - side), count - 1)) for t in range(count)]

    windows = []
    for level in range(1, n_levels + 1):
        side = math.floor(Fraction(2 * short, level + 1))
        if side == 0:
            continue
        for top in positions(height, side, level + extra_rows):
            for left in positions(width, side, level + extra_columns):
                windows.append((top, left, side))
    return windows


def regions_of(feature_map, n_levels, include_global=False):
    """The map cut into the windows of the grid, the whole map last when asked for."""
    _, height, width = feature_map.shape
    regions = [
        feature_map[:, top : top + side, left : left + side]
        for top, left, side in rmac_grid(height, width, n_levels)
    ]
    return [*regions, feature_map] if include_global else regions


def idf(values, eps, n=None):
    """log((n*eps + sum v) / (eps + v_k)), the channel weight of CroW, SJW and eChannel."""
    n = len(values) if n is None else n
    total = math.fsum(values)
    return np.array([math.log((n * eps + total) / (eps + value)) for value in values])


def crow_spatial(feature_map):
    """sqrt(s / ||s||_2) with s the sum over channels; zero when s is."""
    n_channels, height, width = feature_map.shape
    response = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            response[i, j] = math.fsum(feature_map[k, i, j] for k in range(n_channels))
    return np.sqrt(l2(response))


def weighted_sum(feature_map, weights):
    """sum_ij S_ij x_kij."""
    return np.array([math.fsum((channel * weights).ravel()) for channel in feature_map])


# ---------------------------------------------------------------------------------------------------------------------
# Sum, maximum and power mean over the whole map


def sum_pool(feature_map, rectify=True):
    return np.array([math.fsum(channel.ravel()) for channel in as_map(feature_map, rectify)])


def mac(feature_map, rectify=True):
    return np.array([max(channel.ravel()) for channel in as_map(feature_map, rectify)])


def gem(feature_map, p=3.0, rectify=True):
    return np.array([power_mean(channel, p) for channel in as_map(feature_map, rectify)])


def spoc(feature_map, center_prior=True, rectify=True):
    """Sum pooling under a Gaussian at the centre, sigma a third of the way to the closest border."""
    feature_map = as_map(feature_map, rectify)
    _, height, width = feature_map.shape
    sigma = min(height, width) / 6
    prior = np.ones((height, width))
    if center_prior:
        for i in range(height):
            for j in range(width):
                squared = (i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2
                prior[i, j] = math.exp(-squared / (2 * sigma**2))
    return weighted_sum(feature_map, prior)


def crow(feature_map, eps=1e-6):
    feature_map = as_map(feature_map)
    n_cells = feature_map[0].size
    fractions = [np.count_nonzero(channel) / n_cells for channel in feature_map]
    if not any(fractions):
        return np.zeros(len(feature_map))
    if eps == 0:  # the published code: a channel without responses gets weight 0
        weights = np.array([math.log(math.fsum(fractions) / q) if q else 0.0 for q in fractions])
    else:
        weights = idf(fractions, eps)
    return weights * weighted_sum(feature_map, crow_spatial(feature_map))


# ---------------------------------------------------------------------------------------------------------------------
# Regions


def rmac(feature_map, n_levels=3, include_global=False, rectify=True):
    """Sum over the grid of l2-normalised regional maxima, without whitening and without a last l2."""
    feature_map = as_map(feature_map, rectify)
    total = np.zeros(len(feature_map))
    for region in regions_of(feature_map, n_levels, include_global):
        total += l2([max(channel.ravel()) for channel in region])
    return total


def grmac(feature_map, n_levels=3, p=3.0, region_norm=None, include_global=False, rectify=True):
    """GSW, equations 12 and 13: sum over the grid of regional power means."""
    feature_map = as_map(feature_map, rectify)
    total = np.zeros(len(feature_map))
    for region in regions_of(feature_map, n_levels, include_global):
        value = np.array([power_mean(channel, p) for channel in region])
        total += l2(value) if region_norm == "l2" else value
    return total


def region_integration(feature_map, n_levels=3):
    """Liao et al. (2022) unwhitened: crow weights, counts as channel weights (eps = 1), regions and the whole map."""
    feature_map = as_map(feature_map)
    weights = region_integration_channel_weights(feature_map)
    weighted = weights[:, None, None] * crow_spatial(feature_map) * feature_map
    total = np.zeros(len(feature_map))
    for region in regions_of(weighted, n_levels, include_global=True):
        total += l2([math.fsum(channel.ravel()) for channel in region])
    return total


def region_integration_channel_weights(feature_map):
    """log(sum_h N_h / (1 + N_k)) with N_k the number of positive responses of channel k."""
    counts = [int(np.count_nonzero(channel > 0)) for channel in as_map(feature_map)]
    if sum(counts) == 0:
        return np.zeros(len(counts))
    return np.array([math.log(sum(counts) / (1 + count)) for count in counts])


def square_sum_rmac(feature_map, n_levels=3):
    """Seddati et al. (2017), algorithm 1: strided maxima, root of summed squares per scale, sum of scales, l2."""
    return l2(square_sum_rmac_raw(feature_map, n_levels))


def square_sum_rmac_raw(feature_map, n_levels=3):
    feature_map = as_map(feature_map)
    n_channels, height, width = feature_map.shape
    total = np.zeros(n_channels)
    for level in range(1, n_levels + 1):
        side = max(1, math.ceil(Fraction(2 * min(height, width), level + 1)))
        stride = max(1, math.floor(Fraction(2, 5) * side))
        for k in range(n_channels):
            squares = []
            for top in range(0, height - side + 1, stride):
                for left in range(0, width - side + 1, stride):
                    squares.append(feature_map[k, top : top + side, left : left + side].max() ** 2)
            total[k] += math.sqrt(math.fsum(squares))
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Saliency joint weighting (GSW, equations 14 to 24)


def sjw_deviation(feature_map):
    """Population standard deviation of each channel with an exact mean: a constant channel has exactly 0."""
    deviations = []
    for channel in as_map(feature_map):
        values = [Fraction(value) for value in channel.ravel()]
        mean = sum(values) / len(values)
        deviations.append(math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)))
    return np.array(deviations)


def sjw_zero_ratio(feature_map):
    """N over the number of zeros of each channel, the count floored at 1."""
    return np.array([channel.size / max(int(np.sum(channel == 0)), 1) for channel in as_map(feature_map)])


def sjw_channel_weights(feature_map, channel_combine="product", eps=1e-6):
    """Equation 17 with the K * eps of CroW; the parts are multiplied, or normalised to sum 1 and added."""
    c1, c2 = sjw_zero_ratio(feature_map), sjw_deviation(feature_map)
    if channel_combine == "product":
        combined = c1 * c2
    else:
        combined = c1 / c1.sum() + (c2 / c2.sum() if c2.sum() > 0 else 0.0)
    return idf(combined, eps)


def sjw_selected(feature_map, n_channels):
    """Indices of the floor(n K) channels of largest deviation, ties to the lower index."""
    deviation = sjw_deviation(feature_map)
    count = max(1, math.floor(n_channels * len(deviation) + 1e-9))
    return sorted(range(len(deviation)), key=lambda k: (-deviation[k], k))[:count]


def global_contrast(values):
    """Equation 21, the literal O(N^2) form: distance of each cell to all the others."""
    values = np.asarray(values, dtype=np.float64)
    flat = values.ravel()
    return np.array([math.fsum(np.abs(value - flat)) for value in flat]).reshape(values.shape)


def normalise_saliency(saliency, how):
    divisor = {
        "none": 1.0,
        "sum": saliency.sum(),
        "l2": math.sqrt((saliency**2).sum()),
        "max": saliency.max(),
    }
    if how == "minmax":
        span = saliency.max() - saliency.min()
        return (saliency - saliency.min()) / span if span > 0 else np.zeros_like(saliency)
    return saliency / divisor[how] if divisor[how] > 0 else np.zeros_like(saliency)


def sjw_spatial_weights(
    feature_map, n_channels=0.3, rho=100.0, saliency_norm="sum", channel_combine="product", eps=1e-6
):
    """Equations 18 to 22: S = M + rho * Sw'."""
    feature_map = as_map(feature_map)
    weights = sjw_channel_weights(feature_map, channel_combine, eps)

    def salient(channels):
        total = np.zeros(feature_map.shape[1:])
        for k in channels:
            total = total + weights[k] * feature_map[k]
        return total

    response = salient(sjw_selected(feature_map, n_channels))
    if not response.any():  # only the selected channels are zero: use all of them
        response = salient(range(len(feature_map)))
    attention = np.sqrt(l2(response))
    span = attention.max() - attention.min()
    # a map that is constant up to round-off has no contrast to stretch to [0, 255]
    constant = span <= 1e-12 * attention.max()
    grey = np.zeros_like(attention) if constant else 255.0 * (attention - attention.min()) / span
    return attention + rho * normalise_saliency(global_contrast(grey), saliency_norm)


def sjw(feature_map, n_channels=0.3, rho=100.0, saliency_norm="sum", channel_combine="product", eps=1e-6):
    """Equations 23 and 24: every channel summed under S, times its channel weight."""
    feature_map = as_map(feature_map)
    spatial = sjw_spatial_weights(feature_map, n_channels, rho, saliency_norm, channel_combine, eps)
    return weighted_sum(feature_map, spatial) * sjw_channel_weights(feature_map, channel_combine, eps)


# ---------------------------------------------------------------------------------------------------------------------
# Adaptive Gaussian (Wang et al. 2018)


def gaussian_center(feature_map, alpha=0.1):
    """Mean coordinates of the cells whose response reaches the t-th largest, t = ceil(alpha N), ties included."""
    response = as_map(feature_map).sum(axis=0)
    height, width = response.shape
    if not response.any():
        return (height - 1) / 2, (width - 1) / 2
    t = max(1, math.ceil(alpha * response.size - 1e-9))
    threshold = sorted(response.ravel(), reverse=True)[t - 1]
    cells = [(i, j) for i in range(height) for j in range(width) if response[i, j] >= threshold]
    return sum(i for i, _ in cells) / len(cells), sum(j for _, j in cells) / len(cells)


def gaussian_weights(feature_map, alpha=0.1):
    _, height, width = np.shape(feature_map)
    sigma = max(height, width) / 4
    top, left = gaussian_center(feature_map, alpha)
    weights = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            squared = (i - top) ** 2 + (j - left) ** 2
            weights[i, j] = math.exp(-squared / (2 * sigma**2)) / (2 * math.pi * sigma**2)
    return weights


def adaptive_gaussian(feature_map, alpha=0.1, channel="element", eps=1e-12):
    """B * Omega, without the last l2."""
    feature_map = as_map(feature_map)
    n_cells = feature_map[0].size
    omega = weighted_sum(feature_map, gaussian_weights(feature_map, alpha))
    if channel is None:
        return omega
    if channel == "element":
        return idf([(value / n_cells) ** 2 for value in omega], eps) * omega
    fractions = [np.count_nonzero(ch) / n_cells for ch in feature_map]
    return idf(fractions, eps) * omega if any(fractions) else omega


# ---------------------------------------------------------------------------------------------------------------------
# Fusion


def fuse(parts, weights=None):
    """l2(sum_t w_t l2(part_t)): a zero part adds nothing."""
    weights = [1.0] * len(parts) if weights is None else weights
    return l2(sum(weight * l2(part) for weight, part in zip(weights, parts, strict=True)))


def gsw(feature_map, alpha=0.6, n_levels=3, p=3.0, n_channels=0.3, rho=100.0):
    """GSW, equation 10: GR-MAC and SJW fused with alpha and 1 - alpha, before whitening."""
    return fuse([grmac(feature_map, n_levels, p), sjw(feature_map, n_channels, rho)], [alpha, 1 - alpha])
