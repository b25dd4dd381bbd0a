"""What a collection of 1e5, 1e7 or 1e9 images costs: a model from a few measured figures, and how far it is off.

    python benchmarks/scale.py                                        # measures (about 5 minutes), then computes
    python benchmarks/scale.py --from benchmarks/results/scale.json   # computes the tables from kept measurements
    python benchmarks/scale.py --rate "H100, VGG16"=480               # also a machine that is not at hand, images/s

Writes benchmarks/results/scale.json (the measurements), benchmarks/results/scale.md and the tables of docs/scale.md.
The formulas are the functions of the first part: pure, in SI units (bytes, seconds, operations a second).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import sys
import tempfile
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np

SIZES = (10**5, 10**7, 10**9)
D = 512
HOUR, DAY = 3600.0, 86400.0


# ------------------------------------------------------------------------------------------------- the model
def array_bytes(n, d, itemsize=4):
    """Bytes of n descriptors of d numbers."""
    return n * d * itemsize


def hnsw_bytes(n, d, links):
    """Bytes of a graph: the rows in float32, 2 x links neighbours below and links on each higher level, offsets.

    A row is on a higher level with probability 1 / links, on the next one with 1 / links**2, and so on.
    """
    return n * (4 * d + 4 * (2 * links + links / (links - 1)) + 12)


def n_cells(n):
    """Cells of an inverted file where none are asked for: about twice the root of the number of rows."""
    return max(1, min(int(2 * math.sqrt(n)), n // 39))


def ivfpq_bytes(n, d, m, nbits=8):
    """Bytes of product codes with their row numbers, of the centroids of the cells and of the codebooks."""
    return n * (m * nbits / 8 + 8) + n_cells(n) * 4 * d + 2**nbits * 4 * d


def exact_seconds(n, d, queries, bandwidth, speed, itemsize=4):
    """Least time of an exact search: the gallery is read once, and a product and a sum made for each pair."""
    return max(array_bytes(n, d, itemsize) / bandwidth, 2.0 * n * d * queries / speed)


def queries_per_read(bandwidth, speed, itemsize=4):
    """Queries in a batch from which on arithmetic takes longer than reading the gallery."""
    return speed * itemsize / (2 * bandwidth)


def line(n_1, seconds_1, n_2, seconds_2):
    """Constant and slope of the time of an exact search in the number of rows, from two measurements."""
    slope = (seconds_2 - seconds_1) / (n_2 - n_1)
    if not 0 < slope <= seconds_2 / n_2:  # noise: a search that takes no time, or less than none, for no rows
        slope = seconds_2 / n_2
    return seconds_2 - slope * n_2, slope


def shards_seconds(n, n_shards, constant, slope):
    """Time of searching the shards of n rows one after another."""
    return n_shards * constant + slope * n


def hnsw_seconds(n, measured, n_measured):
    """Time of a search in a graph, which grows as the logarithm of the number of rows."""
    return measured * math.log(n) / math.log(n_measured)


def hnsw_build_seconds(n, measured, n_measured):
    """Time of building a graph: a search for each row."""
    return measured * n * math.log(n) / (n_measured * math.log(n_measured))


def ivfpq_seconds(n, measured, n_measured):
    """Time of a search in product codes: nprobe of the 2 sqrt(n) cells are scanned, as many centroids compared."""
    return measured * math.sqrt(n / n_measured)


def ivfpq_build_operations(n, d, iterations=25, per_centroid=64):
    """Operations of learning the cells (k-means) and of putting each row into one."""
    cells = n_cells(n)
    return 2.0 * d * cells * (iterations * min(n, per_centroid * max(cells, 1024)) + n)


def extraction_seconds(n, seconds_per_image):
    """Time of one machine for n images; it takes k machines the k-th part."""
    return n * seconds_per_image


def machines(n_bytes, memory, share=0.8):
    """How many machines hold something in `share` of their memory."""
    return max(1, math.ceil(n_bytes / (share * memory)))


def sharded_seconds(shard_seconds, n_shards, n_queries, k, per_candidate=1e-7, network=1e-3):
    """Time until the slowest of equal shards has answered over the network and k n_shards candidates are sorted."""
    return shard_seconds + (network + n_queries * n_shards * k * per_candidate if n_shards > 1 else 0.0)


def disk_bytes(n, d, d_out):
    """Most that ``skretrieval index`` has on disk: shards, descriptors, normalised descriptors, gallery."""
    return array_bytes(n, 3 * d + d_out)


def merge(found, starts, k):
    """The k nearest of the whole gallery from the answers of its shards.

    Parameters
    ----------
    found : list of (distances, indices)
        Each of shape (n_queries, k'), as ``kneighbors`` of a shard gives them.
    starts : sequence of int
        Position in the whole gallery of the first row of each shard.
    k : int
        How many to keep.

    Returns
    -------
    distances, indices : ndarray of shape (n_queries, k)
        Equal distances in the order of the whole gallery.
    """
    distances = np.hstack([own for own, _ in found])
    indices = np.hstack([own + start for (_, own), start in zip(found, starts, strict=True)])
    best = np.lexsort((indices, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, best, axis=1), np.take_along_axis(indices, best, axis=1)


def same_ranking(found, expected):
    """Whether distances are the same bit for bit, and items but for the order within equal distances."""
    (distances, indices), (whole, items) = found, expected
    if not np.array_equal(distances, whole):
        return False
    row, column = np.nonzero(indices != items)
    before = (distances[row, column] == distances[row, np.maximum(column - 1, 0)]) & (column > 0)
    last = distances.shape[1] - 1
    after = (distances[row, column] == distances[row, np.minimum(column + 1, last)]) & (column < last)
    return bool(np.all(before | after | (column == last)))


# ------------------------------------------------------------------------------------------------- measuring
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


def measure_bookkeeping(n, folder):
    """Of the table of images of an index: bytes an image on disk and as Python objects, and seconds to read it."""
    from skretrieval.index import _image_index as _index
    from skretrieval.index._writing import write_json

    rows = (f"{number // 1000:06d}/{number:09d}.jpg" for number in range(n))
    images = [
        _index.IndexedImage(path, 3000 + i, 1700000000 * 10**9 + i, f"{i:040x}", path[:6])
        for i, path in enumerate(rows)
    ]
    record = write_json(folder / "images-1.json", {"images": images, "skipped": {}})
    manifest = {"files": {"images": record}, "n_images": n}
    del images
    reading = best(lambda: _index.read_images(folder, manifest), 1)
    tracemalloc.start()
    kept = _index.read_images(folder, manifest)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == n
    return {"json": record["bytes"] / n, "objects": held / n, "reading": reading / n}


def measure_exact(small, large, shards, folder, batches=(1, 70, 1000), k=100):
    """Exact search of `small` rows, predictions for `large` rows of a mapped file, and searches shard by shard."""
    from skretrieval.index._image_index import hash_file
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
    start = time.perf_counter()
    hash_file(folder / "rows.npy")
    result["hashing"] = rows.nbytes / (time.perf_counter() - start)
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
        figures["bookkeeping"] = measure_bookkeeping(2000 if quick else 50_000, folder)
        small, large = (2000, 20_000) if quick else (10**5, 10**6)
        figures["exact"] = measure_exact(small, large, (2, 5, 10), folder)
        say("exact search measured")
    figures["faiss"] = measure_faiss(2000, 12_000) if quick else measure_faiss(20_000, 10**5)
    return json.loads(json.dumps(figures))  # as it will be read


def say(text):
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------- tables
def table(*rows):
    lines = [rows[0], ["--:"] * len(rows[0]), *rows[1:]]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def amount(value, units):
    """Three digits in the largest unit that fits."""
    unit, size = next(((unit, size) for unit, size in units if value >= size), units[-1])
    value /= size
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def in_bytes(value):
    return amount(value, [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3), ("B", 1)])


def in_time(value):
    years = 365 * DAY
    return amount(
        value,
        [
            ("years", 2 * years),
            ("days", 2 * DAY),
            ("h", 2 * HOUR),
            ("min", 120),
            ("s", 1),
            ("ms", 1e-3),
            ("µs", 1e-6),
        ],
    )


def sizes_head(first):
    return [first, *(f"{n:.0e}".replace("e+0", "e") for n in SIZES)]


def tables(figures, rates, memory):
    """The tables of the model, as lines of Markdown."""
    bandwidth, speed, cores = figures["bandwidth"], figures["speed"], figures["cores"]
    lines = [
        f"Measured on {figures['machine']}, load {figures['load']:.1f}: reads {bandwidth / 1e9:.1f} GB/s, "
        f"multiplies {speed / 1e9:.0f} GFLOP/s in float32 and {figures['bfloat16 speed'] / 1e9:.0f} in bfloat16, with "
        f"{cores} threads. Descriptors have {D} numbers.",
        "",
        f"### Extraction, longest side {figures['size']}",
        "",
    ]
    rows = [
        ["network", "images/s", *(f"{head}: core-hours" for head in sizes_head("")[1:]), "1e9 in 30 days"]
    ]
    for name, seconds in figures["networks"].items():
        hours = [f"{extraction_seconds(n, seconds) * cores / HOUR:,.0f}" for n in SIZES]
        needed = math.ceil(extraction_seconds(SIZES[-1], seconds) / (30 * DAY))
        rows.append([name, f"{1 / seconds:.2f}", *hours, f"{needed:,} such machines"])
    lines += table(*rows)
    if rates:
        rows = [["machine", "images/s", *sizes_head("")[1:], "1e9 in 30 days"]]
        for name, rate in rates.items():
            spent = [in_time(extraction_seconds(n, 1 / rate)) for n in SIZES]
            needed = math.ceil(extraction_seconds(SIZES[-1], 1 / rate) / (30 * DAY))
            rows.append([name, f"{rate:.0f}", *spent, f"{needed:,} such machines"])
        lines += table(*rows)
    share = figures["pooling"] / min(figures["networks"].values())
    lines += [
        f"Pooling (GR-MAC) takes {1e3 * figures['pooling']:.2f} ms a map of {D} x 24 x 32, {share:.1%} of the quickest "
        "of these networks.",
        "",
        "### Bytes",
        "",
    ]
    m, links = D // 8, 32

    def needs(n_bytes):
        return machines(n_bytes, memory)

    books = figures["bookkeeping"]
    kinds = [
        ("descriptors, float32", lambda n: array_bytes(n, D)),
        ("descriptors, float16", lambda n: array_bytes(n, D, 2)),
        (f"HNSW, {links} links, rows included", lambda n: hnsw_bytes(n, D, links)),
        (f"IVF-PQ, {m} bytes a row", lambda n: ivfpq_bytes(n, D, m)),
        ("table of images, JSON on disk", lambda n: n * books["json"]),
        ("table of images, in memory", lambda n: n * books["objects"]),
        ("`skretrieval index`: most on disk", lambda n: disk_bytes(n, D, D)),
    ]
    lines += table(
        ["what", "an image", *sizes_head("")[1:], f"1e9: machines of {in_bytes(memory)}"],
        *(
            [
                name,
                in_bytes(of(SIZES[1]) / SIZES[1]),
                *(in_bytes(of(n)) for n in SIZES),
                machines(of(SIZES[-1]), memory),
            ]
            for name, of in kinds
        ),
    )
    faiss = figures["faiss"]
    off = [
        f"{name} {formula / faiss[key]['bytes'] - 1:+.1%}"
        for name, key, formula in (
            ("HNSW", "hnsw", hnsw_bytes(faiss["hnsw"]["n"], D, links)),
            ("IVF-PQ", "ivfpq", ivfpq_bytes(faiss["ivfpq"]["n"], D, m)),
        )
    ]
    lines += [f"The formulas against the indexes of faiss that were built: {', '.join(off)}.", ""]

    exact = figures["exact"]
    small, large = exact["small"], exact["large"]
    lines_of = {
        batch: line(small // 4, found["seconds"]["quarter"], small, found["seconds"]["small"])
        for batch, found in exact["batches"].items()
    }
    searches = [
        ("exact, one query", lambda n: shards_seconds(n, 1, *lines_of["1"])),
        ("exact, each of 1000 together", lambda n: shards_seconds(n, 1, *lines_of["1000"]) / 1000),
        (
            f"HNSW, one query (recall {faiss['hnsw']['recall']:.2f} at {faiss['hnsw']['n']:,})",
            lambda n: hnsw_seconds(n, faiss["hnsw"]["seconds"], faiss["hnsw"]["n"]),
        ),
        (
            f"IVF-PQ, one query (recall {faiss['ivfpq']['recall']:.2f} at {faiss['ivfpq']['n']:,})",
            lambda n: ivfpq_seconds(n, faiss["ivfpq"]["seconds"], faiss["ivfpq"]["n"]),
        ),
    ]
    floors = {
        batch: slope * small / exact_seconds(small, D, int(batch), bandwidth, speed)
        for batch, (_, slope) in lines_of.items()
    }
    shards = machines(array_bytes(SIZES[-1], D), memory)
    coded = machines(ivfpq_bytes(SIZES[-1], D, m), memory)
    wait = shards_seconds(SIZES[-1] / shards, 1, *lines_of["1"])
    lines += [
        "### Search",
        "",
        "One machine as measured, the index in its memory; recall is that of noisy unit vectors around 200 centres, "
        "which is hard for approximate indexes:",
        "",
        *table(sizes_head("search"), *([name, *(in_time(of(n)) for n in SIZES)] for name, of in searches)),
        f"Exact search grows by {' or '.join(f'{floors[batch]:.2f}' for batch in ('1', '1000'))} times the floor a row "
        "(reading it, for one query; the bare product, for 1000). From "
        f"{queries_per_read(bandwidth, speed):.0f} queries in a batch on arithmetic decides, not reading.",
        "",
        f"A query over 1e9 rows in {shards} shards of {in_bytes(memory)} machines, exact: "
        f"{in_time(sharded_seconds(wait, shards, 1, exact['k']))}. As product codes they fit into {coded} "
        "machine(s); the rows for exact distances of the candidates stay on disk, about "
        f"{4 * exact['k']} reads of {in_bytes(array_bytes(1, D))} a query.",
        "",
        "### Building",
        "",
        *table(
            sizes_head("index"),
            [
                "HNSW (one thread)",
                *(in_time(hnsw_build_seconds(n, faiss["hnsw"]["build"], faiss["hnsw"]["n"])) for n in SIZES),
            ],
            [
                "IVF-PQ",
                *(
                    in_time(
                        faiss["ivfpq"]["build"]
                        * ivfpq_build_operations(n, D)
                        / ivfpq_build_operations(faiss["ivfpq"]["n"], D)
                    )
                    for n in SIZES
                ),
            ],
        ),
        "### Opening an index",
        "",
        *table(
            sizes_head("what"),
            ["checksum of the gallery", *(in_time(array_bytes(n, D) / exact["hashing"]) for n in SIZES)],
            ["table of images", *(in_time(n * books["reading"]) for n in SIZES)],
        ),
        "### How far the model is off",
        "",
        f"A line through the times at {small // 4:,} and {small:,} rows predicts those of {large:,} rows of a mapped "
        "file, as a whole and in shards that are searched one after another and merged; measured, and the error of the "
        "prediction:",
        "",
    ]
    head = ["queries", f"{small // 4:,}", f"{small:,}", f"{large:,}, predicted", "measured"]
    rows = [[*head, *(f"{n_shards} shards" for n_shards in exact["shards"])]]
    for batch, found in exact["batches"].items():
        seconds = found["seconds"]
        cells = []
        for n_shards in (1, *exact["shards"]):
            error = shards_seconds(large, n_shards, *lines_of[batch]) / seconds[str(n_shards)] - 1
            cells.append(f"{in_time(seconds[str(n_shards)])} ({error:+.0%})")
        predicted = in_time(shards_seconds(large, 1, *lines_of[batch]))
        rows.append([batch, in_time(seconds["quarter"]), in_time(seconds["small"]), predicted, *cells])
    lines += table(*rows)
    n_found = exact["k"] * max(map(int, exact["batches"]))
    same = all(found["same"] for found in exact["batches"].values())
    reordered = max(found["reordered"] for found in exact["batches"].values())
    lines += [
        f"Shards {'gave' if same else '**did not give**'} the distances of the whole search bit for bit, and the "
        f"same items; {reordered} of {n_found:,} stood in another order, among items of the same float32 distance.",
        "",
    ]
    return lines


def with_tables(text, lines):
    """Put lines between the two marks of a page."""
    begin, end = "<!-- written by benchmarks/scale.py -->", "<!-- to here -->"
    pattern = re.escape(begin) + ".*" + re.escape(end)
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError(f"no place for the tables: {begin} ... {end}")
    block = "\n".join([begin, "", *lines, end])
    return re.sub(pattern, lambda _: block, text, flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--from", dest="kept", type=Path, help="measurements to compute with, instead of measuring"
    )
    parser.add_argument("--rate", action="append", default=[], metavar="NAME=IMAGES_PER_SECOND")
    parser.add_argument("--memory", type=float, default=256e9, help="of a machine that holds a shard, bytes")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes: 2.1 GB")
    parser.add_argument("--quick", action="store_true", help="does everything run? Prints, writes nothing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.md"))
    parser.add_argument("--page", type=Path, default=Path("docs/scale.md"))
    options = parser.parse_args()
    rates = {name: float(rate) for name, _, rate in (one.rpartition("=") for one in options.rate)}
    figures = json.loads(options.kept.read_text()) if options.kept else measure(options)
    figures["rates"] = {**figures.get("rates", {}), **rates}
    lines = tables(figures, figures["rates"], options.memory)
    print("\n".join(lines))
    if options.quick:
        return
    options.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    options.out.write_text("\n".join(["# Scale", "", "`python benchmarks/scale.py`", "", *lines]))
    options.page.write_text(with_tables(options.page.read_text(), lines))


if __name__ == "__main__":
    main()
