"""What the displays share: one entry of a sequence of maps, its photograph, the axes to draw it on."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..extraction import FeatureMaps, read_image


def import_pyplot(caller: Any) -> Any:
    """Return ``matplotlib.pyplot``, or say how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{type(caller).__name__}.plot needs matplotlib. "
            'Install the extra "plot": pip install "scikit-retrieval[plot]".'
        ) from error
    return plt


def one_entry(X: Any, index: int) -> Any:
    """Return entry `index` of a sequence of maps as a sequence of one, lazy maps still lazy.

    Raises
    ------
    ValueError
        If `X` is no sequence, or empty.
    IndexError
        If there is no such entry.
    """
    if not hasattr(X, "__len__") or isinstance(X, str | bytes | dict):
        raise ValueError(
            f"Expected feature maps (a list, a 4-D array or FeatureMaps), got {type(X).__name__}."
        )
    n = len(X)
    if n == 0:
        raise ValueError("Found 0 feature maps (empty X) while a minimum of 1 is required.")
    if not -n <= index < n:
        raise IndexError(f"index {index} is out of range for {n} feature maps.")
    index %= n
    return X[index : index + 1]


def photograph_of(entry: Any, image: Any) -> np.ndarray | None:
    """Read the photograph that goes with a sequence of one map.

    Parameters
    ----------
    entry : sequence of one map
        Lazy maps know their photograph.
    image : path, PIL.Image.Image, uint8 ndarray, ImageCrop or None
        What to show instead.

    Returns
    -------
    pixels : uint8 ndarray of shape (height, width, 3), or None
        Upright RGB; None where there is no photograph.
    """
    position = 0
    if image is None and isinstance(entry, FeatureMaps):
        position, image = int(entry.positions[0]), entry.images[0]
    return None if image is None else np.asarray(read_image(image, position=position))


def check_pooler(estimator: Any) -> None:
    """Raise if `estimator` is no pooler at all."""
    if not hasattr(estimator, "transform") or not hasattr(estimator, "get_params"):
        raise TypeError(f"expected a pooler, got {type(estimator).__name__}.")


def draw_photograph(ax: Any, image: np.ndarray | None, size: tuple[float, float], gray: bool) -> Any:
    """Draw the photograph in pixel coordinates and take the axes' frame away; return its artist.

    Parameters
    ----------
    ax : matplotlib Axes
        Where.
    image : uint8 ndarray of shape (height, width, 3) or None
        The photograph.
    size : (width, height)
        Range of the coordinates, y downwards.
    gray : bool
        Show luminance only, so that colours laid over it keep their meaning.
    """
    width, height = size
    artist = None
    if image is not None:
        if gray:
            image = np.repeat((image @ [0.299, 0.587, 0.114])[:, :, None], 3, axis=2).round().astype(np.uint8)
        artist = ax.imshow(image, extent=(0, width, height, 0))
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    ax.set_frame_on(False)
    return artist
