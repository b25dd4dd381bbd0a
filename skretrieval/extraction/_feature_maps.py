"""The lazy sequence of feature maps that extractors return."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np


class MapBatch(NamedTuple):
    """Photographs whose maps have one shape, or one photograph of which something is known already.

    Attributes
    ----------
    indices : ndarray of shape (N,)
        Their places in the sequence.
    maps : tensor of shape (N, C, H, W), tuple of tensors, or None
        The maps, one tensor per layer if there are several; None where something is known.
    digests : list of N str or None
        What names the content of each; None where nobody asked, and for a photograph that got a zero map.
    found : object or None
        What is known.
    """

    indices: np.ndarray
    maps: Any
    digests: list[str | None]
    found: Any = None


class FeatureMaps:
    """Lazy, re-iterable, array-indexable sequence of feature maps, one entry per photograph.

    Extractors return it from ``transform``. Nothing is computed until the maps are asked for; each pass runs
    the network anew (give the extractor a ``memory`` to compute each photograph once). Poolers take the maps
    in batches of equal shape on the device of the network, so memory stays that of a few batches, however many
    photographs there are.

    Parameters
    ----------
    extractor : estimator
        A fitted extractor of this package.

    images : list
        The photographs (see :class:`~skretrieval.extraction.ConvFeatureExtractor`).

    positions : ndarray of shape (n,), default=None
        The place of each photograph in the sequence that the user gave, for messages. Default: 0 to n - 1.

    Attributes
    ----------
    shape : tuple (n,)
        The number of photographs; the maps themselves may differ in shape.

    failed_ : dict
        After a pass with ``on_error="warn"``: the reason for each photograph that got a zero map, by position.

    Notes
    -----
    Photographs that cannot be read are listed by one warning, at the end of the first pass that meets them.
    The maps follow their extractor: refit it or change its parameters, and the next pass gives other maps.

    ``maps[i]`` is an array of shape (C, H_i, W_i), or a tuple of arrays when the extractor has several layers or
    resolutions. ``maps[a:b]``, ``maps[index_array]``, ``maps[mask]`` and ``maps[key, ...]`` are again lazy.
    """

    def __init__(self, extractor: Any, images: list, positions: np.ndarray | None = None):
        self.extractor = extractor
        self.images = images
        self.positions = np.arange(len(images)) if positions is None else positions
        self.failed_: dict[int, str] = {}
        self._reported: set[int] = set()  # failures that a warning has listed; shared with subsets

    def head(self) -> FeatureMaps:
        """Return the first entry as a sequence that warns of nothing, to look at the shape of things."""
        first = self[:1]
        first._reported = set(first.positions.tolist())
        return first

    @property
    def shape(self) -> tuple[int]:
        """The number of entries, as a one-element tuple."""
        return (len(self.images),)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"FeatureMaps(n={len(self)}, extractor={type(self.extractor).__name__})"

    def __getitem__(self, key):
        if isinstance(key, tuple):
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError(
                    "FeatureMaps takes one index: maps differ in shape and cannot be sliced together"
                )
            key = key[0]
        if isinstance(key, np.ndarray) and key.ndim == 0:
            key = key.item()
        if isinstance(key, int | np.integer):
            size = len(self)
            if not -size <= key < size:
                raise IndexError(f"index {key} is out of range for {size} feature maps")
            one = self[np.array([key % size])]
            (entry,) = one
            self.failed_.update(one.failed_)
            return entry
        if not isinstance(key, slice):
            key = np.asarray(key)
            key = key if key.size else key.astype(int)  # an empty list would index with floats
        chosen = np.arange(len(self))[key]
        subset = FeatureMaps(self.extractor, [self.images[i] for i in chosen], self.positions[chosen])
        subset._reported = self._reported
        return subset

    def __iter__(self) -> Iterator:
        """Yield the maps of each photograph in order, as arrays on the host."""
        waiting: dict[int, Any] = {}
        turn = 0
        for indices, maps in self.batches():
            layers = maps if isinstance(maps, tuple) else (maps,)
            arrays = [to_numpy(layer) for layer in layers]
            for place, index in enumerate(indices):
                entry = tuple(array[place] for array in arrays)
                waiting[int(index)] = entry if isinstance(maps, tuple) else entry[0]
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "FeatureMaps holds maps of differing shapes and does not form an array. Give it to a pooler "
            "(skretrieval.pooling), or iterate over it."
        )

    def batches(self) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield ``(indices, maps)``: a tensor (N, C, H, W) per layer on the network's device, of equal shape.

        Batches come as they fill, so `indices` (places in this sequence) need not ascend. With one layer and
        one resolution `maps` is the tensor, else a tuple of tensors.
        """
        for batch in self.batches_beside(None):
            yield batch.indices, batch.maps

    def batches_beside(self, known: Mapping[str, Any] | None) -> Iterator[MapBatch]:
        """Yield the maps of the photographs that `known` lacks, and what it knows of the others.

        Parameters
        ----------
        known : mapping or None
            What is known of photographs, by the digest of their content. It is looked up where files are read, in
            threads ahead of the network: a photograph in it is neither decoded nor run through the network. None
            saves the digests.

        Yields
        ------
        batch : MapBatch
            Batches of maps as they fill, and photographs in `known` one by one.
        """
        self.failed_ = {}
        yield from self.extractor._map_batches(self.images, self.positions, self.failed_, known)
        news = {position: why for position, why in self.failed_.items() if position not in self._reported}
        if news:
            self._reported.update(news)
            listed = "; ".join(list(news.values())[:20]) + ("; ..." if len(news) > 20 else "")
            warnings.warn(
                f"{len(news)} of {len(self)} images could not be read and got a zero map: {listed}",
                UserWarning,
                stacklevel=2,
            )


def to_numpy(tensor) -> np.ndarray:
    """Copy a tensor to the host; half precision becomes float32, which numpy and scikit-learn can use."""
    if tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.cpu().numpy()
