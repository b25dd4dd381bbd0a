"""The lazy sequence of feature maps that extractors return, and one pass over it: read ahead, batch, compute."""

from __future__ import annotations

import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from joblib import cpu_count, effective_n_jobs

from .._cache import host_arrays, to_half
from .._terminal import progress_bar
from ._images import UnreadableImageWarning, image_name

TOO_SMALL = ("too small", "can't be greater than actual input size", "Expected more than 1 spatial")

# The pixels that one pass may hold while it waits for batches of equal shape to fill, in batches.
_WAITING_BATCHES = 8


class Known(Protocol):
    """What is known of photographs, by the digest of their content; a dict is one."""

    def get(self, digest: str, /) -> Any:
        """Return what is known of a photograph, or None. Called by the threads that read files."""


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

    signed : bool, tuple of bool, or None
        Whether the network gives negative values, too; of several layers or resolutions one for each. A property of
        the network, not of the photographs, that poolers with ``rectify="auto"`` ask for. None where an extractor
        from elsewhere doesn't tell.

    failed_ : dict
        After a pass with ``on_error="warn"``: the reason for each photograph that got a zero map, by position.

    Notes
    -----
    Photographs that cannot be read are listed by one warning, at the end of the first pass that meets them.
    The maps follow their extractor: refit it or change its parameters, and the next pass gives other maps.

    ``maps[i]`` is an array of shape (C, H_i, W_i), or a tuple of arrays when the extractor has several layers or
    resolutions. ``maps[a:b]``, ``maps[index_array]``, ``maps[mask]`` and ``maps[key, ...]`` are again lazy.

    Threads: any number may go through one at the same time; ``failed_`` is that of the pass that began last.
    """

    def __init__(self, extractor: Any, images: list, positions: np.ndarray | None = None) -> None:
        self.extractor = extractor
        self.images = images
        self.positions = np.arange(len(images)) if positions is None else positions
        self.failed_: dict[int, str] = {}
        self._reported: set[int] = set()  # failures that a warning has listed; shared with subsets
        self._told: set[str] = set()  # other warnings that were given; shared with subsets

    def head(self) -> FeatureMaps:
        """Return the first entry as a sequence that warns of nothing, to look at the shape of things."""
        first = self[:1]
        first._reported = set(first.positions.tolist())
        return first

    def tell_once(self, what: str) -> bool:
        """Tell whether a warning about these maps, named `what`, is the first of its kind; True once."""
        first = what not in self._told
        self._told.add(what)
        return first

    @property
    def shape(self) -> tuple[int]:
        """The number of entries, as a one-element tuple."""
        return (len(self.images),)

    @property
    def signed(self) -> bool | tuple[bool, ...] | None:
        """Whether the network gives negative values, one for each map of an entry; None where nobody tells."""
        tell = getattr(self.extractor, "signed", None)
        if tell is None:
            return None
        signs = tuple(tell())
        return signs[0] if len(signs) == 1 else signs

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"FeatureMaps(n={len(self)}, extractor={type(self.extractor).__name__})"

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError(
                    "FeatureMaps takes one index: maps differ in shape and cannot be sliced together."
                )
            key = key[0]
        if isinstance(key, np.ndarray) and key.ndim == 0:
            key = key.item()
        if isinstance(key, int | np.integer):
            size = len(self)
            if not -size <= key < size:
                raise IndexError(f"index {key} is out of range for {size} feature maps.")
            one = self[np.array([key % size])]
            (entry,) = one
            self.failed_.update(one.failed_)
            return entry
        if not isinstance(key, slice):
            key = np.asarray(key)
            key = key if key.size else key.astype(int)  # an empty list would index with floats
        chosen = np.arange(len(self))[key]
        subset = FeatureMaps(self.extractor, [self.images[i] for i in chosen], self.positions[chosen])
        subset._reported, subset._told = self._reported, self._told
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

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
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

    def batches_beside(self, known: Known | None) -> Iterator[MapBatch]:
        """Yield the maps of the photographs that `known` lacks, and what it knows of the others.

        Parameters
        ----------
        known : Known or None
            What is known of photographs, by the digest of their content. It is looked up where files are read, in
            threads ahead of the network: a photograph in it is neither decoded nor run through the network. None
            saves the digests.

        Yields
        ------
        batch : MapBatch
            Batches of maps as they fill, and photographs in `known` one by one.
        """
        self.failed_ = {}
        yield from self._pass(known)
        self.extractor.failed_ = dict(self.failed_)
        news = {position: why for position, why in self.failed_.items() if position not in self._reported}
        if news:
            self._reported.update(news)
            listed = "; ".join(why.removesuffix(".") for why in list(news.values())[:20]) + (
                "; ..." if len(news) > 20 else ""
            )
            warnings.warn(
                f"{len(news)} of {len(self)} images could not be read and got a zero map: {listed}.",
                UnreadableImageWarning,
                stacklevel=2,
            )

    def _pass(self, known: Known | None) -> Iterator[MapBatch]:
        """Yield maps in batches of equal shape, and what is known; fill `failed_`."""
        extractor, positions, failed = self.extractor, self.positions, self.failed_
        extractor._network()
        store = extractor._store()
        buckets: OrderedDict[tuple, list] = OrderedDict()  # by shape, the one that waits longest first
        patience = _WAITING_BATCHES * extractor.batch_size
        entries = read_ahead(extractor, self.images, positions, store, known)
        shown = progress_bar(entries, total=len(self), unit="image") if extractor.verbose else entries
        for index, entry in enumerate(shown):
            if isinstance(entry, Exception):
                failed[int(positions[index])] = str(entry)
                yield MapBatch(np.array([index]), _zeros(extractor, 1), [None])
                continue
            if "found" in entry:
                yield MapBatch(np.array([index]), None, [entry.digest], entry.found)
                continue
            shape = (entry.maps is not None, *(array.shape for array in entry.arrays))
            buckets.setdefault(shape, []).append((index, entry))
            if len(buckets[shape]) >= extractor._n_together(entry):
                yield _finish(extractor, buckets.pop(shape), positions, store, failed)
            # whatever its shape, no photograph holds up those behind it for long
            while buckets and index - next(iter(buckets.values()))[0][0] >= patience:
                yield _finish(extractor, buckets.popitem(last=False)[1], positions, store, failed)
        while buckets:
            yield _finish(extractor, buckets.popitem(last=False)[1], positions, store, failed)


def read_ahead(
    extractor: Any, images: list, positions: np.ndarray, store: Any, known: Known | None = None
) -> Iterator:
    """Read, decode and resize in threads, in order, at most a few batches ahead of the network."""

    def read(index):
        try:
            return extractor._read(int(positions[index]), images[index], store, known)
        except (OSError, ValueError) as error:
            if extractor.on_error == "raise":
                raise
            return error

    jobs = extractor.n_jobs
    workers = min(8, cpu_count()) if jobs is None else effective_n_jobs(jobs)
    return _in_order(read, len(images), workers, ahead=max(2 * extractor.batch_size, 2 * workers))


def _in_order(read: Callable, n: int, workers: int, ahead: int) -> Iterator:
    """Map `read` over range(n) in threads; results in order, never more than `ahead` unconsumed."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque = deque()
        try:
            for index in range(n):
                pending.append(pool.submit(read, index))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _finish(
    extractor: Any, batch: list, positions: np.ndarray, store: Any, failed: dict[int, str]
) -> MapBatch:
    """Return the maps of a batch of equal shape, from the cache or from the network."""
    indices = np.array([index for index, _ in batch])
    entries = [entry for _, entry in batch]
    digests = [entry.digest for entry in entries]
    if entries[0].maps is not None:
        outputs = [
            torch.from_numpy(np.stack(layer)).to(extractor.torch_device())
            for layer in zip(*(entry.maps for entry in entries), strict=True)
        ]
        return MapBatch(indices, _packed(outputs), digests)
    try:
        per_size = extractor._forward(list(zip(*(entry.arrays for entry in entries), strict=True)))
    except RuntimeError as error:
        if not any(words in str(error) for words in TOO_SMALL):
            raise
        height, width = entries[0].arrays[0].shape[:2]
        reasons = {
            int(positions[index]): f"Entry {positions[index]} ({image_name(entry.item)}): {width}x{height} "
            "pixels after resizing are too few for the network."
            for index, entry in batch
        }
        if extractor.on_error == "raise":
            raise ValueError(next(iter(reasons.values()))) from error
        failed.update(reasons)
        return MapBatch(indices, _zeros(extractor, len(indices)), [None] * len(indices))
    outputs = extractor._fuse(per_size)
    if extractor._rounds():
        outputs = to_half(outputs, positions[indices], [image_name(entry.item) for entry in entries])
    if store is not None:
        hosts = host_arrays(outputs)
        for place, entry in enumerate(entries):
            store.call(entry.key, [host[place] for host in hosts])
    return MapBatch(indices, _packed(outputs), digests)


def _zeros(extractor: Any, n: int) -> Any:
    """Return zero maps (n, C, 1, 1) in the place of photographs that cannot be described."""
    device = extractor.torch_device()
    return _packed([torch.zeros(n, channels, 1, 1, device=device) for channels in extractor.channels()])


def _packed(outputs: list[torch.Tensor]) -> Any:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Copy a tensor to the host; half precision becomes float32, which numpy and scikit-learn can use."""
    if tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.cpu().numpy()
