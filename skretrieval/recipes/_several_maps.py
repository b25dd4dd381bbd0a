"""Methods over several layers or resolutions: an extractor of your own gives a tuple of maps per photograph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from ..extraction import ConvFeatureExtractor
from ..pooling import (
    ClassActivationMask,
    LayerwisePooler,
    PoolerFusion,
    RMACPooler,
    SquareSumRMACPooler,
    SumPooler,
    WeightedPooler,
)
from ..postprocessing import PrincipalFeatureSelector
from ..retrieval import NearestNeighborsRetriever
from ._build import Settings, describe_and_search, in_a_row


def ms_rmac(*, weights: Sequence[float] | None = None, **settings: Unpack[Settings]) -> Pipeline:
    """Return multi-scale R-MAC: the last convolution of each block of VGG16, 1472 dimensions (MS-RMAC).

    Parameters
    ----------
    weights : sequence of float, default=None
        Factor of each layer's l2-normalised descriptor; the method's authors learn them from labels, None is 1 for
        each: without labels there is nothing to learn them from.
    **settings
        See the package. `whitening` is None unless given; an `extractor` of yours gives tuples of maps.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Li, Xu, Wang, Miao, Zhang, "MS-RMAC: multi-scale regional maximum activation of convolutions for image retrieval",
    IEEE Signal Processing Letters 2017.

    Seddati, Dupont, Mahmoudi, Parian, "Towards good practices for image retrieval based on CNN features", ICCV
    Workshops 2017, section 3.2, which describes it.
    """
    blocks = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    defaults: Settings = {"extractor": ConvFeatureExtractor("vgg16", layers=blocks), "whitening": None}
    return describe_and_search(LayerwisePooler(RMACPooler(), weights=weights), defaults, **settings)


def late_fusion_rmac(
    *, image_size: Sequence[int] = (550, 800, 1050), **settings: Unpack[Settings]
) -> Pipeline:
    """Return R-MAC at several resolutions, l2-normalised and added (Gordo et al. 2017).

    Parameters
    ----------
    image_size : sequence of int, default=(550, 800, 1050)
        Longest sides in pixels, for the default extractor.
    **settings
        See the package. `whitening` is None unless given; an `extractor` of yours gives one map per resolution.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Gordo, Almazan, Revaud, Larlus, "End-to-end learning of deep visual representations for image retrieval",
    International Journal of Computer Vision 2017.

    Seddati, Dupont, Mahmoudi, Parian, "Towards good practices for image retrieval based on CNN features", ICCV
    Workshops 2017, section 3.3, which describes it.
    """
    sizes = list(image_size)
    extractor = ConvFeatureExtractor("resnet50", layers="layer4", image_size=sizes)
    defaults: Settings = {"extractor": extractor, "whitening": None}
    return describe_and_search(LayerwisePooler(RMACPooler(), combine="sum"), defaults, **settings)


def mfc(*, image_size: Sequence[int] = (512, 768, 1024), **settings: Unpack[Settings]) -> Pipeline:
    """Return sums at three scales, l2-normalised and added (MFC, Hao et al. 2016).

    Scales and pooling are inferred from the papers whose tables cite the method.

    Parameters
    ----------
    image_size : sequence of int, default=(512, 768, 1024)
        Longest sides in pixels, for the default extractor.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Hao et al. (2016), as cited by Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted
    feature", ISPRS International Journal of Geo-Information 10(4):249, 2021, sections 2.1 and 4.
    """
    extractor = ConvFeatureExtractor("vgg16", layers="pool5", image_size=list(image_size))
    pooler = LayerwisePooler(SumPooler(), combine="sum")
    return describe_and_search(pooler, {"extractor": extractor}, **settings)


def super_global(
    *, p: float = 4.6, image_size: Sequence[int] = (724, 1024, 1448), **settings: Unpack[Settings]
) -> Pipeline:
    """Return regional GeM per scale and the maximum over scales (SuperGlobal, Shao et al. 2023).

    The authors' network is trained for retrieval and ends in a learned projection before the maximum; here the maps
    are as given. Their re-ranking is no part of it.

    Parameters
    ----------
    p : float, default=4.6
        Exponent of GeM over the map.
    image_size : sequence of int, default=(724, 1024, 1448)
        Longest sides in pixels, for the default extractor: a factor of the square root of 2 apart.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Shao, Chen, Karpur, Cui, Araujo, Cao, "Global features are all you need for image retrieval and reranking", ICCV
    2023, section 3.1.
    """
    extractor = ConvFeatureExtractor("resnet101", layers="layer4", image_size=list(image_size))
    regional = WeightedPooler(reduce="regional_power_mean", reduce_params={"p": p})
    defaults: Settings = {"extractor": extractor, "whitening": None}
    return describe_and_search(LayerwisePooler(regional, combine="max"), defaults, **settings)


def multi_resolution_pfa(
    *,
    local: bool = False,
    n_features: int = 768,
    image_size: Sequence[int] = (1050, 800, 550),
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return square-sum R-MAC over resolutions and layers, reduced by feature selection (Seddati et al. 2017).

    The maps of three resolutions are added, for the last two stages of ResNet50; their descriptors are concatenated,
    the principal features selected, and compared by Manhattan distance.

    Parameters
    ----------
    local : bool, default=False
        Also pool the cells that speak for the most likely class, and take the smaller of the global and the local
        distance. The paper finds that it does not help.
    n_features : int, default=768
        Features to keep: 768 for Holidays and UKB, 320 for Oxford5k, 384 for Paris6k.
    image_size : sequence of int, default=(1050, 800, 550)
        Longest sides in pixels, for the default extractor.
    random_state : int, RandomState instance or None, default=None
        Of the feature selection, whose result depends on it by nature.
    **settings
        See the package. The method selects instead of whitening: `whitening` can only be None, or "auto", which
        is the same here, and `n_components` is `n_features`. With `local` an `extractor` of yours must be a
        `ConvFeatureExtractor` whose network classifies, with the layer that the classifier sees as the first; the
        mask follows it.

    Returns
    -------
    pipeline : Pipeline
        Unfitted, with the steps extractor, pooler, selector and retriever.

    Raises
    ------
    ValueError
        If a whitening is asked for, or the extractor of ``local=True`` has no classifier.

    References
    ----------
    Seddati, Dupont, Mahmoudi, Parian, "Towards good practices for image retrieval based on CNN features", ICCV
    Workshops 2017, section 3.4, Algorithm 1; section 4.1 for the distances.
    """
    if settings.get("whitening") == "auto":
        settings["whitening"] = None
    given = [name for name in ("whitening", "n_components") if settings.get(name) is not None]
    if given:
        raise ValueError(
            f"multi_resolution_pfa selects n_features instead of whitening: {given} cannot be set."
        )
    sizes = list(image_size)
    default = ConvFeatureExtractor(
        "resnet50", layers=["layer4", "layer3"], image_size=sizes, multi_resolution="sum"
    )
    settings["extractor"] = extractor = settings.get("extractor") or default
    pooler: Any = LayerwisePooler(SquareSumRMACPooler(), norm=None)
    retriever = NearestNeighborsRetriever(metric="manhattan")
    if local:
        if not isinstance(extractor, ConvFeatureExtractor):
            raise ValueError(
                f"local=True needs a ConvFeatureExtractor, whose network classifies, got {extractor!r}."
            )
        parts = [("global", pooler), ("local", ClassActivationMask(clone(pooler), backbone=None))]
        pooler = PoolerFusion(parts, combine="regions", norm=None)
        retriever.set_params(region_pairs="same")
    selector = PrincipalFeatureSelector(n_features, random_state=random_state)
    return in_a_row(pooler, [("selector", selector)], retriever, **settings)
