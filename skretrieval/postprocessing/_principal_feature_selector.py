"""Selection of descriptor entries by principal feature analysis."""

import warnings
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectorMixin
from sklearn.metrics import euclidean_distances
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, RealNotInt
from sklearn.utils.validation import check_is_fitted, validate_data

from .._doc_link import DocLinkMixin
from .._linalg import check_rank, principal_axes
from .._region_sets import RegionSetsMixin, is_region_sets, split_region_sets, stack_region_sets

# Loadings are at most 1 and of the order of n_features ** -0.5: what comes after these decimals is rounding
# error.
_DECIMALS = 10

# The seeds of k-means are looked up in a table of all distances, unless it would be larger than this (11,585
# features).
_TABLE_BYTES = 2**30


class PrincipalFeatureSelector(DocLinkMixin, RegionSetsMixin, SelectorMixin, BaseEstimator):
    """Select the entries of a descriptor that represent the others.

    Every feature is described by its loadings on the first principal axes; the features are clustered by
    k-means into `n_features` groups of similar loadings, and the one nearest to the centre of each group is
    kept. Unlike PCA the output is made of original entries, so that nothing has to be projected at query
    time.

    Region sets (a list of arrays of shape (M_i, n_features_in), one per image) are taken wherever descriptors are,
    and give region sets.

    Parameters
    ----------
    n_features : int, default=768
        Number of features to keep. With n_features or more than there are, all are kept.
    n_axes : int or float, default=None
        Number of principal axes whose loadings describe a feature. None takes ``n_features - 1``, or the rank
        of the data if that is smaller. A float in (0, 1) takes the fewest axes that explain at least that
        share of the variance.
    absolute : bool, default=False
        Whether to cluster the magnitudes of the loadings, so that a feature and its negative fall together.
    use_correlation : bool, default=False
        Whether to divide the features by their standard deviation first: the axes are then those of the
        correlation matrix.
    n_init : int, default=10
        Number of runs of k-means, of which the best is kept.
    random_state : int, RandomState instance or None, default=None
        Seed of k-means. The selection depends on it: fix it for reproducible descriptors.

    Attributes
    ----------
    selected_features_ : ndarray of int of shape (n_selected,)
        Indices of the features kept, ascending, which is their order in the output.
    n_axes_ : int
        Number of axes used; 0 if all features are kept.
    n_features_in_ : int
        Number of features seen during :meth:`fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen during :meth:`fit`, where X had names.

    See Also
    --------
    PCAWhitening : Reduce the dimension by projection.

    Notes
    -----
    [2]_ introduced it to image retrieval, to shorten multi-resolution R-MAC descriptors from 3072 to 768, 384 or 320
    entries. It does not say how many axes it used; implementations of [1]_ use one less than the number of features
    to keep. All ``n_features_in_`` axes would be useless: the rows of an orthogonal matrix are all at the same
    distance, so that there is nothing to cluster, and :meth:`fit` refuses. [2]_ clusters the loadings themselves,
    which is the default here, [1]_ their magnitudes.

    Of features equally near to a centre, as the two of a group of two always are, the first is kept. If
    k-means finds fewer groups than asked for, because features are duplicates or constant, the rest is filled
    with the features of highest variance not yet selected, and a UserWarning says so. The features kept are
    always distinct.

    In region sets the features are chosen by the first descriptor of each set, and the others reuse its choice: [2]_
    chooses by the descriptors of whole images, which come first, and shortens those of their most telling cells
    likewise.

    With 3072 features, 1491 descriptors and 768 features to keep, a fit takes about 5 seconds on two cores. The
    distances between all loadings are computed once, for the seeds of all the runs of k-means.

    Threads: any number may call ``transform`` of one fitted object at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    .. [1] Lu, Y., Cohen, I., Zhou, X. S. and Tian, Q. (2007). Feature selection using principal feature
       analysis. ACM Multimedia.
    .. [2] Seddati, O., Dupont, S., Mahmoudi, S. and Parian, M. (2017). Towards good practices for image retrieval based
       on CNN features. ICCV Workshops. Section 3.4.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.postprocessing import PrincipalFeatureSelector
    >>> factors = np.random.default_rng(0).normal(size=(50, 2))
    >>> X = factors[:, [0, 0, 1, 1, 1]]
    >>> selector = PrincipalFeatureSelector(n_features=2, random_state=0).fit(X)
    >>> selector.get_support(indices=True)
    array([0, 2])
    """

    _row_dtypes = None  # what is selected stays what it was

    _parameter_constraints: dict = {
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_axes": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            None,
        ],
        "absolute": ["boolean"],
        "use_correlation": ["boolean"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_features: int = 768,
        *,
        n_axes: int | float | None = None,
        absolute: bool = False,
        use_correlation: bool = False,
        n_init: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_features = n_features
        self.n_axes = n_axes
        self.absolute = absolute
        self.use_correlation = use_correlation
        self.n_init = n_init
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Choose the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features_in), or list of arrays of shape (M_i, n_features_in)
            Descriptors, or region sets, of at least two images.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        self : PrincipalFeatureSelector
            The fitted estimator.

        Raises
        ------
        ValueError
            If features have to be chosen and all rows are equal, or `n_axes` comes to all the axes.
        """
        if is_region_sets(X):
            rows, offsets = stack_region_sets(X)
            X = rows[offsets[:-1]]
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        D = X.shape[1]
        if self.n_features >= D:
            self.n_axes_ = 0
            self.selected_features_ = np.arange(D)
            return self

        variances = np.var(X, axis=0, dtype=np.float64)
        if self.use_correlation:
            X = X / np.sqrt(np.where(variances > 0, variances, 1.0))
        loadings = self._loadings(X)
        with warnings.catch_warnings():
            # Too few distinct rows for the clusters: answered below.
            warnings.simplefilter("ignore", ConvergenceWarning)
            kmeans = KMeans(
                self.n_features,
                init=_seeding(loadings),
                n_init=self.n_init,
                random_state=self.random_state,
            )
            # In half the time; the distances that decide below are taken in float64.
            kmeans.fit(loadings.astype(np.float32))
        # The nearest feature is looked for among the members of the cluster, so that no feature is taken
        # twice.
        totals = np.zeros((self.n_features, loadings.shape[1]))
        np.add.at(totals, kmeans.labels_, loadings)
        sizes = np.bincount(kmeans.labels_, minlength=self.n_features)
        centers = totals[kmeans.labels_] / sizes[kmeans.labels_, None]
        distances = np.sum((loadings - centers) ** 2, axis=1)
        # The two members of a pair are equally far from its centre: the first one is taken, whatever the
        # rounding.
        distances = np.round(distances, _DECIMALS)
        order = np.lexsort((distances, kmeans.labels_))
        _, first = np.unique(kmeans.labels_[order], return_index=True)
        selected = order[first]

        missing = self.n_features - len(selected)
        if missing:
            warnings.warn(
                f"The loadings of the features form only {len(selected)} clusters; the {missing} other features are "
                "those of highest variance.",
                UserWarning,
                stacklevel=2,
            )
            by_variance = np.argsort(-variances, kind="stable")
            rest = by_variance[~np.isin(by_variance, selected)]
            selected = np.concatenate([selected, rest[:missing]])
        self.n_axes_ = loadings.shape[1]
        self.selected_features_ = np.sort(selected)
        return self

    def _loadings(self, X: Any) -> NDArray[Any]:
        """Compute the loadings of the features on the first axes, one row per feature."""
        D = X.shape[1]
        if isinstance(self.n_axes, Integral) and self.n_axes < D:
            axes = principal_axes(X, self.n_axes)
            n_axes = check_rank(axes, "n_axes", self.n_axes, X.shape[0], X.shape[1], "descriptors")
        else:
            axes = principal_axes(X)
            n_axes = check_rank(axes, "n_axes", None, X.shape[0], X.shape[1], "descriptors")
            if self.n_axes is None:
                n_axes = max(1, min(self.n_features - 1, n_axes))
            elif not isinstance(self.n_axes, Integral):
                n_axes = axes.n_for_share(self.n_axes)
            else:
                n_axes = self.n_axes
            if n_axes >= D:
                raise ValueError(
                    f"n_axes={self.n_axes} takes all {D} principal axes of {D} features. Their loadings are equally "
                    "far from each other, so that they form no clusters: take fewer axes."
                )
        # Rounded, so that k-means does not tell apart features that are equal.
        loadings = np.round(axes.components[:n_axes].T, _DECIMALS)
        return np.ascontiguousarray(np.abs(loadings) if self.absolute else loadings)

    def inverse_transform(self, X: Any) -> Any:
        """Put the features kept back in their places, with zeros in all others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_selected), or list of arrays of shape (M_i, n_selected)
            Selected features.

        Returns
        -------
        X_original : array of shape (n_samples, n_features_in), or list of arrays of shape (M_i, n_features_in)
            Descriptors or region sets, as given.
        """
        if not is_region_sets(X):
            return super().inverse_transform(X)
        rows, offsets = stack_region_sets(X)
        return split_region_sets(super().inverse_transform(rows), offsets)

    def _transform_table(self, X: Any) -> NDArray[Any]:
        return SelectorMixin.transform(self, X)  # keeps the dtypes of a DataFrame's columns

    def _transform_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        return np.take(rows, self.selected_features_, axis=1)

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.selected_features_] = True
        return mask

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _seeding(points: NDArray[Any]) -> Any:
    """Return what KMeans takes as `init`: greedy k-means++ from one table of distances, for any number of runs.

    scikit-learn computes the distances of the candidates anew at every step: many products of a few rows with all the
    others, which take most of the time of k-means here, and much more where the cores are busy with other work.

    Parameters
    ----------
    points : ndarray of shape (n, q)
        What will be clustered.

    Returns
    -------
    init : callable or "k-means++"
        A function (X, n_clusters, random_state) of the same points, which may be shifted; scikit-learn's own if the
        table would be too large.
    """
    if 8 * len(points) ** 2 > _TABLE_BYTES:
        return "k-means++"
    distances = euclidean_distances(points, squared=True)
    return lambda X, n_clusters, random_state: X[greedy_seeds(distances, n_clusters, random_state)]


def greedy_seeds(
    distances: NDArray[np.float64], n_clusters: int, random_state: np.random.RandomState
) -> NDArray[np.intp]:
    """Choose seeds far from one another: k-means++, with the best of several candidates at every step.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Squared distances between points.
    n_clusters : int
        Number of seeds.
    random_state : RandomState instance
        Draws a candidate with a probability proportional to its squared distance from the nearest seed so far.

    Returns
    -------
    seeds : ndarray of int of shape (n_clusters,)
        Points, each the candidate that leaves the smallest sum of squared distances to the nearest seed.
    """
    n_trials = 2 + int(np.log(n_clusters))
    seeds = np.empty(n_clusters, dtype=int)
    nearest = np.ones(len(distances))
    for place in range(n_clusters):
        mass = np.cumsum(nearest)
        drawn = random_state.random_sample(1 if place == 0 else n_trials) * mass[-1]
        candidates = np.minimum(np.searchsorted(mass, drawn), len(distances) - 1)
        left = distances[candidates] if place == 0 else np.minimum(nearest, distances[candidates])
        best = np.argmin(left.sum(axis=1))
        seeds[place], nearest = candidates[best], left[best]
    return seeds
