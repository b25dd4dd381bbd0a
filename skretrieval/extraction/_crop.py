"""A photograph with the box of it that counts, and what messages call a photograph."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class ImageCrop:
    """A photograph of which only a box is used: the usual way to give a query.

    Parameters
    ----------
    image : str, path, PIL.Image.Image or uint8 ndarray of shape (H, W, 3) or (H, W)
        The whole photograph.

    box : tuple of 4 numbers (left, top, right, bottom)
        In pixels of the photograph as it is shown (after its EXIF orientation); right and bottom are
        exclusive. It must lie inside the photograph, which is checked when the photograph is read.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.extraction import ImageCrop
    >>> ImageCrop(np.zeros((40, 60, 3), dtype=np.uint8), box=(10, 5, 50, 35)).box
    (10, 5, 50, 35)
    """

    image: Any
    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        box = tuple(self.box)
        if len(box) != 4:
            raise ValueError(f"box must be (left, top, right, bottom), got {len(box)} numbers.")
        object.__setattr__(self, "box", box)


def image_name(item: Any) -> str:
    """Name a photograph for messages: its path where it has one, the number of its bytes, else its kind.

    Parameters
    ----------
    item : path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photograph.

    Returns
    -------
    name : str
        Of a crop with its box.

    Examples
    --------
    >>> from skretrieval.extraction import ImageCrop, image_name
    >>> image_name(ImageCrop("tower.jpg", (0, 0, 20, 30)))
    'tower.jpg, box (0, 0, 20, 30)'
    """
    if isinstance(item, ImageCrop):
        return f"{image_name(item.image)}, box {item.box}"
    if isinstance(item, str | os.PathLike):
        return os.fspath(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return f"{len(item):,} bytes"
    return f"<{type(item).__name__}>"
