"""The regions of a pooler as boxes in the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np


class BoxesMixin:
    """Where the regions of a pooler lie; its class gives ``_region_boxes(height, width)`` in cells."""

    def _region_boxes(self, height: int, width: int) -> np.ndarray:
        """Return the boxes (row, column, height, width), an integer array (R, 4)."""
        raise NotImplementedError

    def boxes(self, shape: Sequence[int], image_size: Sequence[float]) -> np.ndarray:
        """Tell where the regions lie in the photograph. Needs no fit.

        Parameters
        ----------
        shape : tuple of int
            Height H and width W of a feature map in cells.

        image_size : tuple of float
            Width and height of its photograph in pixels.

        Returns
        -------
        boxes : ndarray of shape (R, 4)
            Left, top, right and bottom of each region in pixels, in the order in which the pooler describes them. Cell
            (i, j) covers ``[j / W, (j + 1) / W] x [i / H, (i + 1) / H]`` of the photograph; what the network sees from
            there reaches beyond it. The whole map is the whole photograph.

        Raises
        ------
        ValueError
            If a size is not positive, or a function of yours gives regions outside the map.

        Examples
        --------
        The four windows of the second scale of R-MAC, behind that of the first:

        >>> from skretrieval.pooling import RMACPooler
        >>> RMACPooler(n_levels=2).boxes((6, 6), (300, 600))
        array([[  0.,   0., 300., 600.],
               [  0.,   0., 200., 400.],
               [100.,   0., 300., 400.],
               [  0., 200., 200., 600.],
               [100., 200., 300., 600.]])
        """
        self._validate_params()  # type: ignore[attr-defined]
        if len(shape) != 2 or not all(isinstance(side, Integral) and int(side) > 0 for side in shape):
            raise ValueError(f"shape must be (height, width), two positive numbers of cells, got {shape}.")
        if len(image_size) != 2 or not all(isinstance(side, Real) and float(side) > 0 for side in image_size):
            raise ValueError(f"image_size must be (width, height), two positive numbers, got {image_size}.")
        height, width = (int(side) for side in shape)
        row, col, high, wide = self._region_boxes(height, width).T
        across, down = image_size
        sides = [col * across / width, row * down / height]
        sides += [(col + wide) * across / width, (row + high) * down / height]
        return np.stack(sides, axis=1)
