"""Discriminative whitening, learned from images of the same object."""

import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import validate_data

from .._doc_link import DocLinkMixin
from .._linalg import check_rank, flip_signs, principal_axes, project, warn_if_thin
from .._region_sets import RegionSetsMixin, reject_region_sets

UNLABELLED = -1

# Numbers taken into float64 at a time, for the scatters: 8 MiB.
_BLOCK_ELEMENTS = 2**20


class LearnedWhitening(DocLinkMixin, RegionSetsMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Whiten the differences between images of the same object, then rotate to the axes that separate objects.

    With the scatter of same-label pairs ``C_S`` and of all the other pairs ``C_D``, the projection is ``P =
    C_S^(-1/2) eig(C_S^(-1/2) C_D C_S^(-1/2))``: along every new axis images of one object differ equally
    much, and the axes are ordered by how much different objects differ. Descriptors are normally of unit
    length before it and are brought to unit length again after it, with scikit-learn's
    :class:`~sklearn.preprocessing.Normalizer`.

    Each row x becomes ``components_ @ (x - mean_)``, not brought to unit length. :meth:`transform` does so for each
    region of region sets (a list of arrays of shape (M_i, n_features), one per image), too; what is learned from are
    descriptors of whole images.

    Parameters
    ----------
    n_components : int, default=None
        Number of axes to keep, the most discriminative first. None keeps every axis along which the data
        vary.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features)
        The axes ``P`` in rows, with ``components_ @ C_S @ components_.T`` the identity (``C_S`` with its
        ridge, where one was needed). They are neither orthogonal nor of unit length. The entry of largest
        magnitude is positive.
    eigenvalues_ : ndarray of shape (n_components_,)
        Total scatter over same-label scatter along each axis, descending. For labels, the ratio of ``C_D`` to
        ``C_S`` is smaller by exactly one.
    mean_ : ndarray of shape (n_features,)
        The point that is subtracted: the mean of all rows for labels, of the query rows for pairs.
    n_components_ : int
        Number of axes kept.
    regularization_ : float
        Ridge added to ``C_S``, in units of its mean eigenvalue; 0.0 when none was needed.
    n_features_in_ : int
        Number of features seen during :meth:`fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen during :meth:`fit`, where X had names.

    See Also
    --------
    PCAWhitening : Whitening without labels.
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis : Weights every class by its size, keeps fewer
        axes than there are classes, and does not learn from unlabelled rows.

    Notes
    -----
    **Labels.** Sums run over unordered pairs of rows, without visiting any pair. With ``n_c`` rows of class c
    and their scatter ``W_c`` about their own mean, ``C_S = sum_c n_c W_c``; over all pairs of the N rows,
    ``T = C_S + C_D = N * sum_i (x_i - mean)(x_i - mean)^T``. A class of n_c images therefore counts by its
    n_c (n_c - 1) / 2 pairs. ``T`` gives the same axes as ``C_D``, so P solves ``T p = eigenvalue C_S p``.

    **Pairs.** As in the training of [2]_, ``C_S = sum over pairs (x_q - x_p)(x_q - x_p)^T``; `mean_` is the
    mean of the query rows ``X[q]``, a row counted as often as it occurs in q; and the total scatter is
    ``T = sum over all rows of X (x - mean_)(x - mean_)^T``. Rows that are in no pair enter ``T`` only. The
    axes differ from those for labels, since every pair given counts once and no other pair counts.

    **Rank.** Only directions in which the rows of X vary at all are used, as in :class:`PCAWhitening`. If
    ``C_S`` is singular there (fewer pairs than dimensions), ``a * trace(C_S) / n_features`` is added to its
    diagonal, with the first a of 1e-10, 1e-9, ... that makes it positive definite to working precision, and
    a UserWarning says so. With fewer than 20 independent differences within objects for each axis (n_c - 1 of a class,
    or one of a pair) a :class:`WhiteningWarning` tells that a search may become worse.
    More pairs, or a :class:`PCAWhitening` to fewer dimensions before, are the better cure.

    Threads: any number may call ``transform`` of one fitted object at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    .. [1] Zhao, H., Wu, J., Zhang, D. and Liu, P. (2021). Toward improving image retrieval via global saliency weighted
       feature. ISPRS International Journal of Geo-Information, 10(4), 249. Equations 3 to 6.
    .. [2] Radenovic, F., Tolias, G. and Chum, O. (2016). CNN image retrieval learns from BoW: unsupervised
       fine-tuning with hard examples. ECCV.
    .. [3] Mikolajczyk, K. and Matas, J. (2007). Improving descriptors for fast tree matching by optimal
       linear projection. ICCV.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.postprocessing import LearnedWhitening
    >>> X = np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 9.0], [2.0, 8.0], [5.0, 4.0]])
    >>> whitening = LearnedWhitening().fit(X, [0, 0, 1, 1, -1])
    >>> whitening.eigenvalues_.round(1)
    array([163. ,  10.5])
    """

    _parameter_constraints: dict = {"n_components": [Interval(Integral, 1, None, closed="left"), None]}

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: ArrayLike | None = None, *, pairs: Any = None) -> Self:
        """Learn the projection from labels or from pairs of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Descriptors, at least two.
        y : array-like of shape (n_samples,), default=None
            The object that each row shows, as integers or strings. -1 marks rows whose object is unknown;
            they, and labels that occur once, enter the total scatter only. Not used if `pairs` is given.
        pairs : tuple of two array-likes of shape (n_pairs,), default=None
            ``(q, p)``: row ``X[q[i]]`` (the query) and row ``X[p[i]]`` show the same object.

        Returns
        -------
        self : LearnedWhitening
            The fitted estimator.

        Raises
        ------
        ValueError
            If there is neither y nor pairs, if y is continuous, if no two rows share a label, if a pair
            points outside of X or at one row twice, or if all rows or the two rows of every pair are equal.
        """
        reject_region_sets(
            X,
            type(self).__name__,
            "learns from one descriptor per image: fit it on whole images (transform takes region sets), or use "
            "PCAWhitening, which learns from regions",
        )
        if pairs is None:
            X, given = validate_data(self, X, y, dtype=self._row_dtypes, ensure_min_samples=2)
            labels = _encode_labels(given)
            axes = principal_axes(X)
            same = same_label_scatter(X, labels, axes.components)
            total = axes.eigenvalues * (len(X) - 1.0) * len(X)
            counts = np.bincount(labels[labels >= 0])
            n_differences = int(np.sum(counts[counts > 1] - 1))
        else:
            X = validate_data(self, X, dtype=self._row_dtypes, ensure_min_samples=2)
            queries, positives = _check_pairs(pairs, len(X))
            batches = _batches(0, len(queries), X.shape[1])
            totals = [np.sum(X[queries[start:stop]], axis=0, dtype=np.float64) for start, stop in batches]
            center = np.sum(totals, axis=0) / len(queries)
            axes = principal_axes(X, center=center)
            same = pair_scatter(X, queries, positives, axes.components)
            total = axes.eigenvalues * (len(X) - 1.0)
            n_differences = len(queries)

        n_kept = check_rank(axes, "n_components", self.n_components, X.shape[0], X.shape[1], "descriptors")
        # In the coordinates of the principal axes T is diagonal, and directions without any variance are
        # gone.
        same, self.regularization_ = _regularized(same, X.shape[1])
        warn_if_thin(
            "LearnedWhitening", n_differences, n_kept, X.shape[1], 1.0, rows="differences within objects"
        )
        values, vectors = linalg.eigh(np.diag(total), same)
        order = slice(None, -n_kept - 1, -1)
        components = flip_signs(vectors[:, order].T @ axes.components)
        self.mean_ = axes.mean.astype(X.dtype)
        self.components_ = components.astype(X.dtype)
        self.eigenvalues_ = values[order].astype(X.dtype)
        self.n_components_ = n_kept
        return self

    def _transform_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        return project(rows, self.mean_, self.components_)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def same_label_scatter(X: Any, labels: NDArray[Any], axes: Any = None) -> NDArray[np.float64]:
    """Scatter of all same-label pairs, ``sum over i < j of one label (x_i - x_j)(x_i - x_j)^T``.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        Rows.
    labels : ndarray of int of shape (n,)
        Codes of the labels, negative for rows without one.
    axes : ndarray of shape (d, D), default=None
        Scatter of the coordinates along these axes, instead of the rows themselves.

    Returns
    -------
    scatter : ndarray of shape (d, d), or (D, D), float64
        Computed as the sum of n_c times the scatter of each class about its mean: O(n D^2), whatever the
        number of pairs, and over batches of whole classes (a class that is larger than a batch takes several).

    Raises
    ------
    ValueError
        If no two rows share a label.
    """
    known = np.flatnonzero(labels >= 0)
    _, codes, counts = np.unique(labels[known], return_inverse=True, return_counts=True)
    order = known[np.argsort(codes, kind="stable")]
    rows_per_class = np.repeat(counts, counts)
    order, counts = order[rows_per_class > 1], counts[counts > 1]
    if counts.size == 0:
        raise ValueError(
            "No two samples share a label (label -1 marks unlabelled samples), so there is no same-label "
            "pair to learn from."
        )
    ends = np.cumsum(counts)
    starts, of_class = ends - counts, np.repeat(np.arange(len(counts)), counts)

    def from_the_first(
        begin: int, end: int
    ) -> Iterator[tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp]]]:
        """Yield rows in float64 relative to the first one of their class, and where in them each class begins."""
        for start, stop in _batches(begin, end, X.shape[1]):
            own = of_class[start:stop]
            # Relative to its first row, a class of equal rows has a scatter of exactly zero.
            rows = X[order[start:stop]].astype(np.float64)
            rows -= X[order[starts[own]]]
            yield rows, own, np.flatnonzero(np.diff(own, prepend=-1))

    size = X.shape[1] if axes is None else len(axes)
    scatter = np.zeros((size, size))
    at_a_time = max(1, _BLOCK_ELEMENTS // X.shape[1])
    first = 0
    while first < len(counts):
        stop = max(first + 1, int(np.searchsorted(ends, starts[first] + at_a_time, side="right")))
        limits = int(starts[first]), int(ends[stop - 1])
        means = np.zeros((stop - first, X.shape[1]))
        for rows, own, begins in from_the_first(*limits):
            means[own[begins] - first] += np.add.reduceat(rows, begins, axis=0)
        means /= counts[first:stop, None]
        for rows, own, _ in from_the_first(*limits):
            rows -= means[own - first]
            rows *= np.sqrt(counts[own])[:, None]
            _add_scatter(scatter, rows, axes)
        first = stop
    return scatter


def pair_scatter(
    X: Any, queries: NDArray[np.intp], positives: NDArray[np.intp], axes: Any = None
) -> NDArray[np.float64]:
    """Scatter of the differences of given pairs of rows.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        Rows.
    queries, positives : ndarray of int of shape (n_pairs,)
        The pairs, as indices of rows.
    axes : ndarray of shape (d, D), default=None
        Scatter of the coordinates along these axes, instead of the rows themselves.

    Returns
    -------
    scatter : ndarray of shape (d, d), or (D, D), float64
        ``sum over pairs (x_q - x_p)(x_q - x_p)^T``.
    """
    size = X.shape[1] if axes is None else len(axes)
    scatter = np.zeros((size, size))
    for start, stop in _batches(0, len(queries), X.shape[1]):
        differences = X[queries[start:stop]].astype(np.float64)
        differences -= X[positives[start:stop]]
        _add_scatter(scatter, differences, axes)
    return scatter


def _add_scatter(scatter: NDArray[Any], rows: NDArray[Any], axes: Any) -> None:
    """Add the scatter of rows about the origin, of their coordinates if there are axes."""
    coordinates = rows if axes is None else rows @ axes.T
    scatter += coordinates.T @ coordinates


def _batches(start: int, stop: int, n_features: int) -> list[tuple[int, int]]:
    """Limits of so many rows as are taken into float64 at a time."""
    step = max(1, _BLOCK_ELEMENTS // n_features)
    return [(first, min(first + step, stop)) for first in range(start, stop, step)]


def _encode_labels(y: NDArray[Any]) -> NDArray[Any]:
    """Codes 0, 1, ... of the labels, -1 for unlabelled rows."""
    if y.dtype.kind == "f" and np.any(y != np.round(y)):
        raise ValueError("Unknown label type: y is continuous; labels of objects are integers or strings.")
    codes = np.unique(y, return_inverse=True)[1].reshape(-1)
    return codes if y.dtype.kind in "US" else np.where(y == UNLABELLED, -1, codes)


def _check_pairs(pairs: Any, n_samples: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Validate ``pairs=(q, p)`` into two index arrays."""
    if len(pairs) != 2:
        raise ValueError(f"pairs must be a tuple (q, p) of two index arrays, got {len(pairs)} of them.")
    queries, positives = (np.asarray(part) for part in pairs)
    if queries.ndim != 1 or queries.shape != positives.shape:
        raise ValueError(
            f"pairs=(q, p) must be two 1-D index arrays of equal length, got shapes {queries.shape} and "
            f"{positives.shape}."
        )
    if queries.size == 0:
        raise ValueError("pairs=(q, p) is empty: there is no same-label pair to learn from.")
    for part in (queries, positives):
        if part.dtype.kind not in "iu":
            raise ValueError(f"pairs=(q, p) must hold integer indices of rows of X, got dtype {part.dtype}.")
        outside = np.flatnonzero((part < 0) | (part >= n_samples))
        if outside.size:
            raise ValueError(
                f"pairs[{outside[0]}] points at row {part[outside[0]]}, but X has rows 0 to {n_samples - 1}."
            )
    itself = np.flatnonzero(queries == positives)
    if itself.size:
        raise ValueError(f"pairs[{itself[0]}] joins row {queries[itself[0]]} with itself.")
    return queries, positives


def _regularized(scatter: NDArray[Any], n_features: int) -> tuple[NDArray[Any], float]:
    """Add the smallest ridge of the ladder that makes `scatter` positive definite to working precision."""
    mean_eigenvalue = np.trace(scatter) / n_features
    if mean_eigenvalue == 0:
        raise ValueError(
            "The two descriptors of every same-label pair are equal: they have no differences to whiten."
        )
    # A Cholesky factorisation alone may pass on pivots made of rounding errors, hence the condition number.
    tolerance = len(scatter) * np.finfo(np.float64).eps
    for ridge in (0.0, *(10.0**exponent for exponent in range(-10, 1))):
        candidate = scatter + ridge * mean_eigenvalue * np.eye(len(scatter))
        factor, failed = linalg.lapack.dpotrf(candidate, lower=1)
        if failed:
            continue
        reciprocal_condition, _ = linalg.lapack.dpocon(factor, np.linalg.norm(candidate, 1), uplo="L")
        if reciprocal_condition > tolerance:
            break
    if ridge:
        warnings.warn(
            f"The scatter of the same-label pairs is singular; a ridge of {ridge:.0e} times its mean "
            "eigenvalue was added. More pairs, or PCAWhitening to fewer components before, avoid it.",
            UserWarning,
            stacklevel=4,
        )
    return candidate, ridge
