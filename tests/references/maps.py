"""Feature maps the pooling tests agree on."""

import numpy as np

#: spatial sizes every pooler must treat exactly: single cell, smaller than a window, elongated, square, both 4:3 ways
SHAPES = [(1, 1), (1, 6), (2, 5), (3, 14), (7, 7), (9, 5), (24, 32), (32, 24)]


def golden_map():
    """x_kij = max(0, ((7k + 3i + 5j + ij) mod 11) - 3), K = 4, H = 6, W = 8: the map of the printed golden values."""
    k, i, j = np.ogrid[:4, :6, :8]
    return np.maximum(0, (7 * k + 3 * i + 5 * j + i * j) % 11 - 3).astype(np.float64)


def make_map(n_channels, height, width, seed=0, density=0.6):
    """Responses as after a ReLU: continuous (no ties), a share ``density`` positive, channels of unlike scale."""
    rng = np.random.default_rng(seed)
    responses = rng.gamma(1.5, size=(n_channels, height, width)) * rng.uniform(
        0.3, 3.0, size=(n_channels, 1, 1)
    )
    return responses * (rng.random(responses.shape) < density)


def make_signed_map(n_channels, height, width, seed=0):
    """Responses of a layer without a ReLU."""
    return np.random.default_rng(seed).standard_normal((n_channels, height, width))


def make_ragged(n_channels=6, shapes=SHAPES, seed=0, dtype=np.float64):
    """One map for every spatial size."""
    return [make_map(n_channels, *shape, seed=seed + t).astype(dtype) for t, shape in enumerate(shapes)]


def special_maps(n_channels=5, height=6, width=8):
    """Named maps at the edges of the formulas (0.2 and 0.8 of the specification)."""
    base = make_map(n_channels, height, width, seed=11)
    dead = base.copy()
    dead[[0, 3]] = 0
    full = base.copy()
    full[1] += 0.25  # a channel without a single zero
    constant = np.empty_like(base)
    constant[:] = np.linspace(0.1, 1.7, n_channels)[:, None, None]
    single = np.zeros_like(base)
    single[2, 4, 5] = 3.0
    cell = make_map(n_channels, 1, 1, seed=3, density=1.0)
    first_channel_dead = cell.copy()
    first_channel_dead[0] = 0
    first_constant_dead = constant.copy()
    first_constant_dead[:2] = 0
    return {
        "zero": np.zeros_like(base),
        "zero_cell": np.zeros((n_channels, 1, 1)),
        "all_equal": np.full_like(base, 0.7),
        "all_equal_large": np.full((n_channels, 24, 32), 0.1),
        "constant_channels": constant,
        "constant_channels_first_dead": first_constant_dead,
        "single_response": single,
        "dead_channels": dead,
        "channel_without_zeros": full,
        "no_zeros": base + 0.5,
        "one_cell": cell,
        "one_cell_first_dead": first_channel_dead,
        "one_channel": base[:1],
        "signed": make_signed_map(n_channels, height, width, seed=5),
        "negative": -base,
        "tiny": base * 1e-6,
        "huge": base * 1e6,
    }


def patch_by_loop(image, row, column, size):
    """The patch around a cell of a map (C, H, W), the border repeated."""
    channels, height, width = image.shape
    patch = np.empty((channels, size, size))
    for a in range(size):
        for b in range(size):
            i = min(max(row + a - (size - 1) // 2, 0), height - 1)
            j = min(max(column + b - (size - 1) // 2, 0), width - 1)
            patch[:, a, b] = image[:, i, j]
    return patch
