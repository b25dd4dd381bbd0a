"""Signed power normalisation."""

from numbers import Real
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import validate_data

from .._doc_link import DocLinkMixin
from .._linalg import signed_power
from .._region_sets import (
    RegionSetsMixin,
    is_region_sets,
    split_region_sets,
    stack_region_sets,
)


class PowerNormalizer(DocLinkMixin, RegionSetsMixin, OneToOneFeatureMixin, BaseEstimator):
    """Replace every entry x by ``sign(x) * |x| ** exponent``.

    Exponents below one flatten bursts: a pattern repeated many times in a photograph (windows of a facade) no
    longer outweighs everything else in its descriptor. Usually followed by scikit-learn's
    :class:`~sklearn.preprocessing.Normalizer`; this estimator does not change the length of the rows to one
    itself.

    Region sets (a list of arrays of shape (M_i, n_features), one per image) are taken wherever descriptors are, and
    give region sets.

    Parameters
    ----------
    exponent : float, default=0.5
        The power, in (0, 1]. 0.5 is the signed square root, 1 changes nothing.

    Attributes
    ----------
    n_features_in_ : int
        Number of features seen during :meth:`fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen during :meth:`fit`, where X had names.

    See Also
    --------
    PCAWhitening : Decorrelate the entries and give them equal variance.

    Notes
    -----
    Equation 2 of [1]_ prints sgn(X) * X ** xi, which is not a number for negative entries; the magnitude is
    meant. The estimator is stateless: :meth:`fit` only records the number of features.

    Threads: any number may call ``transform`` of one fitted object at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    .. [1] Zhao, H., Wu, J., Zhang, D. and Liu, P. (2021). Toward improving image retrieval via global saliency weighted
       feature. ISPRS International Journal of Geo-Information, 10(4), 249. Equation 2.
    .. [2] Perronnin, F., Sanchez, J. and Mensink, T. (2010). Improving the Fisher kernel for large-scale image
       classification. ECCV. Section 3.2.

    Examples
    --------
    >>> from skretrieval.postprocessing import PowerNormalizer
    >>> PowerNormalizer().fit_transform([[4.0, -9.0, 0.0]])
    array([[ 2., -3.,  0.]])
    """

    _parameter_constraints: dict = {"exponent": [Interval(Real, 0, 1, closed="right")]}

    def __init__(self, exponent: float = 0.5) -> None:
        self.exponent = exponent

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Record the number of features.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), or list of arrays (M_i, n_features)
            Descriptors, or region sets.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        self : PowerNormalizer
            This estimator.
        """
        if is_region_sets(X):
            X, _ = stack_region_sets(X)
        validate_data(self, X, accept_sparse="csr", dtype=self._row_dtypes)
        return self

    def inverse_transform(self, X: Any) -> Any:
        """Undo :meth:`transform`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), or list of arrays (M_i, n_features)
            Normalised descriptors, or region sets.

        Returns
        -------
        X_original : {ndarray, sparse matrix} of shape (n_samples, n_features), or list of ndarrays
            As given: ``sign(x) * |x| ** (1 / exponent)``.
        """
        if is_region_sets(X):
            rows, offsets = stack_region_sets(X)
            return split_region_sets(self.inverse_transform(rows), offsets)
        X = validate_data(self, X, accept_sparse="csr", dtype=self._row_dtypes, reset=False)
        return signed_power(X, 1.0 / self.exponent)

    def _transform_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        return signed_power(rows, self.exponent)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
