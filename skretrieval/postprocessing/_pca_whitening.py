"""PCA-whitening that keeps no direction without variance."""

from numbers import Integral, Real
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, _fit_context
from sklearn.utils import Tags, check_array
from sklearn.utils._param_validation import Interval, RealNotInt
from sklearn.utils.validation import check_is_fitted, validate_data

from .._doc_link import DocLinkMixin
from .._linalg import check_rank, principal_axes, project
from .._region_sets import (
    RegionSetsMixin,
    is_region_sets,
    split_region_sets,
    stack_region_sets,
)


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
    n_components : int or float, default=None
        Number of axes to keep. None keeps every axis along which the data vary. A float in (0, 1) keeps the
        fewest axes that explain at least that share of the variance.
    power : float, default=0.5
        Coordinates are multiplied by ``explained_variance_ ** -power``: 0.5 is whitening, 0 only rotates, and
        values between (0.25 in some systems) whiten in part.
    center : bool, default=True
        Whether to subtract the mean. If False, the axes are those of the second moments about the origin.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features)
        Orthonormal principal axes in rows, by descending variance. The entry of largest magnitude is
        positive.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance of the training data along each axis (divisor n_samples - 1).
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as a share of the total variance.
    mean_ : ndarray of shape (n_features,)
        Mean of the training data; zeros if `center` is False.
    n_components_ : int
        Number of axes kept.
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
            None,
        ],
        "power": [Interval(Real, 0, 1, closed="both")],
        "center": ["boolean"],
    }

    def __init__(
        self, n_components: int | float | None = None, *, power: float = 0.5, center: bool = True
    ) -> None:
        self.n_components = n_components
        self.power = power
        self.center = center

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Find the principal axes of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of arrays of shape (M_i, n_features)
            Descriptors, or region sets, with at least two rows in all.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        self : PCAWhitening
            The fitted estimator.

        Raises
        ------
        ValueError
            If all rows are equal, or if X holds fewer than two rows, NaN or infinity.
        """
        if is_region_sets(X):
            X, _ = stack_region_sets(X)
        X = validate_data(self, X, dtype=self._row_dtypes, ensure_min_samples=2)
        wanted: Any = self.n_components
        share = None
        if wanted is not None and not isinstance(wanted, Integral):
            wanted, share = None, wanted
        axes = principal_axes(X, wanted, center=bool(self.center))
        n_kept = check_rank(axes, "n_components", wanted, X.shape[0], X.shape[1], "descriptors")
        if share is not None:
            n_kept = axes.n_for_share(share)

        self.mean_ = axes.mean.astype(X.dtype)
        self.components_ = axes.components[:n_kept].astype(X.dtype)
        self.explained_variance_ = axes.eigenvalues[:n_kept].astype(X.dtype)
        self.explained_variance_ratio_ = (axes.eigenvalues[:n_kept] / axes.total_variance).astype(X.dtype)
        self.n_components_ = n_kept
        return self

    def _transform_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        return project(rows, self.mean_, self.components_ * self.explained_variance_[:, None] ** -self.power)

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
        back = self.components_ * self.explained_variance_[:, None] ** self.power
        return X @ back.astype(X.dtype) + self.mean_.astype(X.dtype)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
