"""Synthetic feature maps with class structure, for tests, docs and benchmarks without a network."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_channels": [Interval(Integral, 1, None, closed="left")],
        "n_classes": [Interval(Integral, 1, None, closed="left")],
        "sides": ["array-like"],
        "clutter": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_feature_maps(
    n_samples: int = 100,
    n_channels: int = 32,
    *,
    n_classes: int = 10,
    sides: tuple[int, int] = (6, 14),
    clutter: float = 1.0,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Make feature maps as a convolutional network gives them: non-negative, sparse, of differing shapes.

    Each map shows the object of its class, a blob somewhere in the frame in which the channels of the class
    respond, among blobs of clutter that all classes share. As in the last layer of a trained network, most
    cells are zero and a few channels respond nearly everywhere (bursts): what channel weights are for.

    Parameters
    ----------
    n_samples : int, default=100
        Number of maps.

    n_channels : int, default=32
        Number of channels C.

    n_classes : int, default=10
        Number of objects. Samples take turns: sample i shows object ``i % n_classes``.

    sides : tuple of 2 int, default=(6, 14)
        Smallest and largest height and width, both drawn per map.

    clutter : float, default=1.0
        How strongly the background responds, relative to the object; 0 leaves the object alone.

    random_state : int, RandomState instance or None, default=None
        An int makes the maps reproducible.

    Returns
    -------
    X : list of float32 ndarray of shape (n_channels, H_i, W_i)
        The maps.

    y : ndarray of shape (n_samples,)
        The object that each map shows.

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> X, y = make_feature_maps(n_samples=4, n_channels=8, n_classes=2, random_state=0)
    >>> [x.shape for x in X]
    [(8, 10, 6), (8, 7, 7), (8, 13, 14), (8, 11, 13)]
    >>> y
    array([0, 1, 0, 1])
    """
    low, high = sides
    if not 1 <= low <= high:
        raise ValueError(f"sides must be (smallest, largest), 1 <= smallest <= largest, got {tuple(sides)}.")
    rng = check_random_state(random_state)
    # Each object excites about a fifth of the channels; clutter has a dictionary of its own.
    objects = _signatures(rng, n_classes, n_channels)
    background = _signatures(rng, 8, n_channels)
    bursty = 0.4 * (rng.uniform(size=n_channels) < 0.1)

    X = []
    y = np.arange(n_samples) % n_classes
    for label in y:
        height, width = rng.randint(low, high + 1, size=2)
        blobs = _blobs(rng, 4, height, width)
        strengths = np.array([1.0, *(clutter * rng.uniform(0.3, 0.8, size=3))])
        words = np.vstack([objects[label], background[rng.randint(len(background), size=3)]])
        response = np.einsum("bk,bij->kij", strengths[:, np.newaxis] * words, blobs)
        noise = 0.15 * rng.standard_normal(response.shape)
        X.append(np.maximum(response + noise + bursty[:, None, None] - 0.2, 0).astype(np.float32))
    return X, y


def _signatures(rng: np.random.RandomState, n_words: int, n_channels: int) -> np.ndarray:
    """Draw sparse, heavy-tailed channel responses of shape (n_words, n_channels)."""
    responds = rng.uniform(size=(n_words, n_channels)) < 0.2
    # A word that excites no channel would be invisible.
    responds[np.arange(n_words), rng.randint(n_channels, size=n_words)] = True
    return responds * rng.exponential(1.5, size=(n_words, n_channels))


def _blobs(rng: np.random.RandomState, n_blobs: int, height: int, width: int) -> np.ndarray:
    """Draw Gaussian blobs of shape (n_blobs, height, width), with their centres inside the frame."""
    centre = rng.uniform(0.2, 0.8, size=(n_blobs, 2)) * [height - 1, width - 1]
    sigma = rng.uniform(0.12, 0.25, size=(n_blobs, 1, 1)) * max(height, width)
    rows = (np.arange(height) - centre[:, :1])[:, :, np.newaxis]
    columns = (np.arange(width) - centre[:, 1:])[:, np.newaxis, :]
    return np.exp(-(rows**2 + columns**2) / (2 * sigma**2))
