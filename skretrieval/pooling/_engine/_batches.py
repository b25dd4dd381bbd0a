"""Feature maps in any accepted form to checked batches of equal shape, and the threads that work on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from ..._linalg import limit_forked_threads
from ...extraction import FeatureMaps

BATCH_BYTES = 64 * 2**20  # of maps taken together
# Poolers on a CPU take maps together by this many bytes. The check brings a block into the cache; what a pooler reads
# again and what it makes of the block on the way stay there, in memory that the next block uses again: large
# temporaries would be given back to the system and faulted in anew, at many times the price of the arithmetic.
BLOCK_BYTES = 2 * 2**20


@dataclass
class Batch:
    """Maps of equal shape that passed the checks.

    Attributes
    ----------
    indices : ndarray of shape (N,)
        Their places in the sequence.
    maps : tensor of shape (N, K, H, W)
        float32 or float64, finite.
    nonnegative : bool
        Whether no value is below zero.
    source : FeatureMaps, optional
        The sequence, if it is one of photographs.
    digests : list of N str or None, optional
        What names the content of each photograph, where descriptors are cached; None for one that cannot be read.
    largest : float
        No value of the checked maps is farther from zero.
    """

    indices: np.ndarray
    maps: torch.Tensor
    nonnegative: bool
    source: FeatureMaps | None = None
    digests: list[str | None] | None = None
    largest: float = 0.0

    @cached_property
    def rectified(self) -> torch.Tensor:
        """``max(maps, 0)``: without a copy where nothing is negative, and one for all parts of a fusion."""
        return self.maps if self.nonnegative else self.maps.clamp_min(0)

    def __getitem__(self, part: slice) -> Batch:
        """Return some of the maps."""
        digests = None if self.digests is None else self.digests[part]
        return replace(self, indices=self.indices[part], maps=self.maps[part], digests=digests)


class Found(NamedTuple):
    """A photograph whose descriptors are cached.

    Attributes
    ----------
    indices : ndarray of shape (1,)
        Its place in the sequence.
    rows : ndarray of shape (M, d)
        Its descriptors.
    """

    indices: np.ndarray
    rows: np.ndarray


class RegionRows(NamedTuple):
    """The region sets of the images of a batch.

    Attributes
    ----------
    rows : tensor of shape (sum of counts, d)
        The sets, one after the other.
    counts : ndarray of shape (N,)
        Rows of each image.
    """

    rows: torch.Tensor
    counts: np.ndarray


@contextmanager
def one_thread(maps: torch.Tensor, unless: bool = False) -> Iterator[None]:
    """Run torch's operations on `maps` in the calling thread alone, if they are on the CPU and not `unless`.

    An operation of pooling takes fractions of a millisecond, and at its end the threads of a team wait for each
    other. By OpenMP's default they wait actively: where another process, or the limit of a container, keeps one of
    them from its core, each operation lasts until the scheduler's next turn. Two threads could at best halve what
    is some thousandths of the network's time; they have been seen to multiply it by thirty.

    Only the calling thread's setting is changed, not torch's for all threads (`torch.set_num_threads`).
    """
    limit_forked_threads()
    if unless or maps.device.type != "cpu":
        yield
        return
    torch.get_num_threads()  # torch sets the number when it is first called in a thread: before, not within
    libraries = _openmp()
    before = [library.get_num_threads() for library in libraries]
    try:
        for library in libraries:
            library.set_num_threads(1)
        yield
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)


@lru_cache(maxsize=1)
def _openmp() -> list:
    return ThreadpoolController().select(user_api="openmp").lib_controllers


def n_entries(X: Any) -> int:
    """Return the number of maps in `X`, or raise if it is no sequence of maps or is empty."""
    if isinstance(X, FeatureMaps):
        n = len(X)
    elif isinstance(X, np.ndarray | torch.Tensor):
        if isinstance(X, torch.Tensor):
            _check_plain(0, X)
        ragged = isinstance(X, np.ndarray) and X.dtype.kind == "O"
        if X.ndim != 4 and not ragged:
            raise ValueError(
                "Expected a 4-D array (n, C, H, W), a list of (C, H, W) maps or FeatureMaps; "
                f"got shape {tuple(X.shape)}."
            )
        n = len(X)
    elif hasattr(X, "__len__") and hasattr(X, "__getitem__") and not isinstance(X, str | bytes | dict):
        n = len(X)
    else:
        raise ValueError(
            f"Expected feature maps (a list, a 4-D array or FeatureMaps), got {type(X).__name__}."
        )
    if n == 0:
        raise ValueError("Found 0 feature maps (empty X) while a minimum of 1 is required.")
    return n


def iter_batches(
    X: Any,
    channels: list[int] | None,
    layers: bool = False,
    block_bytes: int = BATCH_BYTES,
    known: Any = None,
) -> Iterator[Any]:
    """Yield checked batches, one `Batch` per layer, and photographs that are known, one `Found` each.

    Parameters
    ----------
    X : FeatureMaps, array or tensor of shape (n, C, H, W), or sequence of arrays or tensors (C, H_i, W_i)
        With ``layers=True`` each entry is a tuple of maps.
    channels : list of int or None
        The channel counts seen in fit, one per layer; None before.
    layers : bool
        Whether entries are tuples.
    block_bytes : int
        Bytes of maps in a batch on a CPU, at least one entry. Maps on a GPU come in large batches.
    known : DescriptorCache, optional
        Descriptors by the content of photographs (see :meth:`FeatureMaps.batches_beside`), for `FeatureMaps`.

    Yields
    ------
    batches : tuple of Batch, or Found
        Never `Found` without `known`.

    Raises
    ------
    ValueError
        Wrong rank, differing channels, NaN or infinity, nothing to pool: the message names the entry.
    """
    n_entries(X)
    parts = raw_batches(X, layers, channels, block_bytes) if known is None else X.batches_beside(known)
    for indices, tensors, *more in parts:
        if tensors is None:
            yield Found(indices, more[1])
            continue
        digests = more[0] if more else None
        is_tuple = isinstance(tensors, tuple)
        if is_tuple != layers:
            raise ValueError(
                f"Entry {indices[0]}: got a tuple of {len(tensors)} maps; pool each with LayerwisePooler."
                if is_tuple
                else f"Entry {indices[0]}: expected a tuple of maps (several layers), got one map."
            )
        if not layers:
            tensors = (tensors,)
        found = [tensor.shape[1] for tensor in tensors]
        if channels is None:
            channels = found
        elif found != channels:
            raise_channels(indices[0], found, channels)
        source = X if isinstance(X, FeatureMaps) else None
        size = _n_together(tensors[0], sum(tensor[0].nbytes for tensor in tensors), block_bytes)
        for start in range(0, len(indices), size):
            block = slice(start, start + size)
            with one_thread(tensors[0]):
                checked = tuple(_checked(indices[block], tensor[block], source) for tensor in tensors)
            for batch in checked:
                batch.digests = None if digests is None else digests[block]
            yield checked


def _n_together(maps: Any, n_bytes: int, block_bytes: int) -> int:
    """Return how many entries of `n_bytes` make a batch on the device of `maps`."""
    on_gpu = isinstance(maps, torch.Tensor) and maps.device.type != "cpu"
    return max(1, (BATCH_BYTES if on_gpu else block_bytes) // max(1, n_bytes))


def raise_channels(index: int, found: list[int], expected: list[int]) -> None:
    """Raise a ValueError that names the entry and both numbers of channels."""

    def words(counts):
        return counts[0] if len(counts) == 1 else tuple(counts)

    raise ValueError(f"Entry {index}: has {words(found)} channels, but {words(expected)} were expected.")


def _checked(indices: np.ndarray, maps: torch.Tensor, source: FeatureMaps | None) -> Batch:
    if maps.dtype not in (torch.float32, torch.float64):
        maps = maps.float()
    # One pass finds NaN (it propagates), infinities and negative values at once; in the order of memory, since
    # aminmax copies what is not contiguous.
    last = maps.is_contiguous(memory_format=torch.channels_last)
    low, high = (float(value) for value in torch.aminmax(maps.permute(0, 2, 3, 1) if last else maps))
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(torch.nonzero(~torch.isfinite(maps).flatten(1).all(dim=1))[0])
        kind = "NaN" if bool(torch.isnan(maps[bad]).any()) else "infinity"
        raise ValueError(f"Entry {indices[bad]}: the feature map contains {kind}.")
    return Batch(indices, maps, low >= 0, source, largest=max(high, -low))


def raw_batches(
    X: Any, layers: bool, channels: list[int] | None = None, block_bytes: int = BATCH_BYTES
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield (indices, tensor or tuple of tensors) of equal shape, values unchecked."""
    return X.batches() if isinstance(X, FeatureMaps) else _from_memory(X, layers, channels, block_bytes)


def _from_memory(
    X: Any, layers: bool, channels: list[int] | None, block_bytes: int
) -> Iterator[tuple[np.ndarray, Any]]:
    if isinstance(X, np.ndarray | torch.Tensor) and X.ndim == 4:
        _check_map(0, X[0])
        size = _n_together(X, X[0].nbytes, block_bytes)
        for start in range(0, len(X), size):
            chunk = X[start : start + size]
            yield np.arange(start, start + len(chunk)), _to_tensor(chunk)
        return
    buckets: dict[tuple, list[int]] = {}
    expected = channels
    for index in range(len(X)):
        entry = X[index]
        if layers:
            if not isinstance(entry, tuple | list):
                raise ValueError(f"Entry {index}: expected a tuple of maps (several layers), got one map.")
            shapes = tuple(_check_map(index, layer) for layer in entry)
        else:
            if isinstance(entry, tuple) and entry and hasattr(entry[0], "ndim") and entry[0].ndim == 3:
                raise ValueError(
                    f"Entry {index}: got a tuple of {len(entry)} maps; pool each with LayerwisePooler."
                )
            shapes = (_check_map(index, entry),)
        found = [shape[0] for shape in shapes]
        expected = found if expected is None else expected
        if found != expected:
            raise_channels(index, found, expected)
        buckets.setdefault(shapes, []).append(index)
    for shapes, members in buckets.items():
        first = X[members[0]] if layers else (X[members[0]],)
        size = _n_together(first[0], sum(layer.nbytes for layer in first), block_bytes)
        for start in range(0, len(members), size):
            indices = np.array(members[start : start + size])
            if layers:
                yield indices, tuple(_stack([X[i][layer] for i in indices]) for layer in range(len(shapes)))
            else:
                yield indices, _stack([X[i] for i in indices])


def _check_map(index: int, entry: Any) -> tuple[int, int, int]:
    """Return the shape of one map after checking rank, type and size."""
    if not isinstance(entry, np.ndarray | torch.Tensor):
        raise ValueError(f"Entry {index}: expected an array or tensor (C, H, W), got {type(entry).__name__}.")
    if isinstance(entry, torch.Tensor):
        _check_plain(index, entry)
    if entry.ndim != 3:
        raise ValueError(f"Entry {index}: expected 3 dimensions, got {entry.ndim}.")
    if isinstance(entry, np.ndarray) and entry.dtype.kind not in "fiub":
        raise ValueError(f"Entry {index}: expected real numbers, got dtype {entry.dtype}.")
    if min(entry.shape) == 0:
        raise ValueError(f"Entry {index}: the feature map of shape {tuple(entry.shape)} is empty.")
    return tuple(entry.shape)


def _check_plain(index: int, tensor: torch.Tensor) -> None:
    """Raise a ValueError that says what to do with a tensor that has no plain real numbers."""
    kinds = {
        "nested: give a list of its parts, tensor.unbind()": tensor.is_nested,
        "on the meta device, which has shapes and no numbers": tensor.is_meta,
        "quantised: give tensor.dequantize()": tensor.is_quantized,
        f"sparse ({str(tensor.layout).removeprefix('torch.')}): give tensor.to_dense()": tensor.layout
        != torch.strided,
        "complex: real numbers were expected, such as tensor.abs()": tensor.is_complex(),
    }
    for what, found in kinds.items():
        if found:
            raise ValueError(f"Entry {index}: the feature map is a tensor that is {what}.")


def _stack(maps: list) -> torch.Tensor:
    if isinstance(maps[0], torch.Tensor):
        return torch.stack([torch.as_tensor(entry).detach() for entry in maps])
    return _to_tensor(np.stack(maps) if len(maps) > 1 else maps[0][None])


def _to_tensor(array: Any) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array.detach()
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float64 if array.dtype.itemsize > 8 else np.float32)
    # torch cannot wrap read-only memory, which joblib hands to workers, nor foreign byte orders
    if not (array.flags.writeable and array.dtype.isnative) or any(stride < 0 for stride in array.strides):
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)
