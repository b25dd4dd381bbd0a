"""PCA-whitening that keeps no direction without variance."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, _fit_context
from sklearn.utils import Tags, check_array
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from .._doc_link import DocLinkMixin
from .._linalg import (
    check_rank,
    ledoit_wolf,
    mean_for_size,
    principal_axes,
    project,
    row_blocks,
    shrinkage_for_size,
    warn_if_thin,
)
from .._region_sets import (
    RegionSetsMixin,
    is_region_sets,
    split_region_sets,
    stack_region_sets,
)

# Rows for each axis that n_components="auto" keeps: the best of 2, 4 ... 32 on 158 photographs.
_ROWS_FOR_AN_AXIS = 8


class PCAWhitening(DocLinkMixin, RegionSetsMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Project on the principal axes and divide by a power of the variance along each.

    Whitening removes the correlations between the channels of a network and lessens the weight of what many
    images have in common. It is learned without labels, usually on another collection than the one searched;
    descriptors are normally of unit length before it and are brought to unit length again after it, with
    scikit-learn's :class:`~sklearn.preprocessing.Normalizer`.

    Each row x becomes ``explained_variance_ ** -power * (components_ @ (x - mean_))``, not brought to unit length.

    Region sets (a list of arrays of shape (M_i, n_features), one per image) are taken wherever descriptors are, and
    give region sets: all regions of all images are the rows that :meth:`fit` learns from.

    Parameters
    ----------
    n_components : int, float or "auto", default=None
        Number of axes to keep. None keeps every axis along which the data vary (all features with `shrinkage`). A
        float in (0, 1) keeps the fewest axes that explain at least that share of the variance. "auto" keeps one axis
        for every eight rows without `shrinkage`, and all with it.
    power : float, default=0.5
        Coordinates are multiplied by ``explained_variance_ ** -power``: 0.5 is whitening, 0 only rotates, and
        values between (0.25 in some systems) whiten in part.
    center : bool, default=True
        Whether to subtract the mean. If False, the axes are those of the second moments about the origin.
    shrinkage : None, "size", "auto" or float in [0, 1], default=None
        s, which replaces each variance v by ``(1 - s) v + s m``, m the mean of the variances of all features, as
        :func:`sklearn.covariance.shrunk_covariance` does. None whitens by the variances as they are, as in [1]_.
        "size" is ``10 d / (10 d + n)`` for n rows of d features, and takes ``n / (n + 10)`` of the mean: a single
        row stays as it is, little more than the mean is subtracted from a few hundred, and very many are whitened in
        full. "auto" is the coefficient of Ledoit and Wolf [3]_, which
        estimates the covariance best and still whitens a few hundred rows too far for a search.

    Attributes
    ----------
    components_ : ndarray of shape (n_axes, n_features)
        Orthonormal principal axes in rows, by descending variance. The entry of largest magnitude is
        positive.
    explained_variance_ : ndarray of shape (n_axes,)
        Variance of the training data along each axis (divisor n_samples - 1), not shrunk.
    explained_variance_ratio_ : ndarray of shape (n_axes,)
        The same as a share of the total variance.
    mean_ : ndarray of shape (n_features,)
        Mean of the training data, the part of it that is subtracted with "size"; zeros if `center` is False.
    n_components_ : int
        Columns of the result: the number of axes kept; all features with `shrinkage` where none is cut off.
    shrinkage_ : float
        s; 0.0 without.
    shrunk_variance_ : ndarray of shape (n_axes,)
        Variance along each axis that is divided by.
    null_variance_ : float
        The same for every direction without an axis; 0.0 where these are dropped.
    n_features_in_ : int
        Number of features seen during :meth:`fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen during :meth:`fit`, where X had names.

    See Also
    --------
    LearnedWhitening : Whitening learned from images of the same object.
    sklearn.decomposition.PCA : ``PCA(whiten=True)`` has the same axes where the data have full rank.

    Notes
    -----
    An axis is kept only if its variance exceeds that of the first by a factor of ``max(n_samples, n_features)
    * eps``. ``PCA(whiten=True)`` on n_samples <= n_features rows keeps one axis whose variance is rounding
    error only; dividing by its root sends practically all the energy of an unseen descriptor there. A
    UserWarning says when fewer than `n_components` axes remain.

    **Few rows.** With n <= d rows full whitening has n - 1 axes, and brings all n rows to the same distance from one
    another. On 158 photographs (MobileNetV2, GR-MAC) the mAP falls from 0.94 to 0.08; with the axes of other
    photographs it falls from 0.98 to 0.90, as what is outside their span is lost. Therefore `shrinkage` keeps all
    directions: where `n_components` cuts nothing off, row x becomes ``C ** -power @ (x - mean_)`` with the shrunk
    covariance C, in the coordinates of the features. A :class:`WhiteningWarning` says where fewer than
    ``20 k (1 - s)^2`` rows are learned from, k being the axes (features with `shrinkage`, or where the axes keep less
    than nine tenths of the variance); "size" never is. Both
    numbers are measured by `benchmarks/whitening_choice.py`.

    With fewer samples than features the axes come from the Gram matrix (n_samples x n_samples), otherwise
    from the covariance, accumulated over blocks of rows; both in float64 and both exact.

    Threads: any number may call ``transform`` of one fitted object at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    .. [1] Jegou, H. and Chum, O. (2012). Negative evidences and co-occurrences in image retrieval: the
       benefit of PCA and whitening. ECCV.
    .. [2] Jeong, D., Choo, S., Seo, W. and Cho, N. I. (2017). Regional deep feature aggregation for image retrieval.
       ICASSP. Equation 6.
    .. [3] Ledoit, O. and Wolf, M. (2004). A well-conditioned estimator for large-dimensional covariance matrices.
       Journal of Multivariate Analysis, 88(2), 365-411.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.postprocessing import PCAWhitening
    >>> X = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 5.0], [2.0, 5.0]])
    >>> PCAWhitening().fit_transform(X).round(3)
    array([[-0.866, -0.866],
           [-0.866,  0.866],
           [ 0.866, -0.866],
           [ 0.866,  0.866]])
    """

    _parameter_constraints: dict = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"auto"}),
            None,
        ],
        "power": [Interval(Real, 0, 1, closed="both")],
        "center": ["boolean"],
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto", "size"}), None],
    }

    def __init__(
        self,
        n_components: int | float | str | None = None,
        *,
        power: float = 0.5,
        center: bool = True,
        shrinkage: float | str | None = None,
    ) -> None:
        self.n_components = n_components
        self.power = power
        self.center = center
        self.shrinkage = shrinkage

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Find the principal axes of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of arrays of shape (M_i, n_features)
            Descriptors, or region sets, with at least two rows in all; one is enough where "size" keeps all features.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        self : PCAWhitening
            The fitted estimator.

        Raises
        ------
        ValueError
            If all rows are equal or there are fewer than two (but with "size"), or if X holds NaN or infinity.
        """
        if is_region_sets(X):
            X, _ = stack_region_sets(X)
        by_size = self.shrinkage == "size"
        evenly = by_size and self.n_components in (None, "auto")
        X = validate_data(self, X, dtype=self._row_dtypes, ensure_min_samples=1 if evenly else 2)
        n, size = X.shape
        if evenly and np.array_equal(X[0], X[-1]) and (X[0] == X).all():
            return self._fit_equal_rows(X)
        wanted: Any = self.n_components
        if wanted == "auto":
            wanted = min(max(1, n // _ROWS_FOR_AN_AXIS), n - 1, size) if self.shrinkage is None else None
        share = None
        if wanted is not None and not isinstance(wanted, Integral):
            wanted, share = None, wanted
        # Ledoit and Wolf's coefficient is of the whole spectrum
        axes = principal_axes(X, None if self.shrinkage == "auto" else wanted, center=bool(self.center))
        n_kept = check_rank(axes, "n_components", wanted, n, size, "descriptors")
        if share is not None:
            n_kept = axes.n_for_share(share)

        variances = axes.eigenvalues[:n_kept]
        self.mean_ = (axes.mean * mean_for_size(n) if by_size else axes.mean).astype(X.dtype)
        self.components_ = axes.components[:n_kept].astype(X.dtype)
        self.explained_variance_ = variances.astype(X.dtype)
        self.explained_variance_ratio_ = (variances / axes.total_variance).astype(X.dtype)
        self.n_components_ = n_kept
        self.shrinkage_ = self._shrinkage(X, axes)
        self.shrunk_variance_, self.null_variance_ = self.explained_variance_, 0.0
        self._keeps_all = self.shrinkage is not None and wanted is None and share is None
        if self.shrinkage is not None:
            even = self.shrinkage_ * axes.total_variance / size
            self.shrunk_variance_ = ((1 - self.shrinkage_) * variances + even).astype(X.dtype)
            if self._keeps_all:
                self.null_variance_, self.n_components_ = float(even), size
        far = min(1.0, 2 * self.power)
        if self._keeps_all:
            warn_if_thin("PCAWhitening", n, size, size, (1 - self.shrinkage_) * far)
        else:  # what lies off the axes is lost, however far the spectrum is shrunk
            explained = float(variances.sum() / axes.total_variance)
            warn_if_thin("PCAWhitening", n, n_kept, size, far, explained=explained)
        return self

    def _fit_equal_rows(self, X: NDArray[Any]) -> Self:
        """Fit where nothing varies: all directions are alike."""
        n, size = X.shape
        self.mean_ = (X[0] * (mean_for_size(n) if self.center else 0)).astype(X.dtype)
        self.components_ = np.empty((0, size), X.dtype)
        self.explained_variance_ = self.explained_variance_ratio_ = self.shrunk_variance_ = np.empty(
            0, X.dtype
        )
        self.n_components_, self.shrinkage_ = size, shrinkage_for_size(n, size)
        self.null_variance_, self._keeps_all = 1.0, True
        return self

    def _shrinkage(self, X: NDArray[Any], axes: Any) -> float:
        if self.shrinkage is None:
            return 0.0
        if self.shrinkage == "size":
            return shrinkage_for_size(*X.shape)
        return ledoit_wolf(X, axes) if self.shrinkage == "auto" else float(self.shrinkage)

    def _transform_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self._keeps_all:
            return self._along_all(rows - self.mean_.astype(rows.dtype), -self.power)
        return project(rows, self.mean_, self.components_ * self.shrunk_variance_[:, None] ** -self.power)

    def _along_all(self, rows: NDArray[Any], power: float) -> NDArray[Any]:
        """Multiply by a power of the shrunk covariance, which is never written out."""
        axes = self.components_.astype(rows.dtype)
        null = self.null_variance_**power if self.null_variance_ else 0.0
        scale = (self.shrunk_variance_.astype(np.float64) ** power - null).astype(rows.dtype)
        out = np.empty_like(rows)
        for block in row_blocks(rows):
            out[block] = null * rows[block] + ((rows[block] @ axes.T) * scale) @ axes
        return out

    def inverse_transform(self, X: Any) -> Any:
        """Bring whitened descriptors back to the space of the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_), or list of arrays of shape (M_i, n_components_)
            Whitened descriptors, or region sets, of the length that :meth:`transform` gave them: L2
            normalisation afterwards cannot be undone.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features), or list of ndarrays of shape (M_i, n_features)
            As given. The original rows if no axis was dropped; otherwise their nearest points in the span of the kept
            axes.

        Raises
        ------
        ValueError
            If X does not have `n_components_` columns.
        """
        check_is_fitted(self)
        if is_region_sets(X):
            rows, offsets = stack_region_sets(X)
            return split_region_sets(self.inverse_transform(rows), offsets)
        X = check_array(X, dtype=self._row_dtypes)
        if X.shape[1] != self.n_components_:
            raise ValueError(f"X has {X.shape[1]} columns, but there are n_components_={self.n_components_}.")
        if self._keeps_all:
            return self._along_all(X, self.power) + self.mean_.astype(X.dtype)
        back = self.components_ * self.shrunk_variance_[:, None] ** self.power
        return X @ back.astype(X.dtype) + self.mean_.astype(X.dtype)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a whitening; one saved before there was `shrinkage` has none."""
        state.setdefault("shrinkage", None)
        if "explained_variance_" in state:
            state.setdefault("shrunk_variance_", state["explained_variance_"])
            for name, value in (("shrinkage_", 0.0), ("null_variance_", 0.0), ("_keeps_all", False)):
                state.setdefault(name, value)
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
