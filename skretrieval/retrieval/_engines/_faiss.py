"""Approximate search with a faiss index: it proposes candidates, exact scores order them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._linalg import is_forked
from .._descriptors import DescriptorSet
from .._locks import ProcessLock
from .._search._exact import FULL_SHARE, make_scorer, order_candidates, pack, search

# Held by whoever calls faiss. Its indexes may not be read while they are written, the settings of a search are written
# into the index, and those below belong to the process. faiss itself shares a search out to threads.
_CALLING = ProcessLock()

# Gallery rows converted to float32 and added at a time.
_ADD_ROWS = 65536
# Candidates beyond those asked for, so that rounding does not cut ties at the end of the list.
_MARGIN = 16
# Rows for each centroid that is learned.
_TRAIN_PER_CENTROID = 64

_COMMON: dict[str, Any] = {"oversample": 1.0, "query_block_size": 1024}
_KNOWN: dict[str, dict[str, Any]] = {
    "flat": {},
    "hnsw": {"M": 32, "ef_construction": 200, "ef_search": 128},
    "ivfpq": {"nlist": None, "nprobe": 32, "m": None, "nbits": 8, "oversample": 4.0},
}
_FACTORY: dict[str, Any] = {"ef_construction": None, "ef_search": None, "nprobe": None, "oversample": 4.0}
# Name of each parameter in faiss.
_FAISS_NAMES = {"nprobe": "nprobe", "ef_search": "efSearch", "ef_construction": "efConstruction"}
_METRICS = {"cosine": "METRIC_INNER_PRODUCT", "euclidean": "METRIC_L2", "manhattan": "METRIC_L1"}


def import_faiss() -> Any:
    """Import faiss, or say how to get it.

    Raises
    ------
    ImportError
        That names the extra.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "engine='faiss' needs faiss-cpu: pip install 'scikit-retrieval[faiss]', or use engine='exact'."
        ) from error
    return faiss


def check_faiss_params(params: dict[str, Any] | None) -> dict[str, Any]:
    """Complete the ``engine_params`` of the engine "faiss".

    Parameters
    ----------
    params : dict or None
        As given; see :class:`NearestNeighborsRetriever`.

    Returns
    -------
    dict
        With the defaults of the chosen index.

    Raises
    ------
    ValueError
        For a parameter that the index does not have, or an impossible value.
    """
    given = dict(params or {})
    index = given.pop("index", "flat")
    if not isinstance(index, str) or not index:
        raise ValueError(f"engine_params['index'] must be {sorted(_KNOWN)} or a faiss string, got {index!r}.")
    known = {**_COMMON, **_KNOWN.get(index, _FACTORY)}
    unknown = sorted(set(given) - set(known), key=str)
    if unknown:
        raise ValueError(
            f"Unknown engine_params {unknown} for engine 'faiss' with index {index!r}; it knows "
            f"{['index', *sorted(known)]}."
        )
    for name, value in given.items():
        number: Any = Real if name == "oversample" else Integral
        fine = isinstance(value, number) and not isinstance(value, bool) and 1 <= value < math.inf
        if not fine and not (value is None and known[name] is None):
            kind = "a number" if number is Real else "an integer"
            raise ValueError(f"engine_params[{name!r}] must be {kind} of at least 1, got {value!r}.")
    return {"index": index, **known, **given}


@contextmanager
def _settings(faiss: Any, *, single_thread: bool = False) -> Iterator[None]:
    """Products by BLAS also for few queries; one thread where the order of insertions decides the graph."""
    if is_forked():
        faiss.omp_set_num_threads(1)
    threshold, threads = faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()
    faiss.cvar.distance_compute_blas_threshold = 20
    if single_thread:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = threshold
        faiss.omp_set_num_threads(threads)


class FaissIndex:
    """A faiss index of gallery rows, rows numbered as in the gallery.

    Parameters
    ----------
    gallery : DescriptorSet
        Prepared dense rows (unit rows for the cosine).
    metric : {"cosine", "euclidean", "manhattan"}
        Metric of the retriever.
    params : dict
        Of :func:`check_faiss_params`.

    Raises
    ------
    ImportError
        If faiss is not installed.
    TypeError
        If the gallery is sparse.
    ValueError
        If the index cannot be built for the metric, the number of features or this gallery.
    """

    _index: Any
    _bytes: NDArray[np.uint8]  # the index of an unpickled model, until it is needed

    def __init__(self, gallery: DescriptorSet, metric: str, params: dict[str, Any]) -> None:
        if gallery.is_sparse:
            raise TypeError("engine='faiss' does not take sparse descriptors: use engine='exact'.")
        self.params, self.metric, self.n_features = params, metric, gallery.n_features
        if metric == "manhattan" and params["index"] != "flat":
            raise ValueError(
                f"Index {params['index']!r} does not know the metric 'manhattan': use index 'flat' or engine='exact'."
            )
        with _CALLING:
            self._build(gallery)

    def _build(self, gallery: DescriptorSet) -> None:
        faiss = import_faiss()
        string = self._factory_string(gallery.n_rows)
        try:
            self._index = faiss.index_factory(self.n_features, string, getattr(faiss, _METRICS[self.metric]))
            self.__dict__.pop("_bytes", None)  # of the index before
            self.needs_training = not self._index.is_trained
            for name in _FAISS_NAMES:
                self._set(name, self.params.get(name))
            with _settings(faiss):
                self._train(faiss, gallery)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].split(": ", 1)[-1]
            raise ValueError(
                f"faiss cannot build {string!r} from {gallery.n_rows} rows of {self.n_features} features: "
                f"{reason.rstrip('.')}."
            ) from error
        self._add(gallery, 0)

    def _factory_string(self, n_rows: int) -> str:
        """Describe the index in faiss's own language."""
        params, d = self.params, self.n_features
        if params["index"] == "flat":
            return "Flat"
        if params["index"] == "hnsw":
            return f"HNSW{params['M']}"
        if params["index"] != "ivfpq":
            return params["index"]
        least = 2 ** params["nbits"]
        if n_rows < least:
            raise ValueError(
                f"index 'ivfpq' learns {least} centroids (2**nbits) from the gallery, which has {n_rows} rows "
                "only: use a smaller nbits, or index 'flat'."
            )
        nlist = params["nlist"] or max(1, min(int(2 * math.sqrt(n_rows)), n_rows // 39))
        m = params["m"] or next(m for m in range(max(1, d // 8), 0, -1) if d % m == 0)
        if d % m:
            raise ValueError(f"engine_params['m']={m} does not divide the {d} features.")
        # "np": no polysemous training, which takes minutes and orders codes for a filter that is not used here.
        return f"IVF{nlist},PQ{m}x{params['nbits']}np"

    def _train(self, faiss: Any, gallery: DescriptorSet) -> None:
        if self._index.is_trained:
            return
        ivf = faiss.try_extract_index_ivf(self._index)
        quantizers = [
            part for part in (ivf, getattr(ivf, "pq", None), getattr(self._index, "pq", None)) if part
        ]
        for part in quantizers:
            part.cp.min_points_per_centroid = 1  # faiss would print a line for each, on its own
        n_centroids = max(getattr(ivf, "nlist", 0), 1024)
        step = max(1, gallery.n_rows // (_TRAIN_PER_CENTROID * n_centroids))
        self._index.train(self._float32(gallery, slice(0, None, step)))

    def _float32(self, gallery: DescriptorSet, key: Any) -> NDArray[np.float32]:
        rows = gallery.dense(key)
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(rows, dtype=np.float32)
        if rows.dtype != np.float32 and not np.isfinite(single).all():
            limit, value = np.finfo(np.float32).max, np.abs(rows).max()
            raise ValueError(
                f"engine='faiss' works in float32, whose largest number is {limit:.2g}; a descriptor has {value:.2g}."
            )
        return single

    def _add(self, gallery: DescriptorSet, first: int) -> None:
        faiss = import_faiss()
        # Threads would insert into a graph in an order that differs from run to run.
        graph = "HNSW" in self._factory_string(gallery.n_rows) or "NSG" in self.params["index"]
        with _settings(faiss, single_thread=graph):
            for start in range(first, gallery.n_rows, _ADD_ROWS):
                self._index.add(self._float32(gallery, slice(start, start + _ADD_ROWS)))

    def append(self, gallery: DescriptorSet) -> None:
        """Add the rows of the grown gallery that are not in the index; centroids stay as they are."""
        with _CALLING:
            self._add(gallery, self.index.ntotal)

    def rebuild(self, gallery: DescriptorSet) -> None:
        """Index another gallery, with the centroids learned before."""
        with _CALLING:
            if not self.needs_training:
                self._build(gallery)
            else:
                self.index.reset()
                self._add(gallery, 0)

    @property
    def index(self) -> Any:
        """The faiss index, read from its bytes when it is first needed."""
        with _CALLING:
            if not hasattr(self, "_index"):
                self._index = import_faiss().deserialize_index(np.array(self._bytes))
                del self._bytes
            return self._index

    def __getstate__(self) -> dict[str, Any]:
        with _CALLING:
            state = self.__dict__.copy()
            if "_index" in state:
                state["_bytes"] = import_faiss().serialize_index(state.pop("_index"))
            return state

    def _set(self, name: str, value: Any) -> None:
        if value is None:
            return
        faiss = import_faiss()
        try:
            faiss.ParameterSpace().set_index_parameter(self.index, _FAISS_NAMES[name], value)
        except RuntimeError as error:
            raise ValueError(f"Index {self.params['index']!r} has no parameter {name!r}.") from error

    def search(
        self, queries: DescriptorSet, gallery: DescriptorSet, n_neighbors: int, params: dict[str, Any]
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Find near gallery items, by exact distances among the candidates of the index.

        Parameters
        ----------
        queries, gallery : DescriptorSet
            Prepared rows.
        n_neighbors : int
            Between 1 and the number of gallery items.
        params : dict
            Of :func:`check_faiss_params`, for ``nprobe``, ``ef_search``, ``oversample`` and
            ``query_block_size``.

        Returns
        -------
        distances, indices : ndarray of shape (n_queries, n_neighbors)
            As of the exact search. Long rankings, and queries for which the index yields too few items, are
            searched exactly.
        """
        if params["index"] != self.params["index"]:
            raise ValueError(
                f"The index was {self.params['index']!r} when fitted and is {params['index']!r} now: fit again."
            )
        if FULL_SHARE * n_neighbors >= gallery.n_items:
            return search(queries, gallery, n_neighbors, metric=self.metric)
        distances = np.empty((queries.n_items, n_neighbors), dtype=gallery.dtype)
        indices = np.empty((queries.n_items, n_neighbors), dtype=np.intp)
        for start, stop in queries.blocks(params["query_block_size"]):
            part = queries.slice(start, stop)
            with _CALLING:
                query, item = self._candidates(part, gallery, n_neighbors, params)
            enough = np.bincount(query, minlength=part.n_items) >= n_neighbors
            if enough.any():
                scorer = make_scorer(self.metric, part, gallery)
                values, table = pack(query, np.zeros(len(query)), item, part.n_items, gallery.n_items)
                scores, found = order_candidates(scorer, values, table, n_neighbors)
                distances[start:stop][enough] = scorer.distance(scores[enough])
                indices[start:stop][enough] = found[enough]
            if not enough.all():
                rest = np.flatnonzero(~enough)
                exact = search(part.take(rest), gallery, n_neighbors, metric=self.metric)
                distances[start + rest], indices[start + rest] = exact
        return distances, indices

    def _candidates(
        self, queries: DescriptorSet, gallery: DescriptorSet, k: int, params: dict[str, Any]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return pairs (query, item), sorted, without repetitions; at least k items a query where found."""
        faiss = import_faiss()
        rows, found_before = self._float32(queries, slice(None)), -1
        of_row = np.repeat(np.arange(queries.n_items), queries.counts)
        wanted = math.ceil(params["oversample"] * k) + _MARGIN
        self._set("nprobe", params.get("nprobe"))
        while True:
            wanted = min(wanted, gallery.n_rows)
            ef_search = params.get("ef_search")
            self._set("ef_search", None if ef_search is None else max(ef_search, wanted))
            with _settings(faiss):
                found = self.index.search(rows, wanted)[1]
            # a search beside a partial_fit may meet rows that its gallery does not have yet
            row, column = np.nonzero((found >= 0) & (found < gallery.n_rows))
            item = found[row, column]
            if gallery.offsets is not None:
                item = np.searchsorted(gallery.offsets, item, side="right") - 1
            pairs = np.unique(of_row[row] * gallery.n_items + item)
            query, item = np.divmod(pairs, gallery.n_items)
            enough = (np.bincount(query, minlength=queries.n_items) >= k).all()
            # Regions of one image may fill the list: ask for more, unless the index has no more to give.
            if enough or wanted == gallery.n_rows or len(row) == found_before:
                return query, item
            found_before, wanted = len(row), 4 * wanted
