"""Search against the bare matrix product, scikit-learn, scipy and torch, as tables in Markdown.

    python benchmarks/search.py [--items 100000] [--features 512] [--million] [--output benchmarks/results/search.md]

Times are the best of several runs on clustered unit vectors, the competitors in turns within each round, so that
other work on the machine hits all of them. "bare" is the faster one of ``argpartition(queries @ gallery.T)`` and
``torch.topk(queries @ gallery.T)`` for 128 queries at a time: what a search costs without order, stable ties, float64
distances or a bound on memory.
"""

import argparse
import os
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from skretrieval.retrieval import NearestNeighborsRetriever

LINES = []


def say(line=""):
    LINES.append(line)
    print(line, flush=True)


def row(*cells):
    say("| " + " | ".join(map(str, cells)) + " |")


def head(*cells):
    row(*cells)
    row(*["--:"] * len(cells))


def make_descriptors(n, n_features, centres, rng):
    """Unit vectors around the given centres."""
    X = centres[rng.integers(len(centres), size=n)]
    X += 0.8 * rng.standard_normal((n, n_features), dtype=np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X


def bare_numpy(queries, gallery, k, block=128):
    """The k nearest in no order: one product and one partition for each block of queries."""
    found = []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ gallery.T
        found.append(np.argpartition(scores, -k, axis=1)[:, -k:])
    return np.concatenate(found)


def bare_torch(queries, gallery, k, block=128):
    """The k nearest by torch."""
    queries, gallery = torch.from_numpy(queries), torch.from_numpy(gallery)
    parts = [torch.topk(part @ gallery.T, k, sorted=False).indices for part in queries.split(block)]
    return torch.cat(parts).numpy()


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


def milliseconds(seconds):
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def anonymous_memory():
    """Memory of this process that is not a file's, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def timed_with_memory(function):
    """Seconds of one run, and the most memory above that before it, in MB."""
    before, most, done = anonymous_memory(), [0.0], threading.Event()

    def watch():
        while not done.wait(0.02):
            most[0] = max(most[0], anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        function()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    return seconds, max(0.0, most[0] - before)


def exact_cosine(gallery, make_queries, k, seconds):
    ours = NearestNeighborsRetriever(k).fit(gallery)
    half = NearestNeighborsRetriever(k).fit(gallery.astype(np.float16))
    theirs = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(gallery)
    say(f"\n## Exact cosine, k={k}, milliseconds\n")
    head(
        "queries", "product", "bare numpy", "bare torch", "skretrieval", "float16 gallery", "scikit-learn",
        "ours / product", "ours / bare", "ours / scikit-learn",
    )  # fmt: skip
    for n_queries in (1, 70, 1000):
        queries = make_queries(n_queries)
        times = best_times(
            {
                "product": lambda Q=queries: product(Q, gallery),
                "numpy": lambda Q=queries: bare_numpy(Q, gallery, k),
                "torch": lambda Q=queries: bare_torch(Q, gallery, k),
                "ours": lambda Q=queries: ours.kneighbors(Q),
                "half": lambda Q=queries: half.kneighbors(Q),
                "theirs": lambda Q=queries: theirs.kneighbors(Q),
            },
            seconds,
        )
        same = np.sort(ours.predict(queries), axis=1) == np.sort(bare_numpy(queries, gallery, k), axis=1)
        assert same.mean() > 0.999, "the searches disagree beyond rounding"
        own, bare = times["ours"], min(times["numpy"], times["torch"])
        ratios = [f"{own / other:.2f}" for other in (times["product"], bare, times["theirs"])]
        row(n_queries, *map(milliseconds, times.values()), *ratios)


def manhattan(gallery, queries, k, seconds):
    ours = NearestNeighborsRetriever(k, metric="manhattan").fit(gallery)
    Q, G = torch.from_numpy(queries), torch.from_numpy(gallery)
    wide, gallery64 = queries.astype(np.float64), gallery.astype(np.float64)
    times = best_times(
        {
            "ours": lambda: ours.kneighbors(queries),
            "torch": lambda: torch.topk(torch.cdist(Q, G, p=1), k, largest=False),
            "scipy": lambda: np.argpartition(cdist(wide, gallery64, "cityblock"), k, axis=1),
        },
        seconds,
    )
    say(f"\n## Exact Manhattan, {len(queries)} queries, k={k}, milliseconds\n")
    head("skretrieval", "torch.cdist", "scipy cdist", "ours / torch", "ours / scipy")
    ratios = [f"{times['ours'] / times[name]:.2f}" for name in ("torch", "scipy")]
    row(*map(milliseconds, times.values()), *ratios)


def evaluation(gallery, labels, queries, query_labels, seconds):
    ours = NearestNeighborsRetriever(100).fit(gallery, labels)
    wide = gallery.astype(np.float64)
    times = best_times(
        {
            "product": lambda: queries.astype(np.float64) @ wide.T,
            "sort": lambda: np.argsort(-(queries @ gallery.T), axis=1, kind="stable"),
            "score": lambda: ours.score(queries, query_labels),
            "ranking": lambda: ours.kneighbors(queries, len(gallery)),
        },
        seconds,
    )
    say(f"\n## mAP and whole rankings, {len(queries)} queries, milliseconds\n")
    head(
        "float64 product", "float32 product and stable argsort", "score (mAP)", "kneighbors of all items",
        "score / argsort", "ranking / argsort",
    )  # fmt: skip
    ratios = [f"{times[name] / times['sort']:.2f}" for name in ("score", "ranking")]
    row(*map(milliseconds, times.values()), *ratios)


def engines(gallery, make_queries, k, seconds):
    try:
        import faiss  # noqa: F401
    except ImportError:
        say("\nThe engine faiss is not installed, so not measured.")
        return
    exact = NearestNeighborsRetriever(k).fit(gallery)
    say(f"\n## Engine faiss against the exact one, k={k}\n")
    head(
        "index", "parameters", "fit, s", "1 query, ms", "70 queries, ms", "exact / faiss, 1 query", "recall@k"
    )
    one, many = make_queries(1), make_queries(70)
    for params, changes in (
        ({"index": "flat"}, [{}]),
        ({"index": "hnsw", "M": 16, "ef_construction": 40}, [{"ef_search": 128}, {"ef_search": 512}]),
        ({"index": "ivfpq"}, [{"nprobe": 32}, {"nprobe": 128}, {"nprobe": 128, "oversample": 16}]),
    ):
        start = time.perf_counter()
        ours = NearestNeighborsRetriever(k, engine="faiss", engine_params=params).fit(gallery)
        built = f"{time.perf_counter() - start:.1f}"
        for change in changes:
            ours.set_params(engine_params={**params, **change})
            times = best_times(
                {
                    "one": lambda r=ours: r.kneighbors(one),
                    "many": lambda r=ours: r.kneighbors(many),
                    "exact": lambda: exact.kneighbors(one),
                },
                seconds / 3,
            )
            cells = [built, milliseconds(times["one"]), milliseconds(times["many"])]
            cells += [f"{times['exact'] / times['one']:.2f}", f"{ours.engine_recall(many):.3f}"]
            settings = {name: value for name, value in {**params, **change}.items() if name != "index"}
            row(params["index"], ", ".join(f"{name}={value}" for name, value in settings.items()), *cells)


def million(n, n_features, rng):
    say(f"\n## {n} x {n_features} from memory-mapped files: seconds, and MB of memory beyond the file\n")
    say("The product is the bare one of the float32 file, measured right before and after; one run each.\n")
    head("file", "operation", "product, s", "s", "ratio", "MB")
    centres = rng.standard_normal((n // 50, n_features), dtype=np.float32)
    labels = rng.integers(n // 20, size=n)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in ("float32", "float16")}
        maps = {
            name: np.lib.format.open_memmap(path, "w+", dtype=name, shape=(n, n_features))
            for name, path in files.items()
        }
        for start in range(0, n, 50000):
            part = make_descriptors(min(50000, n - start), n_features, centres, rng)
            for mapped in maps.values():
                mapped[start : start + len(part)] = part
        del maps, mapped
        queries = make_descriptors(1000, n_features, centres, rng)
        single = np.load(files["float32"], mmap_mode="r")

        def bare(m):
            return best_times({"product": lambda: product(queries[:m], single)}, 0)["product"]

        for name, path in files.items():
            gallery = np.load(path, mmap_mode="r")
            retriever = NearestNeighborsRetriever(100)
            seconds, memory = timed_with_memory(lambda r=retriever, G=gallery: r.fit(G, labels))
            row(name, "fit", "", f"{seconds:.2f}", "", f"{memory:.0f}")
            operations = {
                f"{m} queries, k=100": (m, lambda r=retriever, m=m: r.kneighbors(queries[:m]))
                for m in (1, 70, 1000)
            }
            operations["score, 70 queries"] = 70, lambda r=retriever: r.score(queries[:70], labels[:70])
            operations["ranking of all, 70 queries"] = 70, lambda r=retriever: r.kneighbors(queries[:70], n)
            for operation, (m, function) in operations.items():
                before = bare(m)
                seconds, memory = timed_with_memory(function)
                base = min(before, bare(m))
                cells = [f"{base:.2f}", f"{seconds:.2f}", f"{seconds / base:.1f}", f"{memory:.0f}"]
                row(name, operation, *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--neighbors", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each row of a table")
    parser.add_argument("--million", type=int, nargs="?", const=1_000_000, help="items of the mapped files")
    parser.add_argument("--output", type=Path, help="file to write the tables to")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    n = args.items
    labels = rng.integers(max(1, n // 20), size=n)
    centres = rng.standard_normal((max(1, n // 50), args.features), dtype=np.float32)
    gallery = make_descriptors(n, args.features, centres, rng)

    def make_queries(m):
        return make_descriptors(m, args.features, centres, rng)

    load = os.getloadavg()[0]
    say("# Search\n")
    say(
        f"{n} x {args.features} float32, {os.cpu_count()} cores ({platform.machine()}), load {load:.1f} at the start, "
        f"numpy {np.__version__}, torch {torch.__version__}; written by `python benchmarks/search.py`. Compare the "
        "columns of a row: they were measured in turns."
    )
    exact_cosine(gallery, make_queries, args.neighbors, args.seconds)
    manhattan(gallery, make_queries(70), args.neighbors, args.seconds)
    evaluation(gallery, labels, make_queries(70), labels[:70], args.seconds)
    engines(gallery, make_queries, args.neighbors, args.seconds)
    if args.million:
        million(args.million, args.features, rng)
    if args.output:
        args.output.write_text("\n".join(LINES) + "\n")


if __name__ == "__main__":
    main()
