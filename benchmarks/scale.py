"""What a collection of 1e5, 1e7 or 1e9 images costs: a model from a few measured figures, and how far it is off.

    python benchmarks/scale.py                                        # measures (about 5 minutes), then computes
    python benchmarks/scale.py --from benchmarks/results/scale.json   # computes the tables from kept measurements
    python benchmarks/scale.py --rate "H100, VGG16"=480               # also a machine that is not at hand, images/s

Writes benchmarks/results/scale.json (the measurements), benchmarks/results/scale.md and the tables of docs/scale.md.
The formulas are the functions of scale_model.py; scale_measure.py measures.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

from scale_measure import measure
from scale_model import (
    D,
    array_bytes,
    disk_bytes,
    exact_seconds,
    extraction_seconds,
    hnsw_build_seconds,
    hnsw_bytes,
    hnsw_seconds,
    ivfpq_build_operations,
    ivfpq_bytes,
    ivfpq_seconds,
    line,
    machines,
    queries_per_read,
    sharded_seconds,
    shards_seconds,
)

SIZES = (10**5, 10**7, 10**9)
HOUR, DAY = 3600.0, 86400.0


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

    kinds = [
        ("descriptors, float32", lambda n: array_bytes(n, D)),
        ("descriptors, float16", lambda n: array_bytes(n, D, 2)),
        (f"HNSW, {links} links, rows included", lambda n: hnsw_bytes(n, D, links)),
        (f"IVF-PQ, {m} bytes a row", lambda n: ivfpq_bytes(n, D, m)),
        ("table of images", lambda n: n * figures["table"]["table"]),
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
        f"{in_time(figures['table']['opening'])}, whatever the number of images: sizes are checked, and a line of the "
        "table is read when it is needed.",
        "",
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
