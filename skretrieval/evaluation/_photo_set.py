"""The photographs, queries and ground truth of one collection, whatever it was given as."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import Bunch

from .. import datasets
from .._io import hash_file, new_hash
from ..datasets import load_image_folder
from ..extraction import ImageCrop
from ..metrics import ground_truth_from_labels

#: Where to learn whitening for each published collection, as papers do that search one of two sets of buildings.
SIBLINGS = {
    "oxford5k": "paris6k",
    "paris6k": "oxford5k",
    "roxford5k": "rparis6k",
    "rparis6k": "roxford5k",
    "holidays": "oxford5k",
}
#: Files that are no photographs are left out unless the options say otherwise, as in most papers.
DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {
    "paris6k": {"drop_corrupt": True},
    "flickr100k": {"drop_corrupt": True},
}
#: Collections that are another one with distractors.
ENLARGED = {"oxford105k": ("oxford5k", "flickr100k"), "paris106k": ("paris6k", "flickr100k")}
_READERS = 8
_POSITIVES = ("positives", "good", "ok", "easy", "hard")


@dataclass(frozen=True)
class PhotoSet:
    """A collection to search, to query or to learn from.

    Parameters
    ----------
    name : str
        What to call it.
    images : sequence
        The gallery: anything that the first step of a Pipeline takes.
    protocol : {"labels", "oxford", "revisited", "holidays", "ukbench", "distractors"}
        How rankings of it are scored; "distractors" has no queries of its own.
    queries : sequence, default=None
        None: gallery items query, those of `query_indices`.
    query_indices : ndarray of shape (n_queries,), default=None
        The gallery item that each query is or comes from, -1 for none.
    ground_truth : sequence, default=()
        As the protocol's function of :mod:`skretrieval.metrics` takes it.
    labels : ndarray of shape (n_images,), default=None
        What gallery items show, if that is known.
    source : dict, default=None
        How to load it again: the arguments of ``load_photo_set``.
    """

    name: str
    images: Any
    protocol: str
    queries: Any = None
    query_indices: np.ndarray | None = None
    ground_truth: Any = ()
    labels: np.ndarray | None = None
    source: Mapping[str, Any] | None = None
    _digest: list = field(default_factory=list, repr=False, compare=False)

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        if self.queries is not None:
            return len(self.queries)
        return 0 if self.query_indices is None else len(self.query_indices)

    def uncropped(self) -> PhotoSet:
        """Return the same with whole photographs for queries."""
        if self.queries is None:
            return self
        whole = [query.image if isinstance(query, ImageCrop) else query for query in self.queries]
        return replace(self, queries=whole, _digest=[])

    def groups(self) -> np.ndarray | None:
        """Return a label for each gallery item, from the labels or from what is positive for one query; or None.

        Items of no group are -1, where labels are numbers.
        """
        if self.labels is not None:
            return np.asarray(self.labels)
        if self.protocol not in ("oxford", "revisited", "holidays"):
            return None
        n = len(self.images)
        first, second, used = [], [], np.zeros(n, dtype=bool)
        for number, entry in enumerate(self.ground_truth):
            parts = [np.asarray(entry[key], dtype=int).ravel() for key in _POSITIVES if key in entry]
            own = -1 if self.query_indices is None else self.query_indices[number]
            members = np.concatenate([*parts, [own]])
            members = members[members >= 0]
            used[members] = True
            first += [members[:1].repeat(len(members))]
            second += [members]
        row, column = np.concatenate(first), np.concatenate(second)
        graph = sparse.coo_array((np.ones(len(row)), (row, column)), shape=(n, n))
        components = sparse.csgraph.connected_components(graph, directed=False)[1]
        return np.where(used, components, -1)

    def digest(self) -> str:
        """Hash of the files' names and content (pixels where there are no files), boxes, and the ground truth.

        Each file is read once in a process, unless it changes. Where the folder lies makes no difference.
        """
        if not self._digest:
            hashed = new_hash(16)
            both = [self.images, () if self.queries is None else self.queries]
            for table in both:  # descriptors
                if isinstance(table, np.ndarray):
                    hashed.update(repr((table.shape, str(table.dtype))).encode())
                    hashed.update(np.ascontiguousarray(table).tobytes())
            items = [item for given in both if not isinstance(given, np.ndarray) for item in given]
            paths = [path for path in map(_path, items) if path is not None]
            root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
            contents = dict(zip(paths, hash_files(paths), strict=True))
            for item in items:
                hashed.update(_describe(item, root, contents))
            for part in (self.protocol, self.query_indices, self.labels, _plain_truth(self.ground_truth)):
                hashed.update(b"|" + repr(part.tolist() if isinstance(part, np.ndarray) else part).encode())
            self._digest.extend([hashed.hexdigest(), root])
        return self._digest[0]

    def key(self) -> str:
        """Return the hash and the places of the files, a key for facts about them, such as which cannot be read."""
        return f"{self.digest()} {self._digest[1]}"

    def summary(self) -> dict[str, Any]:
        """Return what a record says of the collection."""
        return {
            "name": self.name,
            "protocol": self.protocol,
            "n_images": len(self.images),
            "n_queries": self.n_queries,
            "hash": self.digest(),
            "source": None if self.source is None else dict(self.source),
        }


def load_photo_set(
    dataset: Any,
    *,
    data_home: Any = None,
    download: bool = False,
    options: Mapping[str, Any] | None = None,
) -> PhotoSet:
    """Load a collection by name, from a folder, or from what was loaded already.

    Parameters
    ----------
    dataset : str, path, Bunch or PhotoSet
        A name such as "oxford5k"; "folder:PATH" or a path, of a folder or of a table (``.csv``) in one, see
        :func:`~skretrieval.datasets.load_image_folder`; or the Bunch of a data set.
    data_home : path, default=None
        Where named collections lie.
    download : bool, default=False
        Whether what is missing of them may be downloaded.
    options : dict, default=None
        Further arguments of the function that fetches a named collection, such as ``upright`` for Holidays.

    Returns
    -------
    photographs : PhotoSet

    Raises
    ------
    ValueError
        If the name is unknown, or a folder has neither labels nor queries to tell positives by.
    FileNotFoundError, OSError
        If files are missing.
    """
    if isinstance(dataset, PhotoSet):
        return dataset
    if isinstance(dataset, Mapping):
        return _from_bunch(Bunch(**dataset), None)
    text = os.fspath(dataset)
    if isinstance(dataset, str) and text in fetchers():
        extra = {**DEFAULT_OPTIONS.get(text, {}), **(options or {})}
        bunch = fetchers()[text](data_home=data_home, download_if_missing=download, **extra)
        return _from_bunch(bunch, {"name": text, "options": extra}, text)
    path = Path(text.removeprefix("folder:"))
    if not text.startswith("folder:") and not path.exists():
        raise ValueError(f"dataset {text!r} is neither a folder nor one of {', '.join(fetchers())}.")
    if options:
        raise ValueError(f"options {sorted(options)} are for collections by name, not for {path}.")
    table = path if path.suffix.lower() == ".csv" else None
    folder = path if table is None else path.parent
    source = {"folder": str(path.absolute())}
    return _from_bunch(load_image_folder(folder, csv=table), source, path.absolute().name)


def fetchers() -> dict[str, Any]:
    """Return the functions that fetch published collections, by the collection's name."""
    prefix = "fetch_"
    names = sorted(name for name in datasets.__all__ if name.startswith(prefix))
    return {name.removeprefix(prefix): getattr(datasets, name) for name in names}


def _from_bunch(bunch: Bunch, source: Mapping[str, Any] | None, name: str | None = None) -> PhotoSet:
    name = name or bunch.get("name", "photographs")
    protocol = bunch.get("protocol", "labels")
    if protocol == "labels":
        return _from_labels(bunch, source, name)
    if protocol == "distractors":
        return PhotoSet(name, bunch.images, protocol, source=source)
    given = bunch.get("query_indices")
    own = None if given is None else np.array([-1 if index is None else index for index in given], dtype=int)
    labels, queries, truth = bunch.get("labels"), bunch.queries, bunch.ground_truth
    if protocol == "ukbench":
        groups = np.arange(len(bunch.images)) // 4 if labels is None else np.asarray(labels)
        return PhotoSet(name, bunch.images, protocol, None, own, groups, groups, source)
    if protocol == "holidays":
        if (
            own is None
        ):  # queries that are no gallery images: nothing is left of the protocol but the positives
            return PhotoSet(name, bunch.images, "labels", queries, None, truth, labels, source)
        truth = [
            {"query": int(index), "positives": entry["positives"]}
            for index, entry in zip(own, truth, strict=True)
        ]
        queries = None  # they are gallery images as they stand
    return PhotoSet(name, bunch.images, protocol, queries, own, truth, labels, source)


def _from_labels(bunch: Bunch, source: Mapping[str, Any] | None, name: str) -> PhotoSet:
    """Every photograph queries all others, unless the collection has queries of its own."""
    labels, queries = bunch.get("labels"), bunch.get("queries")
    has_queries = queries is not None and len(queries) > 0
    if labels is None and "ground_truth" not in bunch:
        return PhotoSet(name, bunch.images, "distractors", source=source)
    if "ground_truth" in bunch and has_queries:
        return PhotoSet(name, bunch.images, "labels", queries, None, bunch.ground_truth, labels, source)
    labels = np.asarray(labels)
    if not has_queries:
        truth = ground_truth_from_labels(labels)
        return PhotoSet(name, bunch.images, "labels", None, np.arange(len(labels)), truth, labels, source)
    truth = ground_truth_from_labels(labels, bunch.query_labels)
    return PhotoSet(name, bunch.images, "labels", queries, None, truth, labels, source)


def enlarge(photographs: PhotoSet, distractors: Sequence[PhotoSet]) -> PhotoSet:
    """Append distractors to the gallery; ground truth and queries stay as they are."""
    parts = [photographs.images, *(more.images for more in distractors)]
    if all(isinstance(part, np.ndarray) for part in parts):
        images: Any = np.concatenate(parts)
    else:
        images = [item for part in parts for item in part]
    labels = photographs.labels
    if labels is not None and photographs.protocol == "labels":
        labels = None  # distractors have none, and the ground truth says who is positive
    return replace(photographs, images=images, labels=labels, _digest=[])


def _path(item: Any) -> str | None:
    image = item.image if isinstance(item, ImageCrop) else item
    return os.path.abspath(image) if isinstance(image, str | os.PathLike) else None


def hash_files(paths: Sequence[str]) -> list[str | None]:
    """Hash the content of files; those that have not changed since the last time are not read. None: no file."""
    with ThreadPoolExecutor(_READERS) as pool:  # reading and hashing let others run meanwhile
        return list(pool.map(_hash_file, paths, chunksize=16))


def _hash_file(path: str) -> str | None:
    try:
        state = os.stat(path)
        return _hash_content(path, state.st_size, state.st_mtime_ns, state.st_ino)
    except OSError:
        return None  # who wants to see it will say so


@lru_cache(maxsize=2**21)  # one for each photograph: R1M and a few other collections
def _hash_content(path: str, *state: int) -> str:
    return hash_file(path, 16)


def _describe(item: Any, root: str, contents: Mapping[str, str | None]) -> bytes:
    """Return what identifies an item, whatever folder it lies in."""
    path = _path(item)
    box = item.box if isinstance(item, ImageCrop) else None
    if path is not None:
        return repr((Path(path).relative_to(root).as_posix(), contents[path], box)).encode()
    image = item.image if isinstance(item, ImageCrop) else item
    parts = image if isinstance(image, tuple) else (image,)
    arrays = [np.ascontiguousarray(part) for part in parts]
    return repr(([array.shape for array in arrays], box)).encode() + b"".join(a.tobytes() for a in arrays)


def _plain_truth(truth: Any) -> Any:
    if isinstance(truth, np.ndarray):
        return truth
    return [
        sorted(
            (key, np.asarray(value).tolist())
            for key, value in entry.items()
            if key in (*_POSITIVES, "junk", "query")
        )
        for entry in truth
    ]
