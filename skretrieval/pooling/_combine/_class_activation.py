"""Masks from class activation maps."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional

from ...extraction import ConvFeatureExtractor
from .._engine._base import BasePooler
from .._engine._batches import Batch
from .._engine._per_cell import per_cell


class ClassActivationMask(BasePooler):
    """Pool only the cells that speak for the most likely class of the network (local descriptors).

    The classifier of the backbone is applied to the averaged map; with ``w`` the weights of the winning class,
    ``heat_ij = sum_k w_k x_kij``, and cells with ``heat >= threshold * mean(heat)`` are kept. The mask is resized to
    the other maps of a tuple by nearest neighbour. Seddati et al. (2017)
    compare these "local" descriptors beside those of the whole map.

    Parameters
    ----------
    pooler : pooler
        What pools the masked maps. With a `LayerwisePooler` the entries are tuples of maps.

    backbone : str, nn.Module, callable or None, default="resnet50"
        The network that the maps come from, as in :class:`~skretrieval.extraction.ConvFeatureExtractor`. Its last
        linear (or 1 x 1 convolutional) layer is the classifier, whose input is the first map of the tuple. None
        follows the extractor of the `FeatureMaps`: its network, weights and number of resolutions, also when they
        are changed later. `weights`, `n_resolutions` and `random_state` are not used then, and maps in memory get
        the classifier of the last extractor.

    weights : "DEFAULT", path or None, default="DEFAULT"
        As for the extractor.

    threshold : float, default=0.9
        Fraction of the mean heat that a cell needs. If no cell reaches it (the mean is negative), all are kept.

    n_resolutions : int, default=1
        How many resolutions were summed into the maps: the average is divided by it, so that the classifier sees
        activations of the scale that it was trained on.

    random_state : int, RandomState instance or None, default=None
        For ``weights=None``, as for the extractor.

    Attributes
    ----------
    pooler_ : pooler
        The fitted pooler.

    class_weights_ : ndarray of shape (n_classes, K)
        Weights of the classifier.

    class_bias_ : ndarray of shape (n_classes,)
        Its bias, which chooses the class but does not enter the heat.

    n_features_in_ : int
        Channels of all maps of an entry together.

    Notes
    -----
    Seddati et al. (2017) find that the local descriptors do not help (93.97 instead of 93.98 on
    Holidays). A nonlinearity between classifier and average (SqueezeNet) is left out.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Seddati, Dupont, Mahmoudi, Parian, "Towards good practices for image retrieval based on CNN features", ICCV
    Workshops 2017, section 3.4.

    Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning deep features for discriminative localization", CVPR 2016,
    section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import ClassActivationMask, MACPooler
    >>> maps = np.random.default_rng(0).random((2, 512, 5, 7), dtype=np.float32)
    >>> masked = ClassActivationMask(MACPooler(), backbone="resnet18", weights=None, random_state=0)
    >>> masked.fit_transform(maps).shape
    (2, 512)
    """

    _follows_from_parameters = False  # the classifier's weights may be others tomorrow
    _parameter_constraints: dict = {
        "pooler": [HasMethods(["fit", "transform"])],
        "backbone": [str, nn.Module, callable, None],
        "weights": [str, os.PathLike, None],
        "threshold": [Interval(Real, 0, None, closed="left")],
        "n_resolutions": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        pooler,
        *,
        backbone="resnet50",
        weights="DEFAULT",
        threshold=0.9,
        n_resolutions=1,
        random_state=None,
    ):
        self.pooler = pooler
        self.backbone = backbone
        self.weights = weights
        self.threshold = threshold
        self.n_resolutions = n_resolutions
        self.random_state = random_state

    @property
    def _layers(self) -> bool:  # type: ignore[override]
        return self.pooler._layers

    def _check_parameters(self) -> None:
        if not isinstance(self.pooler, BasePooler):
            raise TypeError(f"pooler must be a pooler of this package, got {type(self.pooler).__name__}.")
        if self.pooler._learns:
            raise ValueError(
                f"ClassActivationMask takes poolers that learn nothing in fit, got {self.pooler!r}."
            )
        self.pooler._validate_params()
        self.pooler._check_parameters()
        if self.pooler._gives_region_sets:
            raise ValueError(
                "ClassActivationMask takes poolers that give one descriptor per image, but region sets are what "
                f"{self.pooler!r} gives."
            )

    @property
    def _asks_signs(self) -> bool:
        return self.pooler._asks_signs

    def _settle(self, signed: list[bool] | None) -> None:
        self._signed = signed

    def _start(self, channels: list[int]) -> None:
        super()._start(channels)
        self.pooler_ = clone(self.pooler)
        self.pooler_._settle(self.__dict__.get("_signed"))
        self.pooler_._start(channels)
        self._followed: tuple[str, int] | None = None  # network and number of resolutions
        if self.backbone is not None:
            network = ConvFeatureExtractor(
                self.backbone, weights=self.weights, random_state=self.random_state
            )
            self.class_weights_, self.class_bias_ = network.classifier(channels[0])

    def _follow(self, batch: Batch) -> int:
        """Take the classifier of the extractor that made the maps; return how many resolutions it summed."""
        extractor = None if batch.source is None else batch.source.extractor
        if extractor is None and self._followed is not None:
            return self._followed[1]
        if not isinstance(extractor, ConvFeatureExtractor):
            given = "maps in memory" if extractor is None else f"those of a {type(extractor).__name__}"
            raise ValueError(
                "backbone=None takes the classifier from the network that the maps come from: it needs the FeatureMaps "
                f"of a ConvFeatureExtractor, got {given}."
            )
        # the weights by name, too: the key is of those that make maps, the classifier's are not among them
        network = f"{extractor.cache_key()}-{extractor.weights}"
        n_resolutions = len(extractor.sizes()) if extractor.multi_resolution == "sum" else 1
        if self._followed is None or self._followed[0] != network:
            self.class_weights_, self.class_bias_ = extractor.classifier(batch.maps.shape[1])
        self._followed = (network, n_resolutions)
        return n_resolutions

    def _mask(self, batch: Batch) -> torch.Tensor:
        """Return the boolean mask (N, H, W) of maps (N, K, H, W)."""
        maps = batch.maps
        n_resolutions = self._follow(batch) if self.backbone is None else self.n_resolutions
        # copies: a model that joblib has mapped from disk is read-only, which torch cannot wrap
        weight = torch.tensor(self.class_weights_).to(maps)
        bias = torch.tensor(self.class_bias_).to(maps)
        scores = maps.flatten(2).mean(dim=2) / n_resolutions @ weight.T + bias
        winner = weight[scores.argmax(dim=1)]
        heat = torch.bmm(winner[:, None, :], maps.flatten(2)).view(len(maps), *maps.shape[2:])
        mask = heat >= self.threshold * heat.mean(dim=(1, 2), keepdim=True)
        return mask | ~mask.any(dim=2, keepdim=True).any(dim=1, keepdim=True)

    def cell_weights(self, X: Any) -> list[np.ndarray]:
        """Tell which cells are kept: the mask of the first map of each entry.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit, or tuples of them.

        Returns
        -------
        weights : list of n ndarrays of shape (H_i, W_i)
            1 for a cell that is kept, 0 for one that is not, in the precision of the maps.

        Raises
        ------
        ValueError
            Empty input, wrong rank, another channel count than in fit, NaN or infinity: the entry is named.

        Examples
        --------
        >>> import numpy as np
        >>> from skretrieval.pooling import ClassActivationMask, MACPooler
        >>> maps = np.random.default_rng(0).random((2, 512, 5, 7), dtype=np.float32)
        >>> masked = ClassActivationMask(MACPooler(), backbone="resnet18", weights=None, random_state=0).fit(maps)
        >>> [weights.shape for weights in masked.cell_weights(maps)]
        [(5, 7), (5, 7)]
        """
        check_is_fitted(self)

        def mask(batch: Batch) -> torch.Tensor:
            return self._mask(batch).to(batch.maps.dtype)

        return per_cell(X, self._channels, mask, self._layers)

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        mask = self._mask(batches[0])[:, None]
        masked = []
        for batch in batches:
            size = batch.maps.shape[2:]
            fitting = mask.to(batch.maps.dtype)
            if size != mask.shape[2:]:
                fitting = functional.interpolate(fitting, size, mode="nearest")
            masked.append(Batch(batch.indices, batch.maps * fitting, batch.nonnegative))
        descriptors = self.pooler_._describe(tuple(masked))
        self.pooler_._n_features_out = descriptors.shape[1]  # it learns nothing, and is fitted by this
        return descriptors
