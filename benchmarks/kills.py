"""Kill a process that writes an index, again and again, and look at what is left.

Photographs are added, changed, renamed and removed; a process makes an index of them, updates it, whitens it, gives
back space or empties it, and gets SIGKILL at a random moment. After each kill the index is opened and every line of
its table compared: with the folder before and after, and its descriptor with a fresh description, bit by bit. Then an
update has to complete. Meanwhile other processes open the same indexes and search them.

    python benchmarks/kills.py --kills 200
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sqlalchemy as sa
import torch
from PIL import Image
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.index import ImageIndex
from skretrieval.index._rows import mapped, row_file
from skretrieval.index._table import IMAGES, open_engine, transaction
from skretrieval.pooling import GeMPooler, MACPooler
from skretrieval.postprocessing import PCAWhitening

ANCHORS = ("anchor0.png", "anchor1.png")  # photographs that stay
MODELS = {"gem": GeMPooler, "mac": MACPooler}
OPERATIONS = ("create", "update plain", "update whitened", "vacuum plain", "vacuum whitened", "reset")


def make_pipeline(model: str, whitened: bool) -> Pipeline:
    """Describe photographs in a millisecond each."""
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=64)
    steps = [("extractor", extractor), ("pooler", MODELS[model]())]
    if whitened:
        steps.append(("whitening", PCAWhitening(n_components=8)))
    return Pipeline(steps)


class Photographs:
    """A folder whose photographs change at random."""

    def __init__(self, folder: Path, seed: int, n: int):
        self.folder, self.random, self.n = folder, random.Random(seed), n
        (folder / "sub").mkdir(parents=True)
        for number, name in enumerate(ANCHORS):
            self.draw(name, -1 - number)
        for number in range(n):
            self.draw(self.name(number), number)

    def name(self, number: int) -> str:
        """Name a photograph, in one of two folders."""
        return f"{'sub/' if number % 2 else ''}{number:04d}.png"

    def draw(self, name: str, seed: int) -> None:
        """Draw one, put into place whole."""
        pixels = np.random.RandomState(seed % 2**32).randint(0, 256, (5, 6, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC)
        image.save(self.folder / "drawn.tmp", format="png")
        os.replace(self.folder / "drawn.tmp", self.folder / name)

    def change(self) -> None:
        """Add, change, rename and remove some, of about as many as there were in the beginning."""
        names = [name for name in self.present() if name not in ANCHORS]
        self.random.shuffle(names)
        for name in names[: self.n // 8]:
            self.draw(name, self.random.randrange(2**31))
        for name in names[self.n // 8 : self.n // 6]:
            os.replace(self.folder / name, self.folder / f"r{self.random.randrange(10**6)}.png")
        for name in names[self.n // 6 : self.n // 6 + max(0, len(names) - self.n) + self.n // 8]:
            (self.folder / name).unlink()
        for _ in range(self.n // 6):
            self.draw(f"n{self.random.randrange(10**6)}.png", self.random.randrange(2**31))

    def present(self) -> dict[str, bytes]:
        """Give the content's hash of each photograph."""
        return {
            file.relative_to(self.folder).as_posix(): digest(file.read_bytes())
            for file in sorted(self.folder.rglob("*.png"))
        }


def digest(content: bytes) -> bytes:
    """Hash as the index does."""
    return hashlib.blake2b(content, digest_size=20).digest()


class Fresh:
    """Fresh descriptions of contents, by model."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.encoders: dict[str, Pipeline] = {}
        self.rows: dict[tuple[str, bytes], np.ndarray] = {}

    def add(self, model: str) -> None:
        """Describe what the folder holds and is not described yet."""
        files = {digest(file.read_bytes()): file for file in self.folder.rglob("*.png")}
        todo = [key for key in files if (model, key) not in self.rows]
        if model not in self.encoders:
            encoder = make_pipeline(model, whitened=False)
            encoder.set_params(extractor__batch_size=1, extractor__device="cpu")
            self.encoders[model] = encoder.fit([str(file) for file in files.values()])
        if todo:
            rows = self.encoders[model].transform([str(files[key]) for key in todo])
            self.rows |= {(model, key): row for key, row in zip(todo, rows, strict=True)}


def content(index: Path) -> tuple[str, dict[str, tuple[bytes, np.ndarray]]]:
    """Give the model of an index and, for each photograph in its table, digest and descriptor."""
    engine = open_engine(index)
    model = ImageIndex(index).info()["settings"]["model"]
    with transaction(engine, index) as connection:
        rows = row_file(connection, index, "descriptors")
        numbers = None if rows is None else np.array(mapped(index, rows))
        lines = connection.execute(
            sa.select(IMAGES.c.path, IMAGES.c.digest, IMAGES.c.row).where(IMAGES.c.row.is_not(None))
        ).all()
    found = {os.fsdecode(path): (key, numbers[row]) for path, key, row in lines}
    assert len(found) == len(lines), "a photograph stands in the table twice"
    return model, found


def fork(work: Callable[..., None], *arguments: object) -> int:
    """Do something in a process of its own; it ends with 1 after an exception."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def update(index: Path, photographs: Path) -> None:
    """Bring an index up to date."""
    for _ in ImageIndex(index).update(photographs, batch_size=1, device="cpu", yes=True):
        pass


def operate(operation: str, index: Path, photographs: Path, model: str) -> None:
    """Do what is to be killed."""
    kind = operation.split()[0]
    settings = {"model": model}
    if kind == "create":
        ImageIndex.create(index, make_pipeline(model, whitened=True), settings=settings)
    elif kind == "reset":
        ImageIndex(index).reset(make_pipeline(model, whitened=False), settings=settings)
    elif kind == "vacuum":
        ImageIndex(index).vacuum()
        return
    update(index, photographs)


def read(indexes: list[Path], anchor: Path, expected: list[float], log: Path) -> None:
    """Open indexes and search them until killed; each line of the log is one search."""
    with open(log, "a", buffering=1) as stream:
        while True:
            for index in indexes:
                try:
                    with ImageIndex(index) as opened:
                        found = opened.search(str(anchor / ANCHORS[0]), n_neighbors=1000)
                    by_name = dict(zip(found.names, found.similarities, strict=True))
                    line = "found"
                    if index.name == "plain" and ANCHORS[0] not in by_name:
                        line = "empty"  # it was emptied, and the photograph is not described again yet
                    elif len(by_name) != len(found) or by_name.get(ANCHORS[0], 0) < 0.9999:
                        line = f"wrong: {len(found)} results, itself {by_name.get(ANCHORS[0])}"
                    elif index.name == "plain" and ANCHORS[1] in by_name:
                        nearest = min(abs(by_name[ANCHORS[1]] - value) for value in expected)
                        if nearest > 1e-5:
                            line = f"wrong: {by_name[ANCHORS[1]]} is of neither model {expected}"
                except ValueError as error:
                    is_begun = "is empty" in str(error) or "is not complete" in str(error)
                    line = "empty" if is_begun else f"failed: {error!r}"
                except BaseException as error:
                    line = f"failed: {error!r}"
                stream.write(line.replace("\n", " ") + "\n")


def look(index: Path, before: dict | None, now: dict[str, bytes], fresh: Fresh, operation: str) -> None:
    """Compare what a kill left."""
    try:
        model, found = content(index)
    except FileNotFoundError:
        assert before is None, "the index is gone"
        return
    ImageIndex(index).info(verify=True)
    for path, (key, row) in found.items():
        np.testing.assert_array_equal(row, fresh.rows[model, key], err_msg=f"{path} has another descriptor")
    if before is None or operation == "reset":
        return
    for path in before.keys() | now.keys() | found.keys():
        own, old, new = (found.get(path, [None])[0], before.get(path), now.get(path))
        assert own in (old, new), f"{path} is neither as it was nor as it should be"


def wait(process: int, seconds: float) -> int | None:
    """Wait for a process, at most so long."""
    until = time.perf_counter() + seconds
    while (rest := until - time.perf_counter()) > 0:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return status
        time.sleep(min(rest, 0.001))
    return None


def run(folder: Path, n_kills: int, seed: int, n_readers: int, n_photographs: int) -> dict:
    """Kill so many processes; an AssertionError tells what was not as it must be."""
    torch.set_num_threads(1)  # processes are forked, which the threads of a network do not survive
    threadpool_limits(1)
    rng = random.Random(seed)
    photographs = Photographs(folder / "photographs", seed, n_photographs)
    fresh = Fresh(photographs.folder)
    indexes = {name: folder / name for name in ("made", "plain", "whitened")}
    expected = []
    for model in MODELS:
        fresh.add(model)
        one, two = (fresh.rows[model, digest((photographs.folder / name).read_bytes())] for name in ANCHORS)
        expected.append(float(one @ two / np.linalg.norm(one) / np.linalg.norm(two)))
    for name in ("plain", "whitened"):
        ImageIndex.create(indexes[name], make_pipeline("gem", name == "whitened"), settings={"model": "gem"})
        update(indexes[name], photographs.folder)
    log = folder / "readers.log"
    log.touch()
    watched = [indexes["plain"], indexes["whitened"]]
    readers = [fork(read, watched, photographs.folder, expected, log) for _ in range(n_readers)]
    usual = dict.fromkeys(
        OPERATIONS, 0.5
    )  # seconds an operation takes, learned from those that were too fast
    kills, finished, began = Counter(), 0, time.perf_counter()
    try:
        while sum(kills.values()) < n_kills:
            operation = rng.choice(OPERATIONS)
            index = indexes[{"create": "made", "reset": "plain"}.get(operation) or operation.split()[1]]
            before = None
            if operation == "create":
                shutil.rmtree(index, ignore_errors=True)
            else:
                before = {path: key for path, (key, _) in content(index)[1].items()}
            if not operation.startswith("vacuum"):
                photographs.change()
            else:  # so that there is something to give back, and whitening is stale
                before = {path: key for path, (key, _) in content(index)[1].items()}
            for model in MODELS:
                fresh.add(model)
            now = before if operation.startswith("vacuum") else photographs.present()
            model = rng.choice(list(MODELS))
            process = fork(operate, operation, index, photographs.folder, model)
            status = wait(process, rng.uniform(0, usual[operation]))
            if status is None:
                os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
            if status == 0:
                finished += 1
                usual[operation] *= 0.8
            else:
                assert os.WIFSIGNALED(status), f"{operation} failed by itself"
                kills[operation] += 1
                usual[operation] *= 1.1
            look(index, before, now, fresh, operation)
            if not (index / "index.sqlite").exists():
                ImageIndex.create(index, make_pipeline(model, True), settings={"model": model})
            process = fork(update, index, photographs.folder)
            assert wait(process, 120) == 0, f"the update after a killed {operation} did not complete"
            after = {path: key for path, (key, _) in content(index)[1].items()}
            assert after == photographs.present(), f"the update after a killed {operation} is not complete"
            look(index, after, after, fresh, "")
    finally:
        for reader in readers:
            os.kill(reader, signal.SIGKILL)
            os.waitpid(reader, 0)
    lines = Counter(log.read_text().splitlines())
    bad = {line: count for line, count in lines.items() if line not in ("found", "empty")}
    assert not bad, f"readers: {bad}"
    return {
        "kills": dict(sorted(kills.items())),
        "finished": finished,
        "searches": lines["found"],
        "empty": lines["empty"],
        "seconds": time.perf_counter() - began,
        "files": {name: sorted(os.listdir(path)) for name, path in indexes.items() if path.exists()},
    }


def main() -> None:
    """Run, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--photographs", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kills.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), options.kills, options.seed, options.readers, options.photographs)
    n_kills = sum(found["kills"].values())
    rows = "\n".join(f"| {operation} | {count} |" for operation, count in found["kills"].items())
    text = f"""# Killed while writing

`python benchmarks/kills.py --kills {options.kills} --seed {options.seed} --readers {options.readers}`
on Python {platform.python_version()}, {platform.system()}, {found["seconds"]:.0f} s.

{n_kills} processes were killed at random moments; {found["finished"]} more ended before their moment came. After each
kill the index opened, every photograph in it stood there once with the descriptor of a fresh description, bit by bit,
what had been committed was there, and the next update completed.

| killed | times |
|---|---|
{rows}

Readers ({options.readers}) opened and searched the indexes meanwhile. {found["searches"]} searches found what they
should, {found["empty"]} came upon an index that had been emptied and was being filled again. None failed, and none saw
rows of one model with a query of another.
"""
    options.out.write_text(text, encoding="utf-8")
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
