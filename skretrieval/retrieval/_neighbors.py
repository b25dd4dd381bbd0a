"""Exact search of the nearest gallery items."""

from copy import copy
from dataclasses import replace
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import Tags, check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._base import RetrieverMixin
from ._descriptors import DescriptorSet, check_descriptors, check_regions, prepare
from ._engines._faiss import FaissIndex, check_faiss_params
from ._gallery_items import check_items
from ._gallery_store import GalleryMixin
from ._scale import directions, distances_of
from ._search._exact import SCORERS, check_exact_params, make_scorer, search
from ._search._ranks import count_ranks


class NearestNeighborsRetriever(GalleryMixin, RetrieverMixin, BaseEstimator):
    """Rank a gallery of descriptors by their distance to a query.

    The last step of a retrieval pipeline: ``fit`` indexes the gallery, ``predict`` ranks it for each query,
    ``score`` is the mAP of these rankings by label. The default search is exact: the result is that of
    comparing each query with each item in float64, whatever the block sizes, and equally distant items stand in
    the order of the gallery. For large galleries and few queries the approximate indexes of faiss are faster.

    X may also be a list of region sets, an array (M_i, d) per image. Two images are then as near as their
    nearest pair of regions [1]_; queries with one descriptor and galleries with regions mix freely. With
    ``region_pairs="same"`` only regions of the same number are compared, such as a global descriptor with the
    other global one and a local one with the other local one [2]_.

    Parameters
    ----------
    n_neighbors : int, default=100
        Number of items that ``predict``, ``transform`` and ``kneighbors`` return. More than the gallery has is
        an error when they are called, with one exception: the default of 100 is cut to the size of a smaller
        gallery.
    metric : {"cosine", "euclidean", "manhattan"}, default="cosine"
        Distance: one minus the cosine (a zero vector has cosine 0 with everything), L2, or L1.
    region_pairs : {"all", "same"}, default="all"
        Which regions of two images are compared: every region with every region, or region m with region m
        only. The nearest of these pairs counts. With "same" every image of the gallery and of the queries
        must have the same number of regions (a 2-D X: one).
    accept_sparse : bool, default=False
        Whether X may be a sparse matrix or array. That is to be asked for, because scikit-learn wants one
        value for each sample from ``predict`` of sparse input, and a ranking has ``n_neighbors`` of them.
    engine : {"exact", "faiss"}, default="exact"
        How to search. "faiss" (the extra ``faiss``) keeps a float32 index beside the gallery, which proposes
        candidates; their exact distances make the ranking. For dense descriptors, not for
        ``region_pairs="same"``. :meth:`engine_recall` says what it misses.
    engine_params : dict, default=None
        Of engine "exact": ``block_size`` (default 8192, or more for a few queries) gallery rows are compared
        with ``query_block_size`` (default 1024) query rows at a time. They bound the working memory (about 50
        bytes times their product) and never change the ranking.

        Of engine "faiss": ``index``, which is "flat" (the default: all rows, any metric), "hnsw" (a graph,
        with ``M=32`` links, ``ef_construction=200`` and ``ef_search=128`` items kept while building and
        searching), "ivfpq" (``nlist`` cells, by default about twice the root of the number of rows, of which
        ``nprobe=32`` are searched; product codes of ``m`` parts, by default an eighth of the features, of
        ``nbits=8`` bits), or a string of faiss's ``index_factory`` (with ``ef_construction``, ``ef_search``
        and ``nprobe`` where the index has them). For all of them ``oversample`` times as many candidates as
        neighbours are compared exactly (1 for "flat" and "hnsw", else 4) and ``query_block_size=1024``.
        ``nprobe``, ``ef_search``, ``oversample`` and the block sizes may be changed after ``fit``.

    Attributes
    ----------
    gallery_ : ndarray or CSR matrix or array of shape (n_rows, n_features_in_)
        The rows: float16, float32 or float64 as given; for the cosine, of unit length (or zero), but those that
        are float16 or memory-mapped stay as they are. Sparse X stays sparse. With region sets, the regions of
        all items one after the other. Where nothing is normalised it may share memory with the X of ``fit``.
    row_lengths_ : ndarray of shape (n_rows,) or None
        Euclidean lengths of the rows, where the cosine is that of rows kept as they are.
    region_offsets_ : ndarray of shape (n_samples_fit_ + 1,) or None
        Rows ``region_offsets_[i]:region_offsets_[i + 1]`` are the regions of item i; None without region sets.
    labels_ : ndarray of shape (n_samples_fit_,) or None
        Labels of the gallery items, if ``fit`` was given any.
    metric_ : str
        Metric of the index. A change of ``metric`` takes effect at the next ``fit``.
    engine_ : str
        Engine of the index.
    region_pairs_ : str
        Region pairs of the index; a change of ``region_pairs`` takes effect at the next ``fit``, too.
    n_samples_fit_ : int
        Number of gallery items.
    n_features_in_ : int
        Number of features of a descriptor.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features; only when X had string column names.

    See Also
    --------
    QueryExpansion : Search again with the query moved towards its first results.

    Notes
    -----
    Queries are converted to the dtype of the gallery, and so are rows that ``partial_fit`` appends.

    A gallery given as ``numpy.memmap`` (or ``numpy.load(..., mmap_mode="r")``) stays on disk and is read block
    by block; float16 stays float16 and is converted by blocks, with the neighbours and distances of the same
    gallery in float32. ``partial_fit`` and ``remove`` bring such a gallery into memory, and a pickled model
    holds its rows.

    Sparse galleries, such as the histograms of :class:`~skretrieval.pooling.BoWPooler`, stay CSR and give the
    neighbours and distances of the same dense gallery (distances of rankings of an eighth of a large
    gallery or more up to their last bits). Queries may be sparse or dense whatever the gallery is; appended
    rows take the form of the gallery.

    Engine "faiss": rankings of an eighth of the gallery or more, such as those of ``score``, are searched
    exactly, and so are queries for which the index yields too few items. "flat" misses no neighbour but where
    the rounding of float32 decides at the end of the list. ``partial_fit`` adds to the index and keeps its
    centroids; ``remove`` builds it anew from the gallery, with the centroids it has. The index is in the
    pickled model. Graphs are built by one thread, so that they are the same every time.

    Threads: any number may search at the same time. ``fit``, ``partial_fit`` and ``remove`` wait for each other. A
    search beside ``partial_fit`` sees the gallery before or after; one beside ``fit`` or ``remove`` needs a lock of
    yours, because the numbers of the items change.

    References
    ----------
    .. [1] Jeong, D., Choo, S., Seo, W. and Cho, N. I. (2017). Regional deep feature aggregation for image
       retrieval. ICASSP. Equation 7.
    .. [2] Seddati, O., Dupont, S., Mahmoudi, S. and Parian, M. (2017). Towards good practices for image retrieval based
       on CNN features. ICCV Workshops.
       Their ``d = min(||g_q - g_i||_1, ||l_q - l_i||_1)`` with global and local descriptors g and l is what
       "manhattan" and "same" give for region sets of two.

    Examples
    --------
    >>> from skretrieval.retrieval import NearestNeighborsRetriever
    >>> gallery = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    >>> retriever = NearestNeighborsRetriever().fit(gallery, ["tower", "bridge", "tower"])
    >>> retriever.predict([[2.0, 1.0]])
    array([[2, 0, 1]])
    >>> retriever.score([[2.0, 1.0]], ["tower"])
    1.0
    """

    _parameter_constraints: dict = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions(set(SCORERS))],
        "region_pairs": [StrOptions({"all", "same"})],
        "accept_sparse": ["boolean"],
        "engine": [StrOptions({"exact", "faiss"})],
        "engine_params": [dict, None],
    }

    def __init__(
        self,
        n_neighbors: int = 100,
        *,
        metric: str = "cosine",
        region_pairs: str = "all",
        accept_sparse: bool = False,
        engine: str = "exact",
        engine_params: dict[str, Any] | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.region_pairs = region_pairs
        self.accept_sparse = accept_sparse
        self.engine = engine
        self.engine_params = engine_params

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Index a gallery.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or list of arrays (M_i, n_features)
            Gallery descriptors or region sets.
        y : array-like of shape (n_samples,), default=None
            Labels of the items; only ``score`` uses them. -1 marks distractors.

        Returns
        -------
        self : object
            The fitted retriever.
        """
        with self._changing():
            return self._index_gallery(X, y)

    def _index_gallery(self, X: Any, y: ArrayLike | None) -> Self:
        params = self._check_engine()
        descriptors = check_descriptors(self, X, reset=True, accept_sparse=self.accept_sparse)
        labels = self._check_labels(y, descriptors)
        if self.region_pairs == "same":
            check_regions(descriptors, descriptors.counts[0], "item 0 has")
            if self.engine == "faiss":
                raise ValueError("region_pairs='same' needs engine='exact': faiss compares all regions.")
        gallery = prepare(descriptors, self.metric)
        self._faiss = FaissIndex(gallery, self.metric, params) if self.engine == "faiss" else None
        self.metric_, self.region_pairs_, self.engine_ = self.metric, self.region_pairs, self.engine
        self._store(gallery, labels)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
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
        with self._changing():
            return self._append(X, y) if hasattr(self, "gallery_") else self._index_gallery(X, y)

    def _append(self, X: Any, y: ArrayLike | None) -> Self:
        if (y is None) != (self.labels_ is None):
            have, got = ("labels", "none") if y is None else ("no labels", "some")
            raise ValueError(
                f"The gallery has {have}, but partial_fit was given {got}: y must be consistent."
            )
        added = self._check(X)
        labels = self._check_labels(y, added)
        if labels is not None:
            labels = np.concatenate([self.labels_, labels])
        if self.row_lengths_ is None:
            gallery = self._gallery.append(prepare(added, self.metric_, in_place=False))
        else:
            gallery = DescriptorSet(self.gallery_, self.region_offsets_).append(added)
            gallery = prepare(gallery, self.metric_, in_place=True)
        if self._faiss is not None:
            self._faiss.append(gallery)
        self._store(gallery, labels)
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

        Raises
        ------
        IndexError
            If an index is negative or not below the number of items.
        ValueError
            If the indices are not integers, or no item would be left.
        """
        check_is_fitted(self)
        with self._changing():
            return self._remove(indices)

    def _remove(self, indices: ArrayLike) -> Self:
        indices = check_items(indices, self.n_samples_fit_)
        keep = np.delete(np.arange(self.n_samples_fit_), indices.ravel())
        if len(keep) == 0:
            raise ValueError(f"Cannot remove all {self.n_samples_fit_} items: the gallery would be empty.")
        gallery = self._gallery.take(keep)
        if self._faiss is not None:
            # another index: searches that began before go on in the one that belongs to their gallery
            faiss = copy(self._faiss)
            faiss.rebuild(gallery)
            self._faiss = faiss
        self._store(gallery, None if self.labels_ is None else self.labels_[keep])
        return self

    def engine_recall(self, X: Any = None, n_neighbors: int | None = None) -> float:
        """Share of the nearest items that the engine finds, its recall@k against the exact search.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_queries, n_features) or list of arrays, default=None
            Query descriptors or region sets. None: every gallery item queries the others.
        n_neighbors : int, default=None
            Number k of neighbours; None for the retriever's own ``n_neighbors``.

        Returns
        -------
        float
            Mean over the queries of the share of the k items found that are no farther than the k-th nearest.
            1.0 for the engine "exact".

        Examples
        --------
        >>> import numpy as np
        >>> from skretrieval.retrieval import NearestNeighborsRetriever
        >>> X = np.random.default_rng(0).normal(size=(1000, 16))
        >>> NearestNeighborsRetriever().fit(X).engine_recall(X[:9])
        1.0
        """
        check_is_fitted(self)
        exact = copy(self).set_params(engine="exact", engine_params=None)
        exact.engine_, exact._faiss = "exact", None
        found, nearest = (retriever.kneighbors(X, n_neighbors)[0] for retriever in (self, exact))
        return float(np.mean(found <= nearest[:, -1:]))

    @staticmethod
    def _check_labels(y: ArrayLike | None, descriptors: DescriptorSet) -> NDArray[Any] | None:
        if y is None:
            return None
        labels = column_or_1d(y)
        check_consistent_length(np.empty(descriptors.n_items), labels)
        return labels

    def _check_engine(self) -> dict[str, Any]:
        """Parameters of the engine, checked."""
        if self.engine == "faiss":
            return check_faiss_params(self.engine_params)
        return check_exact_params(self.engine_params)

    # What the mixin and the wrappers build on.

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = bool(self.accept_sparse)
        return tags

    @property
    def _index(self) -> "NearestNeighborsRetriever":
        return self

    @property
    def _same(self) -> bool:
        """Whether regions of the same number only are compared."""
        return self.region_pairs_ == "same"

    def _check_queries(self, X: Any) -> DescriptorSet:
        return prepare(self._check(X), self.metric_, in_place=False)

    def _check(self, X: Any) -> DescriptorSet:
        """Descriptors like those of the gallery, as they are."""
        gallery = self._gallery
        turned = self.metric_ == "cosine" and gallery.dtype == np.float32 and not sparse.issparse(X)
        dtype = (
            None if turned else gallery.dtype
        )  # where only directions count, no size is too small or too large
        descriptors = check_descriptors(self, X, reset=False, dtype=dtype, accept_sparse=self.accept_sparse)
        if turned:
            descriptors = replace(descriptors, rows=directions(descriptors.rows, gallery.dtype))
        if self._same:
            check_regions(descriptors, gallery.counts[0], "those of the gallery have")
        return descriptors

    def _search(
        self, queries: DescriptorSet, n_neighbors: int, own: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        if self.engine != self.engine_:
            raise ValueError(
                f"The engine was {self.engine_!r} when fitted and is {self.engine!r} now: fit again."
            )
        params, engine = self._check_engine(), self._faiss
        queries, gallery, exponent = self._in_range(queries)
        if engine is not None and exponent == 0:
            return engine.search(queries, gallery, n_neighbors, params)
        options = params if engine is None else {}
        found = search(queries, gallery, n_neighbors, metric=self.metric_, same=self._same, **options)
        return found if exponent == 0 else (distances_of(found[0], exponent, self._gallery.dtype), found[1])

    def _ranks(
        self,
        queries: DescriptorSet,
        query: NDArray[np.intp],
        item: NDArray[np.intp],
        own: NDArray[np.intp] | None,
    ) -> NDArray[np.intp] | None:
        params = self._check_engine() if self._faiss is None else {}
        options = {"metric": self.metric_, "same": self._same, **params}
        queries, gallery, _ = self._in_range(queries)
        return count_ranks(queries, gallery, query, item, **options)

    def _own_items(self, queries: DescriptorSet) -> NDArray[np.intp]:
        """First gallery item at distance zero from each query, -1 where there is none."""
        distances, indices = self._search(queries, 1)
        return np.where(distances[:, 0] == 0, indices[:, 0], -1)

    def _best_rows(
        self, queries: DescriptorSet, indices: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Query rows and gallery rows of the best region pairs, each of shape (n_queries, k)."""
        queries, gallery, _ = self._in_range(queries)
        scorer = make_scorer(self.metric_, queries, gallery, self._same)
        query = np.repeat(np.arange(queries.n_items), indices.shape[1])
        query_rows, gallery_rows = scorer.best_rows(query, indices.ravel())
        return query_rows.reshape(indices.shape), gallery_rows.reshape(indices.shape)
