"""What is known of an extractor's network by its name: files, licence, layers; its classifier."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from torch import nn

from . import _backbones as backbones
from . import _state_dicts as state_dicts
from ._classifier import Classifier, last_linear
from ._layers import block_ends


class NetworkSourceMixin(BaseEstimator):
    """Answer what needs no photograph: which network, which weights, which layers."""

    backbone: str | nn.Module | Callable
    weights: str | os.PathLike | None
    random_state: int | np.random.RandomState | None
    verbose: bool | int

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
        place = backbones.missing_default(name)
        return None if place is None else f"weights of {name} ({place})"

    def weights_licence(self) -> str | None:
        """Tell under which licence the weights are, as far as whoever gives them away says so.

        Returns
        -------
        licence : str or None
            Of timm's default weights what timm has noted; of those of transformers what README.md beside them says.
            None where it is not known: for weights by path, and for torchvision's, of which torchvision says nothing.

        Examples
        --------
        >>> from skretrieval.extraction import ConvFeatureExtractor
        >>> ConvFeatureExtractor("timm:tf_efficientnet_lite0").weights_licence()
        'apache-2.0'
        """
        self.check_backbone()
        return self._asked_by_weights().licence

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
                unfit = state_dicts.load_state_dict(module, state, self._title())
        else:
            seed = backbones.seed_of(copy.deepcopy(self.random_state))  # looked at, not drawn from
            module, unfit = backbones.build_module(inner, seed, state, self._title())
        state_dicts.check_used(
            unfit, unfit, self._title()
        )  # whatever is missing, the classifier's may not be
        return last_linear(module, backbones.title(inner), n_channels)

    def _asked_by_weights(self) -> Bunch:
        """Return what the weights ask for; of networks of other libraries it is stored beside them."""
        inner = backbones.unwrapped(self.backbone)[0]
        if backbones.library_of(inner)[0] is None:
            return Bunch(**backbones.asked_by(inner, self.weights), config=None)
        if "_asked" not in self.__dict__:
            self._asked = {**backbones.asked_by(inner, self.weights), "config": backbones.config_of(inner)}
        return Bunch(**self._asked)
