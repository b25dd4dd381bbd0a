"""Published methods as complete Pipelines: photographs in, ranked neighbours out.

Every function returns an unfitted scikit-learn ``Pipeline`` with the steps ``extractor``, ``pooler``,
``normalizer``, ``whitening``, ``whitened_normalizer`` and ``retriever`` (the two of whitening only where it is
asked for), with the papers' settings. Any parameter can be changed or searched as usual, for instance
``gsw().set_params(pooler__sjw__rho=10)``. Fit it on the gallery; ``predict`` gives the indices of the nearest
gallery photographs of each query, best first, and ``score`` the mAP by label.

All take the same keyword arguments besides their own (``Settings``):

extractor : estimator or None
    The front, exchanged for another: ``ConvKernelExtractor()``, ``ConvFeatureExtractor("resnet50")``, or
    ``"passthrough"`` when `X` holds feature maps already. None is VGG16's pool5 at longest side 1024, the size of
    the photographs of Oxford5k and Paris6k that the papers leave as they are.

whitening : {"pca", "learned"}, transformer or None
    "pca": PCA-whitening fitted on what the Pipeline is fitted on (the papers use a sibling collection: fit one there
    and give it here as ``sklearn.frozen.FrozenEstimator``). "learned": discriminative whitening, which needs labels
    in ``fit``. Whitening wants more photographs than dimensions: with fewer, None serves better.

n_components : int or None
    Dimensions kept by the whitening; None keeps all.

expand : int or None
    Query expansion with that many neighbours.

n_neighbors : int
    Neighbours that ``predict`` returns.
"""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from .extraction import ConvFeatureExtractor
from .pooling import (
    AdaptiveGaussianPooler,
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    LayerwisePooler,
    MACPooler,
    PoolerFusion,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
)
from .postprocessing import LearnedWhitening, PCAWhitening
from .retrieval import NearestNeighborsRetriever, QueryExpansion

__all__ = [
    "adaptive_gaussian",
    "crow",
    "gem",
    "grmac",
    "gsw",
    "late_fusion_rmac",
    "mac",
    "ms_rmac",
    "region_integration",
    "rmac",
    "sjw",
    "spoc",
]


class Settings(TypedDict, total=False):
    """The keyword arguments that all recipes share, described at the head of the module."""

    extractor: Any
    whitening: Any
    n_components: int | None
    expand: int | None
    n_neighbors: int


def gsw(*, alpha=0.6, n_levels=3, p=3.0, n_channels=0.3, rho=100.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return GSW: GR-MAC and SJW fused, whitened without reduction (S000 eq 10, section 4.6).

    Parameters
    ----------
    alpha : float, default=0.6
        Weight of GR-MAC; SJW has ``1 - alpha``.
    n_levels, p : int, float
        Of :class:`~skretrieval.pooling.GRMACPooler`.
    n_channels, rho : float
        Of :class:`~skretrieval.pooling.SJWPooler`.
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    Examples
    --------
    >>> from skretrieval import recipes
    >>> list(recipes.gsw(expand=10).named_steps)
    ['extractor', 'pooler', 'normalizer', 'whitening', 'whitened_normalizer', 'retriever']
    """
    parts = [("grmac", GRMACPooler(n_levels, p)), ("sjw", SJWPooler(n_channels, rho))]
    return _pipeline(PoolerFusion(parts, weights=[alpha, 1 - alpha]), **settings)


def grmac(*, n_levels=3, p=3.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return GR-MAC alone (S000 section 3.2).

    Parameters
    ----------
    n_levels, p : int, float
        Of :class:`~skretrieval.pooling.GRMACPooler`.
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(GRMACPooler(n_levels, p), **settings)


def sjw(*, n_channels=0.3, rho=100.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return saliency joint weighting alone (S000 section 3.3).

    Parameters
    ----------
    n_channels, rho : float
        Of :class:`~skretrieval.pooling.SJWPooler`.
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(SJWPooler(n_channels, rho), **settings)


def region_integration(*, n_levels=3, **settings: Unpack[Settings]) -> Pipeline:
    """Return feature weighting and region integration (S001): every region is whitened before the sum.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid.
    **settings
        See the module. "pca" whitens the regions; anything else is applied to their sum. The paper expands queries
        with 5 (Oxford5k), 10 or 30 (Paris6k) neighbours.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _by_region(RegionIntegrationPooler(n_levels), settings)


def adaptive_gaussian(*, alpha=0.1, channel="element", **settings: Unpack[Settings]) -> Pipeline:
    """Return adaptive Gaussian and element-value weights (S002).

    Parameters
    ----------
    alpha, channel : float, str or None
        Of :class:`~skretrieval.pooling.AdaptiveGaussianPooler`.
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(AdaptiveGaussianPooler(alpha, channel), **settings)


def spoc(*, center_prior=True, **settings: Unpack[Settings]) -> Pipeline:
    """Return SPoC (Babenko and Lempitsky 2015): 256 whitened dimensions unless `n_components` says otherwise.

    Parameters
    ----------
    center_prior : bool, default=True
        False for Holidays, as in the paper.
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    settings.setdefault("n_components", 256)
    return _pipeline(SPoCPooler(center_prior), **settings)


def mac(**settings: Unpack[Settings]) -> Pipeline:
    """Return MAC (Razavian et al. 2014; Tolias et al. 2016).

    Parameters
    ----------
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(MACPooler(), **settings)


def gem(*, p=3.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return GeM (Radenovic et al. 2019), without the fine-tuned network of that paper.

    Parameters
    ----------
    p : float, default=3.0
        Of :class:`~skretrieval.pooling.GeMPooler`.
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(GeMPooler(p), **settings)


def crow(**settings: Unpack[Settings]) -> Pipeline:
    """Return CroW (Kalantidis et al. 2016).

    Parameters
    ----------
    **settings
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(CroWPooler(), **settings)


def rmac(*, n_levels=3, **settings: Unpack[Settings]) -> Pipeline:
    """Return R-MAC (Tolias et al. 2016): its PCA-whitening works on each region, before the sum.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid.
    **settings
        See the module. "pca" whitens the regions; anything else is applied to their sum.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _by_region(RMACPooler(n_levels), settings)


def ms_rmac(*, weights=None, **settings: Unpack[Settings]) -> Pipeline:
    """Return multi-scale R-MAC: the last convolution of each block of VGG16, 1472 dimensions (MS-RMAC).

    Parameters
    ----------
    weights : sequence of float, default=None
        Factor of each layer's l2-normalised descriptor; the method's authors learn them from labels, None is alike
        (A-33).
    **settings
        See the module. `whitening` is None unless given; an `extractor` of yours gives tuples of maps.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    blocks = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    settings.setdefault("extractor", ConvFeatureExtractor("vgg16", layers=blocks))
    settings.setdefault("whitening", None)
    return _pipeline(LayerwisePooler(RMACPooler(), weights=weights), **settings)


def late_fusion_rmac(*, image_size=(550, 800, 1050), **settings: Unpack[Settings]) -> Pipeline:
    """Return R-MAC at several resolutions, l2-normalised and added (Gordo et al. 2017, as baseline of S003).

    Parameters
    ----------
    image_size : sequence of int, default=(550, 800, 1050)
        Longest sides in pixels, for the default extractor.
    **settings
        See the module. `whitening` is None unless given; an `extractor` of yours gives one map per resolution.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    sizes = list(image_size)
    settings.setdefault("extractor", ConvFeatureExtractor("resnet50", layers="layer4", image_size=sizes))
    settings.setdefault("whitening", None)
    return _pipeline(LayerwisePooler(RMACPooler(), combine="sum"), **settings)


def _by_region(pooler: Any, settings: Settings) -> Pipeline:
    """Put the PCA-whitening into a pooler that whitens its regions."""
    whitening = settings.get("whitening", "pca")
    if not (isinstance(whitening, str) and whitening == "pca"):
        return _pipeline(pooler.set_params(whiten=False), **settings)
    pooler.set_params(whiten=True, n_components=settings.get("n_components"))
    plain: Settings = {**settings, "whitening": None}
    return _pipeline(pooler, **plain)


def _pipeline(
    pooler: BaseEstimator,
    *,
    extractor: Any = None,
    whitening: Any = "pca",
    n_components: int | None = None,
    expand: int | None = None,
    n_neighbors: int = 100,
) -> Pipeline:
    """Put the steps in a row."""
    retriever = NearestNeighborsRetriever(n_neighbors)
    steps = [
        (
            "extractor",
            ConvFeatureExtractor("vgg16", layers="pool5") if extractor is None else _copy(extractor),
        ),
        ("pooler", pooler),
        ("normalizer", Normalizer()),
    ]
    if whitening is not None:
        steps += [("whitening", _whitening(whitening, n_components)), ("whitened_normalizer", Normalizer())]
    steps.append(("retriever", retriever if expand is None else QueryExpansion(retriever, expand)))
    return Pipeline(steps)


def _whitening(whitening: Any, n_components: int | None) -> BaseEstimator:
    if isinstance(whitening, str):
        known = {"pca": PCAWhitening, "learned": LearnedWhitening}
        if whitening not in known:
            raise ValueError(f"whitening must be 'pca', 'learned', a transformer or None, got {whitening!r}")
        return known[whitening](n_components)
    return _copy(whitening)


def _copy(step: Any) -> Any:
    """Clone an estimator, so that two Pipelines never share one; "passthrough" stays."""
    return step if isinstance(step, str) else clone(step)
