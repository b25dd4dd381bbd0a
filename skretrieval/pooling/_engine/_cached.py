"""One pass over maps in which photographs whose descriptors are kept on disk are neither extracted nor read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..._cache import (
    DescriptorReader,
    DescriptorWriter,
    Shard,
    descriptor_folder,
    hashed,
    pooler_key,
    reader_of,
)
from ...extraction import FeatureMaps
from ._batches import n_entries, raise_channels

# (places in the sequence (N,), rows of each (N,), descriptors (sum of rows, d))
Described = tuple[np.ndarray, np.ndarray, np.ndarray]


class Rows:
    """Descriptors of n images, one row each, that arrive in any order.

    Parameters
    ----------
    n : int
        How many.
    """

    def __init__(self, n: int):
        self.n = n
        self.array: np.ndarray | None = None

    def add(self, indices: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> None:
        """Take the rows (N, d) of images."""
        if self.array is None:
            self.array = np.zeros((self.n, rows.shape[1]), dtype=rows.dtype)
        elif rows.dtype.itemsize > self.array.dtype.itemsize:
            self.array = self.array.astype(rows.dtype)
        self.array[indices] = rows


class RegionSets:
    """Region sets of n images that arrive in any order.

    Parameters
    ----------
    n : int
        How many.
    """

    def __init__(self, n: int):
        self._sets: list[Any] = [None] * n

    def add(self, indices: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> None:
        """Take the sets of images, one after the other in `rows`."""
        for index, own in zip(indices, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            self._sets[index] = own

    def finish(self) -> list[np.ndarray]:
        """Return the sets, of one dtype, the widest."""
        widest = np.result_type(*{own.dtype for own in self._sets})
        return [own.astype(widest, copy=False) for own in self._sets]


def collect(
    pooler: Any,
    X: Any,
    describe: Callable[[Any], Iterator[Described]],
    into: Rows | RegionSets,
    channels: list[int] | None,
) -> list[int] | None:
    """Put the descriptors of all images into one place: those that are kept, and the others as they are made.

    Parameters
    ----------
    pooler : estimator
        Describes.
    X : FeatureMaps or sequence of maps
        Where the extractor has a `memory` that keeps descriptors, new ones are added to it on the way.
    describe : callable
        Of `X`, or of a `FeatureMaps` in its place with fewer entries in its batches; yields parts.
    into : Rows or RegionSets
        Takes them.
    channels : list of int or None
        Channels that the pooler knows from fit.

    Returns
    -------
    channels : list of int or None
        Those of the maps that kept descriptors were made of; None where none were used.
    """
    n_entries(X)
    kept = _kept_of(pooler, X, into)
    if kept is None:
        for part in describe(X):
            into.add(*part)
        return None
    known = kept.reader.channels
    if channels is not None and known is not None and channels != known:
        raise_channels(0, known, channels)
    try:
        for part in describe(kept):
            kept.keep(*part)
            into.add(*part)
    finally:
        kept.writer.flush()
        kept.reader.release()
    return known if kept.n_taken else None


def _kept_of(pooler: Any, X: Any, into: Rows | RegionSets) -> KeptMaps | None:
    if type(X) is not FeatureMaps or getattr(X.extractor, "memory", None) is None:
        return None
    key = pooler_key(pooler)
    folder = None if key is None else descriptor_folder(X.extractor, key)
    return None if folder is None else KeptMaps(X, reader_of(folder), DescriptorWriter(folder), into)


class KeptMaps(FeatureMaps):
    """The maps of photographs, of which the batches lack those whose descriptors are kept.

    Parameters
    ----------
    X : FeatureMaps
        All the maps. Places, positions and messages are those of this sequence.
    reader : DescriptorReader
        Finds descriptors.
    writer : DescriptorWriter
        Takes new ones.
    into : Rows or RegionSets
        Takes those that are found.

    Attributes
    ----------
    n_taken : int
        Photographs whose descriptors were found.
    """

    def __init__(
        self, X: FeatureMaps, reader: DescriptorReader, writer: DescriptorWriter, into: Rows | RegionSets
    ):
        super().__init__(X.extractor, X.images, X.positions)
        self.X, self.reader, self.writer, self.into = X, reader, writer, into
        self.n_taken = 0
        self._digests: dict[int, bytes] = {}  # of photographs on their way through network and pooler
        self._channels: list[int] = []

    def batches(self) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield the batches of photographs that are not known, as the whole sequence does."""
        for indices, maps in self.X._batches(self):
            self._channels = [layer.shape[1] for layer in (maps if isinstance(maps, tuple) else (maps,))]
            yield indices, maps

    # ------------------------------------------------------------------ what the extractor asks
    def find(self, content: str) -> np.ndarray | None:
        """Return the descriptors of a photograph, if they are kept. Called by reading threads."""
        return self.reader.find(hashed(content))

    def takes(self, index: int, entry: Any) -> bool:
        """Take the descriptors that reading found, or else take note of a photograph; tell which."""
        if "descriptor" not in entry:
            self._digests[index] = hashed(entry.digest)
            return False
        self.into.add(np.array([index]), np.array([len(entry.descriptor)]), entry.descriptor)
        self.n_taken += 1
        return True

    # ------------------------------------------------------------------ what was made
    def keep(self, indices: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> None:
        """Keep the descriptors of photographs, except of those that got a zero map because they cannot be read."""
        digests = [self._digests.pop(int(index), None) for index in indices]
        good = np.array(
            [
                digest is not None and int(self.positions[index]) not in self.X.failed_
                for digest, index in zip(digests, indices, strict=True)
            ]
        )
        if good.any():
            content = b"".join(digest for digest, use in zip(digests, good, strict=True) if use and digest)
            self.writer.add(
                Shard(
                    digests=np.frombuffer(content, dtype=np.uint8).reshape(int(good.sum()), -1),
                    counts=np.asarray(counts, dtype=np.int64)[good],
                    rows=rows[np.repeat(good, counts)],
                    channels=np.array(self._channels, dtype=np.int64),
                )
            )
