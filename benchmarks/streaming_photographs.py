"""The part of streaming.py on photographs: an index that is killed again and again, and what it holds at the end."""

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sklearn.base import clone
from streaming_watch import MIB, Watched, curve, rate, stage_seconds, steady, table, watch

from skretrieval.index import ImageIndex
from skretrieval.index._models import read_model
from skretrieval.index._rows import mapped, row_file
from skretrieval.index._table import IMAGES, open_engine, settings_of

SETTINGS = {"--extractor": "squeezenet1_1", "--weights": "random", "--recipe": "gem", "--whitening": "pca"}
SIDES = (96, 72)


def write_photographs(folder: Path, n: int) -> None:
    """Pictures of 300 blurred patterns, shifted, each with a square of its own; a thousand to a sub-folder."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (300, 9, 12, 3), dtype=np.uint8)
    patterns = [np.array(Image.fromarray(one).resize(SIDES, Image.Resampling.BICUBIC)) for one in small]
    for number in range(n):
        if number % 1000 == 0:
            part = folder / f"{number // 1000:03d}"
            part.mkdir(parents=True)
        picture = np.roll(patterns[number % 300], rng.integers(0, 72, 2), (0, 1))
        top, left = rng.integers(0, (52, 76))
        picture[top : top + 20, left : left + 20] = rng.integers(0, 256, 3)
        Image.fromarray(picture).save(part / f"{number:07d}.jpg", quality=85, comment=str(number))


class Progress:
    """What is finished of an index, read from it while a process makes it."""

    def __init__(self, index: Path):
        self.index = index
        self.at_start = self.count()

    def rows(self) -> dict[str, tuple[int, int]]:
        """Return the number and the row of each photograph that is committed, by its name."""
        try:
            engine = open_engine(self.index)
            with engine.begin() as connection:
                chosen = sa.select(IMAGES.c.name, IMAGES.c.id, IMAGES.c.row).where(IMAGES.c.row.is_not(None))
                return {name: (number, row) for name, number, row in connection.execute(chosen)}
        except (FileNotFoundError, sa.exc.OperationalError):  # not there yet
            return {}

    def count(self) -> int:
        """Return how many photographs are committed."""
        try:
            with open_engine(self.index).begin() as connection:
                chosen = sa.select(sa.func.count()).select_from(IMAGES).where(IMAGES.c.row.is_not(None))
                return connection.execute(chosen).scalar_one()
        except (FileNotFoundError, sa.exc.OperationalError):  # not there yet
            return 0

    def __call__(self) -> tuple[int, str]:
        """Return images finished so far, and the stage; "start" lasts until the process has finished a batch."""
        done = self.count()
        if any(self.index.glob("gallery-*.rows")):
            return done, "whiten and write"
        return done, "describe" if done > self.at_start else "start"


def index_command(photographs: Path, index: Path, size: int) -> list[str]:
    options = [word for pair in SETTINGS.items() for word in pair]
    fixed = ["--size", str(size), "--device", "cpu", "--batch-size", "32", "--no-progress"]
    command = [sys.executable, "-m", "skretrieval.cli", "index", str(photographs), "--out", str(index)]
    return [*command, *options, *fixed]


def killed_run(
    photographs: Path, index: Path, options: argparse.Namespace
) -> tuple[list[Watched], list[dict]]:
    """Index with interruptions; returns the processes, and what was found after each kill."""
    rng = random.Random(options.seed)
    targets = sorted(rng.uniform(0.05, 0.5) * options.images for _ in range(options.kills))
    runs, found = [], []
    before: dict = {}

    def in_time(target):
        def kill(done, stage):
            if done < target:
                return False
            time.sleep(rng.uniform(0, 2))  # anywhere in the work on the next shard
            return True

        return kill

    stops = [in_time(target) for target in targets] + [lambda done, stage: stage == "whiten and write"]
    for stop in stops:
        runs.append(watch(index_command(photographs, index, options.size), Progress(index), stop))
        after = Progress(index).rows()
        used = [row for _, row in after.values()]
        found.append(
            {
                "finished": len(after),
                "twice": len(used) - len(set(used)),
                "lost": sum(after.get(name) != line for name, line in before.items()),
            }
        )
        before = after
    runs.append(watch(index_command(photographs, index, options.size), Progress(index)))
    return runs, found


def check_index(photographs: Path, index: Path, folder: Path, options: argparse.Namespace) -> dict:
    """Compare with an uninterrupted index of a sample, and with post-processing in memory."""

    def content(path):
        engine = open_engine(path)
        with engine.begin() as connection:
            files = [row_file(connection, path, kind) for kind in ("descriptors", "gallery")]
            settings = settings_of(connection)
        rows = {name: row for name, (_, row) in Progress(path).rows().items()}
        return settings, rows, *(mapped(path, file) for file in files)

    settings, rows, descriptors, gallery = content(index)
    chosen = sorted(rows)[:: max(1, options.images // options.sample)]
    for path in chosen:
        (folder / "sample" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(photographs / path, folder / "sample" / path)
    sample = watch(index_command(folder / "sample", folder / "sample-index", options.size), lambda: (0, ""))
    _, sample_rows, expected, _ = content(folder / "sample-index")
    got = descriptors[[rows[path] for path in chosen]]
    want = expected[[sample_rows[path] for path in chosen]]
    search = read_model(index, settings["search"])
    whole = clone(search[:-1]).fit_transform(np.array(descriptors))
    opened = ImageIndex(index)
    names = sorted(rows)[:: max(1, len(rows) // 50)]
    first = [opened.search(str(photographs / name), 1).names[0] for name in names]
    return {
        "n_images": len(rows),
        "missing": options.images - len(rows),
        "sample": len(chosen),
        "equal": int(np.all(got == want, axis=1).sum()),
        "difference": float(np.max(np.abs(got - want) / np.abs(want).max())),
        "gallery difference": float(np.abs(gallery - whole).max()),
        "queries": len(names),
        "themselves": sum(one == name for one, name in zip(first, names, strict=True)),
        "megabytes": descriptors.nbytes / MIB,
        "dimension": descriptors.shape[1],
        "table": (index / "index.sqlite").stat().st_size / MIB,
        "sample seconds": sample.seconds,
    }


def photographs_report(folder: Path, options: argparse.Namespace) -> list[str]:
    began = time.perf_counter()
    write_photographs(folder / "photographs", options.images)
    writing = time.perf_counter() - began
    size = sum(file.stat().st_size for file in (folder / "photographs").rglob("*.jpg")) / options.images
    runs, found = killed_run(folder / "photographs", folder / "index", options)
    result = check_index(folder / "photographs", folder / "index", folder, options)
    seconds = stage_seconds(runs)
    whole = sum(run.seconds for run in runs)
    last, said = runs[-1], runs[-1].output.strip().splitlines()[-1].split(": ", 1)[1]
    growth, low, high = steady(runs, "describe")
    after = ("whiten and write",)
    describing = max(
        (run.peak("describe")[0] for run in runs if any(row[4] == "describe" for row in run.samples)),
        default=float("nan"),
    )
    peak = max(last.peak(stage)[0] for stage in after)
    n_found = [0, *(one["finished"] for one in found)]
    return [
        "## Photographs: extract, pool, index",
        "",
        f"`{' '.join(index_command(Path('FOLDER'), Path('INDEX'), options.size)[1:])}`: {options.images} JPEGs of "
        f"{SIDES[0]} x {SIDES[1]} pixels, {size:.0f} bytes each (written in {writing:.0f} s), longest side "
        f"{options.size}, {result['dimension']} dimensions.",
        "",
        f"{rate(runs):.0f} images/s while describing, {options.images / whole:.0f} images/s all in all, {len(runs)} "
        f"starts and what was lost by kills included ({whole:.0f} s).",
        "",
        *table(
            ["stage", "seconds", "share"],
            [[name, f"{spent:.1f}", f"{spent / whole:.1%}"] for name, spent in seconds.items()],
        ),
        "### Memory",
        "",
        *table(
            ["images done", "process", "anonymous, MiB", "resident, MiB"],
            curve(runs, options.images),
        ),
        f"In the longest process, from {low} to {high} images, anonymous memory moved by {growth:+.0f} MiB; the "
        f"largest while describing was {describing:.0f} MiB.",
        "",
        f"The last phase, when the descriptors ({result['megabytes']:.0f} MiB) are whitened and written:",
        "",
        *table(
            ["stage", "anonymous, MiB", "resident, MiB"],
            [[stage, *(f"{value:.0f}" for value in last.peak(stage))] for stage in after],
        ),
        f"That is {peak - describing:+.0f} MiB beside the largest while describing.",
        "",
        "### Interruptions",
        "",
        *table(
            ["kill", "images finished", "finished by this process", "with the row of another", "lost or changed"],
            [
                [number, one["finished"], one["finished"] - n_found[number - 1], one["twice"], one["lost"]]
                for number, one in enumerate(found, start=1)
            ],
        ),
        f"The last process said: `{said}`. A kill costs what was done since the last batch was committed; finished "
        "images are not described again.",
        "",
        f"Of {options.images} images {result['missing']} are missing in the index. Descriptors of {result['sample']} "
        f"of them, compared with an uninterrupted index of these alone: {result['equal']} are equal bit for bit, the "
        f"largest difference is {result['difference']:.1e} of the largest value (other neighbours in a batch and its "
        "size change the order of sums in convolutions). The gallery differs from whitening in memory by "
        f"{result['gallery difference']:.1e} at most. {result['themselves']} of {result['queries']} photographs find "
        "themselves first.",
        "",
    ]  # fmt: skip
