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
import os
import platform
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
from streaming_photographs import photographs_report, write_photographs
from streaming_watch import MIB, Watched, stage_seconds, steady, table, watch


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
    dimension = max(1, min(128, n - 1))  # of few maps no more directions are known
    whitening = PCAWhitening(dimension).fit(rows)
    if how == "one call":
        white = whitening.transform(rows)
    else:
        white = np.lib.format.open_memmap(folder / "white.npy", "w+", np.float32, (n, dimension))
        for start in range(0, n, step):
            white[start : start + step] = whitening.transform(rows[start : start + step])
        white.flush()
        white = np.load(folder / "white.npy", mmap_mode="r")
    say(n, "search")
    retriever = NearestNeighborsRetriever(min(10, n)).fit(white)
    assert retriever.kneighbors(white[:100])[1].shape == (min(100, n), min(10, n))
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
    parser.add_argument(
        "--maps", type=int, default=100_000, help="0 leaves this part out; otherwise at least 2"
    )
    parser.add_argument("--python", type=int, default=10_000, help="images of the part from Python, at most")
    parser.add_argument("--kills", type=int, default=4, help="in the first half; one more in the last phase")
    parser.add_argument("--sample", type=int, default=2000, help="images that are indexed once more")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes: about 15 KB an image")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/streaming.md"))
    parser.add_argument("--child", nargs=2, metavar=("HOW", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.maps == 1:
        parser.error("--maps must be 0 or at least 2, got 1: one map has no directions to whiten by.")
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
        f"`python benchmarks/streaming.py --images {options.images} --maps {options.maps} --python "
        f"{options.python} --kills {options.kills}`, {os.cpu_count()} cores "
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
