"""Brute-force float64 aggregation of local descriptors, one feature map at a time, straight from the formulas.

Like ``references.pooling``: no import of ``skretrieval``, loops over cells and centres, ``math.fsum`` for sums. The
codebook (centres, mixtures, whitenings) is an argument; what is learned is tested apart from what is done with it.
"""

import math

import numpy as np

from references.pooling import as_map, l2


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def distance(a, b):
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def upsampled(feature_map, factor):
    """Bilinear enlargement: output cell t looks at the input at (t + 1/2) / factor - 1/2, the border repeats."""
    if factor == 1:
        return feature_map
    n_channels, height, width = feature_map.shape
    result = np.zeros((n_channels, height * factor, width * factor))

    def neighbours(t, size):
        place = max((t + 0.5) / factor - 0.5, 0.0)
        low = min(int(place), size - 1)
        return low, min(low + 1, size - 1), place - low

    for i in range(height * factor):
        top, bottom, down = neighbours(i, height)
        for j in range(width * factor):
            left, right, across = neighbours(j, width)
            for k in range(n_channels):
                x = feature_map[k]
                upper = (1 - across) * x[top, left] + across * x[top, right]
                lower = (1 - across) * x[bottom, left] + across * x[bottom, right]
                result[k, i, j] = (1 - down) * upper + down * lower
    return result


def local_descriptors(feature_map, axes=None, rectify=True, upsample=1):
    """The l2-normalised columns that are not zero, row by row; with ``axes`` (mean, components) whitened, l2 again."""
    feature_map = upsampled(as_map(feature_map, rectify), upsample)
    found = []
    for i in range(feature_map.shape[1]):
        for j in range(feature_map.shape[2]):
            column = feature_map[:, i, j]
            if not column.any():
                continue
            x = l2(column / np.abs(column).max())
            if axes is not None:
                mean, components = axes
                x = l2([dot(row, x - mean) for row in np.asarray(components, dtype=np.float64)])
            found.append(x)
    return found


def nearest(x, centers):
    """Index of the nearest centre, the first of those equally near."""
    distances = [distance(x, c) for c in centers]
    return min(range(len(centers)), key=lambda c: (distances[c], c))


def margins(feature_maps, centers, **kwargs):
    """Difference of the distances to the second nearest and nearest centre, of every descriptor of every map."""
    found = []
    for feature_map in feature_maps:
        for x in local_descriptors(feature_map, **kwargs):
            first, second = sorted(distance(x, c) for c in centers)[:2]
            found.append(second - first)
    return np.array(found)


def signed_power(values, power):
    return np.array([math.copysign(abs(v) ** power, v) for v in np.ravel(values)]).reshape(np.shape(values))


def bow(feature_map, centers, **kwargs):
    """Counts of the nearest words, l2-normalised."""
    counts = np.zeros(len(centers))
    for x in local_descriptors(feature_map, **kwargs):
        counts[nearest(x, centers)] += 1
    return l2(counts)


def _residuals(descriptors, weights, centers, floor):
    """sum_i a_ic (x_i - c); zero where it is no more than ``floor`` times the sum of the weights."""
    centers = np.asarray(centers, dtype=np.float64)
    parts = np.zeros(centers.shape)
    for c, center in enumerate(centers):
        amount = math.fsum(w[c] for w in weights)
        for t in range(len(center)):
            v = math.fsum(w[c] * (x[t] - center[t]) for x, w in zip(descriptors, weights, strict=True))
            parts[c, t] = v if abs(v) > floor * amount else 0.0
    return parts


def vlad(feature_map, centers, floor, power=0.5, intra_norm=True, **kwargs):
    """v_c = sum_{x: nn(x) = c} (x - c); signed power, (intra-)l2, l2."""
    descriptors = local_descriptors(feature_map, **kwargs)
    weights = np.zeros((len(descriptors), len(centers)))
    for i, x in enumerate(descriptors):
        weights[i, nearest(x, centers)] = 1
    parts = signed_power(_residuals(descriptors, weights, centers, floor), power)
    if intra_norm:
        parts = np.array([l2(part) for part in parts])
    return l2(parts.ravel())


def netvlad(feature_map, centers, alpha, floor, **kwargs):
    """V_c = sum_x softmax_c(2 alpha c.x - alpha |c|^2) (x - c); l2 per centre, l2."""
    centers = np.asarray(centers, dtype=np.float64)
    descriptors = local_descriptors(feature_map, **kwargs)
    weights = []
    for x in descriptors:
        logits = [2 * alpha * dot(c, x) - alpha * dot(c, c) for c in centers]
        largest = max(logits)
        exponentials = [math.exp(logit - largest) for logit in logits]
        weights.append([e / math.fsum(exponentials) for e in exponentials])
    parts = np.array([l2(part) for part in _residuals(descriptors, weights, centers, floor)])
    return l2(parts.ravel())


def netvlad_alpha(descriptors, centers):
    """-ln(0.01) / mean(d2_second - d2_first)."""
    gaps = []
    for x in descriptors:
        first, second = sorted(distance(x, c) ** 2 for c in centers)[:2]
        gaps.append(second - first)
    return -math.log(0.01) / (math.fsum(gaps) / len(gaps))


def fisher(feature_map, weights, means, variances, power=0.5, **kwargs):
    """Gradients by means, then by deviations, of a diagonal mixture; signed power, l2."""
    descriptors = local_descriptors(feature_map, **kwargs)
    n, (n_components, n_local) = len(descriptors), means.shape
    posteriors = []
    for x in descriptors:
        logs = []
        for w, mu, var in zip(weights, means, variances, strict=True):
            exponent = math.fsum((a - m) ** 2 / v for a, m, v in zip(x, mu, var, strict=True))
            logs.append(math.log(w) - (exponent + math.fsum(math.log(2 * math.pi * v) for v in var)) / 2)
        largest = max(logs)
        exponentials = [math.exp(value - largest) for value in logs]
        posteriors.append([e / math.fsum(exponentials) for e in exponentials])
    u, v = np.zeros((n_components, n_local)), np.zeros((n_components, n_local))
    if n:
        for k in range(n_components):
            for t in range(n_local):
                z = [(x[t] - means[k, t]) / math.sqrt(variances[k, t]) for x in descriptors]
                g = [posterior[k] for posterior in posteriors]
                u[k, t] = math.fsum(a * b for a, b in zip(g, z, strict=True)) / (n * math.sqrt(weights[k]))
                v[k, t] = math.fsum(a * (b * b - 1) for a, b in zip(g, z, strict=True)) / (
                    n * math.sqrt(2 * weights[k])
                )
    return l2(signed_power(np.concatenate([u.ravel(), v.ravel()]), power))


def embedding(x, centers, floor):
    """R(x): unit vectors from the anchors to x, zero from an anchor that x coincides with."""
    parts = []
    for c in np.asarray(centers, dtype=np.float64):
        far = distance(x, c)
        parts.append((x - c) / far if far > floor else np.zeros_like(x))
    return np.concatenate(parts)


def sinkhorn(gram, n_iter):
    """lambda_i <- lambda_i / sqrt(lambda_i sum_j lambda_j max(K_ij, 0)), ``n_iter`` times from ones."""
    gram = np.maximum(gram, 0.0)
    weights = np.ones(len(gram))
    for _ in range(n_iter):
        contributions = weights * (gram @ weights)
        weights = np.array(
            [w / math.sqrt(c) if c > 0 else w for w, c in zip(weights, contributions, strict=True)]
        )
    return weights


def t_embedding(
    feature_map, centers, mean, components, floor, aggregation="democratic", n_iter=10, power=0.5, **kwargs
):
    """sum_i lambda_i phi(x_i) with phi = components (R - mean); signed power, l2."""
    phi = [
        [dot(row, embedding(x, centers, floor) - mean) for row in components]
        for x in local_descriptors(feature_map, **kwargs)
    ]
    weights = [1.0] * len(phi)
    if aggregation == "democratic":
        weights = sinkhorn(np.array(phi) @ np.array(phi).T, n_iter) if phi else weights
    total = [math.fsum(w * p[t] for w, p in zip(weights, phi, strict=True)) for t in range(len(components))]
    return l2(signed_power(total, power))
