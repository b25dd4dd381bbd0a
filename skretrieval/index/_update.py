"""Bringing an index up to date with its folder: only what changed is described."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from ..extraction import read_image
from . import _image_index as _index
from ._blocks import fit_search, merge, write_blocks
from ._changes import File, Known, Report, compare, digest_of, label_of, rows_of, scan
from ._image_index import IndexedImage
from ._info import read_skipped
from ._pending import Pending, remove_leftovers
from ._pipeline import (
    describe_files,
    leniently,
    make_pipeline,
    resolve_settings,
    split_pipeline,
)
from ._writing import next_generation, write_index

_LOG = logging.getLogger("skretrieval.index")

# What an interruption can cost at most: a shard of about so many seconds, within so many images.
_SHARD_SECONDS = 5.0
_SHARD_SIZES = (8, 256)
_OURS = (_index.MANIFEST, "pending", ".lock")


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
        Options of :data:`~skretrieval.index.DEFAULTS`; None leaves the index's, or the default.
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
    files = scan(folder)
    with _locked(out):
        pending = Pending(out)
        base, settings = _begin(out, pending, options, rebuild)
        if base is not None and base["folder"] != str(folder) and not folder_moved:
            raise ValueError(
                f"{out} is the index of {base['folder']}, not of {folder}. Give another --out, or say "
                "--folder-moved if the photographs were moved there."
            )
        report = _update(folder, out, files, base, pending, settings, sample, extractor_params, progress)
    report.seconds = time.perf_counter() - began
    return report


def _update(
    folder: Path,
    out: Path,
    files: dict[str, File],
    base: dict | None,
    pending: Pending,
    settings: dict,
    sample: int,
    extractor_params: Mapping[str, Any] | None,
    progress: bool,
) -> Report:
    labels = [label_of(path) for path in files]
    if settings["whitening"] == "learned" and not all(labels):
        raise ValueError(
            "--whitening learned needs labels: put the images into sub-folders, one for each object."
        )
    known: dict[str, Known] = {}
    if base is not None:
        known = rows_of(_index.read_images(out, base), _index.read_array(out, base, "descriptors"))
    before = set(known)
    for images, rows in pending.shards():
        known.update(rows_of(images, rows, resumed=True))
    found, todo, report = compare(folder, files, known, before)
    del known

    encoder, search = split_pipeline(make_pipeline(settings))
    fitted: Pipeline | dict = {} if base is None else base["files"][_index.ENCODER]
    if base is None or todo:
        fitted_encoder = _fitted_encoder(
            folder, out, base, pending, encoder, files, sample, extractor_params or {}
        )
        if base is None:
            fitted = fitted_encoder
        with leniently(fitted_encoder, **(extractor_params or {})):
            _describe(folder, todo, files, fitted_encoder, pending, report, progress)
        described = (
            todo - report.skipped.keys()
        )  # an interrupted run may hold more, of what can't be read now
        for images, rows in pending.shards():
            found.update((path, item) for path, item in rows_of(images, rows).items() if path in described)
    if not found:
        reason = next(iter(report.skipped.items()))
        raise ValueError(
            f"None of the {len(files)} images in {folder} can be read: {reason[0]}: {reason[1].removesuffix('.')}."
        )

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
    items: list[Known],
    settings: dict,
    skipped: dict[str, str],
    pending: Pending,
    encoder: Pipeline | dict,
    search: Pipeline,
) -> None:
    """Write the new generation. The arrays are never in memory, whole."""
    images = [item.image for item in items]
    parts = [(item.source, item.start, item.stop) for item in items]
    n_rows = sum(item.stop - item.start for item in items)
    remove_leftovers(out)
    generation = next_generation(out)
    names = {kind: f"{kind}-{generation}.npy" for kind in ("descriptors", "gallery")}
    arrays = {"descriptors": write_blocks(out / names["descriptors"], n_rows, merge(parts))}
    rows = np.load(out / names["descriptors"], mmap_mode="r", allow_pickle=False)
    final = fit_search(search, rows, images, pending.keep_rows)
    arrays["gallery"] = write_blocks(out / names["gallery"], n_rows, final)
    write_index(
        out,
        folder=folder,
        settings=settings,
        images=images,
        skipped=skipped,
        arrays=arrays,
        dimension=np.load(out / names["gallery"], mmap_mode="r", allow_pickle=False).shape[1],
        encoder=encoder,
        search=search,
    )
    remove_leftovers(out)


# ------------------------------------------------------------------------------------------------- what to do
@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Make the folder of the index and keep other processes from writing to it; a killed process frees it."""
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in _OURS):
        raise ValueError(f"{out} is not empty and holds no index: give another --out.")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(out / ".lock", timeout=0):
            yield
    except filelock.Timeout:
        raise ValueError(f"another process is writing {out}.") from None


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
                    "or --rebuild to start anew."
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
            raise ValueError(f"{out}: {error}. Give another --out, or --rebuild to start anew.") from error
    else:
        settings = resolve_settings(options)
    pending.begin(settings, fresh=base is None)
    return base, settings


# ------------------------------------------------------------------------------------------------- doing it
def _fitted_encoder(
    folder: Path,
    out: Path,
    base: dict | None,
    pending: Pending,
    encoder: Pipeline,
    files: dict[str, File],
    sample: int,
    params: Mapping[str, Any],
) -> Pipeline:
    """Load the fitted extractor and pooler, or fit them on a sample of the photographs and keep them."""
    if base is not None:
        return _index.read_model(out, base, _index.ENCODER)
    fitted = pending.encoder()
    if fitted is None:
        paths = sorted(files)
        if len(paths) > sample:
            paths = sorted(np.random.RandomState(0).choice(paths, sample, replace=False).tolist())
        with ThreadPoolExecutor() as pool:
            marks = pool.map(_is_readable, [folder / path for path in paths])
            readable = [str(folder / path) for path, good in zip(paths, marks, strict=True) if good]
        if not readable:
            raise ValueError(f"none of the {len(paths)} images looked at in {folder} can be read.")
        _LOG.info("Setting up from %d photographs", len(readable))
        with leniently(encoder, **params):
            fitted = encoder.fit(readable)
        pending.keep_encoder(fitted)
    return fitted


def _is_readable(file: Path) -> bool:
    try:
        read_image(file, draft=1)
    except (OSError, ValueError):
        return False
    return True


def _describe(
    folder: Path,
    todo: set[str],
    files: dict[str, File],
    encoder: Pipeline,
    pending: Pending,
    report: Report,
    progress: bool,
) -> None:
    """Describe the images shard by shard, and keep each shard as soon as it is finished."""
    paths = sorted(todo)
    start, size = 0, _SHARD_SIZES[0]
    with tqdm(total=len(paths), unit="image", disable=not progress) as bar:
        while start < len(paths):
            began = time.perf_counter()
            shard = paths[start : start + size]
            # Before the photographs are read: a file that changes meanwhile is described again next time.
            digests = [digest_of(folder / path) for path in shard]
            rows, n_regions, failed = describe_files(encoder, [str(folder / path) for path in shard])
            good = [place for place in range(len(shard)) if place not in failed]
            images = [
                IndexedImage(
                    path=shard[place],
                    size=files[shard[place]].st_size,
                    mtime_ns=files[shard[place]].st_mtime_ns,
                    digest=digests[place],
                    label=label_of(shard[place]),
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
        and skipped == read_skipped(out, base)
    )
