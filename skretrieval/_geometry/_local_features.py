"""Local features of a photograph, and whether a homography joins two photographs (OpenCV)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_USAC_ROUNDS = 2000


class LocalFeatures(NamedTuple):
    """Points of a photograph and what stands around them.

    Attributes
    ----------
    points : float32 ndarray of shape (n, 2)
        x and y in pixels of the photograph that was described.
    descriptors : float32 ndarray of shape (n, 128)
        RootSIFT, of unit length.
    shape : tuple of (int, int)
        Height and width of the photograph that was described.
    """

    points: np.ndarray
    descriptors: np.ndarray
    shape: tuple[int, int]


class Verification(NamedTuple):
    """What a homography between two photographs rests on.

    Attributes
    ----------
    n_inliers : int
        Matches that the homography explains; 0 without one.
    homography : float64 ndarray of shape (3, 3) or None
        Maps points of the first photograph to the second.
    inliers : int64 ndarray of shape (n_inliers, 2)
        Indices of the matched points.
    """

    n_inliers: int
    homography: np.ndarray | None
    inliers: np.ndarray


_NOTHING = Verification(0, None, np.zeros((0, 2), dtype=np.int64))


def import_cv2() -> Any:
    """Return OpenCV, or say which extra brings it."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Local features need OpenCV: install scikit-retrieval[opencv] (opencv-python-headless)."
        ) from error
    return cv2


def describe_points(pixels: np.ndarray, n_features: int = 800) -> LocalFeatures:
    """Find and describe the strongest points of a photograph.

    Parameters
    ----------
    pixels : uint8 ndarray of shape (H, W, 3) or (H, W)
        The photograph, at the size it is to be compared at.
    n_features : int, default=800
        Points at most, the strongest.

    Returns
    -------
    features : LocalFeatures
        Of m <= `n_features` points; none in a blank photograph.

    Raises
    ------
    ImportError
        Without OpenCV.

    References
    ----------
    .. [1] Arandjelovic, R. and Zisserman, A. (2012). Three things everyone should know to improve object
       retrieval. CVPR. Section 3 (RootSIFT).
    """
    cv2 = import_cv2()
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    keypoints, found = cv2.SIFT_create(nfeatures=n_features).detectAndCompute(
        np.ascontiguousarray(grey), None
    )
    if found is None or not len(found):
        return LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), grey.shape)
    points = np.array([point.pt for point in keypoints], dtype=np.float32)[:n_features]
    return LocalFeatures(points, _root_sift(found[:n_features]), grey.shape)


def _root_sift(sift: np.ndarray) -> np.ndarray:
    """Divide by the sum, take the root: the result has unit length, its dot product is Hellinger's kernel."""
    total = np.maximum(sift.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.sqrt(sift / total).astype(np.float32)


def match_points(first: np.ndarray, second: np.ndarray, ratio: float = 0.85) -> np.ndarray:
    """Match points that are each other's nearest, and clearly nearer than the next.

    Parameters
    ----------
    first, second : ndarray of shape (n, d), (m, d)
        Descriptors of unit length.
    ratio : float in (0, 1], default=0.85
        A match's distance over that to the second nearest of `second`, at most.

    Returns
    -------
    matches : int64 ndarray of shape (k, 2)
        Rows of `first` and of `second`.
    """
    if len(first) < 1 or len(second) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    similar = first @ second.T
    best = similar.argmax(axis=1)
    rows = np.arange(len(first))
    mutual = similar.argmax(axis=0)[best] == rows
    highest = similar[rows, best]
    similar[rows, best] = -np.inf  # of our own product
    next_highest = similar.max(axis=1)
    # Squared distances of unit vectors are 2 - 2 * similarity.
    clear = (1 - highest) < ratio**2 * (1 - next_highest)
    kept = np.flatnonzero(mutual & clear)
    return np.stack([kept, best[kept]], axis=1).astype(np.int64)


def verify_pair(
    first: LocalFeatures,
    second: LocalFeatures,
    *,
    ratio: float = 0.85,
    max_error: float = 4.0,
    min_inliers: int = 8,
) -> Verification:
    """Look for a homography that joins two photographs.

    Parameters
    ----------
    first, second : LocalFeatures
        Of the two photographs.
    ratio : float, default=0.85
        As in :func:`match_points`.
    max_error : float, default=4.0
        Pixels by which a match may miss its place.
    min_inliers : int, default=8
        Fewer (or fewer matches, which saves the search) are chance: the result is that without a homography.

    Returns
    -------
    verification : Verification
        `n_inliers` is 0 where no homography explains `min_inliers` matches, at least four. The same pair
        gives the same result, also in threads: OpenCV's search has a seed of its own.

    Raises
    ------
    ImportError
        Without OpenCV.

    References
    ----------
    .. [1] Philbin, J. et al. (2007). Object retrieval with large vocabularies and fast spatial matching. CVPR.
       Section 4 (spatial verification).
    .. [2] Barath, D. et al. (2020). MAGSAC++, a fast, reliable and accurate robust estimator. CVPR.
    """
    cv2 = import_cv2()
    matches = match_points(first.descriptors, second.descriptors, ratio)
    if len(matches) < max(4, min_inliers):
        return _NOTHING
    homography, mask = cv2.findHomography(
        first.points[matches[:, 0]],
        second.points[matches[:, 1]],
        method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=max_error,
        maxIters=_USAC_ROUNDS,
        confidence=0.999,
    )
    if homography is None or mask is None:
        return _NOTHING
    inliers = matches[mask.ravel().astype(bool)]
    if len(inliers) < max(4, min_inliers):
        return _NOTHING
    return Verification(len(inliers), homography, inliers)


def central_share(
    first: LocalFeatures, second: LocalFeatures, inliers: np.ndarray, half_width: float = 0.3
) -> float:
    """Tell how much of what joins two photographs lies in the middle of both.

    What photographs are taken of stands in their middle. Two photographs of different things at the same place are
    joined by a homography, too, but by what surrounds the middle.

    Parameters
    ----------
    first, second : LocalFeatures
        Of the two photographs.
    inliers : int ndarray of shape (n, 2)
        Indices of matched points, as :func:`verify_pair` returns.
    half_width : float, default=0.3
        The middle reaches so far from the centre, as a share of each side: 0.3 is 36 % of the area.

    Returns
    -------
    share : float
        Share of the inliers in the middle, of the photograph where it is smaller; 0 without inliers.
    """
    if not len(inliers):
        return 0.0
    shares = []
    for features, chosen in ((first, inliers[:, 0]), (second, inliers[:, 1])):
        height, width = features.shape
        places = features.points[chosen] / (width, height)
        shares.append(float((np.abs(places - 0.5).max(axis=1) < half_width).mean()))
    return min(shares)
