"""What all wrappers of a retriever share: the gallery is that of the retriever inside."""

from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from ._base import RetrieverMixin


class RetrieverWrapper(RetrieverMixin, MetaEstimatorMixin, BaseEstimator):
    """A retriever around another one, its parameter ``retriever``, of which ``fit`` makes a copy.

    A subclass says how it searches, and may give ``_examine``.
    """

    retriever: Any

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Index a gallery with a clone of ``retriever``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or list of arrays (M_i, n_features)
            Gallery descriptors; region sets where the method has a formula for them.
        y : array-like of shape (n_samples,), default=None
            Labels of the items; only ``score`` uses them.

        Returns
        -------
        self : object
            The fitted retriever.

        Raises
        ------
        TypeError
            If ``retriever`` is none.
        ValueError
            If the method does not take this metric or region sets, or as from the retriever inside.
        """
        if not isinstance(self.retriever, RetrieverMixin):
            raise TypeError(
                "retriever must be a NearestNeighborsRetriever or a wrapper around one, got "
                f"{type(self.retriever).__name__}."
            )
        self.retriever_ = clone(self.retriever).fit(X, y)
        self._examine()
        return self

    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Append items to the gallery; the first call is a ``fit``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or list of arrays (M_i, n_features)
            Descriptors or region sets to append.
        y : array-like of shape (n_samples,), default=None
            Their labels, if and only if the gallery has labels.

        Returns
        -------
        self : object
            The retriever with the larger gallery.
        """
        if not hasattr(self, "retriever_"):
            return self.fit(X, y)
        self.retriever_.partial_fit(X, y)
        self._examine()
        return self

    def remove(self, indices: ArrayLike) -> Self:
        """Delete items from the gallery; the remaining ones close up and keep their order.

        Parameters
        ----------
        indices : int or array-like of int
            Gallery items; repetitions count once.

        Returns
        -------
        self : object
            The retriever with the smaller gallery.
        """
        check_is_fitted(self)
        self.retriever_.remove(indices)
        self._examine()
        return self

    def _examine(self) -> None:
        """Check the gallery and learn what depends on it alone; called after each change of it."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if isinstance(self.retriever, RetrieverMixin):
            tags.input_tags.sparse = get_tags(self.retriever).input_tags.sparse
        return tags

    gallery_ = property(lambda self: self.retriever_.gallery_, doc="Rows as searched.")
    region_offsets_ = property(lambda self: self.retriever_.region_offsets_, doc="First row of each item.")
    labels_ = property(lambda self: self.retriever_.labels_, doc="Labels of the gallery items, or None.")
    metric_ = property(lambda self: self.retriever_.metric_, doc="Metric of the index.")
    n_samples_fit_ = property(lambda self: self.retriever_.n_samples_fit_, doc="Number of gallery items.")
    n_features_in_ = property(lambda self: self.retriever_.n_features_in_, doc="Number of features.")
    feature_names_in_ = property(lambda self: self.retriever_.feature_names_in_, doc="Feature names.")

    @property
    def _index(self) -> Any:
        return self.retriever_._index

    @property
    def _uses_own(self) -> bool:
        return self.retriever_._uses_own
