"""What every extractor shares: reading ahead, batches of equal shape, several sizes, the cache, bad files."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

import numpy as np
import torch
from joblib import cpu_count, effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import Bunch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_memory
from torch.nn import functional
from tqdm import tqdm

from .._cache._maps import kept_arrays, to_half
from .._doc_link import DocLinkMixin
from ._feature_maps import FeatureMaps
from ._images import (
    check_headers,
    check_images,
    content_digest,
    describe,
    read_image,
    resize_longest,
)

_CACHE_FORMAT = 1  # part of every cache key: raise it when the maps of the same photograph change
_TOO_SMALL = ("too small", "can't be greater than actual input size", "Expected more than 1 spatial")

# The pixels that one pass may hold while it waits for batches of equal shape to fill, in batches.
_WAITING_BATCHES = 8

# On a CPU as many photographs go through the network together as make up so many pixels, at least one. Small ones
# gain by company; the activations of several large ones leave the caches and cost more than each alone.
_CPU_PIXELS = 2**18


def _stored(key: str, maps: Any) -> Any:
    """Return `maps`; joblib.Memory keeps its result under `key`."""
    return maps


class BaseExtractor(DocLinkMixin, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Photographs to feature maps: everything but the network.

    A subclass has the constructor parameters named in ``_parameter_constraints`` below, learns or loads its
    network in ``_fit_network(images)``, and implements ``_build() -> Bunch(module, device, dtype, mean, std)`` with
    a module that maps (N, 3, H, W) to a tuple of (N, C, h, w), and ``_identity() -> str``, which differs whenever
    the maps of one photograph at one size would.
    """

    _parameter_constraints: dict = {
        "image_size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "multi_resolution": [StrOptions({"sum", "stack"}), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "on_error": [StrOptions({"raise", "warn"})],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "memory_keeps": [StrOptions({"maps", "descriptors", "both"})],
        "memory_dtype": [StrOptions({"float32", "float16"})],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    # ------------------------------------------------------------------ public
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Load or learn the network.

        Parameters
        ----------
        X : sequence of paths, PIL images, uint8 arrays or ImageCrop
            The photographs. Networks with given weights only check them.
        y : ignored
            For the scikit-learn interface.

        Returns
        -------
        self : object
            The fitted extractor.
        """
        images = check_images(X)
        self._sizes()
        self._forget()
        self._fit_network(images)
        return self

    def transform(self, X) -> FeatureMaps:
        """Return the feature maps of the photographs, computed when they are asked for.

        Parameters
        ----------
        X : sequence of paths, PIL images, uint8 arrays or ImageCrop
            The photographs.

        Returns
        -------
        maps : FeatureMaps of shape (n,)
            Lazy sequence of arrays (C, H_i, W_i), or of tuples of arrays with several layers or resolutions.

        Raises
        ------
        FileNotFoundError, ValueError
            With ``on_error="raise"``: a file is missing or is no image. Files are opened here but decoded later,
            so that a truncated one is found when its map is asked for. The message names entry and path.
        """
        self._validate_params()
        images = check_images(X)
        self._sizes()
        self._network()
        if self.on_error == "raise":
            check_headers(images)
        return FeatureMaps(self, images)

    def set_output(self, *, transform=None):
        """Do nothing: maps are no table. Present so that ``Pipeline.set_output`` reaches the later steps.

        Parameters
        ----------
        transform : ignored
            For the scikit-learn interface.

        Returns
        -------
        self : object
            The extractor, unchanged.
        """
        return self

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Name the channels, so that ``Pipeline.get_feature_names_out`` works.

        Parameters
        ----------
        input_features : ignored
            Photographs have no features.

        Returns
        -------
        names : ndarray of str
            One name per channel of every layer.
        """
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{k}" for k in range(sum(self._channels()))], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags

    def __getstate__(self):
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key not in ("_net", "_net_key", "_n_channels")}

    # ------------------------------------------------------------------ for subclasses
    def _fit_network(self, images: list) -> None:
        raise NotImplementedError

    def _build(self) -> Bunch:
        raise NotImplementedError

    def _network_key(self) -> tuple:
        """Name what the built network depends on."""
        raise NotImplementedError

    def _identity(self) -> str:
        """Name everything but size that the maps of a photograph depend on, for the cache."""
        raise NotImplementedError

    # ------------------------------------------------------------------ the network, built lazily
    def _forget(self) -> None:
        self.__dict__.pop("_net", None)
        self.__dict__.pop("_net_key", None)
        self.__dict__.pop("_n_channels", None)

    def _network(self) -> Bunch:
        key = self._network_key()
        if self.__dict__.get("_net_key") != key:
            self._forget()
            self._net = self._build()
            self._net_key = key
        return self._net

    def _device(self) -> torch.device:
        if str(self.device) == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device = torch.device(self.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device={str(self.device)!r} was asked for, but torch sees no CUDA device")
        return device

    def _channels(self) -> list[int]:
        """Return the number of channels of each output, found with one small grey image."""
        if "_n_channels" not in self.__dict__:
            grey = np.full((224, 224, 3), 128, dtype=np.uint8)
            outputs = self._fuse(self._forward([[grey]] * len(self._sizes())))
            self._n_channels = [maps.shape[1] for maps in outputs]
        return self._n_channels

    # ------------------------------------------------------------------ sizes
    def _sizes(self) -> list:
        if self.image_size is None or isinstance(self.image_size, Integral):
            return [self.image_size]
        sizes = list(self.image_size)
        if not sizes or any(not isinstance(size, Integral) or size < 1 for size in sizes):
            raise ValueError(
                f"image_size must be a number of pixels, None, or several positive numbers, got {sizes}"
            )
        return sizes

    # ------------------------------------------------------------------ one pass over photographs
    def _map_batches(
        self, images: list, positions: np.ndarray, failed: dict[int, str], known: Any = None
    ) -> Iterator[tuple]:
        """Yield (indices, maps) in batches of equal shape; fill `failed` (see FeatureMaps.batches).

        Photographs that `known` takes, whose descriptors are kept, are left out.
        """
        self._network()
        store = self._store()
        buckets: OrderedDict[tuple, list] = OrderedDict()  # by shape, the one that waits longest first
        patience = _WAITING_BATCHES * self.batch_size
        entries = self._read_ahead(images, positions, store, known)
        for index, entry in enumerate(
            tqdm(entries, total=len(images), unit="image", disable=not self.verbose)
        ):
            if isinstance(entry, Exception):
                failed[int(positions[index])] = str(entry)
                yield np.array([index]), self._zeros(1)
                continue
            if known is not None and known.takes(index, entry):
                continue
            shape = (entry.maps is not None, *(array.shape for array in entry.arrays))
            buckets.setdefault(shape, []).append((index, entry))
            if len(buckets[shape]) >= self._n_together(entry):
                yield self._finish(buckets.pop(shape), positions, store, failed)
            # whatever its shape, no photograph holds up those behind it for long
            while buckets and index - next(iter(buckets.values()))[0][0] >= patience:
                yield self._finish(buckets.popitem(last=False)[1], positions, store, failed)
        while buckets:
            yield self._finish(buckets.popitem(last=False)[1], positions, store, failed)
        self.failed_ = dict(failed)

    def _n_together(self, entry: Bunch) -> int:
        if entry.maps is not None or self._network().device.type != "cpu":
            return self.batch_size
        pixels = sum(array.shape[0] * array.shape[1] for array in entry.arrays)
        return min(self.batch_size, max(1, _CPU_PIXELS // pixels))

    def _zeros(self, n: int):
        device = self._device()
        return self._packed([torch.zeros(n, channels, 1, 1, device=device) for channels in self._channels()])

    def _read_ahead(self, images: list, positions: np.ndarray, store, known: Any = None) -> Iterable:
        """Read, decode and resize in threads, in order, at most a few batches ahead of the network."""

        def read(index):
            try:
                return self._read(int(positions[index]), images[index], store, known)
            except (OSError, ValueError) as error:
                if self.on_error == "raise":
                    raise
                return error

        workers = min(8, cpu_count()) if self.n_jobs is None else effective_n_jobs(self.n_jobs)
        return _in_order(read, len(images), workers, ahead=max(2 * self.batch_size, 2 * workers))

    def _read(self, position: int, item: Any, store, known: Any = None) -> Bunch:
        sizes = self._sizes()
        key, data, digest = None, None, None
        if store is not None or known is not None:
            digest, data = content_digest(position, item)
        if known is not None:
            descriptor = known.find(digest)
            if descriptor is not None:
                return Bunch(descriptor=descriptor)
        if store is not None:
            key = f"{digest}-{self._cache_key()}"
            if store.check_call_in_cache(key, None):
                maps = store(key, None)
                if maps is not None:  # None where the stored file is damaged
                    return Bunch(key=key, digest=digest, item=item, maps=maps, arrays=maps)
        # Decoding at a fraction is allowed down to twice the wanted size: the bicubic step then hides it.
        draft = None if None in sizes else 2 * max(sizes)
        image = read_image(position, item, draft, data)
        arrays = [resize_longest(image, size) for size in sizes]
        return Bunch(key=key, digest=digest, item=item, maps=None, arrays=arrays)

    def _finish(self, batch: list, positions: np.ndarray, store, failed: dict[int, str]) -> tuple:
        """Return (indices, maps) of a batch of equal shape, from the cache or from the network."""
        indices = np.array([index for index, _ in batch])
        entries = [entry for _, entry in batch]
        if entries[0].maps is not None:
            outputs = [
                torch.from_numpy(np.stack(layer)).to(self._device())
                for layer in zip(*(entry.maps for entry in entries), strict=True)
            ]
            return indices, self._packed(outputs)
        try:
            per_size = self._forward(list(zip(*(entry.arrays for entry in entries), strict=True)))
        except RuntimeError as error:
            if not any(words in str(error) for words in _TOO_SMALL):
                raise
            height, width = entries[0].arrays[0].shape[:2]
            reasons = {
                int(positions[index]): f"Entry {positions[index]} ({describe(entry.item)}): {width}x{height} "
                "pixels after resizing are too few for the network"
                for index, entry in batch
            }
            if self.on_error == "raise":
                raise ValueError(next(iter(reasons.values()))) from error
            failed.update(reasons)
            return indices, self._zeros(len(indices))
        outputs = self._fuse(per_size)
        if self._rounds():
            outputs = to_half(outputs, positions[indices], [entry.item for entry in entries])
        if store is not None:
            hosts = kept_arrays(outputs)
            for place, entry in enumerate(entries):
                store.call(entry.key, [host[place] for host in hosts])
        return indices, self._packed(outputs)

    @torch.inference_mode()
    def _forward(self, per_size: list) -> list[list[torch.Tensor]]:
        """Run the network on a batch of uint8 (H, W, 3) arrays per size; returns [size][layer] maps."""
        net = self._network()
        mean = torch.tensor(net.mean, device=net.device).view(1, 3, 1, 1)
        std = torch.tensor(net.std, device=net.device).view(1, 3, 1, 1)
        outputs = []
        for arrays in per_size:
            pixels = torch.from_numpy(np.stack(arrays))
            if net.device.type == "cuda":  # only from pinned memory does a copy run beside the network
                pixels = pixels.pin_memory()
            pixels = pixels.to(net.device, non_blocking=True).permute(0, 3, 1, 2)
            batch = pixels.float().div_(255.0).sub_(mean).div_(std)
            maps = net.module(batch.to(net.dtype, memory_format=torch.channels_last))
            maps = list(maps) if isinstance(maps, tuple | list) else [maps]
            for layer in maps:
                if not isinstance(layer, torch.Tensor) or layer.ndim != 4:
                    shape = tuple(layer.shape) if isinstance(layer, torch.Tensor) else type(layer).__name__
                    raise ValueError(
                        f"The network must return maps of shape (N, C, H, W), got {shape}; set `layers`"
                    )
            outputs.append([layer.contiguous() for layer in maps])
        return outputs

    @torch.inference_mode()
    def _fuse(self, per_size: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """Combine the resolutions: maps summed at the largest map's size, or side by side (S003, Algorithm 1)."""
        if self.multi_resolution != "sum" or len(per_size) == 1:
            return [maps for layers in per_size for maps in layers]
        fused = []
        for layers in zip(*per_size, strict=True):
            target = max(layers, key=lambda maps: maps.shape[2] * maps.shape[3]).shape[2:]
            fused.append(
                torch.stack(
                    [
                        maps
                        if maps.shape[2:] == target
                        else functional.interpolate(maps, target, mode="bilinear", align_corners=False)
                        for maps in layers
                    ]
                ).sum(dim=0)
            )
        return fused

    @staticmethod
    def _packed(outputs: list[torch.Tensor]):
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    # ------------------------------------------------------------------ the cache
    def _memory(self) -> Any:
        return check_memory(os.fspath(self.memory) if isinstance(self.memory, os.PathLike) else self.memory)

    def _keeps_maps(self) -> bool:
        return self.memory is not None and self.memory_keeps != "descriptors"

    def _rounds(self) -> bool:
        return self._keeps_maps() and self.memory_dtype == "float16"

    def _store(self):
        """Return what keeps maps, or None."""
        if not self._keeps_maps():
            return None
        store = self._memory().cache(_stored, ignore=["maps"])
        # joblib inspects the function at its first use: let that happen before threads share it
        store.check_call_in_cache("", None)
        return store

    def _cache_key(self) -> str:
        sizes = ",".join(str(size) for size in self._sizes())
        fusion = self.multi_resolution if len(self._sizes()) > 1 else None
        rounded = "-float16" if self._rounds() else ""
        return f"{self._identity()}-{sizes}-{fusion}-v{_CACHE_FORMAT}{rounded}"


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
