"""Search against the bare product and top-k, scikit-learn, faiss, scipy and torch.

Descriptors are clustered float32 unit vectors, fifty items around each centre. "Bare product and top-k" is the faster
one of NumPy's ``argpartition(queries @ gallery.T)`` and torch's ``topk(queries @ gallery.T)``, 128 queries at a time:
what a search costs without order, stable ties, float64 distances or a bound on memory. Files of a million descriptors
are written to a temporary folder (3 GB), block by block, and read through memory maps.
"""

import time
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from search_data import (
    ITEMS,
    MAPPED,
    N_FEATURES,
    N_ITEMS,
    N_MAPPED,
    N_NEIGHBORS,
    argsorts,
    assert_same,
    bare_top,
    fitted,
    make_around,
    make_centres,
    make_gallery,
    make_labels,
    make_queries,
    memory_of,
    numpy_top,
    product,
)
from sklearn.neighbors import NearestNeighbors

from skretrieval.retrieval import NearestNeighborsRetriever

try:
    import faiss
except ImportError:
    faiss = None

slow = pytest.mark.slow
needs_faiss = pytest.mark.skipif(faiss is None, reason="faiss is not installed")

EXACT = f"Exact cosine search, {ITEMS}, k={N_NEIGHBORS}"
BARE = "bare product and top-k"


# ---------------------------------------------------------------------------------------------------------------------
# Exact search in memory


def against_bare(against, function, m, **options):
    """Time a search for m queries; `function(queries)` returns the indices."""
    queries, gallery, bare = make_queries(m), make_gallery(), bare_top(m)
    if options.pop("exact", True):
        assert_same(function(queries), bare(queries, gallery, N_NEIGHBORS))
    note = f"the faster one is {'NumPy' if bare is numpy_top else 'torch'}'s for {m}"
    options.setdefault("note", note if options.get("limit") else "")
    against(
        lambda: function(queries),
        lambda: bare(queries, gallery, N_NEIGHBORS),
        table=EXACT,
        column=f"{m:,} quer{'y' if m == 1 else 'ies'}",
        to=BARE,
        seconds=2.0,
        **({} if m < 1000 else {"rounds": 3, "warm": False}),
        **options,
    )


@pytest.mark.parametrize("m", [1, 70, 1000])
def test_float32(against, m):
    against_bare(against, fitted().predict, m, row="float32 gallery", limit=1.3)


@pytest.mark.parametrize("m", [1, 70, 1000])
def test_float16(against, m):
    against_bare(against, fitted("float16").predict, m, row="float16 gallery", exact=False)


@pytest.mark.parametrize("m", [1, 70, 1000])
def test_scikit_learn(against, m):
    theirs = NearestNeighbors(n_neighbors=N_NEIGHBORS, metric="cosine", algorithm="brute").fit(make_gallery())
    against_bare(
        against, lambda Q: theirs.kneighbors(Q, return_distance=False), m, row="scikit-learn's brute force"
    )


@needs_faiss
@pytest.mark.parametrize("m", [1, 70, 1000])
def test_faiss_flat(against, m):
    index = faiss.IndexFlatIP(N_FEATURES)
    index.add(make_gallery())
    setting = f"distance_compute_blas_threshold={faiss.cvar.distance_compute_blas_threshold}, faiss's default"
    against_bare(against, lambda Q: index.search(Q, N_NEIGHBORS)[1], m, row="faiss IndexFlatIP", note=setting)


@pytest.mark.parametrize("m", [1, 70, 1000])
def test_against_scikit_learn(against, m):
    theirs = NearestNeighbors(n_neighbors=N_NEIGHBORS, metric="cosine", algorithm="brute").fit(make_gallery())
    queries = make_queries(m)
    against(
        lambda: fitted().kneighbors(queries),
        lambda: theirs.kneighbors(queries),
        table=f"{EXACT}, against scikit-learn",
        row="float32 gallery",
        column=f"{m:,} quer{'y' if m == 1 else 'ies'}",
        to="scikit-learn's brute force",
        limit=0.5,
        rounds=3,
        warm=m < 1000,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Other metrics


def torch_distances(queries, gallery, p):
    queries, gallery = torch.from_numpy(queries), torch.from_numpy(gallery)
    return torch.topk(torch.cdist(queries, gallery, p=p), N_NEIGHBORS, largest=False).indices.numpy()


def scipy_distances(queries, gallery, name):
    return np.argpartition(cdist(queries, gallery, name), N_NEIGHBORS)[:, :N_NEIGHBORS]


@pytest.mark.parametrize("other", ["scipy's cdist", "torch.cdist", "scikit-learn's brute force"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_metric(against, metric, other):
    queries, gallery, p = make_queries(70), make_gallery(), 2 if metric == "euclidean" else 1
    if other == "torch.cdist":
        baseline = partial(torch_distances, queries, gallery, p)
    elif other == "scipy's cdist":
        name, wide = {2: "euclidean", 1: "cityblock"}[p], gallery.astype(np.float64)
        baseline = partial(scipy_distances, queries, wide, name)
    else:
        theirs = NearestNeighbors(n_neighbors=N_NEIGHBORS, metric=metric, algorithm="brute").fit(gallery)
        baseline = partial(theirs.kneighbors, queries, return_distance=False)
    ours = fitted(metric=metric)
    assert_same(ours.predict(queries), baseline())
    against(
        lambda: ours.kneighbors(queries),
        baseline,
        table=f"Other metrics, {ITEMS}, 70 queries, k={N_NEIGHBORS}",
        row=metric,
        column=f"against {other}",
        to=other,
        rounds=2,
        warm=False,
    )


# ---------------------------------------------------------------------------------------------------------------------
# The engine faiss

INDEXES = {
    "flat": ({"index": "flat"}, [{}]),
    "HNSW": ({"index": "hnsw", "M": 16, "ef_construction": 40}, [{"ef_search": 128}, {"ef_search": 512}]),
    "IVF-PQ": ({"index": "ivfpq"}, [{"nprobe": 32}, {"nprobe": 128, "oversample": 16}]),
}


ENGINES = [
    (name, number, m)
    for name, (_, changes) in INDEXES.items()
    for number in range(len(changes))
    for m in (1, 70)
]


@lru_cache(maxsize=1)
def built(name):
    """A retriever with that index, and the seconds that it took."""
    start = time.perf_counter()
    params = INDEXES[name][0]
    return fit_engine(params), time.perf_counter() - start


def fit_engine(params):
    return NearestNeighborsRetriever(N_NEIGHBORS, engine="faiss", engine_params=params).fit(make_gallery())


@needs_faiss
@pytest.mark.parametrize(
    ("name", "number", "m"), [pytest.param(*one, marks=[slow] * (one[0] == "HNSW")) for one in ENGINES]
)
def test_engine(against, name, number, m):
    ours, seconds = built(name)
    fixed, changes = INDEXES[name]
    ours.set_params(engine_params={**fixed, **changes[number]})
    queries = make_queries(m)
    settings = ", ".join(f"{key}={value}" for key, value in changes[number].items())
    recall = ours.engine_recall(make_queries(70))
    against(
        lambda: ours.kneighbors(queries),
        lambda: fitted().kneighbors(queries),
        table=f"Engine faiss, {ITEMS}, k={N_NEIGHBORS}",
        row=f"{name}, {settings}" if settings else name,
        column=f"{m} quer{'y' if m == 1 else 'ies'}",
        to="the exact engine",
        note=f"recall@{N_NEIGHBORS} {recall:.3f}" + (f", fit {seconds:.0f} s" if m == 1 else ""),
    )


# ---------------------------------------------------------------------------------------------------------------------
# A million descriptors on disk


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Mapped galleries of both dtypes, and the labels of their items: the clusters."""
    folder = tmp_path_factory.mktemp("mapped")
    labels, rng = make_labels(N_MAPPED, N_MAPPED, 1), np.random.default_rng(5)
    paths = {dtype: folder / f"{dtype}.npy" for dtype in ("float32", "float16")}
    maps = {
        dtype: np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=(N_MAPPED, N_FEATURES))
        for dtype, path in paths.items()
    }
    for start in range(0, N_MAPPED, 50_000):
        part = make_around(make_centres(N_MAPPED), labels[start : start + 50_000], rng)
        for mapped in maps.values():
            mapped[start : start + len(part)] = part
    del maps, mapped
    yield {dtype: np.load(path, mmap_mode="r") for dtype, path in paths.items()}, labels
    for path in paths.values():
        path.unlink()


@pytest.fixture(scope="module")
def retrievers(files):
    """Fitted to the mapped galleries."""
    galleries, labels = files
    return {dtype: NearestNeighborsRetriever(N_NEIGHBORS).fit(X, labels) for dtype, X in galleries.items()}


MAPPED_ROWS = [
    "fit, to the product of 1 query",
    "1 query",
    "70 queries",
    "70 queries: score, labels by cluster",
    "70 queries: score, labels at random",
]


@slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("what", MAPPED_ROWS)
def test_mapped(against, files, retrievers, what, dtype):
    galleries, labels = files
    retriever, m = retrievers[dtype], 70 if what.startswith("70") else 1
    queries, query_labels = make_queries(m, N_MAPPED), make_labels(N_MAPPED, m, 3)
    if what.startswith("fit"):
        function = partial(NearestNeighborsRetriever().fit, galleries[dtype])
    elif "score" in what:
        if "random" in what:
            labels = np.random.default_rng(6).permutation(labels)
        retriever.labels_ = labels
        function = partial(retriever.score, queries, query_labels)
    else:
        function = partial(retriever.kneighbors, queries)
    note = memory_of(function)
    against(
        function,
        lambda: product(queries, galleries["float32"]),
        table=f"{MAPPED} from memory-mapped files, k={N_NEIGHBORS}",
        row=what,
        column=f"{dtype} file",
        to="bare product over the float32 file",
        rounds=3 if m == 1 else 2,
        warm=False,
        note=note,
    )


@slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_whole_rankings_of_files(against, files, retrievers, dtype):
    galleries, _ = files
    queries = make_queries(70, N_MAPPED)
    results = []

    def rank():
        results[:] = retrievers[dtype].kneighbors(queries, N_MAPPED)

    note = memory_of(rank)
    size = sum(part.nbytes for part in results) / 2**20
    against(
        rank,
        lambda: argsorts(queries, galleries["float32"]),
        table="Whole rankings of 70 queries",
        row=f"{MAPPED}, mapped",
        column=dtype,
        to="bare float32 product and stable argsort",
        rounds=1,
        warm=False,
        note=f"{note}, of which the rankings take {size:.0f}",
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_whole_rankings(against, dtype):
    queries, gallery = make_queries(70), make_gallery()
    assert (
        fitted(dtype).kneighbors(queries, N_ITEMS)[1][:, 0] == argsorts(queries, gallery)[:, 0]
    ).mean() > 0.9
    against(
        lambda: fitted(dtype).kneighbors(queries, N_ITEMS),
        lambda: argsorts(queries, gallery),
        table="Whole rankings of 70 queries",
        row=ITEMS,
        column=dtype,
        to="bare float32 product and stable argsort",
        rounds=2,
        warm=False,
    )


@pytest.mark.parametrize("labels", ["by cluster", "at random"])
def test_score(against, labels):
    queries, gallery, y = make_queries(70), make_gallery(), make_labels(N_ITEMS, N_ITEMS, 1)
    if labels == "at random":
        y = np.random.default_rng(6).permutation(y)
    ours, query_labels = NearestNeighborsRetriever().fit(gallery, y), make_labels(N_ITEMS, 70, 3)
    against(
        lambda: ours.score(queries, query_labels),
        lambda: product(queries, gallery),
        table=f"score (mAP) of 70 queries, {ITEMS}",
        row="float32 gallery",
        column=f"labels {labels}",
        to="bare float32 product",
    )
