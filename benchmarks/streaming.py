"""A hundred thousand photographs into an index, killed again and again; a hundred thousand maps into a memory map.

    python benchmarks/streaming.py [--images 100000] [--maps 100000] [--out benchmarks/results/streaming.md]

Writes small JPEGs to a temporary folder and runs `skretrieval index` on them (SqueezeNet with random weights: memory
and time do not depend on their values), whose memory is sampled from outside. The command is ended by SIGKILL at random
moments of the first half, and once more while it writes the arrays, and started again each time. Then: was anything
lost, was anything done twice, are the descriptors those of an uninterrupted run?

Resident memory is told apart: *anonymous* memory is what the process holds, *mapped* are pages of files (libraries and
mapped arrays), which the system takes back when others need room.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.base import clone

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"--extractor": "squeezenet1_1", "--weights": "random", "--recipe": "gem", "--whitening": "pca"}
SIDES = (96, 72)
MIB = 2**20


# ------------------------------------------------------------------------------------------------- watching
@dataclass
class Watched:
    """A process that ran: when and how it ended, and samples (seconds, done, anonymous, mapped, stage)."""

    seconds: float = 0.0
    killed: bool = False
    output: str = ""
    samples: list[tuple[float, int, int, int, str]] = field(default_factory=list)

    def peak(self, stage: str | None = None) -> tuple[float, float]:
        """Largest anonymous and largest whole resident memory, MiB."""
        rows = [row for row in self.samples if stage in (None, row[4])]
        if not rows:
            return float("nan"), float("nan")
        return max(row[2] for row in rows) / MIB, max(row[2] + row[3] for row in rows) / MIB


def resident(pid: int) -> tuple[int, int]:
    """Anonymous and mapped resident memory of a process, bytes (Linux)."""
    text = Path(f"/proc/{pid}/status").read_text()
    numbers = {
        line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines() if line[:3] == "Rss"
    }
    return numbers["RssAnon"], numbers["RssFile"] + numbers["RssShmem"]


def watch(command: list[str], progress, kill=None, every: float = 0.1) -> Watched:
    """Run a command; `progress()` gives (done, stage), `kill(done, stage)` says whether to end it now."""
    result, began = Watched(), time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None:
        done, stage = progress()
        try:
            result.samples.append((time.perf_counter() - began, done, *resident(process.pid), stage))
        except (FileNotFoundError, KeyError, ProcessLookupError):  # it has just ended
            break
        if kill is not None and kill(done, stage):
            os.kill(process.pid, signal.SIGKILL)
            result.killed = True
            break
        time.sleep(every)
    result.output = process.communicate()[0]
    result.seconds = time.perf_counter() - began
    if process.returncode != (-signal.SIGKILL if result.killed else 0):
        raise SystemExit(f"{command} ended with {process.returncode}:\n{result.output}")
    return result


# ------------------------------------------------------------------------------------------------- photographs
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


class Pending:
    """What is finished of an index, read from its folder while a process makes it."""

    def __init__(self, index: Path):
        self.index, self.counts = index, {}
        self.at_start = self()[0]

    def __call__(self) -> tuple[int, str]:
        """Return images finished so far, and the stage; "start" lasts until the process has finished a shard."""
        for file in (self.index / "pending").glob("[0-9]*.json"):
            if file.name not in self.counts:
                self.counts[file.name] = len(json.loads(file.read_text())["images"])
        done = sum(self.counts.values())
        names = [file.name for pattern in ("*.npy", ".*.npy.tmp") for file in self.index.glob(pattern)]
        if any("gallery" in name for name in names):
            return done, "post-process and write"
        if any("descriptors" in name for name in names):
            return done, "merge and fit"
        return done, "describe" if done > getattr(self, "at_start", done) else "start"

    def shards(self) -> dict[str, tuple[int, list[str]]]:
        """Finished shards: when they were written and the images in them."""
        return {
            file.name: (
                file.stat().st_mtime_ns,
                [image["path"] for image in json.loads(file.read_text())["images"]],
            )
            for file in (self.index / "pending").glob("[0-9]*.json")
        }


def index_command(photographs: Path, index: Path, size: int) -> list[str]:
    options = [word for pair in SETTINGS.items() for word in pair]
    fixed = ["--size", str(size), "--device", "cpu", "--batch-size", "32", "--sample", "500", "--no-progress"]
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

    stops = [in_time(target) for target in targets] + [lambda done, stage: stage == "merge and fit"]
    for stop in stops:
        runs.append(watch(index_command(photographs, index, options.size), Pending(index), stop))
        after = Pending(index).shards()
        paths = [path for _, images in after.values() for path in images]
        found.append(
            {
                "finished": len(paths),
                "twice": len(paths) - len(set(paths)),
                "lost": sum(after.get(name) != shard for name, shard in before.items()),
                "seconds lost": max(0.0, time.time() - max(when for when, _ in after.values()) / 1e9),
                "largest shard": max(len(images) for _, images in after.values()),
            }
        )
        before = after
    runs.append(watch(index_command(photographs, index, options.size), Pending(index)))
    return runs, found


def check_index(photographs: Path, index: Path, folder: Path, options: argparse.Namespace) -> dict:
    """Compare with an uninterrupted index of a sample, and with post-processing in memory."""
    from skretrieval.index import _image_index as _index

    def content(path):
        manifest = _index.read_manifest(path)
        images = {image.path: row for row, image in enumerate(_index.read_images(path, manifest))}
        return (
            manifest,
            images,
            *(_index.read_array(path, manifest, kind) for kind in ("descriptors", "gallery")),
        )

    manifest, rows, descriptors, gallery = content(index)
    chosen = sorted(rows)[:: max(1, options.images // options.sample)]
    for path in chosen:
        (folder / "sample" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(photographs / path, folder / "sample" / path)
    sample = watch(index_command(folder / "sample", folder / "sample-index", options.size), lambda: (0, ""))
    _, sample_rows, expected, _ = content(folder / "sample-index")
    got = descriptors[[rows[path] for path in chosen]]
    want = expected[[sample_rows[path] for path in chosen]]
    loaded = _index.ImageIndex(index)
    again = clone(loaded.pipeline[2:-1])
    whole = again.fit_transform(np.array(descriptors))
    queries = [loaded.files[row] for row in range(0, len(loaded.files), max(1, len(loaded.files) // 50))]
    first = loaded.search(queries, 1)[1][:, 0]
    return {
        "n_images": manifest["n_images"],
        "missing": options.images - len(rows),
        "sample": len(chosen),
        "equal": int(np.all(got == want, axis=1).sum()),
        "difference": float(np.max(np.abs(got - want) / np.abs(want).max())),
        "gallery difference": float(np.abs(gallery - whole).max()),
        "queries": len(queries),
        "themselves": sum(loaded.files[row] == query for row, query in zip(first, queries, strict=True)),
        "megabytes": descriptors.nbytes / MIB,
        "dimension": descriptors.shape[1],
        "json": (index / manifest["files"]["images"]["name"]).stat().st_size / MIB,
        "sample seconds": sample.seconds,
    }


# ------------------------------------------------------------------------------------------------- maps
class LazyMaps:
    """A sequence of feature maps that are made when they are asked for: 200 of `make_feature_maps`, varied."""

    def __init__(self, n: int):
        from skretrieval.datasets import make_feature_maps

        self.n, (self.bases, _) = n, make_feature_maps(200, 512, sides=(6, 10), random_state=0)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> np.ndarray:
        shift, base = number // len(self.bases), self.bases[number % len(self.bases)]
        return np.roll(base, (shift, shift // 7), (1, 2)) * np.float32(1 + shift % 13)


def pool_maps(n: int, how: str, folder: Path) -> None:
    """Maps to descriptors to whitened descriptors to a search; the body of a process that is watched."""
    from skretrieval.pooling import GRMACPooler
    from skretrieval.postprocessing import PCAWhitening
    from skretrieval.retrieval import NearestNeighborsRetriever

    def say(done, stage):
        (folder / "progress.tmp").write_text(f"{done} {stage}")
        os.replace(folder / "progress.tmp", folder / "progress")

    maps, step = LazyMaps(n), 200
    pooler = GRMACPooler().fit([maps[0]])
    say(0, "pool")
    if how == "one call":
        rows = pooler.transform(maps)
        say(n, "pool")
    else:
        rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (n, 512))
        for start in range(0, n, step):
            block = [maps[number] for number in range(start, min(start + step, n))]
            rows[start : start + step] = pooler.transform(block)
            say(start + len(block), "pool")
        rows.flush()
        rows = np.load(folder / "rows.npy", mmap_mode="r")
    say(n, "whiten")
    whitening = PCAWhitening(128).fit(rows)
    if how == "one call":
        white = whitening.transform(rows)
    else:
        white = np.lib.format.open_memmap(folder / "white.npy", "w+", np.float32, (n, 128))
        for start in range(0, n, step):
            white[start : start + step] = whitening.transform(rows[start : start + step])
        white.flush()
        white = np.load(folder / "white.npy", mmap_mode="r")
    say(n, "search")
    retriever = NearestNeighborsRetriever(10).fit(white)
    assert retriever.kneighbors(white[:100])[1].shape == (100, 10)
    say(n, "end")


def watched_maps(n: int, how: str) -> Watched:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "progress").write_text("0 start")

        def progress():
            done, stage = (folder / "progress").read_text().split()
            return int(done), stage

        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--maps",
            str(n),
            "--child",
            how,
            str(folder),
        ]
        return watch(command, progress)


# ------------------------------------------------------------------------------------------------- from Python
def describe_photographs(folder: Path, size: int, memory: bool) -> None:
    """Photographs to a file of descriptors, as a script of a user's; the body of a process that is killed."""
    from skretrieval.extraction import ConvFeatureExtractor
    from skretrieval.pooling import GeMPooler

    paths = sorted(str(file) for file in (folder / "photographs").rglob("*.jpg"))
    extractor = ConvFeatureExtractor(
        "squeezenet1_1",
        weights=None,
        random_state=0,
        image_size=size,
        batch_size=32,
        device="cpu",
        memory=folder / "memory" if memory else None,
        memory_keeps="descriptors",
    )
    np.save(folder / f"rows-{memory}.npy", GeMPooler().fit_transform(extractor.fit_transform(paths)))


class Kept:
    """Descriptors that a cache holds."""

    def __init__(self, memory: Path):
        self.memory, self.digests = memory, {}
        self.at_start = self()[0]

    def __call__(self) -> tuple[int, str]:
        for file in self.memory.rglob("*.npz"):
            if file not in self.digests:
                with np.load(file) as shard:
                    self.digests[file] = [digest.tobytes() for digest in shard["digests"]]
        done = sum(map(len, self.digests.values()))
        return done, "describe" if done > getattr(self, "at_start", done) else "start"


def python_report(folder: Path, options: argparse.Namespace) -> list[str]:
    n = min(options.images, options.python)
    write_photographs(folder / "photographs", n)
    rng, rows, kept = random.Random(options.seed), [], 0
    script = [sys.executable, str(Path(__file__).resolve()), "--size", str(options.size)]
    for target in [*sorted(rng.uniform(0.1, 0.9) * n for _ in range(2)), None]:
        progress = Kept(folder / "memory")
        run = watch(
            [*script, "--child", "describe", str(folder)],
            progress,
            None
            if target is None
            else lambda done, stage, target=target: done >= target and stage == "describe",
        )
        found = Kept(folder / "memory").digests.values()
        now, twice = sum(map(len, found)), sum(map(len, found)) - len(set().union(*found))
        ended = "killed" if run.killed else "finished"
        rows.append([ended, f"{run.seconds:.1f}", now - kept, now, twice, f"{run.peak()[0]:.0f}"])
        kept = now
    plain = watch([*script, "--child", "describe-plain", str(folder)], lambda: (0, ""))
    got, want = np.load(folder / "rows-True.npy"), np.load(folder / "rows-False.npy")
    difference = np.abs(got - want).max() / np.abs(want).max()
    return [
        "## From Python: a pooler's descriptors kept by the extractor",
        "",
        '`ConvFeatureExtractor(..., memory=..., memory_keeps="descriptors")` and `GeMPooler`, in a script that knows '
        f"nothing of interruptions: {n} photographs, killed twice and run again.",
        "",
        *table(
            ["process", "seconds", "described and kept", "kept in all", "kept twice", "anonymous, MiB"],
            rows,
        ),
        f"{int(np.all(got == want, axis=1).sum())} of {len(want)} descriptors are those of an uninterrupted process "
        f"without memory ({plain.seconds:.1f} s) bit for bit, the others differ by {difference:.1e} of the largest "
        "value at most.",
        "",
    ]


# ------------------------------------------------------------------------------------------------- the report
def table(head: list[str], rows: list[list]) -> list[str]:
    lines = [head, ["--:"] * len(head), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def curve(runs: list[Watched], total: int) -> list[list]:
    """Memory when each tenth was done, in the process that did it."""
    samples = [
        (number, row) for number, run in enumerate(runs, 1) for row in run.samples if row[4] != "start"
    ]
    rows = []
    for tenth in range(1, 11):
        reached = [(number, row) for number, row in samples if row[1] >= total * tenth / 10]
        if reached:
            number, (_, _, anonymous, mapped, _) = reached[0]
            rows.append(
                [f"{tenth * 10} %", number, f"{anonymous / MIB:.0f}", f"{(anonymous + mapped) / MIB:.0f}"]
            )
    return rows


def steady(runs: list[Watched], stage: str) -> tuple[float, int, int]:
    """Growth of anonymous memory, MiB, in the longest process, from its first tenth on; and from where to where."""
    samples = max(([row for row in run.samples if row[4] == stage] for run in runs), key=len)
    settled = samples[len(samples) // 10 :]
    third = max(1, len(settled) // 3)
    growth = np.median([row[2] for row in settled[-third:]]) - np.median([row[2] for row in settled[:third]])
    return float(growth) / MIB, settled[0][1], settled[-1][1]


def rate(runs: list[Watched]) -> float:
    """Images a second between the first and the last shard of the longest process."""
    samples = max(([row for row in run.samples if row[4] == "describe"] for run in runs), key=len)
    return (samples[-1][1] - samples[0][1]) / max(1e-9, samples[-1][0] - samples[0][0])


def stage_seconds(runs: list[Watched]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for run in runs:
        ends = [row[0] for row in run.samples[1:]] + [run.seconds]
        for row, end in zip(run.samples, ends, strict=True):
            seconds[row[4]] = seconds.get(row[4], 0.0) + end - row[0]
    return seconds


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
    after = ("merge and fit", "post-process and write")
    describing = max(
        run.peak("describe")[0] for run in runs if any(row[4] == "describe" for row in run.samples)
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
        f"The last phase, when the descriptors are merged, whitened and written ({result['megabytes']:.0f} MiB each "
        "time):",
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
            ["kill", "images finished", "finished by this process", "in two shards", "earlier shards lost or changed",
             "seconds since the last shard", "largest shard"],
            [
                [number, one["finished"], one["finished"] - n_found[number - 1], one["twice"], one["lost"],
                 f"{one['seconds lost']:.1f}", one["largest shard"]]
                for number, one in enumerate(found, start=1)
            ],
        ),
        f"The last process said: `{said}`. A kill costs what was done since the last shard was written, at most one "
        "shard; finished images are not described again.",
        "",
        f"Of {options.images} images {result['missing']} are missing in the index. Descriptors of {result['sample']} "
        f"of them, compared with an uninterrupted index of these alone: {result['equal']} are equal bit for bit, the "
        f"largest difference is {result['difference']:.1e} of the largest value (other neighbours in a batch and its "
        "size change the order of sums in convolutions). The gallery differs from whitening in memory by "
        f"{result['gallery difference']:.1e} at most. {result['themselves']} of {result['queries']} photographs find "
        "themselves first.",
        "",
    ]  # fmt: skip


def maps_report(options: argparse.Namespace) -> list[str]:
    lines = [
        "## Maps: pool, whiten, search",
        "",
        f"{options.maps} maps of 512 channels, 6 to 10 cells high and wide, made when asked for; GR-MAC, whitened "
        "to 128 dimensions, searched. *One call*: `pooler.transform` of the whole lazy sequence, which holds its "
        f"output ({options.maps * 2048 / MIB:.0f} MiB) and what whitening makes of it "
        f"({options.maps * 512 / MIB:.0f} MiB). *Blocks*: `transform` of 200 maps at a time into a memory-mapped "
        "file, `fit` and `kneighbors` on mapped files.",
        "",
    ]
    rows = []
    for how in ("one call", "blocks"):
        run = watched_maps(options.maps, how)
        seconds = stage_seconds([run])
        for stage in ("pool", "whiten", "search"):
            memory = [f"{value:.0f}" if value == value else "not seen" for value in run.peak(stage)]
            rows.append([how, stage, f"{seconds.get(stage, 0):.1f}", *memory])
        if how == "blocks":
            growth, low, high = steady([run], "pool")
            rows_note = f"In blocks, from {low} to {high} maps, anonymous memory moved by {growth:+.0f} MiB."
    return [
        *lines,
        *table(["how", "stage", "seconds", "anonymous, MiB", "resident, MiB"], rows),
        rows_note,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--maps", type=int, default=100_000)
    parser.add_argument("--python", type=int, default=10_000, help="images of the part from Python, at most")
    parser.add_argument("--kills", type=int, default=4, help="in the first half; one more in the last phase")
    parser.add_argument("--sample", type=int, default=2000, help="images that are indexed once more")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes: about 15 KB an image")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/streaming.md"))
    parser.add_argument("--child", nargs=2, metavar=("HOW", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        how, place = options.child[0], Path(options.child[1])
        if how.startswith("describe"):
            describe_photographs(place, options.size, how == "describe")
        else:
            pool_maps(options.maps, how, place)
        return
    load = os.getloadavg()[0]
    lines = [
        "# Streaming at size",
        "",
        f"`python benchmarks/streaming.py --images {options.images} --maps {options.maps}`, {os.cpu_count()} cores "
        f"({platform.machine()}), load {load:.1f} at the start.",
        "",
        "Anonymous memory is what the process holds; resident memory counts mapped pages of files too (libraries, and "
        "arrays on disk), which the system takes back when others need room.",
        "",
    ]
    if options.images:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            lines += photographs_report(Path(folder), options)
    if options.images and options.python:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            lines += python_report(Path(folder), options)
    if options.maps:
        lines += maps_report(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
