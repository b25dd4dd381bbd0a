"""Descriptors on disk: written as they come, found again by what the photographs show.

A folder holds the descriptors of one network and one pooler in *shards*, files that are written once, whole or not
at all, under names of their own. So any number of processes read and write without locks, what is on disk survives
the end of a process however it came about, and two descriptors of one photograph do no harm.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import warnings
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from .._io import atomic_write
from .._version import __version__
from ._key import hashed

_FORMAT = 1  # of the shards, and of all that enters the names of their folders but is no parameter
_DIGEST = 20  # bytes
# What waits at most before it is written. Shards are read whole, so a photograph is to be found in one of few bytes.
_SECONDS, _PHOTOGRAPHS, _BYTES = 5.0, 256, 2 * 2**20
_LOADED_BYTES = 32 * 2**20  # of shards that stay in memory while a pass reads them
_FOLDERS = 8  # whose lists of photographs a process remembers


class Shard(NamedTuple):
    """The descriptors of some photographs.

    Attributes
    ----------
    digests : uint8 ndarray of shape (n, 20)
        What the photographs show.
    counts : int64 ndarray of shape (n,)
        Rows of each: 1, or the size of its region set.
    rows : ndarray of shape (counts.sum(), d)
        The descriptors.
    channels : int64 ndarray of shape (n_layers,)
        Channels of the maps that they were made of.
    """

    digests: np.ndarray
    counts: np.ndarray
    rows: np.ndarray
    channels: np.ndarray


def descriptor_folder(extractor: Any, pooler: bytes) -> str | None:
    """Return where the descriptors of a pooler are cached, or None if they are not.

    Parameters
    ----------
    extractor : BaseExtractor
        Fitted; its `memory` says the place.
    pooler : bytes
        Names all that the descriptors depend on beside the maps.
    """
    if getattr(extractor, "memory", None) is None or extractor.memory_keeps == "maps":
        return None
    place = extractor.memory_folder()
    if place is None:
        return None
    # 32 hexadecimal digits: ``joblib.Memory.reduce_size`` takes such a folder for one of its own items
    name = hashed(_FORMAT, __version__, extractor.cache_key(), pooler).hex()[:32]
    return os.path.join(place, "descriptors", name)


class DescriptorReader:
    """Finds the descriptors in a folder of shards; may be shared by threads.

    Parameters
    ----------
    folder : str
        The folder, which need not be there.

    Attributes
    ----------
    channels : list of int or None
        Channels of the maps that the descriptors were made of; None while there are none.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self.channels: list[int] | None = None
        self._lock = threading.RLock()
        self._digests: dict[str, bytes] = {}  # of each readable shard
        self._damaged: set[str] = set()
        self._places: dict[bytes, tuple[str, int]] = {}  # shard, place in it
        self._loaded: OrderedDict[str, tuple[Shard, np.ndarray]] = OrderedDict()

    def refresh(self) -> None:
        """Take note of the shards that came or went since."""
        with self._lock:
            try:
                names = {name for name in os.listdir(self.folder) if name.endswith(".npz")}
            except OSError:  # nothing was cached yet, or nothing can be
                names = set()
            self._forget(self._digests.keys() - names)
            for name in sorted(names - self._digests.keys() - self._damaged):
                shard = self._read(name, rows=False)
                if shard is not None:
                    self._digests[name] = shard.digests.tobytes()
                    self.channels = shard.channels.tolist()
                    self._place(name)

    def find(self, digest: bytes) -> np.ndarray | None:
        """Return the descriptors (M, d) of a photograph, or None if they are not there or damaged."""
        with self._lock:
            while digest in self._places:
                name, place = self._places[digest]
                if name not in self._loaded:
                    shard = self._read(name)
                    if shard is None:
                        self._forget({name})
                        continue
                    self._loaded[name] = shard, np.concatenate([[0], np.cumsum(shard.counts)])
                    while len(self._loaded) > 1 and self._bytes() > _LOADED_BYTES:
                        self._loaded.popitem(last=False)
                self._loaded.move_to_end(name)
                shard, borders = self._loaded[name]
                return shard.rows[borders[place] : borders[place + 1]].copy()
            return None

    def release(self) -> None:
        """Drop the descriptors, not the lists, from memory."""
        with self._lock:
            self._loaded.clear()

    def _bytes(self) -> int:
        return sum(shard.rows.nbytes for shard, _ in self._loaded.values())

    def _place(self, name: str) -> None:
        digests = self._digests[name]
        for place in range(len(digests) // _DIGEST):
            self._places[digests[place * _DIGEST : (place + 1) * _DIGEST]] = name, place

    def _forget(self, names: set[str]) -> None:
        """Forget shards; what other shards hold of the same photographs is found then."""
        if names:
            self._digests = {name: own for name, own in self._digests.items() if name not in names}
            self._places = {}
            for name in self._digests:
                self._place(name)

    def _read(self, name: str, rows: bool = True) -> Shard | None:
        """Read a shard, or all but its rows; None if it is out of reach, and with a warning if it is damaged."""
        path = os.path.join(self.folder, name)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
                parts = {part: content[part] for part in Shard._fields if rows or part != "rows"}
            shard = Shard(rows=parts.pop("rows", None), **parts)
            _check(shard)
            return shard
        except OSError:  # gone, or out of reach for now: nothing is wrong with the shard
            return None
        except Exception as error:  # whatever a damaged file leads to
            self._damaged.add(name)
            warnings.warn(
                f"{path} is damaged and ignored; its photographs are described again. Delete it ({error!r}).",
                UserWarning,
                stacklevel=2,
            )
            return None


def _check(shard: Shard) -> None:
    n = len(shard.digests)
    fitting = (
        shard.digests.dtype == np.uint8
        and shard.digests.shape == (n, _DIGEST)
        and shard.counts.shape == (n,)
        and shard.counts.dtype == np.int64
        and bool((shard.counts >= 0).all())
        and (shard.rows is None or (shard.rows.ndim == 2 and len(shard.rows) == shard.counts.sum()))
    )
    if not fitting:
        raise ValueError("its parts do not fit together.")


_READERS: OrderedDict[str, DescriptorReader] = OrderedDict()
_READERS_LOCK = threading.Lock()


def reader_of(folder: str) -> DescriptorReader:
    """Return the reader of a folder, up to date; a process lists each shard once."""
    with _READERS_LOCK:
        reader = _READERS.setdefault(folder, DescriptorReader(folder))
        _READERS.move_to_end(folder)
        while len(_READERS) > _FOLDERS:
            _READERS.popitem(last=False)
    reader.refresh()
    return reader


class DescriptorWriter:
    """Writes descriptors into a folder, some at a time.

    Parameters
    ----------
    folder : str
        The folder; made when there is something to write.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._waiting: list[Shard] = []
        self._since = time.monotonic()
        self._useless = False

    def add(self, shard: Shard) -> None:
        """Take descriptors, and write if some have waited for long or there are many."""
        first = self._waiting[0] if self._waiting else shard
        if (first.rows.dtype, first.rows.shape[1:]) != (shard.rows.dtype, shard.rows.shape[1:]):
            self.flush()
        self._waiting.append(shard)
        if (
            time.monotonic() - self._since >= _SECONDS
            or sum(len(waiting.digests) for waiting in self._waiting) >= _PHOTOGRAPHS
            or sum(waiting.rows.nbytes for waiting in self._waiting) >= _BYTES
        ):
            self.flush()

    def flush(self) -> None:
        """Write all that waits."""
        waiting, self._waiting, self._since = self._waiting, [], time.monotonic()
        if not waiting or self._useless:
            return
        digests, counts, rows, _ = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        try:
            os.makedirs(self.folder, exist_ok=True)
            with atomic_write(os.path.join(self.folder, f"{uuid.uuid4().hex}.npz")) as file:
                np.savez(file, digests=digests, counts=counts, rows=rows, channels=waiting[0].channels)
        except OSError as error:
            self._useless = True  # the descriptors are in the result all the same
            warnings.warn(
                f"Descriptors cannot be cached in {self.folder}: {error}.", UserWarning, stacklevel=2
            )
