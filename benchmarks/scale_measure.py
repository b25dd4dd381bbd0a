"""What scale.py measures: the machine, networks, pooling, the table of images, exact and approximate search."""

import json
import os
import platform
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from scale_model import D, merge, same_ranking


def best(function, rounds=3):
    """Least time of a call, after one that doesn't count."""
    function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def unit_rows(rng, n, d=D):
    """Unit vectors around 200 centres."""
    rows = rng.standard_normal((200, d), dtype=np.float32)[rng.integers(200, size=n)]
    rows += 0.8 * rng.standard_normal((n, d), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure_limits():
    import torch

    flat = torch.zeros(2**27)
    single = torch.rand(2048, 2048)
    half = single.bfloat16()
    return {
        "bandwidth": flat.nbytes / best(lambda: torch.sum(flat), 5),
        "speed": 2 * 2048**3 / best(lambda: single @ single),
        "bfloat16 speed": 2 * 2048**3 / best(lambda: half @ half),
    }


def measure_networks(names, size):
    """Seconds an image, from pixels to maps, of networks with random weights."""
    from skretrieval.extraction import ConvFeatureExtractor

    image = np.random.default_rng(0).integers(0, 256, (size * 3 // 4, size, 3), dtype=np.uint8)
    seconds = {}
    for name in names:
        for dtype in ("float32", "bfloat16"):
            extractor = ConvFeatureExtractor(
                name, weights=None, random_state=0, image_size=size, device="cpu", dtype=dtype
            )
            extractor.fit([image])
            seconds[f"{name}, {dtype}"] = best(lambda: list(extractor.transform([image])), 2)  # noqa: B023
    return seconds


def measure_pooling():
    import torch

    from skretrieval.pooling import GRMACPooler

    maps = torch.rand(8, D, 24, 32)
    pooler = GRMACPooler().fit(maps)
    return best(lambda: pooler.transform(maps), 10) / len(maps)


def measure_table(n, folder):
    """Of the table of images of an index: bytes an image on disk, and seconds to open an index of n images."""
    import sqlalchemy as sa

    from skretrieval.index import ImageIndex
    from skretrieval.index._table import IMAGES, open_engine

    ImageIndex.create(folder / "index")
    engine = open_engine(folder / "index", write=True)
    empty = (folder / "index" / "index.sqlite").stat().st_size
    with engine.begin() as connection:
        for start in range(0, n, 10_000):
            lines = [line(number) for number in range(start, min(start + 10_000, n))]
            connection.execute(sa.insert(IMAGES), lines)
    engine.dispose()
    opening = best(lambda: ImageIndex(folder / "index"), 5)
    return {"table": ((folder / "index" / "index.sqlite").stat().st_size - empty) / n, "opening": opening}


def line(number):
    """A line of the table, as long as those of photographs."""
    path = f"{number // 1000:06d}/{number:09d}.jpg"
    return {
        "path": path.encode(),
        "name": path,
        "size": 3_000_000 + number,
        "mtime_ns": 1700000000 * 10**9 + number,
        "digest": number.to_bytes(20, "big"),
        "width": 4000,
        "height": 3000,
        "taken": "2020-02-02 20:20:20",
        "label": path[:6],
        "row": number,
        "n_rows": 1,
        "blank": False,
    }


def measure_exact(small, large, shards, folder, batches=(1, 70, 1000), k=100):
    """Exact search of `small` rows, predictions for `large` rows of a mapped file, and searches shard by shard."""
    from skretrieval.retrieval import NearestNeighborsRetriever

    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (large, D))
    for start in range(0, large, small):
        rows[start : start + small] = unit_rows(rng, min(small, large - start))
    rows[large // 2 : large // 2 + 1000] = rows[:1000]  # the same items in several shards
    rows.flush()
    mapped = np.load(folder / "rows.npy", mmap_mode="r")
    queries = np.concatenate([np.array(mapped[:100]), unit_rows(rng, max(batches) - 100)])
    result = {"small": small, "large": large, "k": k, "shards": shards, "batches": {}}
    parts = {1: [NearestNeighborsRetriever(k).fit(mapped)]}
    for n_shards in shards:
        limits = np.linspace(0, large, n_shards + 1).astype(int)
        parts[n_shards] = [
            NearestNeighborsRetriever(k).fit(mapped[first:last]) for first, last in pairwise(limits)
        ]
    base, quarter = (NearestNeighborsRetriever(k).fit(mapped[:n]) for n in (small, small // 4))
    for batch in batches:
        some = queries[-batch:] if batch < len(queries) else queries
        times = {
            "quarter": best(lambda: quarter.kneighbors(some)),  # noqa: B023
            "small": best(lambda: base.kneighbors(some)),  # noqa: B023
        }
        answers = {}
        for n_shards, own in parts.items():
            starts = np.cumsum([0, *(part.n_samples_fit_ for part in own[:-1])])

            def search(own=own, starts=starts, some=some):
                return merge([part.kneighbors(some) for part in own], starts, k)

            answers[n_shards] = search()
            times[n_shards] = best(search, 1)
        result["batches"][batch] = {
            "seconds": times,
            "same": all(same_ranking(answer, answers[1]) for answer in answers.values()),
            "reordered": int(max(np.sum(answer[1] != answers[1][1]) for answer in answers.values())),
        }
    return result


def measure_faiss(n_graph, n_codes, k=100):
    """Graph and product codes: time to build, time of one query, bytes a row, recall."""
    from skretrieval.retrieval import NearestNeighborsRetriever

    rng = np.random.default_rng(0)
    result = {}
    graph = {"index": "hnsw", "M": 32, "ef_construction": 80}
    for n, params in ((n_graph, graph), (n_codes, {"index": "ivfpq"})):
        rows, queries = unit_rows(rng, n), unit_rows(rng, 50)
        began = time.perf_counter()
        retriever = NearestNeighborsRetriever(k, engine="faiss", engine_params=params).fit(rows)
        build = time.perf_counter() - began
        seconds = best(lambda: [retriever.kneighbors(query[None]) for query in queries]) / len(queries)  # noqa: B023
        result[params["index"]] = {
            "n": n,
            "build": build,
            "seconds": seconds,
            "recall": retriever.engine_recall(queries),
            "bytes": retriever._faiss.__getstate__()["_bytes"].nbytes,
        }
    return result


def measure(options):
    import torch

    quick = options.quick
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        figures = {
            "machine": f"{os.cpu_count()} cores ({platform.machine()})",
            "cores": torch.get_num_threads(),
            "load": os.getloadavg()[0],
            "size": 128 if quick else 1024,
            **measure_limits(),
        }
        say("limits measured")
        figures["pooling"] = measure_pooling()
        names = ("squeezenet1_1",) if quick else ("vgg16", "resnet50", "squeezenet1_1")
        figures["networks"] = measure_networks(names, figures["size"])
        say("networks measured")
        figures["table"] = measure_table(2000 if quick else 200_000, folder)
        small, large = (2000, 20_000) if quick else (10**5, 10**6)
        figures["exact"] = measure_exact(small, large, (2, 5, 10), folder)
        say("exact search measured")
    figures["faiss"] = measure_faiss(2000, 12_000) if quick else measure_faiss(20_000, 10**5)
    return json.loads(json.dumps(figures))  # as it will be read


def say(text):
    print(text, file=sys.stderr, flush=True)
