"""Damaged photographs through the reader: no crash, no hang, no error without the file's name.

    python benchmarks/mutated_photographs.py [--count 10000] [--seed 0] [--workers 2] [--limit 10]

Small photographs of every format, with and without metadata, are damaged by a fixed seed: bits and bytes are changed,
parts are cut, doubled, swapped between files, and numbers made extreme. Each is read with :func:`read_image` (from its
bytes, padded where it is cut, and as a crop) and :func:`read_facts` in processes of their own. A process that dies or
takes more than `--limit` seconds over a file is counted, and the number of the file is told. The figures go to
benchmarks/results/mutated_photographs.md. Exit status 1 says that one of them is not 0.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections import Counter
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from PIL import Image

from skretrieval.extraction import ImageCrop, read_facts, read_image, readable_suffixes

RESULTS = Path(__file__).parent / "results" / "mutated_photographs.md"
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "HEIF")
MEMORY = 4 << 30  # bytes that a process may take
EXTREMES = (
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\x00\x00\x00",
    b"\0\0\0\x01",
)


def photographs() -> dict[str, list[bytes]]:
    """Return small photographs of each format that can be written here."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    scene = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0132] = "2020:01:02 03:04:05"
    deep = Image.fromarray(rng.integers(0, 65536, (40, 50), dtype=np.uint16))
    palette = scene.quantize(16)
    plans = {
        "JPEG": [
            (scene, {"exif": exif}),
            (scene, {"progressive": True}),
            (scene.convert("CMYK"), {}),
            (scene.convert("L"), {}),
        ],
        "PNG": [
            (scene, {"exif": exif}),
            (scene.convert("RGBA"), {}),
            (palette, {"transparency": 3}),
            (deep, {}),
        ],
        "WEBP": [(scene, {"exif": exif}), (scene.convert("RGBA"), {"lossless": True})],
        "TIFF": [
            (scene, {"exif": exif, "compression": compression})
            for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ]
        + [(deep, {}), (scene.convert("1"), {"compression": "group4"}), (scene, {"big_tiff": True})],
        "GIF": [
            (palette, {"transparency": 1}),
            (palette, {"save_all": True, "append_images": [scene.quantize(8)]}),
        ],
        "AVIF": [(scene, {"exif": exif}), (scene.convert("RGBA"), {"quality": 90})],
        "HEIF": [(scene, {"exif": exif.tobytes()}), (scene.convert("RGBA"), {})],
    }
    readable_suffixes()  # registers the plugins that are installed
    seeds: dict[str, list[bytes]] = {}
    for kind, plan in plans.items():
        if kind not in Image.SAVE:
            continue
        for image, options in plan:
            stream = io.BytesIO()
            image.save(stream, kind, **options)
            seeds.setdefault(kind, []).append(stream.getvalue())
    return seeds


def mutated(seeds: dict[str, list[bytes]], seed: int, number: int) -> tuple[str, bytes]:
    """Return the format and the bytes of a damaged photograph; the same for the same seed and number."""
    rng = np.random.default_rng([seed, number])
    kind = list(seeds)[number % len(seeds)]
    data = bytearray(seeds[kind][rng.integers(len(seeds[kind]))])
    for _ in range(rng.integers(1, 5)):
        # headers say more than pixels: half of the damage is done to the first bytes
        end = len(data) if rng.random() < 0.5 else min(len(data), 300)
        place = int(rng.integers(max(end, 1)))
        length = int(rng.integers(1, 64))
        how = rng.integers(8)
        if how == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << int(rng.integers(8))
        elif how == 1:
            data[place : place + length] = rng.bytes(length)
        elif how == 2:
            del data[place : place + length]
        elif how == 3:
            data[place:place] = data[place : place + length]
        elif how == 4:
            data[place : place + 4] = EXTREMES[rng.integers(len(EXTREMES))]
        elif how == 5:
            del data[int(rng.integers(len(data) + 1)) :]
        elif how == 6:
            other = seeds[list(seeds)[rng.integers(len(seeds))]][0]
            start = int(rng.integers(len(other)))
            data[place : place + length] = other[start : start + length]
        else:
            data[place : place + 2] = rng.bytes(2)
    return kind, bytes(data)


def outcome(data: bytes) -> tuple[str, str]:
    """Read a damaged photograph in every way; return what became of it, and the first wrong thing."""
    result = "refused"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one of Pillow's would not name the file
        for item, options in ((data, {}), (data, {"truncated": "pad"}), (ImageCrop(data, (0, 0, 8, 8)), {})):
            try:
                image = read_image(item, position=41, **options)
                if image.mode != "RGB" or min(image.size) < 2:
                    return "wrong", f"an image of mode {image.mode} and size {image.size}"
                result = "read"
            except (ValueError, FileNotFoundError) as error:
                if not str(error).startswith("Entry 41 (") or not str(error).endswith("."):
                    return "unnamed", repr(error)[:300]
            except Exception as error:
                return "unnamed", repr(error)[:300]
        try:
            read_facts(data)
        except Exception as error:
            return "unnamed", repr(error)[:300]
    return result, ""


def work(pipe, seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + (8 << 30), -1))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes there what it thinks of each file
    seeds = photographs()
    while (number := pipe.recv()) is not None:
        kind, data = mutated(seeds, seed, number)
        pipe.send((kind, *outcome(data)))


class Worker:
    """A process that reads one damaged photograph after the other."""

    def __init__(self, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, seed), daemon=True)
        self.process.start()
        theirs.close()
        self.number, self.since, self.ready = -1, 0.0, False

    def give(self, number: int) -> None:
        self.number, self.since = number, time.monotonic()
        self.pipe.send(number)

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def run(count: int, seed: int, n_workers: int, limit: float) -> tuple[dict[str, Counter], list[str], float]:
    """Read `count` damaged photographs; return counts by format, what went wrong, and the longest time."""
    kinds = list(photographs())
    counts: dict[str, Counter] = {kind: Counter() for kind in kinds}
    wrong: list[str] = []
    numbers, longest = iter(range(count)), 0.0
    workers = [Worker(seed) for _ in range(n_workers)]
    busy = []
    for worker in workers:
        number = next(numbers, None)
        if number is None:
            worker.end()
        else:
            worker.give(number)
            busy.append(worker)
    while busy:
        wait([worker.pipe for worker in busy], timeout=0.2)
        for worker in list(busy):
            patience = limit if worker.ready else limit + 60  # a new process imports first
            late = time.monotonic() - worker.since > patience
            failed = ""
            try:
                if worker.pipe.poll():
                    kind, result, said = worker.pipe.recv()
                    longest = max(longest, time.monotonic() - worker.since) if worker.ready else longest
                    worker.ready = True
                    counts[kind][result] += 1
                    if said:
                        wrong.append(f"{kind} number {worker.number}: {result}: {said}")
                elif late:
                    failed = "hang"
                else:
                    continue
            except EOFError:
                worker.process.join()
                failed = f"crash (exit {worker.process.exitcode})"
            if failed:
                kind = kinds[worker.number % len(kinds)]
                counts[kind][failed.split()[0]] += 1
                wrong.append(f"{kind} number {worker.number}: {failed}")
                worker.end()
                busy.remove(worker)
                worker = Worker(seed)
                busy.append(worker)
            number = next(numbers, None)
            if number is None:
                worker.end()
                busy.remove(worker)
            else:
                worker.give(number)
    return counts, wrong, longest


def report(counts: dict[str, Counter], wrong: list[str], longest: float, seed: int, seconds: float) -> str:
    """Write the figures as Markdown."""
    columns = ("read", "refused", "unnamed", "wrong", "crash", "hang")
    lines = [
        "# Damaged photographs through the reader",
        "",
        f"`python benchmarks/mutated_photographs.py`: {sum(map(Counter.total, counts.values())):,} photographs, seed "
        f"{seed}, Pillow {Image.__version__}, {seconds:.0f} s in all, {longest:.1f} s for the slowest.",
        "",
        "| format | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
        *(
            f"| {kind} | " + " | ".join(str(found[name]) for name in columns) + " |"
            for kind, found in counts.items()
        ),
        "",
        "Read: pixels came out. Refused: an error that names the entry. Unnamed: another error, or a warning. Crash: "
        "the process died. Hang: more than the limit.",
    ]
    return "\n".join([*lines, *(["", *(f"- {line}" for line in wrong)] if wrong else []), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for one photograph")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    start = time.monotonic()
    counts, wrong, longest = run(options.count, options.seed, options.workers, options.limit)
    text = report(counts, wrong, longest, options.seed, time.monotonic() - start)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
