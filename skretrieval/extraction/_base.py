"""What every extractor shares: the network, its sizes and its cache; one batch through it; bad files."""

from __future__ import annotations

import os
import threading
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import Bunch, Tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from torch.nn import functional

from .._cache import as_memory, folder_of
from .._doc_link import DocLinkMixin
from .._linalg import limit_forked_threads
from .._region_sets import OutputMixin
from ._feature_maps import FeatureMaps, Known
from ._images import (
    check_headers,
    content_digest,
    read_image,
    resize_longest,
)
from ._inputs import check_images
from ._signs import SignsMixin

_CACHE_FORMAT = 1  # part of every cache key: raise it when the maps of the same photograph change

# On a CPU as many photographs go through the network together as make up so many pixels, at least one. Small ones
# gain by company; the activations of several large ones leave the caches and cost more than each alone.
_CPU_PIXELS = 2**18


def _stored(key: str, maps: Any) -> Any:
    """Return `maps`; joblib.Memory caches its result under `key`, and in a folder of this module's name."""
    return maps


class BaseExtractor(SignsMixin, DocLinkMixin, OutputMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Photographs to feature maps: everything but the network.

    A subclass has the constructor parameters named in ``_parameter_constraints`` below, learns or loads its
    network in ``_fit_network(images)``, and implements ``_build() -> Bunch(module, device, dtype, mean, std)`` with
    a module that maps (N, 3, H, W) to a tuple of (N, C, h, w), and ``_identity() -> str``, which differs whenever
    the maps of one photograph at one size would.
    """

    _parameter_constraints: dict = {
        "image_size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "enlarge": ["boolean"],
        "multi_resolution": [StrOptions({"sum", "stack"}), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "on_error": [StrOptions({"raise", "warn"})],
        "truncated": [StrOptions({"raise", "pad"})],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "memory_keeps": [StrOptions({"maps", "descriptors", "both"})],
        "memory_dtype": [StrOptions({"float32", "float16"})],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    # of extractors that were saved before there was a choice
    truncated: Any = "raise"
    enlarge: Any = True

    # ------------------------------------------------------------------ public
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Load or learn the network.

        Parameters
        ----------
        X : sequence of paths, PIL images, uint8 arrays, bytes or ImageCrop
            The photographs. Networks with given weights only check them.
        y : ignored
            For the scikit-learn interface.

        Returns
        -------
        self : object
            The fitted extractor.
        """
        images = check_images(X)
        self.sizes()
        self._forget()
        self._fit_network(images)
        return self

    def transform(self, X: Any) -> FeatureMaps:
        """Return the feature maps of the photographs, computed when they are asked for.

        Parameters
        ----------
        X : sequence of paths, PIL images, uint8 arrays, bytes or ImageCrop
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
        self.sizes()
        self._network()
        if self.on_error == "raise":
            check_headers(images)
        return FeatureMaps(self, images)

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> FeatureMaps:
        """Fit to the photographs and transform them; an iterator is walked once.

        Parameters
        ----------
        X : sequence of paths, PIL images, uint8 arrays, bytes or ImageCrop
            The photographs.
        y : ignored
            For the scikit-learn interface.
        **params : dict
            As for :meth:`fit`.

        Returns
        -------
        maps : FeatureMaps of shape (n,)
            As from :meth:`transform`.
        """
        return super().fit_transform(check_images(X), y, **params)

    def set_output(self, *, transform: str | None = None) -> Self:
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

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
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
        return np.array([f"{prefix}{k}" for k in range(sum(self.channels()))], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags

    def __getstate__(self) -> dict:
        state = super().__getstate__()
        return {
            key: value
            for key, value in state.items()
            if key not in ("_net", "_net_key", "_n_channels", "_signed", "_lock")
        }

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
        self.__dict__.pop("_signed", None)

    def _network(self) -> Bunch:
        """Return the network; threads that ask at the same time wait for one that builds it."""
        limit_forked_threads()
        with self._building():
            key = self._network_key()
            if self.__dict__.get("_net_key") != key:
                self._forget()
                self._net = self._build()
                self._net_key = key
            return self._net

    def _building(self) -> Any:
        """Return the lock of the network; it is in no copy and no pickle."""
        return self.__dict__.setdefault("_lock", threading.RLock())

    def torch_device(self) -> torch.device:
        """Return the device that the network runs on.

        Returns
        -------
        device : torch.device

        Raises
        ------
        ValueError
            If it is one that torch does not see.
        """
        if str(self.device) == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device = torch.device(self.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device={str(self.device)!r} was asked for, but torch sees no CUDA device.")
        return device

    def channels(self) -> list[int]:
        """Return the number of channels of each output, found with one small grey image.

        Returns
        -------
        channels : list of int
            One for each map that a photograph has.
        """
        with self._building():
            if "_n_channels" not in self.__dict__:
                side = self._network().get("side", 224)  # of a square that the network takes
                grey = np.full((side, side, 3), 128, dtype=np.uint8)
                outputs = self._fuse(self._forward([[grey]] * len(self.sizes())))
                self._n_channels = [maps.shape[1] for maps in outputs]
            return self._n_channels

    # ------------------------------------------------------------------ sizes
    def sizes(self) -> list[int | None]:
        """Return the longest sides to which photographs are resized.

        Returns
        -------
        sizes : list of int or None
            One for each resolution; None keeps the size.

        Raises
        ------
        ValueError
            If `image_size` is none of what it may be.
        """
        if self.image_size is None or isinstance(self.image_size, Integral):
            return [None if self.image_size is None else int(self.image_size)]
        sizes = list(self.image_size)
        if not sizes or any(not isinstance(size, Integral) or size < 1 for size in sizes):
            raise ValueError(
                f"image_size must be a number of pixels, None, or several positive numbers, got {sizes}."
            )
        return sizes

    # ------------------------------------------------------------------ what a pass over photographs asks for
    def _n_together(self, entry: Bunch) -> int:
        if entry.maps is not None or self._network().device.type != "cpu":
            return self.batch_size
        pixels = sum(array.shape[0] * array.shape[1] for array in entry.arrays)
        return min(self.batch_size, max(1, _CPU_PIXELS // pixels))

    def _read(self, position: int, item: Any, store: Any, known: Known | None) -> Bunch:
        sizes = self.sizes()
        key, data = None, None
        digest: Any = None
        if store is not None or known is not None:
            digest, data = content_digest(item, position=position)
        if known is not None:
            found = known.get(digest)
            if found is not None:
                return Bunch(digest=digest, found=found)
        if store is not None:
            key = f"{digest}-{self.cache_key()}"
            if store.check_call_in_cache(key, None):
                maps = store(key, None)
                if maps is not None:  # None where the stored file is damaged
                    return Bunch(key=key, digest=digest, item=item, maps=maps, arrays=maps)
        # Decoding at a fraction is allowed down to twice the wanted size: the bicubic step then hides it.
        longest = [size for size in sizes if size is not None]
        draft = 2 * max(longest) if len(longest) == len(sizes) else None
        image = read_image(item, position=position, draft=draft, data=data, truncated=self.truncated)
        arrays = [self._resized(image, size) for size in sizes]
        return Bunch(key=key, digest=digest, item=item, maps=None, arrays=arrays)

    def _resized(self, image: Image.Image, size: int | None) -> np.ndarray:
        return resize_longest(image, size, enlarge=self.enlarge)

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
                        f"The network must return maps of shape (N, C, H, W), got {shape}; set `layers`."
                    )
            outputs.append([layer.contiguous() for layer in maps])
        return outputs

    @torch.inference_mode()
    def _fuse(self, per_size: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """Combine the resolutions: maps summed at the largest map's size, or side by side."""
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

    # ------------------------------------------------------------------ the cache
    def memory_folder(self) -> str | None:
        """Return the folder of `memory`, or None where there is none on disk.

        Returns
        -------
        folder : str or None
            Exists.
        """
        return None if self.memory is None else folder_of(self.memory)

    def _keeps_maps(self) -> bool:
        return self.memory is not None and self.memory_keeps != "descriptors"

    def _rounds(self) -> bool:
        return self._keeps_maps() and self.memory_dtype == "float16"

    def _store(self) -> Any:
        """Return what caches maps, or None."""
        if not self._keeps_maps():
            return None
        store = as_memory(self.memory).cache(_stored, ignore=["maps"])
        # joblib inspects the function at its first use: let that happen before threads share it
        store.check_call_in_cache("", None)
        return store

    def cache_key(self) -> str:
        """Name all that the maps of a photograph depend on, beside the photograph.

        Returns
        -------
        key : str
            Of the network, its weights, the sizes and the precision; equal where the maps are. Needs the network.
        """
        sizes = ",".join(str(size) for size in self.sizes())
        fusion = self.multi_resolution if len(self.sizes()) > 1 else None
        rounded = "-float16" if self._rounds() else ""
        padded = "-padded" if self.truncated == "pad" else ""
        capped = "" if self.enlarge else "-capped"
        return f"{self._identity()}-{sizes}-{fusion}-v{_CACHE_FORMAT}{rounded}{padded}{capped}"
