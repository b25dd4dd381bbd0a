"""Discriminative query expansion: rank by a classifier of the first results."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import HasMethods, Interval

from ._descriptors import DescriptorSet
from ._rerank._discriminative import svm_direction
from ._reranker import BaseReranker


class DiscriminativeQueryExpansion(BaseReranker):
    """Rank the gallery by a linear SVM of the query and its first results against its last results.

    Parameters
    ----------
    retriever : estimator
        :class:`NearestNeighborsRetriever` with ``metric="cosine"``, or a wrapper around one; cloned by ``fit``.
    n_positive : int, default=5
        Number of first results that are positives, beside the query.
    n_negative : int, default=200
        Number of last results that are negatives; those of a small gallery that are no positives.
    C : float, default=1.0
        Weight of the errors, of :class:`sklearn.svm.LinearSVC`.

    Attributes
    ----------
    retriever_ : estimator
        The fitted retriever.
    gallery_, region_offsets_, labels_, n_samples_fit_, n_features_in_, feature_names_in_
        Those of the index inside, see :class:`NearestNeighborsRetriever`.

    See Also
    --------
    QueryExpansion : The mean of the query and its first results.

    Notes
    -----
    The whole gallery is ranked, and so the first search is a whole ranking. Distances are one minus the cosine of the
    normal of the SVM and the item. A gallery that leaves no negatives keeps the first ranking.
    Items below the candidates keep their order, and the differences of their distances go on from the last candidate's,
    so that distances ascend along the whole ranking. Ties go to the earlier rank of the first search. Zero rows come
    behind the other candidates, and a zero query keeps the order. A gallery with fewer items is used whole. Inside, the
    search may be an expanded one; the formula takes the query itself. With ``kneighbors(X=None)`` an item takes part in
    its own re-ranking.

    Region sets have no formula and are an error.

    Threads: as for the retriever that it holds; ``set_params`` needs it for itself.

    References
    ----------
    .. [1] R. Arandjelovic, A. Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012.
           Section 4, discriminative query expansion.

    Examples
    --------
    >>> from skretrieval.retrieval import DiscriminativeQueryExpansion, NearestNeighborsRetriever
    >>> gallery = [[10.0, 2.0], [10.0, 4.0], [10.0, 6.0], [10.0, -3.0]]
    >>> search = DiscriminativeQueryExpansion(NearestNeighborsRetriever(), n_positive=2)
    >>> search.fit(gallery).predict([[10.0, 1.0]]).shape
    (1, 4)
    """

    _parameter_constraints: dict = {
        "retriever": [HasMethods(["fit", "kneighbors"])],
        "n_positive": [Interval(Integral, 0, None, closed="left")],
        "n_negative": [Interval(Integral, 1, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, retriever: Any, n_positive: int = 5, *, n_negative: int = 200, C: float = 1.0) -> None:
        self.retriever = retriever
        self.n_positive = n_positive
        self.n_negative = n_negative
        self.C = C

    def _n_pool(self) -> int:
        return self.n_samples_fit_

    def _distances(self, queries: DescriptorSet, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        n, rows = indices.shape[1], queries.dense()
        n_positive = min(self.n_positive, n)
        n_negative = min(self.n_negative, n - n_positive)
        normals = np.zeros(rows.shape)
        for number in np.flatnonzero(rows.any(axis=1)) if n_negative else ():
            positives = self._rows(indices[number, :n_positive])
            negatives = self._rows(indices[number, n - n_negative :])
            normals[number] = svm_direction(np.vstack([rows[number], positives]), negatives, self.C)
        cosines = np.empty(indices.shape)
        gallery = self._index._gallery
        step = max(1, 2**22 // rows.shape[1])
        for start in range(0, n, step):
            cosines[:, start : start + step] = normals @ gallery.dense(slice(start, start + step)).T
        return 1.0 - np.take_along_axis(cosines, indices, axis=1)
