"""Feature maps of a convolutional kernel network that is learned from the photographs themselves."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import Bunch, Tags, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from ._base import BaseExtractor
from ._feature_maps import read_ahead
from ._images import UnreadableImageWarning
from ._kernel_learning import gather_patches, layers_fingerprint, learn_layer
from ._kernel_network import PER_LAYER, as_input, assemble, checked_entry


class ConvKernelExtractor(BaseExtractor):
    """Feature maps of a convolutional kernel network learned, without labels, from the photographs.

    Nothing is downloaded and nothing is trained by gradient descent: ``fit`` cuts patches out of photographs,
    whitens them and clusters them, layer by layer, in seconds on a CPU. The maps tell textures, edges and their
    colours apart, not objects: expect far less of them than of a network trained on millions of photographs
    (:class:`ConvFeatureExtractor`), and clearly more than of a random one. Use it where no weights can be had,
    for pictures that look like no photograph, and for tests and demonstrations.

    Photographs are read, turned upright, made RGB in [0, 1] and resized (bicubic) to `image_size`. Any photograph
    of at least 2 x 2 pixels works; borders are repeated, so that a map has ``ceil(H / prod(subsampling))`` rows.
    Maps are non-negative; flat areas give 0, and a photograph of one colour gives a zero map.

    Parameters
    ----------
    n_channels : sequence of int, default=(256, 512)
        Filters of each layer; as many layers as entries. The parameters marked *per layer* take one value for
        all layers or a sequence of as many values.

    patch_size : int or sequence of int, default=(7, 1)
        Per layer: side of the patches, in cells of the layer's input. A patch of the second layer already sees a
        neighbourhood, that of the pooling between the layers.

    subsampling : int or sequence of int, default=2
        Per layer: the Gaussian pooling keeps every so-manieth row and column. Its standard deviation is half of
        that; 1 means no pooling.

    beta : float or sequence of float, default=8.0
        Per layer: sharpness of the kernel. Larger values let a patch excite fewer channels.

    center : bool or sequence of bool, default=(True, False)
        Per layer: whether the mean of each channel is removed from each patch. In the first layer this makes
        the network see (colour) gradients and not levels, and so bear changes of light.

    n_components : int, None or sequence of these, default=(64, 128)
        Per layer: principal components of the patches that are kept; None, or more than there are, keeps all.

    contrast : float or sequence of float, default=0.01
        Per layer: patches are divided by the root of their mean square plus `contrast` times the average mean
        square of the patches of `fit`, so that noise in flat areas stays small.

    reg : float or sequence of float, default=0.1
        Per layer: added to the eigenvalues in the whitening, relative to their mean.

    n_images : int, default=100
        At most so many photographs, chosen at random, give the patches in `fit`; memory and time of `fit` don't
        grow beyond them.

    n_patches : int, default=20000
        Patches from which each layer is learned, equally many from each of these photographs.

    image_size : int, None or list of int, default=224
        Longest side in pixels; None keeps the size. Several sizes are multi-resolution. The filters are a few
        pixels wide, so the size is also the scale at which the network looks.

    enlarge : bool, default=True
        Whether photographs (or the boxes of an `ImageCrop`) with fewer pixels than `image_size` are scaled up to it, as
        the published protocols do. False takes them with the pixels that they have, which for one's own photographs
        costs less and invents nothing; with several sizes each is capped.

    multi_resolution : {"sum", "stack"} or None, default=None
        With several sizes: sum the maps, bilinearly resized to the largest, or give a tuple of maps, in the given
        order. None means "stack".

    batch_size : int, default=8
        Photographs of equal shape that go through the network together, at most. On a CPU, where large ones gain
        nothing by company, as many of them as make up 512 x 512 pixels.

    device : str, default="auto"
        "auto" takes CUDA where torch sees it; or "cpu", "cuda", "cuda:1".

    on_error : {"raise", "warn"}, default="raise"
        What to do with a photograph that cannot be read: "warn" leaves it out of `fit` and gives it a zero map in
        `transform`, with one warning that lists them all.

    truncated : {"raise", "pad"}, default="raise"
        What to do with a file that was cut short: "pad" takes what there is of it; the rest is grey or black.

    memory : str, path or joblib.Memory, default=None
        Caches the maps of each photograph, by its content, box and size and by the learned filters, and the
        descriptors that poolers make of them (see the notes of :class:`ConvFeatureExtractor`).

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

    random_state : int, RandomState instance or None, default=None
        Chooses photographs, patches and first cluster centres. An int makes `fit` reproducible.

    verbose : bool, default=False
        Show a progress bar on each pass.

    Attributes
    ----------
    layers_ : list of dict
        What was learned and set for each layer: arrays ``projection`` (d, C, k, k) and ``filters`` (K, d), and the
        numbers that the formula below needs. Only `fit` changes them.

    fingerprint_ : str
        Hash of `layers_`.

    failed_ : dict
        The reasons for the photographs that could not be read in the last pass, by position.

    See Also
    --------
    ConvFeatureExtractor : Maps of networks trained on ImageNet, where their weights can be had.

    Notes
    -----
    With ``x`` the patch around a cell, its mean removed where `center`, ``v(x)`` its mean square and ``v0`` the
    average of ``v`` over the patches of `fit`, a layer computes::

        y   = W x / sqrt(v(x) + contrast * v0)
        m_k = ||y|| * exp(beta * (<z_k, y> / ||y|| - 1))          0 where y = 0

    and pools every ``m_k`` with a Gaussian. ``exp(beta * (<u, u'> - 1))`` on unit vectors is the dot-product form
    [3]_ of the Gaussian kernel of [1]_, and ``||y||`` makes the kernel homogeneous, as in [1]_. ``W`` whitens the
    patches by their (uncentred) second moment; dot products are those of ZCA whitening, which only rotates. The
    anchors ``z_k`` are the centres of spherical k-means on the ``y / ||y||``. The Nystrom projection of [3]_ would
    multiply ``m`` by ``k(Z, Z)^(-1/2)``. It is left out: after the last layer the maps must stay non-negative, as
    the poolers need; before it the whitening of the next layer, which sees the same maps, takes its place.

    [2]_ describes affine-normalised patches by a kernel network and aggregates them with VLAD. Here the network
    runs over whole photographs, and any pooler of this package aggregates.

    The defaults are measured (benchmarks/kernel_extractor.py). One layer,
    ``ConvKernelExtractor((512,), patch_size=7, subsampling=4, center=True, n_components=64)``, is learned in a
    fraction of the time and serves as well with GeM and GR-MAC, less with SJW. Hardly a cell of a photograph
    is exactly 0, so poolers that count zeros (SJW, CroW) have little to count: GeM, R-MAC and GR-MAC suit these
    maps better.

    Threads: any number may use one fitted extractor and its maps at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    .. [1] J. Mairal, P. Koniusz, Z. Harchaoui, C. Schmid, "Convolutional kernel networks", NIPS 2014.
    .. [2] M. Paulin, M. Douze, Z. Harchaoui, J. Mairal, F. Perronnin, C. Schmid, "Local convolutional features
           with unsupervised training for image retrieval", ICCV 2015.
    .. [3] J. Mairal, "End-to-end kernel learning with supervised convolutional kernel networks", NIPS 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.extraction import ConvKernelExtractor
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    >>> extractor = ConvKernelExtractor((8, 16), image_size=64, n_patches=500, random_state=0)
    >>> maps = extractor.fit_transform(images)
    >>> maps[0].shape
    (16, 12, 16)
    >>> bool(maps[0].min() >= 0)
    True
    """

    _parameter_constraints: dict = {
        **BaseExtractor._parameter_constraints,
        "n_channels": ["array-like"],
        **{name: ["array-like", Integral, Real, "boolean", None] for name in PER_LAYER},
        "n_images": [Interval(Integral, 1, None, closed="left")],
        "n_patches": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_channels: Sequence[int] = (256, 512),
        *,
        patch_size: int | Sequence[int] = (7, 1),
        subsampling: int | Sequence[int] = 2,
        beta: float | Sequence[float] = 8.0,
        center: bool | Sequence[bool] = (True, False),
        n_components: int | Sequence[int | None] | None = (64, 128),
        contrast: float | Sequence[float] = 0.01,
        reg: float | Sequence[float] = 0.1,
        n_images: int = 100,
        n_patches: int = 20000,
        image_size: int | Sequence[int] | None = 224,
        enlarge: bool = True,
        multi_resolution: str | None = None,
        batch_size: int = 8,
        device: str | torch.device = "auto",
        on_error: str = "raise",
        truncated: str = "raise",
        memory: Any = None,
        memory_keeps: str = "both",
        memory_dtype: str = "float32",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_channels = n_channels
        self.patch_size = patch_size
        self.subsampling = subsampling
        self.beta = beta
        self.center = center
        self.n_components = n_components
        self.contrast = contrast
        self.reg = reg
        self.n_images = n_images
        self.n_patches = n_patches
        self.image_size = image_size
        self.enlarge = enlarge
        self.multi_resolution = multi_resolution
        self.batch_size = batch_size
        self.device = device
        self.on_error = on_error
        self.truncated = truncated
        self.memory = memory
        self.memory_keeps = memory_keeps
        self.memory_dtype = memory_dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ learning
    def _fit_network(self, images: list) -> None:
        settings = self._layer_settings()
        rng = check_random_state(self.random_state)
        chosen = np.sort(rng.permutation(len(images))[: self.n_images])
        learned: list[dict] = []
        for number, setting in enumerate(settings, start=1):
            patches = self._sample_patches(images, chosen, learned, setting["patch_size"], rng)
            try:
                learned.append(learn_layer(patches, setting, rng))
            except ValueError as error:
                raise ValueError(
                    f"Layer {number} cannot be learned from the photographs given to fit: {error} Give more "
                    "(or more varied) photographs, or lower n_channels."
                ) from error
        self.layers_ = learned
        self.fingerprint_ = layers_fingerprint(learned)

    @torch.inference_mode()
    def _sample_patches(
        self, images: list, chosen: np.ndarray, learned: list[dict], size: int, rng: np.random.RandomState
    ) -> torch.Tensor:
        """Cut equally many patches at random out of the maps of each chosen photograph; returns them on the CPU.

        Each layer reads the photographs again: a few seconds, for a memory that depends on no image size.
        """
        device = self.torch_device()
        network = assemble(learned).to(device)
        sizes = len(self.sizes())
        share = -(-self.n_patches // (len(chosen) * sizes))
        entries = read_ahead(self, [images[i] for i in chosen], chosen, None)
        patches, failed = [], {}
        for position, entry in zip(chosen, entries, strict=True):
            cells = rng.randint(np.iinfo(np.int32).max, size=(sizes, share))  # drawn for unreadable ones too
            if isinstance(entry, Exception):
                failed[int(position)] = str(entry)
                continue
            for pixels, drawn in zip(entry.arrays, cells, strict=True):
                maps = network(as_input(pixels).to(device))[0]
                places = torch.from_numpy(drawn % (maps.shape[1] * maps.shape[2])).to(device)
                patches.append(gather_patches(maps, size, places).cpu())
        self.failed_ = failed
        reasons = [why.removesuffix(".") for why in failed.values()]
        if not patches:
            raise ValueError(f"None of the {len(chosen)} photographs can be read: {'; '.join(reasons)}.")
        if failed and not learned:
            warnings.warn(
                f"{len(failed)} of {len(chosen)} images could not be read and were left out of fit: "
                f"{'; '.join(reasons[:20])}.",
                UnreadableImageWarning,
                stacklevel=2,
            )
        return torch.cat(patches)

    def _layer_settings(self) -> list[dict]:
        """Check the parameters of the layers and return one dict per layer."""
        channels = list(self.n_channels)
        if not channels:
            raise ValueError("n_channels must name at least one layer, got an empty sequence.")
        columns = {"n_channels": [checked_entry("n_channels", n, Integral, 1, True, False) for n in channels]}
        for name, rules in PER_LAYER.items():
            value = getattr(self, name)
            several = isinstance(value, list | tuple | np.ndarray)
            values = list(value) if several else [value] * len(channels)
            if len(values) != len(channels):
                raise ValueError(
                    f"{name} has {len(values)} entries, but n_channels={tuple(channels)} makes {len(channels)} layers."
                )
            columns[name] = [checked_entry(name, entry, *rules) for entry in values]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # ------------------------------------------------------------------ the learned network
    def _network_key(self) -> tuple:
        check_is_fitted(self, "layers_")
        return self.fingerprint_, str(self.torch_device())

    def _build(self) -> Bunch:
        device = self.torch_device()
        return Bunch(
            module=assemble(self.layers_).to(device),
            device=device,
            dtype=torch.float32,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )

    def _identity(self) -> str:
        check_is_fitted(self, "layers_")
        return f"kernel-{self.fingerprint_}"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags
