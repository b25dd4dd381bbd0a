"""What the displays share: one entry of a sequence of maps, its photograph, the axes to draw it on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..extraction import FeatureMaps, read_image
from ..pooling._codebooks._local_descriptors import salient_mask
from ..pooling._engine._base import BasePooler
from ..pooling._engine._batches import Batch, n_entries


def import_pyplot(caller: Any) -> Any:
    """Return ``matplotlib.pyplot``, or say how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{type(caller).__name__}.plot needs matplotlib. "
            'Install the extra "plot": pip install "scikit-retrieval[plot]"'
        ) from error
    return plt


def one_entry(X: Any, index: int) -> Any:
    """Return entry `index` of a sequence of maps as a sequence of one, lazy maps still lazy.

    Raises
    ------
    IndexError
        If there is no such entry.
    """
    n = n_entries(X)
    if not -n <= index < n:
        raise IndexError(f"index {index} is out of range for {n} feature maps")
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
    """Raise if `estimator` is no pooler, or one with invalid parameters."""
    if not hasattr(estimator, "transform") or not hasattr(estimator, "_validate_params"):
        raise TypeError(f"expected a pooler, got {type(estimator).__name__}")
    estimator._validate_params()
    if isinstance(estimator, BasePooler):
        estimator._check_parameters()


def over_cells(
    pooler: Any, block: Batch, valid: torch.Tensor, values: torch.Tensor, fill: float
) -> np.ndarray:
    """Put a value per local descriptor of a codebook where its cell is.

    Parameters
    ----------
    pooler : codebook pooler
        Fitted.
    block : Batch
        One rectified map.
    valid : bool tensor of shape (1, n)
        Which local descriptors are any, of all cells or of the salient ones.
    values : tensor of shape (n,)
        The values.
    fill : float
        Value of the cells that are no local descriptors.

    Returns
    -------
    cells : ndarray of shape (H, W), enlarged as the pooler enlarges its maps
        Of the dtype of the values.
    """
    shape = [side * pooler._upsample for side in block.maps.shape[2:]]
    there, found = valid[0].cpu().numpy(), values.cpu().numpy()
    places = np.arange(shape[0] * shape[1])
    if pooler.points != "all":
        places = np.flatnonzero(salient_mask(block, pooler.points, pooler.n_points, pooler._upsample))
    cells = np.full(shape, fill, dtype=found.dtype)
    cells.flat[places[there]] = found[there]
    return cells


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
