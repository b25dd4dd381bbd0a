"""Bringing an index up to date with its folder: only what changed is described."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from .._io import hash_file
from . import _image_index as _index
from ._blocks import fit_search, merge, write_blocks
from ._image_index import IndexedImage
from ._pending import Pending, remove_leftovers
from ._pipeline import (
    describe_files,
    leniently,
    make_pipeline,
    resolve_settings,
    split_pipeline,
)

# What an interruption can cost at most: a shard of about so many seconds, within so many images.
_SHARD_SECONDS = 5.0
_SHARD_SIZES = (8, 256)
_OURS = (_index.MANIFEST, "pending", ".lock")


@dataclass
class Report:
    """What an update did.

    Attributes
    ----------
    n_images : int
        In the index now.
    n_described, n_resumed, n_kept, n_moved, n_removed : int
        Images described now; found finished from an interrupted run; unchanged since the last index; known by
        their content under another name; gone.
    skipped : dict
        Relative path of each file that could not be read, and why.
    seconds : float
        Wall clock.
    """

    n_images: int = 0
    n_described: int = 0
    n_resumed: int = 0
    n_kept: int = 0
    n_moved: int = 0
    n_removed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class _File(NamedTuple):
    """What is noted of a file, instead of the whole of `os.stat`."""

    st_size: int
    st_mtime_ns: int


@dataclass(slots=True)
class _Known:
    """An image whose descriptor exists: rows `start` to `stop` of an array, or of the .npy file of a shard."""

    image: IndexedImage
    source: np.ndarray | Path
    start: int
    stop: int
    resumed: bool = False


def update_index(
    folder: Path,
    out: Path,
    options: Mapping[str, Any],
    *,
    rebuild: bool = False,
    folder_moved: bool = False,
    sample: int = 1000,
    extractor_params: Mapping[str, Any] | None = None,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Report:
    """Make the index of a folder, or bring it up to date.

    Filters and region whitening are learned once, from at most `sample` photographs, and kept by later updates;
    whitening of whole descriptors is fitted anew on all images. An image is known by path, size and modification
    time; where these leave doubt, by its content. Finished work survives any interruption.

    Parameters
    ----------
    folder : Path
        The photographs.
    out : Path
        The folder of the index; made if it doesn't exist.
    options : mapping
        Options of :data:`~skretrieval.index._pipeline.DEFAULTS`; None leaves the index's, or the default.
    rebuild : bool, default=False
        Start anew, with other options if wanted.
    folder_moved : bool, default=False
        Accept that the photographs now lie elsewhere.
    sample : int, default=1000
        Photographs to learn from, at most.
    extractor_params : mapping, default=None
        How to run, not what to compute: ``device``, ``batch_size``.
    progress : bool, default=True
        Show a progress bar.
    say : callable
        Takes the lines that tell what goes on.

    Returns
    -------
    report : Report
        What was done.

    Raises
    ------
    FileNotFoundError, ValueError
        No folder, no readable image, other options than the index's, a damaged index, or `out` is something
        else.
    """
    began = time.perf_counter()
    folder, out = folder.resolve(), out.resolve()
    files = _scan(folder)
    with _locked(out):
        pending = Pending(out)
        base, settings = _begin(out, pending, options, rebuild)
        if base is not None and base["folder"] != str(folder) and not folder_moved:
            raise ValueError(
                f"{out} is the index of {base['folder']}, not of {folder}. Give another --out, or say "
                "--folder-moved if the photographs were moved there"
            )
        report = _update(folder, out, files, base, pending, settings, sample, extractor_params, progress, say)
    report.seconds = time.perf_counter() - began
    return report


def _update(folder, out, files, base, pending, settings, sample, extractor_params, progress, say) -> Report:
    labels = [_label(path) for path in files]
    if settings["whitening"] == "learned" and not all(labels):
        raise ValueError(
            "--whitening learned needs labels: put the images into sub-folders, one for each object"
        )
    known: dict[str, _Known] = {}
    if base is not None:
        known = _rows(_index.read_images(out, base), _index.read_array(out, base, "descriptors"))
    before = set(known)
    for images, rows in pending.shards():
        known.update(_rows(images, rows, resumed=True))
    found, todo, report = _compare(folder, files, known, before)
    del known

    front, search = split_pipeline(make_pipeline(settings))
    fitted: Pipeline | dict = {} if base is None else base["files"]["front"]
    if base is None or todo:
        fitted_front = _fitted_front(
            folder, out, base, pending, front, files, sample, extractor_params or {}, say
        )
        if base is None:
            fitted = fitted_front
        with leniently(fitted_front, **(extractor_params or {})):
            _describe(folder, todo, files, fitted_front, pending, report, progress)
        described = (
            todo - report.skipped.keys()
        )  # an interrupted run may hold more, of what can't be read now
        for images, rows in pending.shards():
            found.update((path, item) for path, item in _rows(images, rows).items() if path in described)
    if not found:
        reason = next(iter(report.skipped.items()))
        raise ValueError(f"None of the {len(files)} images in {folder} can be read: {reason[0]}: {reason[1]}")

    # In the order of the paths, as a fresh index would have them.
    items = [found.pop(path) for path in sorted(found)]
    images = [item.image for item in items]
    report.n_images = len(images)
    if base is not None and _same(out, base, folder, images, report.skipped):
        pending.clear()
        return report
    _write(out, folder, items, settings, report.skipped, pending, fitted, search)
    pending.clear()
    return report


def _write(
    out: Path,
    folder: Path,
    items: list[_Known],
    settings: dict,
    skipped: dict[str, str],
    pending: Pending,
    front: Pipeline | dict,
    search: Pipeline,
) -> None:
    """Write the new generation. The arrays are never in memory, whole."""
    images = [item.image for item in items]
    parts = [(item.source, item.start, item.stop) for item in items]
    n_rows = sum(item.stop - item.start for item in items)
    remove_leftovers(out)
    generation = _index.next_generation(out)
    names = {kind: f"{kind}-{generation}.npy" for kind in ("descriptors", "gallery")}
    arrays = {"descriptors": write_blocks(out / names["descriptors"], n_rows, merge(parts))}
    rows = np.load(out / names["descriptors"], mmap_mode="r", allow_pickle=False)
    final = fit_search(search, rows, images, pending.keep_rows)
    arrays["gallery"] = write_blocks(out / names["gallery"], n_rows, final)
    _index.write_index(
        out,
        folder=folder,
        settings=settings,
        images=images,
        skipped=skipped,
        arrays=arrays,
        dimension=np.load(out / names["gallery"], mmap_mode="r", allow_pickle=False).shape[1],
        front=front,
        search=search,
    )
    remove_leftovers(out)


# ------------------------------------------------------------------------------------------------- what to do
def _scan(folder: Path) -> dict[str, _File]:
    """Find the images of a folder; those that vanish meanwhile were never there."""
    from ..datasets._folder import list_images

    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    files = {}
    for path in list_images(folder):
        try:
            stat = os.stat(folder / path)
        except FileNotFoundError:
            continue
        files[path] = _File(stat.st_size, stat.st_mtime_ns)
    if not files:
        raise ValueError(f"no images in {folder}")
    return files


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Make the folder of the index and keep other processes from writing to it; a killed process frees it."""
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in _OURS):
        raise ValueError(f"{out} is not empty and holds no index: give another --out")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(out / ".lock", timeout=0):
            yield
    except filelock.Timeout:
        raise ValueError(f"another process is writing {out}") from None


def _begin(
    out: Path, pending: Pending, options: Mapping[str, Any], rebuild: bool
) -> tuple[dict | None, dict]:
    """Decide whether to go on with interrupted work; returns the index to start from (or None) and the settings."""
    plan = pending.plan()
    if plan is not None:
        try:
            settings = resolve_settings(options, plan["settings"])
        except ValueError as error:
            if pending.has_shards() and not rebuild:
                raise ValueError(
                    f"{out} holds interrupted work with other options: {error}. Use the same options to go on, "
                    "or --rebuild to start anew"
                ) from error
        else:
            if plan["fresh"]:
                return None, settings
            if not rebuild:
                return _index.read_manifest(out), settings
    base = None
    if not rebuild and (out / _index.MANIFEST).exists():
        base = _index.read_manifest(out)
        try:
            settings = resolve_settings(options, base["settings"])
        except ValueError as error:
            raise ValueError(f"{out}: {error}. Give another --out, or --rebuild to start anew") from error
    else:
        settings = resolve_settings(options)
    pending.begin(settings, fresh=base is None)
    return base, settings


def _rows(
    images: list[IndexedImage], source: np.ndarray | Path | None, resumed: bool = False
) -> dict[str, _Known]:
    if not images or source is None:
        return {}
    stops = np.cumsum([1 if image.n_regions is None else image.n_regions for image in images]).tolist()
    starts = [0, *stops[:-1]]
    return {
        image.path: _Known(image, source, start, stop, resumed)
        for image, start, stop in zip(images, starts, stops, strict=True)
    }


def _compare(
    folder: Path, files: dict, known: dict[str, _Known], before: set[str]
) -> tuple[dict[str, _Known], set[str], Report]:
    """Sort the files into those with a descriptor and those without."""
    by_content = {(item.image.size, item.image.digest): item for item in known.values()}
    known_sizes = {item.image.size for item in known.values()}
    found, todo, report = {}, set(), Report()
    moved_from = set()
    for path, stat in files.items():
        item = known.get(path)
        if item is not None and (item.image.size, item.image.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            found[path] = item
            report.n_resumed += item.resumed
            report.n_kept += not item.resumed
            continue
        # Another time or another name: the content decides. A size that no known file has needs no reading.
        item = None
        if stat.st_size in known_sizes:
            item = by_content.get((stat.st_size, _digest(folder / path)))
        if item is None:
            todo.add(path)
            continue
        if item.image.path == path:
            report.n_kept += 1
        else:
            report.n_moved += 1
            moved_from.add(item.image.path)
        image = replace(item.image, path=path, mtime_ns=stat.st_mtime_ns, label=_label(path))
        found[path] = replace(item, image=image)
    report.n_removed = len(before - files.keys() - moved_from)
    return found, todo, report


def _digest(file: Path) -> str:
    """Hash a file; one that cannot be read has no content, and reading the image will say why."""
    try:
        return hash_file(file)
    except OSError:
        return ""


def _label(path: str) -> str:
    return path.split("/", 1)[0] if "/" in path else ""


# ------------------------------------------------------------------------------------------------- doing it
def _fitted_front(
    folder, out, base, pending: Pending, front: Pipeline, files, sample: int, params: Mapping[str, Any], say
) -> Pipeline:
    """Load the fitted extractor and pooler, or fit them on a sample of the photographs and keep them."""
    if base is not None:
        return _index.read_model(out, base, "front")
    fitted = pending.front()
    if fitted is None:
        paths = sorted(files)
        if len(paths) > sample:
            paths = sorted(np.random.RandomState(0).choice(paths, sample, replace=False).tolist())
        with ThreadPoolExecutor() as pool:
            marks = pool.map(_is_readable, [folder / path for path in paths])
            readable = [str(folder / path) for path, good in zip(paths, marks, strict=True) if good]
        if not readable:
            raise ValueError(f"none of the {len(paths)} images looked at in {folder} can be read")
        say(f"Setting up from {len(readable)} photographs")
        with leniently(front, **params):
            fitted = front.fit(readable)
        pending.keep_front(fitted)
    return fitted


def _is_readable(file: Path) -> bool:
    from ..extraction._images import read_image

    try:
        read_image(0, file, draft=1)
    except (OSError, ValueError):
        return False
    return True


def _describe(
    folder, todo: set[str], files, front: Pipeline, pending: Pending, report: Report, progress
) -> None:
    """Describe the images shard by shard, and keep each shard as soon as it is finished."""
    paths = sorted(todo)
    start, size = 0, _SHARD_SIZES[0]
    with tqdm(total=len(paths), unit="image", disable=not progress) as bar:
        while start < len(paths):
            began = time.perf_counter()
            shard = paths[start : start + size]
            # Before the photographs are read: a file that changes meanwhile is described again next time.
            digests = [_digest(folder / path) for path in shard]
            rows, n_regions, failed = describe_files(front, [str(folder / path) for path in shard])
            good = [place for place in range(len(shard)) if place not in failed]
            images = [
                IndexedImage(
                    path=shard[place],
                    size=files[shard[place]].st_size,
                    mtime_ns=files[shard[place]].st_mtime_ns,
                    digest=digests[place],
                    label=_label(shard[place]),
                    n_regions=None if n_regions is None else n_regions[number],
                )
                for number, place in enumerate(good)
            ]
            skipped = {shard[place]: reason for place, reason in failed.items()}
            pending.add(images, rows, skipped)
            report.n_described += len(images)
            report.skipped.update(skipped)
            bar.update(len(shard))
            start += len(shard)
            wanted = round(len(shard) * _SHARD_SECONDS / (time.perf_counter() - began))
            size = min(max(wanted, _SHARD_SIZES[0]), _SHARD_SIZES[1])


def _same(out: Path, base: dict, folder: Path, images: list[IndexedImage], skipped: dict[str, str]) -> bool:
    return (
        base["folder"] == str(folder)
        and images == _index.read_images(out, base)
        and skipped == _index.read_skipped(out, base)
    )
