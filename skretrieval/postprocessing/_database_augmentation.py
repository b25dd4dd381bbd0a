"""Database-side feature augmentation."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.utils import Tags, gen_batches
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from .._doc_link import DocLinkMixin
from .._linalg import l2_normalize, row_blocks
from .._region_sets import reject_region_sets

_WHY_NO_REGIONS = "takes one descriptor per image; with regions, QueryExpansion augments the queries instead"

# Similarities held at a time.
_BLOCK_ELEMENTS = 2**22


class DatabaseAugmentation(DocLinkMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Replace every database descriptor by a mean of itself and its nearest neighbours in the database.

    What query expansion does to a query at search time, this does to the gallery beforehand: a view that
    shows the object badly borrows from better views of it. It belongs right before the retriever; queries
    pass through.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of neighbours added to each descriptor, itself not counted. With fewer other descriptors in the
        database, all of them are added.
    alpha : float, default=0.0
        Neighbours are weighted by ``max(cosine, 0) ** alpha`` and the descriptor itself by 1. 0 is the plain
        mean.
    augment_queries : bool, default=False
        Whether :meth:`transform` also augments rows that are not in the database, by their neighbours in it:
        query expansion with the query included.

    Attributes
    ----------
    database_ : ndarray of shape (n_samples, n_features)
        The descriptors given to :meth:`fit`.
    n_features_in_ : int
        Number of features seen during :meth:`fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen during :meth:`fit`, where X had names.

    Notes
    -----
    With unit descriptors d and the n nearest others j of i by cosine (ties: the lower index), ``d_i' = l2(d_i
    + sum_j max(<d_i, d_j>, 0) ** alpha d_j)``. Rows are brought to unit length first, and the output has unit
    length, also of queries. Zero rows stay zero; where the sum is zero the descriptor is kept.

    In a Pipeline, ``fit`` sends the gallery through :meth:`fit_transform` and queries go through
    :meth:`transform`. ``transform`` recognises rows of the database by equality of all their entries and
    treats them as in ``fit``, so that ``fit_transform(X)`` and ``fit(X).transform(X)`` are the same.

    Threads: any number may call ``transform`` of one fitted object at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    .. [1] Turcot, P. and Lowe, D. (2009). Better matching with fewer features: the selection of useful features in
       large database recognition problems. ICCV Workshops.
    .. [2] Gordo, A., Almazan, J., Revaud, J. and Larlus, D. (2017). End-to-end learning of deep visual representations
       for image retrieval. International Journal of Computer Vision.
    .. [3] Radenovic, F., Tolias, G. and Chum, O. (2018). Fine-tuning CNN image retrieval with no human annotation.
       IEEE Transactions on Pattern Analysis and Machine Intelligence. For the weights.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.postprocessing import DatabaseAugmentation
    >>> X = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> DatabaseAugmentation(n_neighbors=1).fit_transform(X).round(3)
    array([[0.894, 0.447],
           [0.316, 0.949],
           [0.316, 0.949]])
    """

    _parameter_constraints: dict = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "augment_queries": ["boolean"],
    }

    def __init__(self, n_neighbors: int = 10, *, alpha: float = 0.0, augment_queries: bool = False) -> None:
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.augment_queries = augment_queries

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Keep the database.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Descriptors of the gallery.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        self : DatabaseAugmentation
            The fitted estimator.
        """
        reject_region_sets(X, type(self).__name__, _WHY_NO_REGIONS)
        X = validate_data(self, X, dtype=[np.float64, np.float32], copy=True)
        self.database_ = X
        fingerprints = _fingerprints(X)
        self._order = np.argsort(fingerprints, kind="stable")
        self._fingerprints = fingerprints[self._order]
        return self

    def transform(self, X: Any) -> Any:
        """Augment the rows that are in the database.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Descriptors.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            Augmented descriptors of unit length; rows that are not in the database are only brought to unit
            length, unless `augment_queries`.
        """
        check_is_fitted(self)
        reject_region_sets(X, type(self).__name__, _WHY_NO_REGIONS)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        unit = l2_normalize(X)
        own = self._find(X)
        rows = np.arange(len(X)) if self.augment_queries else np.flatnonzero(own >= 0)
        rows = rows[np.any(unit[rows], axis=1)]
        if rows.size == 0:
            return unit
        database = l2_normalize(self.database_).astype(X.dtype, copy=False)
        for block in gen_batches(len(rows), max(1, _BLOCK_ELEMENTS // len(database))):
            i = rows[block]
            unit[i] = _augment(unit[i], own[i], database, self.n_neighbors, self.alpha)
        return unit

    def _find(self, X: Any) -> NDArray[Any]:
        """Index in the database of each row of X, -1 for rows that are not in it."""
        X = X.astype(self.database_.dtype, copy=False)
        place = np.searchsorted(self._fingerprints, _fingerprints(X))
        candidate = self._order[np.minimum(place, len(self._order) - 1)]
        return np.where(np.all(self.database_[candidate] == X, axis=1), candidate, -1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _fingerprints(X: Any) -> NDArray[Any]:
    """One 64-bit integer per row, equal for equal rows: a random linear form of the bits, modulo 2 ** 64."""
    factors = np.random.default_rng(0).integers(2**64, size=X.shape[1], dtype=np.uint64) | np.uint64(1)
    fingerprints = np.empty(len(X), dtype=np.uint64)
    for rows in row_blocks(X):
        # The sum turns -0.0 into 0.0: they are equal, but their bits are not.
        bits = (np.ascontiguousarray(X[rows]) + 0.0).view(np.dtype(f"u{X.itemsize}"))
        fingerprints[rows] = bits.astype(np.uint64) @ factors
    return fingerprints


def _augment(
    unit: NDArray[Any], own: NDArray[np.intp], database: NDArray[Any], n_neighbors: int, alpha: float
) -> NDArray[Any]:
    """Add to each unit row its nearest rows of `database`, but for the row `own` that it is itself."""
    similarities = unit @ database.T
    stored = np.flatnonzero(own >= 0)
    similarities[stored, own[stored]] = -np.inf
    n_others = len(database) - (own >= 0)
    # The n-th largest value of each row; of the neighbours that tie with it the first ones are taken.
    n = min(n_neighbors, len(database))
    threshold = np.partition(similarities, -n, axis=1)[:, -n]
    row, neighbor = np.nonzero(similarities >= threshold[:, None])
    tied = similarities[row, neighbor] == threshold[row]
    wanted = np.minimum(n, n_others) - np.bincount(row[~tied], minlength=len(unit))
    first = np.searchsorted(row, np.arange(len(unit)))
    ties_so_far = np.cumsum(tied)
    place = ties_so_far - (ties_so_far - tied)[first][row]  # 1 for the first tie of a row
    chosen = ~tied | (place <= wanted[row])
    row, neighbor = row[chosen], neighbor[chosen]
    weights = np.maximum(similarities[row, neighbor], 0) ** alpha
    # The row itself is added in its place among its neighbours, so that rows which are each other's neighbours, and
    # so have the same mean, get it to the last bit: else rounding would decide in which order they are found.
    weights = np.concatenate([weights, np.ones(len(stored), dtype=weights.dtype)])
    places = np.concatenate([row, stored]), np.concatenate([neighbor, own[stored]])
    graph = sparse.csr_array((weights, places), shape=similarities.shape, dtype=unit.dtype)
    graph.sort_indices()
    augmented = np.where((own >= 0)[:, None], 0, unit) + graph @ database
    return l2_normalize(np.where(np.any(augmented, axis=1, keepdims=True), augmented, unit))
