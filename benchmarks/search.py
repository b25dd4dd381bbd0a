"""Exact cosine search against the bare matrix product and scikit-learn, as a table in Markdown.

    python benchmarks/search.py [--items 100000] [--features 512] [--neighbors 100] [--queries 1 70 1000]

Times are the best of several runs on clustered unit vectors, the competitors in turns within each round, so that
other work on the machine hits all of them. "bare" is ``argpartition(queries @ gallery.T)`` for 128 queries at a
time: what a search costs without order, stable ties, float64 distances or a bound on memory.
"""

import argparse
import time

import numpy as np
from sklearn.neighbors import NearestNeighbors

from skretrieval.retrieval import NearestNeighborsRetriever


def make_descriptors(n, n_features, centres, rng):
    """Unit vectors around the given centres."""
    X = centres[rng.integers(len(centres), size=n)] + 0.8 * rng.standard_normal(
        (n, n_features), dtype=np.float32
    )
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def bare_search(queries, gallery, k, block=128):
    """The k nearest in no order: one product and one partition for each block of queries."""
    found = []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ gallery.T
        found.append(np.argpartition(scores, -k, axis=1)[:, -k:])
    return np.concatenate(found)


def product(queries, gallery, block=128):
    """The matrix product alone."""
    for start in range(0, len(queries), block):
        queries[start : start + block] @ gallery.T


def best_times(functions, budget):
    """Shortest time of each function, taken in turns until ``budget`` seconds are spent."""
    times = {name: np.inf for name in functions}
    end = time.perf_counter() + budget
    while True:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name] = min(times[name], time.perf_counter() - start)
        if time.perf_counter() > end:
            return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--neighbors", type=int, default=100)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 70, 1000])
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each row of the table")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, args.items // 50), args.features), dtype=np.float32)
    gallery = make_descriptors(args.items, args.features, centres, rng)
    k = args.neighbors
    ours = NearestNeighborsRetriever(k).fit(gallery)
    theirs = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(gallery)

    print(f"Exact cosine, k={k}, {args.items} x {args.features} float32, milliseconds (best run)\n")
    print(
        "| queries | product | bare | skretrieval | scikit-learn | ours / product | ours / bare | ours / scikit-learn |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for n_queries in args.queries:
        queries = make_descriptors(n_queries, args.features, centres, rng)
        times = best_times(
            {
                "product": lambda Q=queries: product(Q, gallery),
                "bare": lambda Q=queries: bare_search(Q, gallery, k),
                "ours": lambda Q=queries: ours.kneighbors(Q),
                "theirs": lambda Q=queries: theirs.kneighbors(Q),
            },
            args.seconds,
        )
        same = np.sort(ours.predict(queries), axis=1) == np.sort(bare_search(queries, gallery, k), axis=1)
        assert same.mean() > 0.999, "the searches disagree beyond rounding"
        own = times["ours"]
        cells = [f"{1e3 * times[name]:.1f}" for name in ("product", "bare", "ours", "theirs")]
        cells += [f"{own / times[name]:.2f}" for name in ("product", "bare", "theirs")]
        print("| " + " | ".join([str(n_queries), *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
