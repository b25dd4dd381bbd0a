"""Region sets, several descriptors per image in a list of arrays, for what works on rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import TransformerMixin
from sklearn.utils import check_array, get_tags
from sklearn.utils.validation import check_is_fitted, validate_data


class OutputMixin(TransformerMixin, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Let a transformer give tables, which ``set_output`` puts into containers, and other things, which it does not.

    A class that defines ``transform`` names this mixin first, says ``auto_wrap_output_keys=None`` in its class
    statement (so that scikit-learn leaves the method alone), and returns ``self._output(X, result)``. The classes
    derived from it, which do not define ``transform`` again, say nothing: they have ``set_output``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.base import BaseEstimator, OneToOneFeatureMixin
    >>> from skretrieval._region_sets import OutputMixin
    >>> class Base(OutputMixin, OneToOneFeatureMixin, BaseEstimator, auto_wrap_output_keys=None):
    ...     def fit(self, X, y=None):
    ...         self.n_features_in_ = 2
    ...         return self
    ...
    ...     def transform(self, X):
    ...         return self._output(X, [X, X] if self.sets else X)
    >>> class Same(Base):
    ...     def __init__(self, sets=False):
    ...         self.sets = sets
    >>> X = np.ones((3, 2))
    >>> [type(Same(sets).set_output(transform="pandas").fit_transform(X)).__name__ for sets in (False, True)]
    ['DataFrame', 'list']
    """

    def fit_transform(self, X, y=None, **params):
        """Fit to `X` and transform it.

        Parameters
        ----------
        X : sequence
            What :meth:`transform` takes.
        y : array-like of shape (n_samples,), default=None
            As for :meth:`fit`.
        **params : dict
            As for :meth:`fit`.

        Returns
        -------
        Z : object
            As from :meth:`transform`.
        """
        return self.fit(X, y, **params).transform(X)  # type: ignore[attr-defined]

    def _output(self, X: Any, result: Any) -> Any:
        """Return what `transform` made of `X`: a table in the container that is asked for, all else as it is."""
        # No container holds a sparse table: scikit-learn's error is for who asked this step for one, not for all steps.
        asked = "_sklearn_output_config" in vars(self)
        if isinstance(result, np.ndarray) or (asked and sparse.issparse(result)):
            return _TableOutput.transform(self, X, result)
        return result


class _TableOutput(TransformerMixin):
    """What puts a table into a container: scikit-learn's wrapper around a ``transform`` that returns it."""

    def transform(self, X, table):
        return table


class RegionSetsMixin(OutputMixin, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Make a transformer of what is done to rows: of tables of descriptors, and of region sets.

    The estimator says in ``_transform_rows`` what becomes of checked rows.
    """

    _row_dtypes: Any = (np.float64, np.float32)  # other numbers become the first; None leaves all as they are

    def _transform_rows(self, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _transform_table(self, X: Any) -> Any:
        accept_sparse = "csr" if get_tags(self).input_tags.sparse else False
        X = validate_data(self, X, accept_sparse=accept_sparse, dtype=self._row_dtypes, reset=False)
        return self._transform_rows(X)

    def transform(self, X):
        """Transform each descriptor.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features_in), or list of arrays of shape (M_i, n_features_in)
            Descriptors, sparse ones where the estimator takes them, or region sets.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_out), or list of ndarrays of shape (M_i, n_out)
            Descriptors or region sets, as given; the containers of ``set_output`` are for descriptors only.
        """
        check_is_fitted(self)
        if not is_region_sets(X):
            return self._output(X, self._transform_table(X))
        # steps that learn nothing may not know the number of features
        rows, offsets = stack_region_sets(X, getattr(self, "n_features_in_", None), type(self).__name__)
        if self._row_dtypes is not None:
            rows = check_array(rows, dtype=self._row_dtypes, ensure_all_finite=False)
        return split_region_sets(self._transform_rows(rows), offsets)


def is_region_sets(X: Any) -> bool:
    """Whether X is a sequence of 2-D arrays, one per image, and not itself a 2-D table."""
    if isinstance(X, np.ndarray):
        if X.dtype != object or X.ndim != 1:
            return False
    elif not isinstance(X, list | tuple):
        return False
    return len(X) > 0 and (np.ndim(X[0]) == 2 or any(getattr(item, "ndim", 0) == 2 for item in X))


def reject_region_sets(X: Any, owner: str, why: str) -> None:
    """Raise a ValueError for region sets.

    Parameters
    ----------
    X : object
        Given descriptors.
    owner : str
        Who does not take them.
    why : str
        What it does with one descriptor per image, and what to use.

    Raises
    ------
    ValueError
        If `X` is region sets.
    """
    if is_region_sets(X):
        raise ValueError(f"X holds region sets (a 2-D array for each of {len(X)} images), but {owner} {why}.")


def stack_region_sets(
    X: Any, n_features: int | None = None, owner: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Stack region sets after checking the rank, the number of regions and features, and the values of each.

    Parameters
    ----------
    X : sequence of n arrays of shape (M_i, d)
        Region sets.
    n_features : int, default=None
        The `d` that is expected; None takes that of the first set.
    owner : str, default=""
        Who expects it, for the message.

    Returns
    -------
    rows : ndarray of shape (sum of M_i, d)
        The descriptors, set after set.
    offsets : ndarray of int of shape (n + 1,)
        Rows ``offsets[i]:offsets[i + 1]`` are those of set i.

    Raises
    ------
    ValueError
        For a set without descriptors, a wrong rank or number of features, NaN or infinity: the message names the
        item.
    TypeError
        If the descriptors of an item are sparse.
    """
    for i, item in enumerate(X):
        if sparse.issparse(item):
            raise TypeError(f"Item {i} is sparse: the regions of an image must be a dense array.")
    items = [np.asarray(item) for item in X]
    for i, item in enumerate(items):
        if item.ndim != 2:
            raise ValueError(f"Item {i}: expected 2 dimensions (regions, features), got {item.ndim}.")
        if len(item) == 0:
            raise ValueError(f"Item {i} has 0 regions; every image needs at least 1.")
    expected = items[0].shape[1] if n_features is None else n_features
    wrong = next((i for i, item in enumerate(items) if item.shape[1] != expected), None)
    if wrong is not None:
        asked = "item 0 has" if n_features is None else f"{owner} is expecting"
        raise ValueError(
            f"Item {wrong} has {items[wrong].shape[1]} features, but {asked} {expected} features."
        )
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in items])])
    rows = np.concatenate(items)
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        at = int(np.searchsorted(offsets, row, side="right")) - 1
        kind = "NaN" if np.isnan(rows[row]).any() else "infinity (inf)"
        raise ValueError(f"X contains {kind} in item {at}, region {row - int(offsets[at])}.")
    return rows, offsets


def split_region_sets(rows: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Cut stacked rows into the sets they belong to: the inverse of :func:`stack_region_sets`.

    Parameters
    ----------
    rows : ndarray of shape (sum of M_i, d)
        Descriptors, set after set.
    offsets : ndarray of int of shape (n + 1,)
        Where each set begins, and the end.

    Returns
    -------
    region_sets : list of n ndarrays of shape (M_i, d)
        Views of the rows.
    """
    return np.split(rows, offsets[1:-1])


def ragged_arange(starts: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.intp]:
    """Concatenate ``arange(start, start + count)`` for every pair of ``starts`` and ``counts``.

    Parameters
    ----------
    starts, counts : ndarray of shape (n,)
        First value and length of each run.

    Returns
    -------
    ndarray of shape (counts.sum(),)
    """
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
