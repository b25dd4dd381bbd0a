"""Descriptions of photographs that need no network: what any network has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..extraction import read_image

_LEVELS = 8  # per channel of a histogram
_SIDE = 8  # pixels of a thumbnail


def colour_histograms(images: Sequence[Any]) -> np.ndarray:
    """Describe photographs by how often each of 512 colours occurs in them.

    RGB with 8 levels each (Swain and Ballard, "Color indexing", International Journal of Computer Vision, 1991); square
    roots of the shares, so that the inner product of two is their Bhattacharyya coefficient.

    Parameters
    ----------
    images : sequence of path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photographs.

    Returns
    -------
    descriptors : ndarray of shape (n, 512), float32
        Rows of unit length.
    """
    places = np.array([_LEVELS * _LEVELS, _LEVELS, 1])
    rows = np.empty((len(images), _LEVELS**3), dtype=np.float32)
    for row, image in zip(rows, images, strict=True):  # photographs differ in size
        levels = np.asarray(read_image(image)).reshape(-1, 3) // (256 // _LEVELS)
        counts = np.bincount(levels @ places, minlength=_LEVELS**3)
        row[:] = np.sqrt(counts / counts.sum())
    return rows


def thumbnails(images: Sequence[Any]) -> np.ndarray:
    """Describe photographs by their grey 8 x 8 thumbnails.

    What perceptual hashes start from. The mean is taken off, so that the inner product of two is their correlation.

    Parameters
    ----------
    images : sequence of path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photographs.

    Returns
    -------
    descriptors : ndarray of shape (n, 64), float32
        Rows of unit length; zero for a photograph of one grey.
    """
    rows = np.empty((len(images), _SIDE**2), dtype=np.float32)
    for row, image in zip(rows, images, strict=True):
        small = read_image(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        levels = np.asarray(small, dtype=np.float32).ravel()
        levels -= levels.mean()
        row[:] = levels / max(float(np.linalg.norm(levels)), 1.0)
    return rows
