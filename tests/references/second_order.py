"""Regional second-order pooling (Jeong et al. 2017) by brute force, from the formulas, one map and region at a time.

Nothing here imports ``skretrieval``. What decides (which cells are salient, which cluster a point belongs to, which
cells lie in a hull) is computed with exact fractions, so that a tie is a tie; the rest is float64 with ``math.fsum``,
the matrix logarithm is scipy's inverse scaling and squaring, which knows nothing of eigenvalues.
"""

import math
import warnings
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy.linalg import expm, logm

from .pooling import as_map, idf, l2

# ---------------------------------------------------------------------------------------------------------------------
# Weights (equations 1 and 2)


def exact_response(feature_map):
    """Sum over channels as exact fractions: a dictionary (row, column) -> value."""
    feature_map = as_map(feature_map)
    _, height, width = feature_map.shape
    return {
        (i, j): sum((Fraction(value) for value in feature_map[:, i, j]), Fraction(0))
        for i in range(height)
        for j in range(width)
    }


def spatial_weights(feature_map):
    feature_map = as_map(feature_map)
    return l2(np.array([math.fsum(cell) for cell in feature_map.reshape(len(feature_map), -1).T])).reshape(
        feature_map.shape[1:]
    )


def channel_weights(feature_map, eps=1e-6):
    feature_map = as_map(feature_map)
    return idf([np.count_nonzero(channel) / channel.size for channel in feature_map], eps)


# ---------------------------------------------------------------------------------------------------------------------
# Candidate regions (section 2)


def salient_cells(feature_map, n_min):
    """Centres (x, y) of the cells whose response reaches the n_min-th largest, in units of cells, row by row."""
    response = exact_response(feature_map)
    threshold = sorted(response.values(), reverse=True)[: max(1, n_min)][-1]
    return [
        (Fraction(2 * j + 1, 2), Fraction(2 * i + 1, 2))
        for (i, j), value in response.items()
        if value >= threshold
    ]


def square_distance(a, b):
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2


def mean_point(points):
    return sum(x for x, _ in points) / Fraction(len(points)), sum(y for _, y in points) / Fraction(
        len(points)
    )


def lloyd(points, centres):
    labels = None
    while True:
        nearest = [min(range(len(centres)), key=lambda c: square_distance(p, centres[c])) for p in points]
        if nearest == labels:
            return labels, centres
        labels = nearest
        members = [
            [p for p, label in zip(points, labels, strict=True) if label == c] for c in range(len(centres))
        ]
        centres = [mean_point(own) if own else old for own, old in zip(members, centres, strict=True)]


def global_fast_kmeans(points, n_clusters):
    """Labels of points given as pairs of fractions (Likas, Vlassis, Verbeek 2003, the fast version)."""
    labels, centres = [0] * len(points), [mean_point(points)]
    for _ in range(1, n_clusters):
        nearest = [min(square_distance(p, c) for c in centres) for p in points]
        gains = [
            sum(max(d - square_distance(p, q), 0) for q, d in zip(points, nearest, strict=True))
            for p in points
        ]
        best = max(gains)
        if best == 0:
            break
        labels, centres = lloyd(points, [*centres, points[gains.index(best)]])
    return labels


def cross(o, a, b):
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def convex_hull(points):
    """Corners of the hull (Andrew's monotone chain); fewer than 3 when the points lie on a line."""
    points = sorted(set(points))
    if len(points) < 3:
        return points

    def chain(points):
        corners = []
        for p in points:
            while len(corners) > 1 and cross(corners[-2], corners[-1], p) <= 0:
                corners.pop()
            corners.append(p)
        return corners[:-1]

    return chain(points) + chain(points[::-1])


def in_hull(corners, p):
    return all(cross(a, b, p) >= 0 for a, b in zip(corners, corners[1:] + corners[:1], strict=True))


def candidate_regions(feature_map, n_clusters=3, n_min=300, min_cells=2):
    """Masks (M, H, W) and polygons as fractions of the sides, the whole map last (points of the grid)."""
    feature_map = as_map(feature_map)
    return _candidate_regions(feature_map.tobytes(), feature_map.shape, n_clusters, n_min, min_cells)


@lru_cache(maxsize=256)
def _candidate_regions(data, shape, n_clusters, n_min, min_cells):
    feature_map = np.frombuffer(data).reshape(shape)
    _, height, width = shape
    response = exact_response(feature_map)
    points = salient_cells(feature_map, n_min)
    labels = global_fast_kmeans(points, n_clusters)
    clusters = sorted(set(labels))
    masks, polygons = [], []
    for bits in range(1, 2 ** len(clusters)):
        chosen = [c for place, c in enumerate(clusters) if bits >> place & 1]
        corners = convex_hull([p for p, label in zip(points, labels, strict=True) if label in chosen])
        if len(corners) < 3:
            continue
        mask = np.zeros((height, width), dtype=bool)
        for i, j in response:
            mask[i, j] = in_hull(corners, (Fraction(2 * j + 1, 2), Fraction(2 * i + 1, 2)))
        if mask.sum() >= min_cells and any(response[i, j] > 0 for i, j in np.argwhere(mask)):
            masks.append(mask)
            polygons.append({(float(x / width), float(y / height)) for x, y in corners})
    masks.append(np.ones((height, width), dtype=bool))
    polygons.append({(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)})
    return np.stack(masks), polygons


# ---------------------------------------------------------------------------------------------------------------------
# Descriptors (section 3)


def first_order(feature_map, mask, weighted=False):
    """Equation 3, or equation 9 when weighted."""
    feature_map = as_map(feature_map)
    alpha = spatial_weights(feature_map) if weighted else np.ones(mask.shape)
    sums = [math.fsum((channel * alpha)[mask]) for channel in feature_map]
    return l2(channel_weights(feature_map) * np.array(sums))


def second_moment(feature_map, mask, axes):
    """G of equation 5 with the local descriptors of equation 4; `axes` in rows. None without response."""
    feature_map = as_map(feature_map)
    alpha, beta = spatial_weights(feature_map), channel_weights(feature_map)
    total = math.fsum(alpha[mask])
    if total == 0:
        return None
    moment = np.zeros((len(axes), len(axes)))
    for i, j in np.argwhere(mask):
        local = axes @ (beta * feature_map[:, i, j])
        moment += alpha[i, j] * np.outer(local, local)
    return moment / total


def matrix_log(matrix):
    """Logarithm of a positive definite matrix, by scipy; its exponential must give the matrix back."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # from an error of 1e-13 on
        log = logm(matrix).real
    assert np.abs(expm(log) - matrix).max() <= 1e-10 * np.abs(matrix).max()
    return log


def log_vector(moment, reg=1e-3, offdiag_scale=1.0, trace_normalize=False):
    """l2(vec(log(G + reg tr(G) / K' I)))."""
    size = len(moment) if moment is not None else 0
    if moment is None or not moment.any():
        return None
    if trace_normalize:
        moment = moment / np.trace(moment)
    log = matrix_log(moment + reg * np.trace(moment) / size * np.eye(size))
    entries = []
    for row in range(size):
        for column in range(row, size):
            entries.append(log[row, column] * (1.0 if row == column else offdiag_scale))
    return l2(np.array(entries))


def second_order(feature_map, mask, axes, **how):
    vector = log_vector(second_moment(feature_map, mask, axes), **how)
    return np.zeros(len(axes) * (len(axes) + 1) // 2) if vector is None else vector


def principal_axes(rows, n_components, center=True):
    """Mean, axes in rows and variances by the SVD of all non-zero rows; the largest entry of an axis is positive."""
    rows = np.array([row for row in rows if row.any()])
    mean = rows.mean(axis=0) if center else np.zeros(rows.shape[1])
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    axes, variances = axes[:n_components], singular[:n_components] ** 2 / (len(rows) - 1)
    signs = np.array([math.copysign(1.0, axis[np.argmax(np.abs(axis))]) for axis in axes])
    return mean, axes * signs[:, None], variances


def whiten(row, mean, axes, variances):
    return l2((axes @ (row - mean)) / np.sqrt(variances)) if row.any() else np.zeros(len(axes))


def regional_second_order(
    maps,
    n_local,
    n_components,
    order=2,
    regions="all",
    center_local=True,
    n_clusters=3,
    n_min=300,
    min_cells=2,
    **how,
):
    """Fit on the maps and describe them: per map an array (M, n_components), and the local axes."""
    masks = [
        candidate_regions(m, n_clusters, n_min, min_cells)[0]
        if regions == "all"
        else np.ones((1, *m.shape[1:]), bool)
        for m in maps
    ]
    if order == 1:
        axes = None
        vectors = [
            [first_order(m, mask, weighted=True) for mask in own] for m, own in zip(maps, masks, strict=True)
        ]
    else:
        first = [first_order(m, mask) for m, own in zip(maps, masks, strict=True) for mask in own]
        axes = principal_axes(first, n_local, center_local)[1]
        vectors = [
            [second_order(m, mask, axes, **how) for mask in own] for m, own in zip(maps, masks, strict=True)
        ]
    fitted = principal_axes([row for own in vectors for row in own], n_components)
    return [np.array([whiten(row, *fitted) for row in own]) for own in vectors], axes
