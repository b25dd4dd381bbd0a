"""Feature maps of a pre-trained convolutional network."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions
from torch import nn

from . import _backbones as backbones
from . import _state_dicts as state_dicts
from ._base import BaseExtractor
from ._dtype import dtype_on
from ._images import INTERPOLATIONS, resize_longest
from ._input import checked_normalization, side_of, size_multiple_of
from ._layers import maps_of
from ._network_source import NetworkSourceMixin
from ._stored_weights import StoredWeightsMixin

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ConvFeatureExtractor(NetworkSourceMixin, StoredWeightsMixin, BaseExtractor):
    """Feature maps of a pre-trained network, for photographs of any size.

    Each photograph is turned upright, made RGB, resized so that its longest side has `image_size` pixels, normalised
    as the weights ask for and sent through the network in batches of equal shape: never cropped, never padded. Where
    a network cuts it into patches, its sides become the nearest multiples of what the patches need. The maps are
    non-negative where the network ends in a ReLU.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="vgg16"
        A torchvision classification network by name, ``"timm:NAME"``, ``"hf:NAME"`` or ``"hf:FOLDER"`` (transformers;
        extra ``hf``), or a module, or a module-level function that returns one (names and functions pickle small and
        clone fast). A module of your own returns maps (N, C, H, W), or a tuple of them, when `layers` is None; it may
        say ``input_mean``, ``input_std`` and ``size_multiple``. A factory ``partial(PatchNetwork, name, ...)`` stands
        for the network `name` in all that follows.

    weights : "DEFAULT", path or None, default="DEFAULT"
        The default weights of the library, the path of a state dict (.pth, read with ``weights_only=True``, or
        .safetensors), or None for the weights that the module or factory brings; for a name, None means random
        weights from `random_state`. Those of ``"timm:tf_efficientnet_lite0"`` come with a package.

    layers : None, str, int, or list of str or of int, default=None
        None: the output of the convolutional trunk (VGG16: pool5; ResNet50: layer4; SqueezeNet, MobileNet:
        ``features``), or the last tokens after the final norm. Else torchvision node names or the aliases
        ``"last_conv"``, ``"pool5"``, ``"relu5_3"``, ``"conv5_3"`` (VGG, AlexNet); names of modules in timm,
        transformers and torchvision's ViT, also of an attention with ``":query"``, ``":key"`` or ``":value"``; or
        numbers: blocks of a transformer (after the final norm), stages of the others, -1 the last. Several give a
        tuple of maps.

    image_size : int, None or list of int, default=1024
        Longest side in pixels; None keeps the size. Several sizes are multi-resolution.

    enlarge : bool, default=True
        Whether photographs (or the boxes of an `ImageCrop`) with fewer pixels than `image_size` are scaled up to it, as
        the published protocols do. False takes them with the pixels that they have, which for one's own photographs
        costs less and invents nothing; with several sizes each is capped.

    multi_resolution : {"sum", "stack"} or None, default=None
        With several sizes: sum the maps, bilinearly resized to the largest (early fusion), or
        give a tuple of maps, resolutions in the given order and within each the layers. None means "stack".

    batch_size : int, default=8
        Photographs of equal shape that go through the network together, at most. On a CPU, where large ones gain
        nothing by company, as many of them as make up 512 x 512 pixels.

    device : str, default="auto"
        "auto" takes CUDA where torch sees it; or "cpu", "cuda", "cuda:1".

    dtype : {"float32", "bfloat16", "float16", "auto"}, default="float32"
        Of the network and its maps. Poolers accumulate in float32 or better. "auto" takes bfloat16 where the device
        multiplies it natively (AMX or AVX512_BF16 of a processor, CUDA from compute capability 8 on), else float32.

    on_error : {"raise", "warn"}, default="raise"
        What to do with a photograph that cannot be read: "warn" gives it a zero map (C, 1, 1), lists all of them
        in one warning at the end of the pass and in ``failed_``.

    truncated : {"raise", "pad"}, default="raise"
        What to do with a file that was cut short: "pad" takes what there is of it; the rest is grey or black.

    memory : str, path or joblib.Memory, default=None
        Caches the maps of each photograph, by its content, box and size and by the network, and the descriptors that
        poolers make of them, so that a grid search runs each photograph through the network once.

    memory_keeps : {"maps", "descriptors", "both"}, default="both"
        What `memory` caches. "maps": the feature maps, some MB a photograph. "descriptors": not the maps but what a
        pooler makes of them, some KB a photograph; a pooler that learns from the maps then runs the network in
        each of its passes. "both": the descriptors of each pooler beside the maps, which are then read once however
        many folds of a cross-validation ask for them.

    memory_dtype : {"float32", "float16"}, default="float32"
        In which precision maps are cached. float16 takes half the space; the maps are rounded in the
        first pass as in later ones, and activations beyond 65504 raise a ValueError.
        Descriptors, and maps that are not cached, are not rounded.

    n_jobs : int, default=None
        Threads that read and decode ahead of the network. None: one per core, at most 8.

    store_weights : bool, default=True
        Whether a pickled extractor carries its weights, and so works anywhere, or finds them again as given by
        `weights` and refuses if they are no longer the same.

    random_state : int, RandomState instance or None, default=None
        For ``weights=None`` with a name or factory.

    normalization : "auto" or pair (mean, std), default="auto"
        Subtracted from and divided into pixels from 0 to 1; each one number, or three for R, G and B. "auto": what the
        weights ask for (torchvision's transforms, timm's ``pretrained_cfg``, ``preprocessor_config.json`` of
        transformers, a module's ``input_mean`` and ``input_std``), else ImageNet's.

    interpolation : str, default="auto"
        "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos", for resizing. "auto": what the weights of
        timm and transformers ask for; for all others bicubic, whatever torchvision's transforms say.

    tokens : {"patch", "cls", "patch+cls"}, default="patch"
        Which tokens of a transformer make the maps: those of the patches, the CLS token as a map (C, 1, 1), or both as
        a tuple. Other prefix tokens (registers) are dropped.

    verbose : bool, default=False
        Show a progress bar on each pass.

    Attributes
    ----------
    fingerprint_ : str
        Hash of the weights.

    dtype_ : str
        What the network runs in, with ``dtype="auto"`` by the device that it was last built for.

    failed_ : dict
        The reasons for the photographs that got a zero map in the last pass, by position.

    See Also
    --------
    PatchNetwork : Fully connected layers, of the whole photograph or of its windows.
    ConvKernelExtractor : Learns its filters from the photographs; no weights to download.

    Notes
    -----
    Which layer: the methods of this package were published on pool5 of VGG16 (adaptive Gaussian), on the last
    convolution, relu5_3 or relu5_4 of VGG19 (region integration, regional second order), or on
    ``["layer4", "layer3"]`` of ResNet50 (square-sum R-MAC). Zhao et al. (GSW, ISPRS International Journal of
    Geo-Information, 2021) do not say whether theirs is pool5 or relu5_3.

    With `memory`, descriptors are written as they come (every few seconds, at the end, and when the pass is
    interrupted): the same call resumes after an interruption. They are found again by the photograph's content and
    box, the network and its settings, and the pooler: its class, its parameters and what it has learned. They lie in
    the folder of the ``joblib.Memory``, whose ``clear`` removes them, and need one that is a folder on disk. The
    descriptors of some poolers are not cached, because a change of the pooler could not be seen: of those with a
    function, a class or an object from outside this package, NumPy, SciPy, scikit-learn and PyTorch among their
    parameters, of those defined elsewhere, and of :class:`~skretrieval.pooling.ClassActivationMask` and what
    contains it.

    Threads: any number may use one fitted extractor and its maps at the same time; ``fit`` and ``set_params``
    need it for themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.extraction import ConvFeatureExtractor
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    >>> extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, image_size=128, random_state=0)
    >>> maps = extractor.fit_transform(images)
    >>> maps
    FeatureMaps(n=2, extractor=ConvFeatureExtractor)
    >>> maps[0].shape
    (512, 5, 7)
    """

    _parameter_constraints: dict = {
        **BaseExtractor._parameter_constraints,
        "backbone": [str, nn.Module, callable],
        "weights": [str, os.PathLike, None],
        "layers": [str, Integral, "array-like", None],
        "dtype": [StrOptions({*_DTYPES, "auto"})],
        "store_weights": ["boolean"],
        "random_state": ["random_state"],
        "normalization": [StrOptions({"auto"}), "array-like"],
        "interpolation": [StrOptions({"auto", *INTERPOLATIONS})],
        "tokens": [StrOptions({"patch", "cls", "patch+cls"})],
    }

    # of extractors that were saved before there was a choice
    normalization: Any = "auto"
    interpolation: str = "auto"
    tokens: str = "patch"

    def __init__(
        self,
        backbone: str | nn.Module | Callable = "vgg16",
        *,
        weights: str | os.PathLike | None = "DEFAULT",
        layers: str | int | Sequence[str] | Sequence[int] | None = None,
        image_size: int | Sequence[int] | None = 1024,
        enlarge: bool = True,
        multi_resolution: str | None = None,
        batch_size: int = 8,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        on_error: str = "raise",
        truncated: str = "raise",
        memory: Any = None,
        memory_keeps: str = "both",
        memory_dtype: str = "float32",
        n_jobs: int | None = None,
        store_weights: bool = True,
        random_state: int | np.random.RandomState | None = None,
        normalization: Any = "auto",
        interpolation: str = "auto",
        tokens: str = "patch",
        verbose: bool | int = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.image_size = image_size
        self.enlarge = enlarge
        self.multi_resolution = multi_resolution
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.on_error = on_error
        self.truncated = truncated
        self.memory = memory
        self.memory_keeps = memory_keeps
        self.memory_dtype = memory_dtype
        self.n_jobs = n_jobs
        self.store_weights = store_weights
        self.random_state = random_state
        self.normalization = normalization
        self.interpolation = interpolation
        self.tokens = tokens
        self.verbose = verbose

    fingerprint_: str
    dtype_: str
    _state: dict

    def _fit_network(self, images: list) -> None:
        self._forget_weights()
        self._network()

    def _network_key(self) -> tuple:
        prepared = (repr(self.normalization), self.interpolation, self.tokens)
        return (*self._source(), id(self.backbone), self._dtype_name(), str(self.torch_device()), *prepared)

    def _dtype_name(self) -> str:
        return dtype_on(self.torch_device()) if self.dtype == "auto" else self.dtype

    def _source(self) -> tuple:
        """Name where the weights come from; comparable between processes."""
        weights = None if self.weights is None else os.fspath(self.weights)
        layers = None if self.layers is None else tuple(np.atleast_1d(self.layers).tolist())  # type: ignore[arg-type]
        return backbones.title(self.backbone), weights, layers

    def _resized(self, image: Image.Image, size: int | None) -> np.ndarray:
        net = self._network()
        options = {"multiple": net.size_multiple, "interpolation": net.interpolation}
        return resize_longest(image, size, enlarge=self.enlarge, **options)

    def _forget_weights(self) -> None:
        for name in ("_state", "_state_source", "_state_backbone", "_asked", "fingerprint_"):
            self.__dict__.pop(name, None)

    def _build(self) -> Bunch:
        """Build the network from the stored weights, else from their source; check that they are the same."""
        inner, wrap = backbones.unwrapped(self.backbone)
        own = isinstance(inner, nn.Module)  # brings its weights along, and so needs none stored
        other = self.__dict__.get("_state_backbone", self.backbone) is not self.backbone
        if own or other or self.__dict__.get("_state_source") != self._source():
            self._forget_weights()
        if "_state" not in self.__dict__:
            backbones.check_backbone(inner)
        if own:
            module, unfit = copy.deepcopy(inner), {}
            state = self._source_state()
            if state is not None:
                unfit = state_dicts.load_state_dict(module, state, self._title())
        elif "_state" in self.__dict__:
            trained, config = self.weights is not None, self._asked_by_weights().config
            module, unfit = backbones.build_module(
                inner, None, self._state, "as stored", strict=False, trained=trained, config=config
            )
        else:
            seed = backbones.seed_of(self.random_state)
            module, unfit = backbones.build_module(inner, seed, self._source_state(), self._title())
        if wrap is None:
            tapped = maps_of(
                module.eval(), self.backbone, self.layers, self.tokens, self._asked_by_weights().config
            )
            tapped = tapped.eval().requires_grad_(False)
        elif self.tokens != "patch":
            raise ValueError(f"tokens={self.tokens!r}: {backbones.title(self.backbone)} has no CLS token.")
        elif self.layers is None:
            tapped = wrap(module.eval()).eval().requires_grad_(False)
        else:
            raise ValueError(
                f"layers={self.layers!r}: {backbones.title(self.backbone)} names the layer itself."
            )
        used = state_dicts.used_weights(module, tapped)
        state_dicts.check_used(used, unfit, self._title())
        used = state_dicts.on_host(used)
        found = state_dicts.fingerprint(used)
        if self.__dict__.get("fingerprint_", found) != found:
            raise ValueError(
                f"The weights of {self._title()} are no longer those that this extractor was fitted with "
                f"(fingerprint {found}, expected {self.fingerprint_}). It was saved with store_weights=False."
            )
        self.fingerprint_ = found
        self._state_source = self._source()
        self._state_backbone = self.backbone
        if self.store_weights and not own:
            self._state = used
        asked = self._asked_by_weights()
        mean, std = checked_normalization(self.normalization, asked)
        architecture = backbones.architecture(tapped)
        multiple = size_multiple_of(tapped, module)
        self.dtype_ = self._dtype_name()
        device, dtype = self.torch_device(), _DTYPES[self.dtype_]
        tapped = tapped.to(device, dtype).to(memory_format=torch.channels_last)
        return Bunch(
            module=tapped,
            device=device,
            dtype=dtype,
            mean=mean,
            std=std,
            architecture=architecture,
            interpolation=asked.interpolation if self.interpolation == "auto" else self.interpolation,
            size_multiple=multiple,
            side=side_of(tapped, multiple),
        )

    def _identity(self) -> str:
        net = self._network()
        layers = "trunk" if self.layers is None else "+".join(map(str, np.atleast_1d(self.layers)))  # type: ignore[arg-type]
        layers += "" if self.tokens == "patch" else f"-{self.tokens}"
        input_range = ",".join(f"{value:g}" for value in (*net.mean, *net.std))
        return (
            f"{backbones.title(self.backbone)}-{self.fingerprint_}-{net.architecture}-{input_range}-{layers}-"
            f"{self._dtype_name()}"
            + ("" if net.interpolation == "bicubic" else f"-{net.interpolation}")
            + ("" if net.size_multiple == 1 else f"-{net.size_multiple}")
        )
