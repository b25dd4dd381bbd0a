"""The index on disk and its search: a folder with plain files, written so that an interruption costs nothing of it.

Layout, format version 1 (`<n>` is a generation, which grows with every change)::

    index.json              format, version, settings, package versions; names and checksums of the other files
    images-<n>.json         path, size, modification time, content hash and label of each image, in row order
    descriptors-<n>.npy     (n_images, d) as pooled; what an update keeps and adds to
    gallery-<n>.npy         (n_images, d') after post-processing; what is searched
    front-<n>.joblib        the encoder: fitted extractor and pooler
    search-<n>.joblib       fitted post-processing and the retriever's parameters
    pending/                work in progress (see _pending.py)

``index.json`` is replaced last, in one step: a reader finds the old generation or the new one, whole. Where the
descriptors are region sets, each image has `n_regions` rows in the arrays.
"""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline

from .._io import HASH, hash_file
from .._version import __version__

FORMAT = "skretrieval index"
FORMAT_VERSION = 1
MANIFEST = "index.json"
ENCODER = "front"  # what the encoder is called on disk
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
        encoder = read_model(self.path, self.manifest, ENCODER)
        search = read_model(self.path, self.manifest, "search")
        gallery = split_regions(read_array(self.path, self.manifest, "gallery"), self.images)
        search.steps[-1][1].fit(gallery, np.array(self.labels) if all(self.labels) else None)
        self.pipeline = Pipeline([*encoder.steps, *search.steps])

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
        return self.retriever.kneighbors(descriptors, n_neighbors=min(n_neighbors, len(self.images)))

    @property
    def retriever(self) -> Any:
        """The last step of the Pipeline."""
        return self.pipeline.steps[-1][1]

    def label_of(self, file: str | os.PathLike) -> str | None:
        """Return the label of a photograph in the indexed folder; None elsewhere or without labels."""
        try:
            relative = Path(file).resolve().relative_to(self.manifest["folder"])
        except ValueError:
            return None
        return relative.parts[0] if len(relative.parts) > 1 else None


def as_scores(retriever: Any, distances: np.ndarray) -> tuple[str, np.ndarray]:
    """Return what to show for distances: the similarity for the cosine, else the distance itself.

    Parameters
    ----------
    retriever : estimator
        A retriever, or a wrapper of one such as query expansion.
    distances : ndarray
        In the retriever's metric.

    Returns
    -------
    name : {"similarity", "distance"}
        What the values are.
    scores : ndarray
        Of the shape of `distances`.
    """
    while hasattr(retriever, "retriever"):
        retriever = retriever.retriever
    return ("similarity", 1 - distances) if retriever.metric == "cosine" else ("distance", distances)


# ---------------------------------------------------------------------------------------------------- reading
def read_manifest(path: Path) -> dict:
    """Read ``index.json`` and check that this release can read the index."""
    file = path / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no index ({MANIFEST} is missing). Make one: {_command(path)}.")
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
            f"or make the index anew: {_command(path, rebuild=True)}."
        )
    missing = {"folder", "settings", "files", "generation", "n_images", "versions"} - manifest.keys()
    if missing:
        raise damaged(path, MANIFEST, f"it lacks {sorted(missing)}")
    return manifest


def read_images(path: Path, manifest: dict) -> list[IndexedImage]:
    """Read the table of images."""
    name = checked_file(path, manifest, "images").name
    try:
        rows = json.loads((path / name).read_text(encoding="utf-8"))["images"]
        images = [IndexedImage(**row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, name, repr(error)) from error
    if len(images) != manifest["n_images"]:
        raise damaged(path, name, f"it lists {len(images)} images, {MANIFEST} says {manifest['n_images']}")
    return images


def read_array(path: Path, manifest: dict, kind: str) -> np.ndarray:
    """Map the array "descriptors" or "gallery" into memory, read-only."""
    file = checked_file(path, manifest, kind)
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise damaged(path, file.name, repr(error)) from error


def read_model(path: Path, manifest: dict, kind: str) -> Pipeline:
    """Unpickle the Pipeline `ENCODER` or "search". This runs code that the file holds."""
    file = checked_file(path, manifest, kind)
    try:
        with warnings.catch_warnings():
            # Said once, with both versions, in the error below if it matters and by `skretrieval info` anyhow.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            model = joblib.load(file)
            model.get_params()  # an AttributeError if an estimator has got new parameters since
            return model
    except Exception as error:
        raise ValueError(
            f"{file} cannot be loaded ({error!r}). It was written with {words_of(manifest['versions'])}, this is "
            f"{words_of(package_versions())}. Install those versions, or make the index anew: "
            f"{_command(path, manifest, rebuild=True)}."
        ) from error


def split_regions(array: np.ndarray, images: list[IndexedImage]) -> np.ndarray | list[np.ndarray]:
    """Return one row per image, or one array of rows per image where descriptors are region sets."""
    if not images or images[0].n_regions is None:
        return array
    ends = np.cumsum([image.n_regions for image in images])
    return np.split(array, ends[:-1])


def checked_file(path: Path, manifest: dict, kind: str) -> Path:
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
        f"{_command(path, rebuild=True)}."
    )


def _command(path: Path, manifest: dict | None = None, rebuild: bool = False) -> str:
    folder = "FOLDER" if manifest is None else manifest["folder"]
    return f"`skretrieval index {folder} --out {path}{' --rebuild' if rebuild else ''}`"


def package_versions() -> dict[str, str]:
    """Return the versions that a pickled model depends on."""
    versions = {"skretrieval": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def words_of(versions: dict) -> str:
    """Say versions in a line."""
    return ", ".join(f"{name} {number}" for name, number in versions.items())
