"""Descriptors, baselines and memory of bench_search.py."""

import os
import threading
import time
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from skretrieval.retrieval import NearestNeighborsRetriever

SCALE = float(os.environ.get("SKRETRIEVAL_BENCH_SCALE", "1"))
N_FEATURES = 512
N_ITEMS = max(5_000, int(100_000 * SCALE))
N_MAPPED = max(20_000, int(1_000_000 * SCALE))
N_NEIGHBORS = 100
PER_CLUSTER = 50
#: Products of many queries, and of blocks of a mapped file.
QUERY_BLOCK, FILE_BLOCK = 128, 65_536

ITEMS = f"{N_ITEMS:,} x {N_FEATURES}"
MAPPED = f"{N_MAPPED:,} x {N_FEATURES}"


@lru_cache(maxsize=2)
def make_centres(n):
    return np.random.default_rng(0).standard_normal((max(1, n // PER_CLUSTER), N_FEATURES), dtype=np.float32)


def make_around(centres, labels, rng):
    X = centres[labels]
    X += rng.standard_normal(X.shape, dtype=np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X


def make_labels(n, size, seed):
    """Clusters of `size` descriptors of a collection of n."""
    return np.random.default_rng(seed).integers(max(1, n // PER_CLUSTER), size=size)


@cache
def make_gallery():
    return make_around(make_centres(N_ITEMS), make_labels(N_ITEMS, N_ITEMS, 1), np.random.default_rng(2))


def make_queries(m, n=N_ITEMS):
    return make_around(make_centres(n), make_labels(n, m, 3), np.random.default_rng(4))


@cache
def fitted(dtype="float32", metric="cosine"):
    return NearestNeighborsRetriever(N_NEIGHBORS, metric=metric).fit(make_gallery().astype(dtype, copy=False))


def numpy_top(queries, gallery, k):
    """The k nearest, in no order."""
    parts = [queries[start : start + QUERY_BLOCK] for start in range(0, len(queries), QUERY_BLOCK)]
    return np.concatenate([np.argpartition(part @ gallery.T, -k, axis=1)[:, -k:] for part in parts])


def torch_top(queries, gallery, k):
    queries, gallery = torch.from_numpy(queries), torch.from_numpy(gallery)
    parts = [torch.topk(part @ gallery.T, k, sorted=False).indices for part in queries.split(QUERY_BLOCK)]
    return torch.cat(parts).numpy()


def seconds_of(function):
    """Shortest time of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@cache
def bare_top(m):
    """The faster one of the two, for m queries."""
    arguments = make_queries(m), make_gallery(), N_NEIGHBORS
    return min((numpy_top, torch_top), key=lambda function: seconds_of(lambda: function(*arguments)))


def assert_same(found, expected):
    """The same items but where rounding decides."""
    assert (np.sort(found, axis=1) == np.sort(expected, axis=1)).mean() > 0.999


def product(queries, gallery, use=lambda scores: None):
    """The product with a file, block by block."""
    for start in range(0, len(gallery), FILE_BLOCK):
        use(queries @ gallery[start : start + FILE_BLOCK].T)


def argsorts(queries, gallery):
    """Rankings by a stable sort of the float32 scores of one query after another, whose ties rounding decides."""
    scores = []
    product(queries, gallery, scores.append)
    return np.stack([np.argsort(-row, kind="stable") for row in np.concatenate(scores, axis=1)])


def anonymous_memory():
    """Memory of this process that is not a file's, in MB; None where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), None)


def memory_of(function):
    """The most memory above that before a call, in words."""
    before, most, done = anonymous_memory(), [0.0], threading.Event()
    if before is None:
        return "memory not known"

    def watch():
        while not done.wait(0.005):
            most[0] = max(most[0], anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return f"{max(0.0, most[0] - before):.0f} MB beyond the file"
