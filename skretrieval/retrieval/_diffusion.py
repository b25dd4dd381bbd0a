"""Diffusion re-ranking on the graph of mutual neighbours of the gallery."""

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils._param_validation import HasMethods, Interval

from ._descriptors import DescriptorSet
from ._rerank._diffusion import diffuse, mutual_graph
from ._reranker import BaseReranker
from ._search._exact import search

# Nodes whose neighbours are sought at a time, and random pairs that are compared with neighbours.
_NODES, _RANDOM_PAIRS = 4096, 2000
# Of fewer nodes nothing can be said about random pairs.
_FEW_NODES = 30
# Linked nodes should be more similar than random pairs by so many standard deviations.
_DEVIATIONS = 1.5


class DiffusionReranker(BaseReranker):
    """Re-rank by similarity that spreads from the query over the graph of the gallery's mutual neighbours.

    The graph is made by ``fit`` and is part of the model. For each query the system ``(I - alpha S) f = y`` is solved,
    where y are the similarities to the nearest nodes and S is the normalised graph [1]_; with ``n_candidates`` on the
    candidates alone [2]_. In galleries of region sets every region is a node, and the score of an item is the sum over
    its regions.

    Parameters
    ----------
    retriever : estimator
        :class:`NearestNeighborsRetriever` with ``metric="cosine"``, or a wrapper around one; cloned by ``fit``.
    n_candidates : int, default=None
        Number of first results that get a new order, on the part of the graph between them; None for all.
    k : int, default=50
        Number of nearest nodes of which the mutual ones are linked: no more than there are photographs of an object.
        ``fit`` warns where linked nodes are hardly more similar than random ones.
    k_query : int, default=10
        Number of nodes from which the similarity of a query spreads.
    alpha : float, default=0.99
        Share of the similarity that is passed on in each step, below 1.
    gamma : float, default=3.0
        Exponent of the similarities.

    Attributes
    ----------
    retriever_ : estimator
        The fitted retriever.
    gallery_, region_offsets_, labels_, n_samples_fit_, n_features_in_, feature_names_in_
        Those of the index inside, see :class:`NearestNeighborsRetriever`.
    graph_ : csr_matrix of shape (n_rows, n_rows)
        The normalised graph S of all rows of the gallery.

    See Also
    --------
    KReciprocalReranker : Needs no graph of the gallery.

    Notes
    -----
    Distances are ``1 - f / max f``: 0 for the best item, 1 for those that the query does not reach, which keep the
    order of the first search. ``partial_fit`` and ``remove`` make the graph anew.
    Items below the candidates keep their order, and the differences of their distances go on from the last candidate's,
    so that distances ascend along the whole ranking. Ties go to the earlier rank of the first search. Zero rows come
    behind the other candidates, and a zero query keeps the order. A gallery with fewer items is used whole. Inside, the
    search may be an expanded one; the formula takes the query itself. With ``kneighbors(X=None)`` an item takes part in
    its own re-ranking.

    Threads: as for the retriever that it holds; ``set_params`` needs it for itself.

    References
    ----------
    .. [1] A. Iscen, G. Tolias, Y. Avrithis, T. Furon, O. Chum, "Efficient diffusion on region manifolds: recovering
           small objects with compact CNN representations", CVPR 2017. Sections 3 and 4, equations 10 and 15.
    .. [2] F. Yang, R. Hinami, Y. Matsui, S. Ly, S. Satoh, "Efficient image retrieval via decoupling diffusion into
           online and offline processing", AAAI 2019. The graph made beforehand, and its truncation.

    Examples
    --------
    >>> from skretrieval.retrieval import DiffusionReranker, NearestNeighborsRetriever
    >>> gallery = [[10.0, 2.0], [10.0, 4.0], [10.0, 6.0], [10.0, -3.0]]
    >>> plain = NearestNeighborsRetriever().fit(gallery)
    >>> plain.predict([[10.0, 1.0]])
    array([[0, 1, 3, 2]])
    >>> DiffusionReranker(plain, k=2, k_query=1).fit(gallery).predict([[10.0, 1.0]])
    array([[1, 0, 2, 3]])
    """

    _parameter_constraints: dict = {
        "retriever": [HasMethods(["fit", "kneighbors"])],
        "n_candidates": [Interval(Integral, 1, None, closed="left"), None],
        "k": [Interval(Integral, 1, None, closed="left")],
        "k_query": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, 1, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="neither")],
    }
    _takes_regions = True

    def __init__(
        self,
        retriever: Any,
        n_candidates: int | None = None,
        *,
        k: int = 50,
        k_query: int = 10,
        alpha: float = 0.99,
        gamma: float = 3.0,
    ) -> None:
        self.retriever = retriever
        self.n_candidates = n_candidates
        self.k = k
        self.k_query = k_query
        self.alpha = alpha
        self.gamma = gamma

    def _learn(self, gallery: DescriptorSet) -> None:
        nodes = DescriptorSet(gallery.rows, None, gallery.lengths)
        n = nodes.n_rows
        k = min(self.k, n - 1)
        similarities, indices = np.empty((n, k)), np.empty((n, k), dtype=np.intp)
        for start in range(0, n, _NODES) if k else ():
            part = np.arange(start, min(start + _NODES, n))
            distances, found = search(DescriptorSet(nodes.dense(part)), nodes, k + 1)
            others = found != part[:, None]
            others[others.all(axis=1), -1] = (
                False  # itself is behind its duplicates: the last one is too many
            )
            similarities[part] = 1.0 - distances[others].reshape(-1, k)
            indices[part] = found[others].reshape(-1, k)
        self.graph_, mutual = mutual_graph(indices, similarities, self.gamma)
        self._check_k(nodes, mutual)

    def _check_k(self, nodes: DescriptorSet, mutual: NDArray[np.float64]) -> None:
        """Warn where linked nodes are hardly more similar than random ones."""
        if len(mutual) == 0 or nodes.n_rows < _FEW_NODES:
            return
        rng = np.random.default_rng(0)
        first = rng.integers(nodes.n_rows, size=_RANDOM_PAIRS)
        second = (first + rng.integers(1, nodes.n_rows, size=_RANDOM_PAIRS)) % nodes.n_rows
        random = np.einsum("id,id->i", nodes.dense(first), nodes.dense(second))
        limit, median = np.mean(random) + _DEVIATIONS * np.std(random), np.median(mutual)
        if median < limit:
            message = (
                f"k={self.k} links nodes of a median similarity of {median:.2f}, hardly more than random pairs "
                f"({np.mean(random):.2f} +- {np.std(random):.2f}): the graph leads to other objects. Choose k lower."
            )
            warnings.warn(message, UserWarning, stacklevel=5)

    def _n_pool(self) -> int:
        n = self.n_samples_fit_
        return n if self.n_candidates is None else min(self.n_candidates, n)

    def _distances(self, queries: DescriptorSet, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        pool, gallery = indices[:, : self._n_pool()], self._index._gallery
        item = np.repeat(np.arange(gallery.n_items), gallery.counts)
        starts = self._starts(queries, gallery)
        whole = self.n_candidates is None or self.n_candidates >= gallery.n_items
        scores = np.empty(pool.shape)
        for number, candidates in enumerate(pool):
            spread = np.zeros(gallery.n_rows)
            if whole:
                spread = diffuse(self.graph_, starts[number], self.alpha)
            else:
                chosen = np.flatnonzero(np.isin(item, candidates))
                part = self.graph_[chosen][:, chosen]
                spread[chosen] = diffuse(part, starts[number][chosen], self.alpha)
            sums = np.bincount(item, weights=spread, minlength=gallery.n_items)
            scores[number] = sums[candidates] / max(sums.max(), np.finfo(float).tiny)
        return 1.0 - scores

    def _starts(self, queries: DescriptorSet, gallery: DescriptorSet) -> NDArray[np.float64]:
        """Similarities of each query, or of all its regions, to the nearest nodes of each, else 0."""
        nodes = DescriptorSet(gallery.rows, None, gallery.lengths)
        rows = DescriptorSet(queries.rows, None, queries.lengths)
        distances, nearest = search(rows, nodes, min(self.k_query, nodes.n_rows))
        values = np.maximum(1.0 - distances.astype(np.float64), 0.0) ** self.gamma
        query = np.repeat(np.arange(queries.n_items), queries.counts)
        row = np.repeat(query, nearest.shape[1])
        shape = (queries.n_items, nodes.n_rows)
        return sparse.coo_array((values.ravel(), (row, nearest.ravel())), shape=shape).toarray()
