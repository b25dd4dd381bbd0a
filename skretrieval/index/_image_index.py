"""The index on disk: a folder with plain files, written so that an interruption never costs what was there.

Layout, format version 1 (`<n>` is a generation, which grows with every change)::

    index.json              format, version, settings, package versions; names and checksums of the other files
    images-<n>.json         path, size, modification time, content hash and label of each image, in row order
    descriptors-<n>.npy     (n_images, d) as pooled; what an update keeps and adds to
    gallery-<n>.npy         (n_images, d') after post-processing; what is searched
    front-<n>.joblib        fitted extractor and pooler
    search-<n>.joblib       fitted post-processing and the retriever's parameters
    pending/                work in progress (see _pending.py)

``index.json`` is replaced last, in one step: a reader finds the old generation or the new one, whole. Where the
descriptors are region sets, each image has `n_regions` rows in the arrays.
"""

from __future__ import annotations

import json
import os
import platform
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline

from .._io import HASH, atomic_write, hash_file
from .._version import __version__

FORMAT = "skretrieval index"
FORMAT_VERSION = 1
MANIFEST = "index.json"
_GENERATION = re.compile(r"-(\d+)\.(?:json|npy|joblib)$")
_PACKAGES = ("numpy", "scikit-learn", "torch", "torchvision", "joblib", "pillow")


@dataclass(slots=True)
class IndexedImage:
    """One image of an index.

    Attributes
    ----------
    path : str
        Relative to the indexed folder, with forward slashes.
    size, mtime_ns : int
        Bytes and modification time of the file that was described.
    digest : str
        BLAKE2b hash of its content.
    label : str
        The first folder of `path`; empty for an image in the folder itself.
    n_regions : int or None
        Rows of the descriptor arrays, where descriptors are region sets.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str
    label: str = ""
    n_regions: int | None = None


class ImageIndex:
    """An index that ``skretrieval index`` has written, ready for search.

    Loading reads ``front-*.joblib`` and ``search-*.joblib`` with pickle, which **runs code that the files hold**:
    load only an index from a source that you trust.

    Parameters
    ----------
    path : path
        The folder of the index.

    Attributes
    ----------
    manifest : dict
        What ``index.json`` holds.
    images : list of IndexedImage
        The gallery, in row order.
    files : list of str
        Where each image of the gallery lies.
    labels : list of str
        Their labels, empty where there is none.
    pipeline : :class:`~sklearn.pipeline.Pipeline`
        The whole fitted Pipeline, from photographs to ranked gallery positions.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no index, a file is damaged, or a newer skretrieval has written it; the message says which
        file, and what to do.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.images = read_images(self.path, self.manifest)
        self.files = [os.path.join(self.manifest["folder"], image.path) for image in self.images]
        self.labels = [image.label for image in self.images]
        front = read_model(self.path, self.manifest, "front")
        search = read_model(self.path, self.manifest, "search")
        gallery = split_regions(read_array(self.path, self.manifest, "gallery"), self.images)
        search.steps[-1][1].fit(gallery, np.array(self.labels) if all(self.labels) else None)
        self.pipeline = Pipeline([*front.steps, *search.steps])

    def search(self, queries: Sequence[Any], n_neighbors: int = 20) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest images of each query.

        Parameters
        ----------
        queries : sequence of path, PIL.Image.Image, uint8 ndarray or ImageCrop
            The photographs to search for.
        n_neighbors : int, default=20
            How many to find; no more than the index holds are returned.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            In the retriever's metric, ascending.
        indices : ndarray of shape (n_queries, n_neighbors)
            Positions in `files`.
        """
        descriptors = self.pipeline[:-1].transform(queries)
        retriever = self.pipeline.steps[-1][1]
        return retriever.kneighbors(descriptors, n_neighbors=min(n_neighbors, len(self.images)))

    def label_of(self, file: str | os.PathLike) -> str | None:
        """Return the label of a photograph in the indexed folder; None elsewhere or without labels."""
        try:
            relative = Path(file).resolve().relative_to(self.manifest["folder"])
        except ValueError:
            return None
        return relative.parts[0] if len(relative.parts) > 1 else None


# ---------------------------------------------------------------------------------------------------- reading
def read_manifest(path: Path) -> dict:
    """Read ``index.json`` and check that this release can read the index."""
    file = path / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no index ({MANIFEST} is missing). Make one: {_command(path)}")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"it says format {manifest['format']!r}")
        found = int(manifest["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, MANIFEST, repr(error)) from error
    if found > FORMAT_VERSION:
        raise ValueError(
            f"{file} has format version {found}; this skretrieval {__version__} reads up to {FORMAT_VERSION}. It was "
            f"written by skretrieval {manifest.get('versions', {}).get('skretrieval', '(unknown)')}: upgrade to that, "
            f"or make the index anew: {_command(path, rebuild=True)}"
        )
    missing = {"folder", "settings", "files", "generation", "n_images", "versions"} - manifest.keys()
    if missing:
        raise damaged(path, MANIFEST, f"it lacks {sorted(missing)}")
    return manifest


def read_images(path: Path, manifest: dict) -> list[IndexedImage]:
    """Read the table of images."""
    name = _checked_file(path, manifest, "images").name
    try:
        rows = json.loads((path / name).read_text(encoding="utf-8"))["images"]
        images = [IndexedImage(**row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, name, repr(error)) from error
    if len(images) != manifest["n_images"]:
        raise damaged(path, name, f"it lists {len(images)} images, {MANIFEST} says {manifest['n_images']}")
    return images


def read_skipped(path: Path, manifest: dict) -> dict[str, str]:
    """Read which files were left out, and why."""
    name = _checked_file(path, manifest, "images").name
    return json.loads((path / name).read_text(encoding="utf-8")).get("skipped", {})


def read_array(path: Path, manifest: dict, kind: str) -> np.ndarray:
    """Map the array "descriptors" or "gallery" into memory, read-only."""
    file = _checked_file(path, manifest, kind)
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise damaged(path, file.name, repr(error)) from error


def read_model(path: Path, manifest: dict, kind: str) -> Pipeline:
    """Unpickle the Pipeline "front" or "search". This runs code that the file holds."""
    file = _checked_file(path, manifest, kind)
    try:
        with warnings.catch_warnings():
            # Said once, with both versions, in the error below if it matters and by `skretrieval info` anyhow.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            model = joblib.load(file)
            model.get_params()  # an AttributeError if an estimator has got new parameters since
            return model
    except Exception as error:
        raise ValueError(
            f"{file} cannot be loaded ({error!r}). It was written with {_words(manifest['versions'])}, this is "
            f"{_words(package_versions())}. Install those versions, or make the index anew: "
            f"{_command(path, manifest, rebuild=True)}"
        ) from error


def split_regions(array: np.ndarray, images: list[IndexedImage]) -> np.ndarray | list[np.ndarray]:
    """Return one row per image, or one array of rows per image where descriptors are region sets."""
    if not images or images[0].n_regions is None:
        return array
    ends = np.cumsum([image.n_regions for image in images])
    return np.split(array, ends[:-1])


def _checked_file(path: Path, manifest: dict, kind: str) -> Path:
    """Find a file of the index and compare its size and checksum with the manifest."""
    try:
        record = manifest["files"][kind]
        name, size, digest = record["name"], record["bytes"], record[HASH]
    except (KeyError, TypeError) as error:
        raise damaged(path, MANIFEST, f"it doesn't describe the file {kind!r}") from error
    file = path / name
    if not file.is_file():
        raise damaged(path, name, "the file is missing")
    if file.stat().st_size != size:
        raise damaged(path, name, f"it has {file.stat().st_size} bytes instead of {size}")
    if hash_file(file) != digest:
        raise damaged(path, name, "its content has changed since it was written")
    return file


def damaged(path: Path, name: str, what: str) -> ValueError:
    """Make the error that says which file is damaged and what to do."""
    return ValueError(
        f"{path / name} is damaged: {what}. Restore it from a copy, or make the index anew: "
        f"{_command(path, rebuild=True)}"
    )


def _command(path: Path, manifest: dict | None = None, rebuild: bool = False) -> str:
    folder = "FOLDER" if manifest is None else manifest["folder"]
    return f"skretrieval index {folder} --out {path}" + (" --rebuild" if rebuild else "")


def describe(path: Path, manifest: dict) -> list[str]:
    """Say in lines what an index holds, after checking every file."""
    for kind in manifest["files"]:
        _checked_file(path, manifest, kind)
    used = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    settings = ", ".join(f"{name}={value}" for name, value in manifest["settings"].items())
    then, now = manifest["versions"], package_versions()
    other = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    return [
        f"Index       {path}",
        f"Format      version {manifest['format_version']}, generation {manifest['generation']}, whole",
        f"Written     {manifest['written']}",
        f"Folder      {manifest['folder']}",
        f"Images      {manifest['n_images']} ({manifest['n_skipped']} files skipped)",
        f"Labels      {manifest['n_labels']}",
        f"Dimension   {manifest['dimension']}",
        f"Settings    {settings}",
        f"Written by  {_words(then)}",
        f"Since then  {', '.join(other) if other else 'the same versions are installed'}",
        f"On disk     {used / 2**20:.1f} MiB",
        "Trust       front-*.joblib and search-*.joblib are pickles: `search` loads them, and loading can run "
        "code. Search only an index from a source that you trust.",
    ]


# ---------------------------------------------------------------------------------------------------- writing
def write_index(
    path: Path,
    *,
    folder: Path,
    settings: dict,
    images: list[IndexedImage],
    skipped: dict[str, str],
    arrays: dict[str, dict],
    dimension: int,
    front: Pipeline | dict,
    search: Pipeline,
) -> dict:
    """Complete a new generation and make it the valid one.

    Parameters
    ----------
    path : Path
        The folder of the index.
    folder : Path
        The folder that was indexed.
    settings : dict
        How the descriptors were made.
    images : list of IndexedImage
        In the order of the rows.
    skipped : dict
        Relative path of each file that could not be read, and why.
    arrays : dict
        The records of the files of this generation that are written already: "descriptors", as pooled, and
        "gallery", after post-processing.
    dimension : int
        Columns of the gallery.
    front : Pipeline or dict
        The fitted extractor and pooler, or the record of the file that holds them already.
    search : Pipeline
        The fitted post-processing, and the retriever.

    Returns
    -------
    manifest : dict
        What ``index.json`` now holds.
    """
    generation = generation_of(path / arrays["gallery"]["name"])
    table = {"images": images, "skipped": skipped}
    files = {
        "images": write_json(path / f"images-{generation}.json", table),
        **arrays,
        "front": front
        if isinstance(front, dict)
        else write_model(path / f"front-{generation}.joblib", front),
        "search": write_model(path / f"search-{generation}.joblib", search),
    }
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generation": generation,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": str(folder),
        "n_images": len(images),
        "n_labels": len({image.label for image in images} - {""}),
        "n_skipped": len(skipped),
        "dimension": dimension,
        "settings": settings,
        "versions": package_versions(),
        "files": files,
    }
    write_json(path / MANIFEST, manifest)
    return manifest


def next_generation(path: Path) -> int:
    """Return the number of the generation that comes after all that left files in the folder."""
    return 1 + max((generation_of(file) for file in path.iterdir()), default=0)


def write_json(file: Path, content: Any) -> dict:
    """Write JSON that a person can read; returns the file's record for the manifest."""
    # ASCII, so that even a file name that is no valid UTF-8 survives. Part by part: the table of a million images is
    # several times larger as Python objects and text than as a file.
    parts = json.JSONEncoder(indent=1, default=asdict).iterencode(content)

    def write(stream):
        while text := "".join(islice(parts, 4096)):
            stream.write(text.encode("ascii"))

    return write_file(file, write)


def write_array(file: Path, array: np.ndarray) -> dict:
    """Write an array as .npy; returns the file's record for the manifest."""
    return write_file(
        file, lambda stream: np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
    )


def write_model(file: Path, model: Any) -> dict:
    """Pickle a fitted model with joblib; returns the file's record for the manifest."""
    return write_file(file, lambda stream: joblib.dump(model, stream))


def write_file(file: Path, writer: Callable) -> dict:
    """Write a file that is never seen in part; returns its record."""
    with atomic_write(file) as stream:
        writer(stream)
    return {"name": file.name, "bytes": file.stat().st_size, HASH: hash_file(file)}


def package_versions() -> dict[str, str]:
    """Return the versions that a pickled model depends on."""
    versions = {"skretrieval": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def _words(versions: dict) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def generation_of(file: Path) -> int:
    match = _GENERATION.search(file.name)
    return int(match.group(1)) if match else 0
