"""Candidate regions of Jeong et al. (2017): convex hulls of the clusters of salient points, and the whole map.

A stage on the host, in float64, because it decides: which cells belong to a region must depend neither on the device
nor on the batch. Ties (symmetric maps have many) go to the lower index, whatever the order of the sums. Everything
but the hulls works on all images of a batch at once; these come from Qhull, one call per union of clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import ConvexHull

from .._grammar._salient_points import TIE

_BLOCK_ELEMENTS = 2**22  # pairs of points compared at once (32 MiB)
_MAX_ITERATIONS = 300  # of Lloyd's algorithm, which ends after 5 to 30
_ON_THE_EDGE = 1e-9  # cells; a centre this far outside a hull still lies in it


class ImageRegions(NamedTuple):
    """The candidate regions of one image; the whole image is the last.

    Attributes
    ----------
    polygons : list of ndarray of shape (V, 2)
        Corners (x, y) of the convex regions, as fractions of the width and height of the image, in order.
    masks : ndarray of shape (M, H, W), dtype bool
        The cells of the feature map in each region.
    points : ndarray of shape (n, 2), or None
        Salient points (x, y) of which the regions are made, as fractions of the width and height of the image; None
        if the whole image is the only region by choice.
    """

    polygons: list[np.ndarray]
    masks: np.ndarray
    points: np.ndarray | None = None

    def boxes(self, image_size: tuple[float, float]) -> np.ndarray:
        """Return the smallest boxes around the regions.

        Parameters
        ----------
        image_size : tuple of float
            Width and height of the photograph in pixels.

        Returns
        -------
        boxes : ndarray of shape (M, 4)
            Left, top, right and bottom of each region in pixels.
        """
        corners = [np.concatenate([polygon.min(axis=0), polygon.max(axis=0)]) for polygon in self.polygons]
        return np.array(corners) * np.tile(image_size, 2)


# ------------------------------------------------------------------ clusters
def global_fast_kmeans(points: np.ndarray, valid: np.ndarray, n_clusters: int) -> np.ndarray:
    """Cluster the points of every image without anything random (Likas et al. 2003, fast version).

    Clusters are added one at a time, from the mean on: the next centre starts at the point ``x_n`` that promises
    the largest gain ``sum_j max(d_j - |x_n - x_j|^2, 0)``, with ``d_j`` the squared distance of ``x_j`` to the
    nearest centre so far, and Lloyd's algorithm follows. Equal gains and distances go to the lower index.

    Parameters
    ----------
    points : ndarray of shape (N, n, 2)
        Coordinates.
    valid : ndarray of shape (N, n), dtype bool
        Which of them are points.
    n_clusters : int
        Clusters wanted; as many as an image has distinct points, if these are fewer.

    Returns
    -------
    labels : ndarray of shape (N, n)
        Cluster of each point in the order in which the clusters were added; -1 where there is no point.

    References
    ----------
    Likas, Vlassis, Verbeek, "The global k-means clustering algorithm", Pattern Recognition 36(2), 2003.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling._second_order._candidate_regions import global_fast_kmeans
    >>> points = np.array([[[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0], [0.0, 9.0]]])
    >>> global_fast_kmeans(points, np.ones((1, 5), dtype=bool), 3)
    array([[0, 0, 1, 1, 2]])
    """
    counts = np.maximum(valid.sum(axis=1), 1)[:, None, None]
    mean = np.where(valid[:, :, None], points, 0.0).sum(axis=1, keepdims=True) / counts
    points = np.where(valid[:, :, None], points - mean, 0.0)
    # within [-1, 1], so that one tolerance serves all
    largest = np.abs(points).max(axis=(1, 2), keepdims=True)
    points = points / np.where(largest > 0, largest, 1.0)
    centres = np.zeros((len(points), 1, 2))
    exists = valid.any(axis=1, keepdims=True)
    labels = np.zeros(valid.shape, dtype=np.intp)
    for _ in range(1, n_clusters):
        gains = _gains(points, valid, _distances(points, centres, exists).min(axis=1))
        best = gains.max(axis=1, keepdims=True)
        start = (gains >= best - TIE * np.abs(best)).argmax(axis=1)
        centres = np.concatenate([centres, points[np.arange(len(points)), start, None]], axis=1)
        exists = np.concatenate([exists, best > TIE], axis=1)
        centres, labels = _lloyd(points, valid, centres, exists)
    return np.where(valid, labels, -1)


def _lloyd(points, valid, centres, exists):
    cluster = np.arange(centres.shape[1])[:, None]
    labels = None
    for _ in range(_MAX_ITERATIONS):
        distances = _distances(points, centres, exists)
        near = distances <= distances.min(axis=1, keepdims=True) + TIE
        nearest = near.argmax(axis=1)
        if labels is not None and np.array_equal(nearest, labels):
            break
        labels = nearest
        chosen = ((labels[:, None] == cluster) & valid[:, None]).astype(np.float64)
        counts = chosen.sum(axis=2)[:, :, None]
        centres = np.where(counts > 0, (chosen @ points) / np.maximum(counts, 1), centres)
    return centres, labels


def _distances(points, centres, exists):
    """Squared distances (N, k, n); infinite to centres that an image does not have."""
    x = points[:, None, :, 0] - centres[:, :, None, 0]
    y = points[:, None, :, 1] - centres[:, :, None, 1]
    return np.where(exists[:, :, None], x * x + y * y, np.inf)


def _gains(points, valid, nearest):
    """``sum_j max(d_j - |x_n - x_j|^2, 0)`` for every point n, (N, n); -1 where there is no point."""
    n_images, n = valid.shape
    square = (points**2).sum(axis=2)
    one = np.ones_like(square)
    # d_j - |x_n - x_j|^2 as one product of rank 4; missing points j are farther away than any
    left = np.stack([2 * points[..., 0], 2 * points[..., 1], -square, one], axis=2)
    right = np.stack([points[..., 0], points[..., 1], one, np.where(valid, nearest - square, -16.0)], axis=1)
    gains = np.empty(valid.shape)
    step = max(1, _BLOCK_ELEMENTS // (n_images * n))
    for low in range(0, n, step):
        gain = left[:, low : low + step] @ right
        np.maximum(gain, 0.0, out=gain).sum(axis=2, out=gains[:, low : low + step])
    return np.where(valid, gains, -1.0)


# ------------------------------------------------------------------ hulls and their cells
def cluster_hulls(points: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Convex hulls of all unions of clusters, without those of no area.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
        (x, y).
    labels : ndarray of shape (n,)
        Cluster of each point; negative for none.

    Returns
    -------
    hulls : list of ndarray of shape (V, 2)
        Corners in order, in the order of the bit masks of the clusters in the union (1, 2, 1 + 2, 3, ...).
    """
    clusters = [_corners(points[labels == label]) for label in np.unique(labels[labels >= 0])]
    hulls = []
    for bits in range(1, 2 ** len(clusters)):
        members = [part for place, part in enumerate(clusters) if bits >> place & 1]
        # the hull of a union is the hull of the corners of its members' hulls
        corners = members[0] if len(members) == 1 else _corners(np.concatenate(members))
        if _has_area(corners):
            hulls.append(corners)
    return hulls


def _corners(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull in order; the points themselves when they lie on a line."""
    return points[ConvexHull(points).vertices] if _has_area(points) else points


def _has_area(points: np.ndarray) -> bool:
    from_first = points - points[0]
    squares = np.einsum("ij,ij->i", from_first, from_first)
    farthest = from_first[squares.argmax()]
    across = np.abs(from_first[:, 0] * farthest[1] - from_first[:, 1] * farthest[0])
    return bool(across.max() > _ON_THE_EDGE * squares.max())


def cells_inside(hulls: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Find the cells whose centre lies in each hull, the edge included.

    Parameters
    ----------
    hulls : list of ndarray of shape (V, 2)
        Corners (x, y) in units of cells, counter-clockwise (Qhull's order).
    height, width : int
        Of the map.

    Returns
    -------
    masks : ndarray of shape (R, height * width), dtype bool
        One row per hull.
    """
    masks = np.empty((len(hulls), height * width), dtype=bool)
    if not hulls:
        return masks
    # all hulls get as many corners as the largest: a corner repeated adds an edge of no length, which
    # excludes nothing
    n_corners = max(map(len, hulls))
    corners = np.stack([hull[np.minimum(np.arange(n_corners), len(hull) - 1)] for hull in hulls])
    edge = np.roll(corners, -1, axis=1) - corners
    length = np.sqrt((edge**2).sum(axis=2))
    normal = np.stack([-edge[..., 1], edge[..., 0]], axis=2)  # to the inside
    limit = (normal * corners).sum(axis=2) - _ON_THE_EDGE * length
    y, x = np.indices((height, width)).reshape(2, -1) + 0.5
    step = max(1, _BLOCK_ELEMENTS // (n_corners * height * width))
    for low in range(0, len(hulls), step):
        part = slice(low, low + step)
        along = normal[part, :, :1] * x + normal[part, :, 1:] * y
        masks[part] = (along >= limit[part, :, None]).all(axis=1)
    return masks


def candidate_regions(
    response: np.ndarray,
    points: np.ndarray,
    valid: np.ndarray,
    sizes: np.ndarray,
    n_clusters: int,
    min_cells: int,
) -> list[ImageRegions]:
    """Cluster the salient points of each image and return the hulls of all unions of clusters, and the whole.

    A hull of fewer than `min_cells` cells (the paper: of an area close to zero), or without any response, is left
    out. The whole image is always there, last, so that an image has between 1 and ``2 ** n_clusters`` regions.

    Parameters
    ----------
    response : ndarray of shape (N, H, W)
        Response of each cell.
    points : ndarray of shape (N, n, 2)
        Salient points (x, y).
    valid : ndarray of shape (N, n), dtype bool
        Which of them there are.
    sizes : ndarray of shape (N, 2)
        Width and height of the images in the coordinates of the points.
    n_clusters : int
        Clusters of points.
    min_cells : int
        Least number of cells of a region.

    Returns
    -------
    regions : list of ImageRegions
        One entry per image.
    """
    height, width = response.shape[1:]
    labels = global_fast_kmeans(points, valid, n_clusters)
    fractions = [
        [hull / size for hull in cluster_hulls(*image)]
        for *image, size in zip(points, labels, sizes, strict=True)
    ]
    hulls = [hull * (width, height) for image in fractions for hull in image]
    masks = cells_inside(hulls, height, width)
    active = response.reshape(len(response), -1) != 0
    return _gathered(fractions, masks, active, min_cells, height, width)


def _gathered(fractions, masks, active, min_cells, height, width):
    regions, start = [], 0
    for polygons, lively in zip(fractions, active, strict=True):
        own = masks[start : start + len(polygons)]
        start += len(polygons)
        keep = (own.sum(axis=1) >= min_cells) & (own & lively).any(axis=1)
        polygons = [polygon for polygon, kept in zip(polygons, keep, strict=True) if kept]
        whole = whole_region(height, width)
        cells = own[keep].reshape(-1, height, width)
        regions.append(ImageRegions([*polygons, *whole.polygons], np.concatenate([cells, whole.masks])))
    return regions


def whole_region(height: int, width: int) -> ImageRegions:
    """Return the whole image as its only region."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return ImageRegions([corners], np.ones((1, height, width), dtype=bool))
