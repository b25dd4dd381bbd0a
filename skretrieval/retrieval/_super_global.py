"""SuperGlobal re-ranking: global descriptors refined by each other."""

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import HasMethods, Interval

from ._descriptors import DescriptorSet
from ._rerank._super_global import super_global_scores
from ._reranker import BaseReranker


class SuperGlobalReranker(BaseReranker):
    """Re-rank the first results with candidates and query refined by their neighbours.

    Each candidate becomes the weighted mean of itself and its ``n_refine`` nearest other candidates, the query the
    largest components of the best of these; the mean of the products of both queries with the refined candidates
    makes the ranking [1]_.

    Parameters
    ----------
    retriever : estimator
        :class:`NearestNeighborsRetriever` with ``metric="cosine"``, or a wrapper around one; cloned by ``fit``.
    n_candidates : int, default=400
        Number of first results that get a new order (M of [1]_).
    n_refine : int, default=9
        Number of neighbours that refine a candidate (K of [1]_): fewer than an object has photographs. ``fit``
        with labels warns where half of the items have fewer others of their label.
    beta : float, default=0.15
        Weight of a neighbour of similarity 1.

    Attributes
    ----------
    retriever_ : estimator
        The fitted retriever.
    gallery_, region_offsets_, labels_, n_samples_fit_, n_features_in_, feature_names_in_
        Those of the index inside, see :class:`NearestNeighborsRetriever`.

    See Also
    --------
    KReciprocalReranker : Neighbours that are neighbours of each other.
    QueryExpansion : The query alone is refined, and searched again.

    Notes
    -----
    Distances are one minus the score. Refined vectors are not normalised.
    Items below the candidates keep their order, and the differences of their distances go on from the last candidate's,
    so that distances ascend along the whole ranking. Ties go to the earlier rank of the first search. Zero rows come
    behind the other candidates, and a zero query keeps the order. A gallery with fewer items is used whole. Inside, the
    search may be an expanded one; the formula takes the query itself. With ``kneighbors(X=None)`` an item takes part in
    its own re-ranking.

    Region sets have no formula and are an error.

    Threads: as for the retriever that it holds; ``set_params`` needs it for itself.

    References
    ----------
    .. [1] S. Shao, K. Chen, A. Karpur, Q. Cui, A. Araujo, B. Cao, "Global features are all you need for image
           retrieval and reranking", ICCV 2023. Section 3.3.

    Examples
    --------
    >>> from skretrieval.retrieval import NearestNeighborsRetriever, SuperGlobalReranker
    >>> gallery = [[10.0, 2.0], [10.0, 4.0], [10.0, 6.0], [10.0, -3.0]]
    >>> plain = NearestNeighborsRetriever().fit(gallery)
    >>> plain.predict([[10.0, 1.0]])
    array([[0, 1, 3, 2]])
    >>> SuperGlobalReranker(plain, n_refine=2).fit(gallery).predict([[10.0, 1.0]]).shape
    (1, 4)
    """

    _parameter_constraints: dict = {
        "retriever": [HasMethods(["fit", "kneighbors"])],
        "n_candidates": [Interval(Integral, 1, None, closed="left")],
        "n_refine": [Interval(Integral, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self, retriever: Any, n_candidates: int = 400, *, n_refine: int = 9, beta: float = 0.15
    ) -> None:
        self.retriever = retriever
        self.n_candidates = n_candidates
        self.n_refine = n_refine
        self.beta = beta

    def _learn(self, gallery: DescriptorSet) -> None:
        if self.labels_ is None:
            return
        _, label, counts = np.unique(self.labels_, return_inverse=True, return_counts=True)
        others = np.median(counts[label]) - 1
        if 0 < others < self.n_refine:
            message = (
                f"n_refine={self.n_refine} is more than the {others:g} other photographs that half of the "
                "gallery's items have of their label: candidates are refined by other objects. Choose it lower."
            )
            warnings.warn(message, UserWarning, stacklevel=4)

    def _n_pool(self) -> int:
        return min(self.n_candidates, self.n_samples_fit_)

    def _distances(self, queries: DescriptorSet, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        pool = indices[:, : self._n_pool()]
        scores = [
            super_global_scores(query, self._rows(items), self.n_refine, self.beta)
            for query, items in zip(queries.dense(), pool, strict=True)
        ]
        return 1.0 - np.stack(scores)
