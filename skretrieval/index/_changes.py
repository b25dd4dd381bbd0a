"""What has changed in a folder since it was indexed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._io import hash_file
from ..datasets import list_images
from ._image_index import IndexedImage


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


class File(NamedTuple):
    """What is noted of a file, instead of the whole of `os.stat`."""

    st_size: int
    st_mtime_ns: int


@dataclass(slots=True)
class Known:
    """An image whose descriptor exists: rows `start` to `stop` of an array, or of the .npy file of a shard."""

    image: IndexedImage
    source: np.ndarray | Path
    start: int
    stop: int
    resumed: bool = False


def scan(folder: Path) -> dict[str, File]:
    """Find the images of a folder; those that vanish meanwhile were never there."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}.")
    files = {}
    for path in list_images(folder):
        try:
            stat = os.stat(folder / path)
        except FileNotFoundError:
            continue
        files[path] = File(stat.st_size, stat.st_mtime_ns)
    if not files:
        raise ValueError(f"no images in {folder}.")
    return files


def rows_of(
    images: list[IndexedImage], source: np.ndarray | Path | None, resumed: bool = False
) -> dict[str, Known]:
    """Say where the rows of images lie, by their paths."""
    if not images or source is None:
        return {}
    stops = np.cumsum([1 if image.n_regions is None else image.n_regions for image in images]).tolist()
    starts = [0, *stops[:-1]]
    return {
        image.path: Known(image, source, start, stop, resumed)
        for image, start, stop in zip(images, starts, stops, strict=True)
    }


def compare(
    folder: Path, files: dict, known: dict[str, Known], before: set[str]
) -> tuple[dict[str, Known], set[str], Report]:
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
            item = by_content.get((stat.st_size, digest_of(folder / path)))
        if item is None:
            todo.add(path)
            continue
        if item.image.path == path:
            report.n_kept += 1
        else:
            report.n_moved += 1
            moved_from.add(item.image.path)
        image = replace(item.image, path=path, mtime_ns=stat.st_mtime_ns, label=label_of(path))
        found[path] = replace(item, image=image)
    report.n_removed = len(before - files.keys() - moved_from)
    return found, todo, report


def digest_of(file: Path) -> str:
    """Hash a file; one that cannot be read has no content, and reading the image will say why."""
    try:
        return hash_file(file)
    except OSError:
        return ""


def label_of(path: str) -> str:
    """Return the first folder of a relative path; empty where there is none."""
    return path.split("/", 1)[0] if "/" in path else ""
