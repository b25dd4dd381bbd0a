"""Salient points of Jeong et al. (2017): cells of large response, or detections where the response is large.

Coordinates are (x, y) in an image that spans ``[0, width] x [0, height]``: the centre of cell (i, j) of a map of H x W
cells is ``((j + 0.5) * width / W, (i + 0.5) * height / H)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from joblib import Parallel, delayed

from ...extraction import FeatureMaps, read_image, resize_longest

# Values this close, relative to the largest, count as equal, so that a tie is a tie in whatever order was summed.
TIE = 1e-10

# The detector: determinant of the Hessian at scales a factor sqrt(2) apart, on grey values in [0, 1]. The strength
# leaves 500 to 5000 points in a photograph of ordinary size and contrast.
_SCALES = tuple(2.0 * 2 ** (step / 2) for step in range(7))
_STRENGTH = 5e-4


def strongest(values: np.ndarray, n: int) -> np.ndarray:
    """Mark the `n` largest values of each row, and what ties with the last of them.

    Parameters
    ----------
    values : ndarray of shape (N, P)
        Any values.
    n : int
        How many; all where there are fewer.

    Returns
    -------
    chosen : ndarray of shape (N, P), dtype bool
        At least ``min(n, P)`` per row.
    """
    place = max(values.shape[1] - n, 0)
    threshold = np.partition(values, place, axis=1)[:, place, None]
    return values >= threshold - TIE * np.abs(threshold)


def salient_cells(response: np.ndarray, n_min: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the cells of largest response, in units of cells.

    Cells of the map, not of the response enlarged to the photograph, where the largest values would all be neighbours.

    Parameters
    ----------
    response : ndarray of shape (N, H, W)
        Response of each cell.
    n_min : int
        How many.

    Returns
    -------
    points : ndarray of shape (N, n, 2)
        (x, y), row by row; filled up with zeros.
    valid : ndarray of shape (N, n), dtype bool
        Which points there are.
    """
    width = response.shape[2]
    cell, valid = packed(strongest(response.reshape(len(response), -1), n_min))
    points = np.stack([cell % width, cell // width], axis=2) + 0.5
    return np.where(valid[:, :, None], points, 0.0), valid


def packed(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move what is chosen in each row to its beginning, in order.

    Parameters
    ----------
    chosen : ndarray of shape (N, P), dtype bool
        What is chosen.

    Returns
    -------
    places : ndarray of shape (N, n)
        Indices of the chosen; n is the largest number of them in a row.
    valid : ndarray of shape (N, n), dtype bool
        False where a row has fewer.
    """
    n = int(chosen.sum(axis=1).max())
    places = np.argsort(~chosen, axis=1, kind="stable")[:, :n]
    return places, np.take_along_axis(chosen, places, axis=1)


def hessian_points(grey: np.ndarray) -> np.ndarray:
    """Detect blobs and corners: maxima of the determinant of the Hessian over position and scale.

    Jeong et al. (2017) take the Hessian-affine detector. Only positions matter here, so the affine shapes are left out.

    Parameters
    ----------
    grey : ndarray of shape (H, W), float32
        Grey values in [0, 1].

    Returns
    -------
    points : ndarray of shape (n, 2)
        Distinct (x, y) in pixels, the centre of the first pixel being (0.5, 0.5).
    """
    feature = import_detector()
    determinant = np.empty((len(_SCALES), *grey.shape), dtype=np.float32)
    for level, sigma in enumerate(_SCALES):
        rr, rc, cc = feature.hessian_matrix(
            grey, sigma, mode="nearest", order="rc", use_gaussian_derivatives=False
        )
        determinant[level] = (rr * cc - rc * rc) * sigma**4
    peaks = feature.peak_local_max(determinant, min_distance=1, threshold_abs=_STRENGTH, exclude_border=False)
    return np.unique(peaks[:, 1:], axis=0)[:, ::-1] + 0.5


def import_detector():
    """Return ``skimage.feature``, or say how to install it."""
    try:
        from skimage import feature
    except ImportError as error:
        raise ImportError(
            'points="hessian" needs scikit-image. Install the extra "photos": pip install "scikit-retrieval[photos]".'
        ) from error
    return feature


def response_at(response: np.ndarray, points: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Sample a response map at points of the image: the values of the map resized bilinearly to the image.

    Parameters
    ----------
    response : ndarray of shape (H, W)
        Response of each cell.
    points : ndarray of shape (n, 2)
        (x, y) in the image.
    size : (width, height)
        Of the image.

    Returns
    -------
    values : ndarray of shape (n,)
        Beyond the outermost cell centres the border value.
    """
    height, width = response.shape
    x = np.clip(points[:, 0] * width / size[0] - 0.5, 0, width - 1)
    y = np.clip(points[:, 1] * height / size[1] - 0.5, 0, height - 1)
    left, top = x.astype(int), y.astype(int)
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = x - left, y - top
    upper = response[top, left] * (1 - x) + response[top, right] * x
    lower = response[below, left] * (1 - x) + response[below, right] * x
    return upper * (1 - y) + lower * y


def salient_points(
    response: np.ndarray, detected: np.ndarray, size: tuple[float, float], n_max: int, n_min: int
) -> np.ndarray:
    """Return the detections of largest response, or cells of the map where there are too few.

    Parameters
    ----------
    response : ndarray of shape (H, W)
        Response of each cell.
    detected : ndarray of shape (n, 2)
        Detections (x, y) in the image.
    size : (width, height)
        Of the image.
    n_max : int
        Detections kept.
    n_min : int
        With fewer detections than that, the `n_min` cells of largest response are taken instead.

    Returns
    -------
    points : ndarray of shape (m, 2)
        (x, y) in the image.
    """
    if len(detected) >= n_min:
        return detected[strongest(response_at(response, detected, size)[None], n_max)[0]]
    return salient_cells(response[None], n_min)[0][0] * (np.array(size) / response.shape[::-1])


def hit_cells(
    response: np.ndarray, detected: np.ndarray, size: tuple[float, float], n_points: int
) -> np.ndarray:
    """Mark the cells in which the detections of largest response lie.

    Parameters
    ----------
    response : ndarray of shape (H, W)
        Response of each cell.
    detected : ndarray of shape (n, 2)
        Detections (x, y) in the image.
    size : (width, height)
        Of the image.
    n_points : int
        Detections that count.

    Returns
    -------
    chosen : ndarray of shape (H, W), dtype bool
        Where no detection lies in a cell with a response, the `n_points` cells of largest response.
    """
    height, width = response.shape
    chosen = np.zeros((height, width), dtype=bool)
    if len(detected):
        x, y = detected[strongest(response_at(response, detected, size)[None], n_points)[0]].T
        rows = np.minimum((y * height / size[1]).astype(int), height - 1)
        chosen[rows, np.minimum((x * width / size[0]).astype(int), width - 1)] = True
    if not response[chosen].any():
        return strongest(response.reshape(1, -1), n_points).reshape(height, width)
    return chosen


def photographs_of(X: Any) -> FeatureMaps:
    """Return `X` if it is the maps of photographs that can be read; raise a ValueError otherwise."""
    if not isinstance(X, FeatureMaps):
        given = "maps in memory" if X is None else type(X).__name__
        raise ValueError(
            'points="hessian" detects points in the photographs: it needs the FeatureMaps of an extractor, not '
            f'{given}; points="grid" works from the maps alone.'
        )
    return X


def detections(
    X: FeatureMaps, indices: np.ndarray, response: np.ndarray, n_jobs: int | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Detect points in photographs, read as the extractor reads them, at its largest size.

    Parameters
    ----------
    X : FeatureMaps
        Maps of the photographs.
    indices : ndarray of shape (N,)
        Which of them.
    response : ndarray of shape (N, H, W)
        Their response.
    n_jobs : int or None
        Threads.

    Returns
    -------
    points : list of N ndarrays of shape (n, 2)
        (x, y) in pixels; none where the response is zero, as it is for a photograph that could not be read.
    sizes : ndarray of shape (N, 2)
        Width and height of the photographs; of the map where the response is zero.
    """
    points = [np.zeros((0, 2))] * len(indices)
    sizes = np.tile([float(response.shape[2]), float(response.shape[1])], (len(indices), 1))
    active = np.flatnonzero(response.any(axis=(1, 2)))
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    found = parallel(delayed(_detect)(X, int(indices[place])) for place in active)
    for place, (own, size) in zip(active, found, strict=True):
        points[place], sizes[place] = own, size
    return points, sizes


def _detect(X: FeatureMaps, index: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Detect points in one photograph; return them and its size."""
    sizes = X.extractor.sizes()
    longest = None if None in sizes else max(sizes)
    draft = None if longest is None else 2 * longest
    image = read_image(X.images[index], position=int(X.positions[index]), draft=draft).convert("L")
    grey = resize_longest(image, longest, enlarge=X.extractor.enlarge).astype(np.float32) / 255
    return hessian_points(grey), (float(grey.shape[1]), float(grey.shape[0]))


def stacked(points: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Fill the points of several images up to one array, as :func:`salient_cells` returns them."""
    counts = np.array([len(own) for own in points])
    valid = np.arange(counts.max()) < counts[:, None]
    filled = np.zeros((*valid.shape, 2))
    filled[valid] = np.concatenate(points)
    return filled, valid
