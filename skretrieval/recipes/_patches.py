"""Methods that send patches through a network: one vector per patch."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Unpack

import numpy as np
from sklearn.pipeline import Pipeline
from torch import nn

from ..extraction import ConvFeatureExtractor, ConvKernelExtractor, PatchNetwork
from ..pooling import LayerwisePooler, SumPooler, VLADPooler
from ..postprocessing import PCAWhitening
from ._build import Settings, describe_and_search


def neural_codes(
    *,
    backbone: str | nn.Module | Callable = "vgg16",
    layer: str = "classifier.1",
    weights: str | os.PathLike | None = "DEFAULT",
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return neural codes (Babenko et al. 2014): a fully connected layer of a network, for the whole photograph.

    The photograph is warped to the 224 x 224 pixels that the layer wants. 128 dimensions by PCA, not whitened, unless
    `whitening` is given.

    Parameters
    ----------
    backbone : str, default="vgg16"
        A torchvision name.
    layer : str, default="classifier.1"
        torchvision's node: fc6 after its ReLU in VGG16, the authors' choice.
    weights : "DEFAULT", path or None, default="DEFAULT"
        As for :class:`~skretrieval.extraction.ConvFeatureExtractor`.
    **settings
        See the package. An `extractor` of yours takes the place of the three above.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Babenko, Slesarev, Chigorin, Lempitsky, "Neural codes for image retrieval", ECCV 2014.
    """
    network = partial(PatchNetwork, backbone, layer=layer)
    extractor = ConvFeatureExtractor(network, weights=weights, image_size=256, random_state=0)
    if "whitening" not in settings:
        settings["whitening"] = PCAWhitening(settings.pop("n_components", 128), power=0)
    pooler = SumPooler(rectify=False)  # of layers without a ReLU, too
    return describe_and_search(pooler, {"extractor": extractor}, **settings)


def mop_cnn(
    *,
    n_clusters: int = 100,
    n_local: int = 500,
    backbone: str | nn.Module | Callable = "vgg16",
    layer: str = "classifier.4",
    weights: str | os.PathLike | None = "DEFAULT",
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return MOP-CNN (Gong et al. 2014): fc7 of the photograph, and VLAD of fc7 over its patches at two scales.

    Longest side 256; windows of 128 and 64 pixels, 32 apart, each warped to 224 x 224: about 60 runs of the network
    per photograph, three times in ``fit`` unless ``extractor__memory`` caches the maps. 2048 whitened dimensions.
    The authors first reduce each scale to 4096 dimensions by PCA; for up to 4096 photographs that is a rotation, to
    which the whitening of all is blind, and it is left out.

    Parameters
    ----------
    n_clusters, n_local : int
        Of :class:`~skretrieval.pooling.VLADPooler`.
    backbone : str, default="vgg16"
        A torchvision name.
    layer : str, default="classifier.4"
        torchvision's node: fc7 after its ReLU in VGG16.
    weights : "DEFAULT", path or None, default="DEFAULT"
        As for :class:`~skretrieval.extraction.ConvFeatureExtractor`.
    random_state : int, RandomState instance or None, default=None
        Of the codebooks.
    **settings
        See the package. An `extractor` of yours gives tuples of three maps.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Gong, Wang, Guo, Lazebnik, "Multi-scale orderless pooling of deep convolutional activation features", ECCV 2014.
    """
    network = partial(PatchNetwork, backbone, layer=layer, patches=(None, (128, 32), (64, 32)))
    extractor = ConvFeatureExtractor(network, weights=weights, image_size=256, random_state=0)
    scales = [
        (name, VLADPooler(n_clusters, n_local=n_local, random_state=random_state, rectify=False))
        for name in ("half", "quarter")
    ]
    pooler = LayerwisePooler([("whole", SumPooler(rectify=False)), *scales])
    return describe_and_search(pooler, {"extractor": extractor, "n_components": 2048}, **settings)


def patch_ckn(
    *,
    n_clusters: int = 256,
    points: str = "hessian",
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return VLAD over kernel descriptors of patches at interest points (Patch-CKN, Paulin et al. 2015).

    The filters are learned from the photographs themselves, as the authors do. No whitening unless it is given.

    Parameters
    ----------
    n_clusters : int, default=256
        Of :class:`~skretrieval.pooling.VLADPooler`.
    points : {"hessian", "grid", "all"}, default="hessian"
        Which patches count, see :class:`~skretrieval.pooling.VLADPooler`. "hessian" detects blobs and corners in the
        photographs and needs the extra "photos".
    random_state : int, RandomState instance or None, default=None
        Of the filters and the codebook.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Paulin, Douze, Harchaoui, Mairal, Perronnin, Schmid, "Local convolutional features with unsupervised training for
    image retrieval", ICCV 2015.
    """
    extractor = ConvKernelExtractor(random_state=random_state)
    pooler = VLADPooler(n_clusters, points=points, random_state=random_state)
    return describe_and_search(pooler, {"extractor": extractor, "whitening": None}, **settings)
