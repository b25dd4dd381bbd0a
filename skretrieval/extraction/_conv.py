"""Feature maps of a pre-trained convolutional network."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions
from torch import nn

from . import _backbones as backbones
from ._base import BaseExtractor
from ._classifier import Classifier, last_linear
from ._layers import block_ends, tap
from ._stored_weights import StoredWeightsMixin

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ConvFeatureExtractor(StoredWeightsMixin, BaseExtractor):
    """Feature maps of a pre-trained network, for photographs of any size.

    Each photograph is turned upright, made RGB, resized (bicubic) so that its longest side has `image_size`
    pixels, normalised as the weights ask for and sent through the network in batches of equal shape: never
    cropped, never padded. The maps are non-negative where the network ends in a ReLU.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="vgg16"
        A torchvision classification network by name, or a module, or a module-level function that returns one
        (names and functions pickle small and clone fast). A module of your own returns maps (N, C, H, W), or a
        tuple of them, when `layers` is None: that is how transformer tokens or other libraries come in. A factory
        ``partial(PatchNetwork, name, ...)`` stands for the network `name` in all that follows.

    weights : "DEFAULT", path or None, default="DEFAULT"
        torchvision's default weights, the path of a state dict (read with ``weights_only=True``), or None for
        the weights that the module or factory brings; for a name, None means random weights from
        `random_state`.

    layers : None, str or list of str, default=None
        None: the output of the convolutional trunk (VGG16: pool5; ResNet50: layer4; SqueezeNet, MobileNet:
        ``features``). Else torchvision node names or the aliases ``"last_conv"``, ``"pool5"``, ``"relu5_3"``,
        ``"conv5_3"`` (VGG, AlexNet). Several layers give a tuple of maps per photograph.

    image_size : int, None or list of int, default=1024
        Longest side in pixels; None keeps the size. Several sizes are multi-resolution.

    multi_resolution : {"sum", "stack"} or None, default=None
        With several sizes: sum the maps, bilinearly resized to the largest (early fusion), or
        give a tuple of maps, resolutions in the given order and within each the layers. None means "stack".

    batch_size : int, default=8
        Photographs of equal shape that go through the network together, at most. On a CPU, where large ones gain
        nothing by company, as many of them as make up 512 x 512 pixels.

    device : str, default="auto"
        "auto" takes CUDA where torch sees it; or "cpu", "cuda", "cuda:1".

    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Of the network and its maps. Poolers accumulate in float32 or better.

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

    verbose : bool, default=False
        Show a progress bar on each pass.

    Attributes
    ----------
    fingerprint_ : str
        Hash of the weights.

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
        "layers": [str, "array-like", None],
        "dtype": [StrOptions(set(_DTYPES))],
        "store_weights": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbone: str | nn.Module | Callable = "vgg16",
        *,
        weights: str | os.PathLike | None = "DEFAULT",
        layers: str | Sequence[str] | None = None,
        image_size: int | Sequence[int] | None = 1024,
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
        verbose: bool | int = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.image_size = image_size
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
        self.verbose = verbose

    fingerprint_: str
    _state: dict

    def classifier(self, n_channels: int | None = None) -> Classifier:
        """Read the classifier of the network, which :class:`~skretrieval.pooling.ClassActivationMask` needs.

        It is the last linear (or 1 x 1 convolutional) layer, read from the weights each time: it has no part in the
        maps, and no place in a saved extractor. Needs no fit.

        Parameters
        ----------
        n_channels : int, default=None
            Channels of the map that the classifier sees, to be checked.

        Returns
        -------
        classifier : Classifier
            ``weights`` of shape (n_classes, K) and ``bias`` of shape (n_classes,), float32 arrays.

        Raises
        ------
        ValueError
            If the network has no such layer, or it takes another number of channels.

        Examples
        --------
        >>> from skretrieval.extraction import ConvFeatureExtractor
        >>> ConvFeatureExtractor("resnet18", weights=None, random_state=0).classifier().weights.shape
        (1000, 512)
        """
        inner = backbones.unwrapped(self.backbone)[0]
        backbones.check_backbone(inner)
        state = self._source_state()
        unfit: dict[str, str] = {}
        if isinstance(inner, nn.Module):
            module = inner
            if state is not None:
                module = copy.deepcopy(inner)
                unfit = backbones.load_state_dict(module, state, self._title())
        else:
            seed = backbones.seed_of(copy.deepcopy(self.random_state))  # looked at, not drawn from
            module, unfit = backbones.build_module(inner, seed, state, self._title())
        backbones.check_used(unfit, unfit, self._title())  # whatever is missing, the classifier's may not be
        return last_linear(module, backbones.title(inner), n_channels)

    def _fit_network(self, images: list) -> None:
        self._forget_weights()
        self._network()

    def _network_key(self) -> tuple:
        return (*self._source(), id(self.backbone), self.dtype, str(self.torch_device()))

    def _source(self) -> tuple:
        """Name where the weights come from; comparable between processes."""
        weights = None if self.weights is None else os.fspath(self.weights)
        layers = None if self.layers is None else tuple(np.atleast_1d(self.layers).tolist())
        return backbones.title(self.backbone), weights, layers

    def _forget_weights(self) -> None:
        for name in ("_state", "_state_source", "_state_backbone", "fingerprint_"):
            self.__dict__.pop(name, None)

    def _build(self) -> Bunch:
        """Build the network from the stored weights, else from their source; check that they are the same."""
        inner, wrap = backbones.unwrapped(self.backbone)
        backbones.check_backbone(inner)
        own = isinstance(inner, nn.Module)  # brings its weights along, and so needs none stored
        other = self.__dict__.get("_state_backbone", self.backbone) is not self.backbone
        if own or other or self.__dict__.get("_state_source") != self._source():
            self._forget_weights()
        if own:
            module, unfit = copy.deepcopy(inner), {}
            state = self._source_state()
            if state is not None:
                unfit = backbones.load_state_dict(module, state, self._title())
        elif "_state" in self.__dict__:
            trained = self.weights is not None
            module, unfit = backbones.build_module(
                inner, None, self._state, "as stored", strict=False, trained=trained
            )
        else:
            seed = backbones.seed_of(self.random_state)
            module, unfit = backbones.build_module(inner, seed, self._source_state(), self._title())
        if wrap is None:
            tapped = tap(module.eval(), self.layers).eval().requires_grad_(False)
        elif self.layers is None:
            tapped = wrap(module.eval()).eval().requires_grad_(False)
        else:
            raise ValueError(
                f"layers={self.layers!r}: {backbones.title(self.backbone)} names the layer itself."
            )
        used = backbones.used_weights(module, tapped)
        backbones.check_used(used, unfit, self._title())
        used = backbones.on_host(used)
        found = backbones.fingerprint(used)
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
        mean, std = backbones.normalisation(inner, self.weights)
        architecture = backbones.architecture(tapped)
        device, dtype = self.torch_device(), _DTYPES[self.dtype]
        tapped = tapped.to(device, dtype).to(memory_format=torch.channels_last)
        return Bunch(module=tapped, device=device, dtype=dtype, mean=mean, std=std, architecture=architecture)

    # ------------------------------------------------------------------ what is known before anything is loaded
    def check_backbone(self) -> None:
        """Raise unless `backbone` is a torchvision classification network, a module or a factory.

        Raises
        ------
        ValueError
            Naming the nearest networks.
        """
        backbones.check_backbone(backbones.unwrapped(self.backbone)[0])

    def missing_weights(self, download: bool = False) -> str | None:
        """Tell which file of weights is needed and not there.

        Parameters
        ----------
        download : bool, default=False
            Whether torchvision's weights may be downloaded, and so are never missing.

        Returns
        -------
        what : str or None
            The file, with the network that it is of; None where nothing is missing.
        """
        name = backbones.unwrapped(self.backbone)[0]
        if self.weights is None or (self.weights == "DEFAULT" and (download or not isinstance(name, str))):
            return None
        if self.weights != "DEFAULT":
            return None if os.path.isfile(self.weights) else f"weights {self.weights}"
        place = backbones.default_weights_file(name)
        return None if os.path.isfile(place) else f"weights of {name} ({place})"

    def block_ends(self) -> list[str]:
        """Name the last layer at each spatial resolution of the network, as `layers` takes them.

        Returns
        -------
        layers : list of str
            From the first to the last. No weights are loaded.

        Raises
        ------
        ValueError
            If `backbone` is no name, or the layers of that network are not known.

        Examples
        --------
        >>> from skretrieval.extraction import ConvFeatureExtractor
        >>> ConvFeatureExtractor("squeezenet1_0").block_ends()
        ['features.1', 'features.5', 'features.10', 'features.12']
        """
        self.check_backbone()
        if not isinstance(self.backbone, str):
            raise ValueError(f"{self._title()}: only of a network by name are the layers known.")
        return list(block_ends(self.backbone))

    def _source_state(self) -> dict | None:
        inner = backbones.unwrapped(self.backbone)[0]
        return backbones.source_state(inner, self.weights, progress=bool(self.verbose))

    def _title(self) -> str:
        return f"backbone={backbones.title(self.backbone)!r}, weights={self.weights!r}"

    def _identity(self) -> str:
        net = self._network()
        layers = "trunk" if self.layers is None else "+".join(np.atleast_1d(self.layers))
        input_range = ",".join(f"{value:g}" for value in (*net.mean, *net.std))
        return (
            f"{backbones.title(self.backbone)}-{self.fingerprint_}-{net.architecture}-{input_range}-{layers}-"
            f"{self.dtype}"
        )
