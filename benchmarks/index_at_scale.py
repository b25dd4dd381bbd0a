"""An index of a million photographs: how long it takes to open, to tell of itself and to search; memory of an update.

    python benchmarks/index_at_scale.py [--rows 1000000] [--out benchmarks/results/index_at_scale.md]

The lines are written by SQL and the descriptors at random: nothing is described, so that it takes a minute.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sklearn.pipeline import Pipeline

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.index import ImageIndex
from skretrieval.index._rows import append, new_file, note_row_file, put_row_file
from skretrieval.index._table import IMAGES, open_engine, put_settings, transaction
from skretrieval.pooling import MACPooler

D, BLOCK = 512, 50_000


def make(folder: Path, n_rows: int) -> Path:
    """Make an index of so many photographs, of which two are there."""
    photographs, rng = folder / "photographs", np.random.default_rng(0)
    photographs.mkdir()
    for number in range(2):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photographs / f"{number}.png")
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=64)
    index = ImageIndex.create(folder / "index", Pipeline([("extractor", extractor), ("pooler", MACPooler())]))
    *_, _ = index.update(photographs)
    engine = open_engine(index.where, write=True)
    rows = new_file("descriptors", np.dtype(np.float32), D)
    with transaction(engine, index.where) as connection:
        note_row_file(connection, rows)
    blocks = (
        rng.random((min(BLOCK, n_rows - start), D), dtype=np.float32) for start in range(0, n_rows, BLOCK)
    )
    rows = append(index.where, rows, blocks)
    with transaction(engine, index.where) as connection:
        put_row_file(connection, rows)
        connection.execute(sa.delete(IMAGES))
        for start in range(0, n_rows, BLOCK):
            connection.execute(
                sa.insert(IMAGES), [line(row) for row in range(start, min(n_rows, start + BLOCK))]
            )
        put_settings(connection, {"generation": 9})
    return index.where


def line(row: int) -> dict:
    """Write the line of one photograph."""
    name = f"{row % 1000:03d}/{row:07d}.jpg"
    facts = {"size": 10**6, "mtime_ns": 10**18 + row, "digest": row.to_bytes(20, "big"), "label": name[:3]}
    return {**facts, "path": name.encode(), "name": name, "row": row, "n_rows": 1, "blank": False}


MEASURE = """
import json, resource, sys, time
from skretrieval.index import ImageIndex
import skretrieval.extraction, skretrieval.retrieval
def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
found, kept = {}, []
found["open"] = timed(lambda: kept.append(ImageIndex(sys.argv[1])))
index = kept[0]
found["len"] = timed(lambda: len(index))
found["info"] = timed(index.info)
for name in ("first search", "second search"):
    found[name] = timed(lambda: index.search(sys.argv[2]))
found["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(found))
"""


def main() -> None:
    """Measure, and write the figures."""
    import json

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "index_at_scale.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        index = make(folder, options.rows)
        seconds = time.perf_counter() - began
        size = (index / "index.sqlite").stat().st_size
        command = [sys.executable, "-c", MEASURE, str(index), str(folder / "photographs" / "0.png")]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    memory = found.pop("MiB")
    table = "\n".join(f"| {name} | {value:.3f} |" for name, value in found.items())
    text = f"""# An index of {options.rows:,} photographs

`python benchmarks/index_at_scale.py --rows {options.rows}` on Python {platform.python_version()}, one process,
after its imports. {options.rows:,} descriptors of {D} float32 numbers; the table takes {size / options.rows:.0f} bytes
a photograph. Made in {seconds:.0f} s.

| what | seconds |
|---|---|
{table}

Most resident memory, pages of the mapped descriptors among it: {memory:.0f} MiB.
"""
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
