"""Find photographs that are in two sets which should have nothing in common."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from .._io import hash_array
from ..extraction import FeatureMaps, ImageCrop, check_images, content_digest, image_name, read_image


def warn_if_overlapping(fit_images: Any, test_images: Any, *, fit_name: str = "fit set") -> np.ndarray:
    """Warn when photographs that are to be tested on sit in the set that whitening or a codebook learns from.

    Photographs count as the same when their content is, whatever their file names, and an
    :class:`~skretrieval.extraction.ImageCrop` counts as the photograph that it is cut from.

    Parameters
    ----------
    fit_images : sequence of paths, PIL images, uint8 arrays or ImageCrop; or FeatureMaps, or an array
        What the whitening, the codebook or the extractor learns from. Feature maps given as arrays, and
        descriptors (n, d), are compared by their values, bit for bit.

    test_images : as `fit_images`
        The queries or test images.

    fit_name : str, default="fit set"
        What to call `fit_images` in the warning, such as ``"whitening set"``.

    Returns
    -------
    pairs : ndarray of shape (n_pairs, 2)
        Index of a test image, and of the first image of the fit set that is the same photograph; by test
        image. Empty, and no warning, if there is none.

    Warns
    -----
    UserWarning
        With the number of such test images, and the first of them.

    Raises
    ------
    ValueError, FileNotFoundError
        If an image cannot be read (the message names it), or one set holds photographs and the other values.

    Notes
    -----
    When both sets are files only, the bytes of the files are compared and nothing is decoded. A file saved
    again, in another size or with other metadata, is then another photograph. If one of the sets holds pixels,
    everything is decoded and compared by pixels. Photographs of the same object that are not the same
    photograph are not found: for them compare the labels.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from skretrieval.extraction import ImageCrop
    >>> from skretrieval.model_selection import warn_if_overlapping
    >>> photographs = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    >>> queries = [ImageCrop(photographs[3], (0, 0, 4, 4)), 255 - photographs[0]]
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_if_overlapping(photographs, queries)
    array([[0, 3]])
    >>> print(caught[0].message)
    1 of 2 test images are in the fit set of 5, themselves or as parts of the same photograph; first: test image 0
    (<ndarray>, box (0, 0, 4, 4)) and 3 (<ndarray>). What has been learned from them favours them, so scores are
    too high; learn from other images.
    """
    fit_items, test_items = _items(fit_images), _items(test_images)
    if _is_values(fit_items[0]) != _is_values(test_items[0]):
        raise ValueError(
            "One of the sets holds photographs and the other arrays of values: give the same of both."
        )
    by_pixels = not all(_is_file(item) for item in (*fit_items, *test_items))
    place: dict[str, int] = {}
    for index, item in enumerate(fit_items):
        place.setdefault(_digest(index, item, by_pixels), index)
    found = [place.get(_digest(index, item, by_pixels), -1) for index, item in enumerate(test_items)]
    pairs = np.array([(i, j) for i, j in enumerate(found) if j >= 0], dtype=int).reshape(-1, 2)
    if len(pairs):
        test, fit = pairs[0]
        warnings.warn(
            f"{len(pairs)} of {len(test_items)} test images are in the {fit_name} of {len(fit_items)}, themselves "
            f"or as parts of the same photograph; first: test image {test} ({image_name(test_items[test])}) and "
            f"{fit} ({image_name(fit_items[fit])}). What has been learned from them favours them, so scores are too "
            "high; learn from other images.",
            UserWarning,
            stacklevel=2,
        )
    return pairs


def _items(X: Any) -> list:
    """Return the photographs, or the arrays of values, one per image."""
    if isinstance(X, FeatureMaps):
        return list(X.images)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "fiu":
        return list(X.astype(np.float64))  # rows of descriptors; float32 fits without change
    if hasattr(X, "__len__") and not isinstance(X, str) and len(X) and all(_is_values(item) for item in X):
        return list(X)
    return check_images(X)


def _is_values(item: Any) -> bool:
    return isinstance(item, np.ndarray) and item.dtype.kind == "f"


def _is_file(item: Any) -> bool:
    image = item.image if isinstance(item, ImageCrop) else item
    return isinstance(image, str | os.PathLike)


def _digest(index: int, item: Any, by_pixels: bool) -> str:
    """Hash the whole photograph that an item shows, or the values that it holds."""
    if isinstance(item, ImageCrop):
        item = item.image
    if _is_values(item):
        values = item.astype(np.float64) + 0.0  # -0.0 equals 0.0
        return hash_array(values)
    return content_digest(read_image(item, position=index) if by_pixels else item, position=index)[0]
