"""Where in a photograph of the index the region lies that matched."""

from __future__ import annotations

import threading
from typing import Any

from PIL import Image
from sklearn.pipeline import Pipeline

from ..extraction import scaled_size

Box = tuple[float, float, float, float]


class RegionBoxes:
    """The boxes of an encoder's regions, for photographs of any size.

    Regions are parts of the feature map, whose shape follows from the size of the photograph: a blank one of that size
    goes through the network, once for every size. Threads may share it.

    Parameters
    ----------
    encoder : Pipeline
        Fitted; photographs to region sets.
    """

    def __init__(self, encoder: Pipeline):
        self.encoder = encoder
        self._shapes: dict[tuple[int, int], tuple[int, int] | None] = {}
        self._lock = threading.Lock()

    def box_of(self, region: int, width: int, height: int) -> Box | None:
        """Tell where a region lies.

        Parameters
        ----------
        region : int
            Its number.
        width, height : int
            Size of the upright photograph in pixels.

        Returns
        -------
        box : tuple (left, top, right, bottom) or None
            In pixels of the upright photograph. None if the regions of the encoder depend on what the photograph
            shows, or come of several maps.
        """
        pooler = next((step for _, step in self.encoder.steps[1:] if hasattr(step, "boxes")), None)
        shape = None if pooler is None else self._shape(width, height)
        if pooler is None or shape is None:
            return None
        left, top, right, bottom = pooler.boxes(shape, (width, height))[region].tolist()
        return left, top, right, bottom

    def _shape(self, width: int, height: int) -> tuple[int, int] | None:
        with self._lock:
            if (width, height) not in self._shapes:
                self._shapes[width, height] = self._measured(width, height)
            return self._shapes[width, height]

    def _measured(self, width: int, height: int) -> tuple[int, int] | None:
        extractor: Any = self.encoder.steps[0][1]
        size = extractor.get_params(deep=False).get("image_size")
        if isinstance(size, int) and max(width, height) > size:
            width, height = scaled_size(width, height, size)  # what the extractor would make of it
        maps = extractor.transform([Image.new("RGB", (width, height))])[0]
        return None if isinstance(maps, tuple) else (int(maps.shape[1]), int(maps.shape[2]))
