"""The descriptors of one pooler on disk, beside the photographs of one extractor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._cache import DescriptorWriter, Shard, descriptor_folder, hashed, pooler_key, reader_of
from ...extraction import FeatureMaps
from ._batches import raise_channels


def descriptor_cache(pooler: Any, X: Any, channels: list[int] | None) -> DescriptorCache | None:
    """Return where the descriptors of a pooler are cached, or None if they are not.

    Parameters
    ----------
    pooler : pooler
        About to describe `X`.
    X : FeatureMaps
        Maps whose extractor has a ``memory``.
    channels : list of int or None
        Channels that the pooler knows from fit.

    Raises
    ------
    ValueError
        If the cached descriptors were made of maps with another number of channels.
    """
    if type(X) is not FeatureMaps:  # a derived class may have other batches than the photographs'
        return None
    key = pooler_key(pooler)
    folder = None if key is None else descriptor_folder(X.extractor, key)
    if folder is None:
        return None
    cache = DescriptorCache(folder)
    if channels is not None and cache.channels not in (None, channels):
        raise_channels(0, cache.channels, channels)
    return cache


class DescriptorCache:
    """Descriptors by the content of photographs: found, and added to.

    A context manager: what was added is on disk when it ends, however it ends.

    Parameters
    ----------
    folder : str
        Where they are.
    """

    def __init__(self, folder: str):
        self._reader = reader_of(folder)
        self._writer = DescriptorWriter(folder)

    @property
    def channels(self) -> Any:
        """The channels of the maps that the descriptors were made of, a list of int; None while there are none."""
        return self._reader.channels

    def get(self, digest: str) -> np.ndarray | None:
        """Return the descriptors (M, d) of a photograph, or None. May be called by several threads."""
        return self._reader.find(hashed(digest))

    def add(
        self, digests: Sequence[str | None], counts: np.ndarray, rows: np.ndarray, channels: list[int]
    ) -> None:
        """Add the descriptors of photographs.

        Parameters
        ----------
        digests : sequence of N str or None
            What names their content; None for those that are not to be cached.
        counts : ndarray of shape (N,)
            Rows of each.
        rows : ndarray of shape (sum of counts, d)
            The descriptors.
        channels : list of int
            Channels of the maps, one number per layer.
        """
        content = [hashed(digest) for digest in digests if digest is not None]
        if content:
            good = np.array([digest is not None for digest in digests])
            self._writer.add(
                Shard(
                    digests=np.frombuffer(b"".join(content), dtype=np.uint8).reshape(len(content), -1),
                    counts=np.asarray(counts, dtype=np.int64)[good],
                    rows=rows[np.repeat(good, counts)],
                    channels=np.array(channels, dtype=np.int64),
                )
            )

    def __enter__(self) -> DescriptorCache:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.flush()
        self._reader.release()
