"""k-reciprocal re-ranking: neighbours count that are neighbours of each other."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import HasMethods, Interval

from ._descriptors import DescriptorSet
from ._rerank._k_reciprocal import k_reciprocal_distances
from ._reranker import BaseReranker

# Numbers of the products and rows of the queries that are worked on together.
_NUMBERS = 2**24


class KReciprocalReranker(BaseReranker):
    """Re-rank the first results by the neighbours they share with the query, as far as these are reciprocal.

    The query and its candidates are a pool. Each member is described by those of the pool that are among its ``k1``
    nearest and have it among theirs, with weights ``exp(-d)``; the Jaccard distance of these descriptions and the
    squared Euclidean distance make the ranking [1]_.

    Parameters
    ----------
    retriever : estimator
        :class:`NearestNeighborsRetriever` with ``metric="cosine"``, or a wrapper around one; cloned by ``fit``.
    n_candidates : int, default=1000
        Number of first results that get a new order.
    k1 : int, default=20
        Number of neighbours among which reciprocal ones are sought: about as many as there are right answers.
    k2 : int, default=6
        Number of neighbours, the item itself among them, whose descriptions are averaged; 1 for no averaging.
    weight : float, default=0.3
        Weight of the first distance, between 0 and 1; that of the Jaccard distance is the rest. The values of
        all four are those of [1]_, but for ``n_candidates``, which is the whole gallery there.

    Attributes
    ----------
    retriever_ : estimator
        The fitted retriever.
    gallery_, region_offsets_, labels_, n_samples_fit_, n_features_in_, feature_names_in_
        Those of the index inside, see :class:`NearestNeighborsRetriever`.

    See Also
    --------
    SuperGlobalReranker : Candidates refined by their neighbours.
    DiffusionReranker : The graph of the whole gallery.

    Notes
    -----
    Distances are ``(1 - weight) * J + weight * d``, with d divided by the largest of the pool: between 0 and 1.
    Items below the candidates keep their order, and the differences of their distances go on from the last candidate's,
    so that distances ascend along the whole ranking. Ties go to the earlier rank of the first search. Zero rows come
    behind the other candidates, and a zero query keeps the order. A gallery with fewer items is used whole. Inside, the
    search may be an expanded one; the formula takes the query itself. With ``kneighbors(X=None)`` an item takes part in
    its own re-ranking.

    Region sets have no formula and are an error.

    Threads: as for the retriever that it holds; ``set_params`` needs it for itself.

    References
    ----------
    .. [1] Z. Zhong, L. Zheng, D. Cao, S. Li, "Re-ranking person re-identification with k-reciprocal encoding",
           CVPR 2017. Sections 3.2 to 3.5, equations 2 to 12.

    Examples
    --------
    >>> from skretrieval.retrieval import KReciprocalReranker, NearestNeighborsRetriever
    >>> gallery = [[10.0, 2.0], [10.0, 2.4], [10.0, 2.8], [10.0, -1.0], [10.0, -9.0]]
    >>> plain = NearestNeighborsRetriever().fit(gallery)
    >>> plain.predict([[10.0, 1.0]])
    array([[0, 1, 2, 3, 4]])
    >>> KReciprocalReranker(plain, k1=2, k2=1).fit(gallery).predict([[10.0, 1.0]]).shape
    (1, 5)
    """

    _parameter_constraints: dict = {
        "retriever": [HasMethods(["fit", "kneighbors"])],
        "n_candidates": [Interval(Integral, 1, None, closed="left")],
        "k1": [Interval(Integral, 1, None, closed="left")],
        "k2": [Interval(Integral, 1, None, closed="left")],
        "weight": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self, retriever: Any, n_candidates: int = 1000, *, k1: int = 20, k2: int = 6, weight: float = 0.3
    ) -> None:
        self.retriever = retriever
        self.n_candidates = n_candidates
        self.k1 = k1
        self.k2 = k2
        self.weight = weight

    def _n_pool(self) -> int:
        return min(self.n_candidates, self.n_samples_fit_)

    def _distances(self, queries: DescriptorSet, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        pool, rows = indices[:, : self._n_pool()], queries.dense()
        n = pool.shape[1] + 1
        step = max(1, _NUMBERS // (n * (n + rows.shape[1])))
        found = []
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            found.append(
                k_reciprocal_distances(rows[part], self._rows(pool[part]), self.k1, self.k2, self.weight)
            )
        return np.concatenate(found)
