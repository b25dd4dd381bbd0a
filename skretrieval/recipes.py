"""Published methods as complete Pipelines: photographs in, ranked neighbours out.

Every function returns an unfitted scikit-learn ``Pipeline`` with the steps ``extractor``, ``pooler``,
``normalizer``, ``whitening``, ``whitened_normalizer`` and ``retriever`` (the two of whitening only where it is
asked for), with the papers' settings. Any parameter can be changed or searched as usual, for instance
``gsw().set_params(pooler__sjw__rho=10)``. Fit it on the gallery; ``predict`` gives the indices of the nearest
gallery photographs of each query, best first, and ``score`` the mAP by label.

All take the same keyword arguments:

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

from typing import Any

from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from .extraction import ConvFeatureExtractor
from .pooling import (
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    PoolerFusion,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
)
from .postprocessing import LearnedWhitening, PCAWhitening
from .retrieval import NearestNeighborsRetriever, QueryExpansion

__all__ = ["crow", "gem", "grmac", "gsw", "mac", "rmac", "sjw", "spoc"]


def gsw(
    *,
    alpha=0.6,
    n_levels=3,
    p=3.0,
    n_channels=0.3,
    rho=100.0,
    extractor=None,
    whitening="pca",
    n_components=None,
    expand=None,
    n_neighbors=100,
) -> Pipeline:
    """Return GSW: GR-MAC and SJW fused, whitened without reduction (S000 eq 10, section 4.6).

    Parameters
    ----------
    alpha : float, default=0.6
        Weight of GR-MAC; SJW has ``1 - alpha``.
    n_levels, p : int, float
        Of :class:`~skretrieval.pooling.GRMACPooler`.
    n_channels, rho : float
        Of :class:`~skretrieval.pooling.SJWPooler`.
    extractor, whitening, n_components, expand, n_neighbors
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
    pooler = PoolerFusion(parts, weights=[alpha, 1 - alpha])
    return _pipeline(pooler, extractor, whitening, n_components, expand, n_neighbors)


def grmac(
    *,
    n_levels=3,
    p=3.0,
    extractor=None,
    whitening="pca",
    n_components=None,
    expand=None,
    n_neighbors=100,
) -> Pipeline:
    """Return GR-MAC alone (S000 section 3.2).

    Parameters
    ----------
    n_levels, p : int, float
        Of :class:`~skretrieval.pooling.GRMACPooler`.
    extractor, whitening, n_components, expand, n_neighbors
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(GRMACPooler(n_levels, p), extractor, whitening, n_components, expand, n_neighbors)


def sjw(
    *,
    n_channels=0.3,
    rho=100.0,
    extractor=None,
    whitening="pca",
    n_components=None,
    expand=None,
    n_neighbors=100,
) -> Pipeline:
    """Return saliency joint weighting alone (S000 section 3.3).

    Parameters
    ----------
    n_channels, rho : float
        Of :class:`~skretrieval.pooling.SJWPooler`.
    extractor, whitening, n_components, expand, n_neighbors
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(SJWPooler(n_channels, rho), extractor, whitening, n_components, expand, n_neighbors)


def crow(*, extractor=None, whitening="pca", n_components=None, expand=None, n_neighbors=100) -> Pipeline:
    """Return CroW (Kalantidis et al. 2016).

    Parameters
    ----------
    extractor, whitening, n_components, expand, n_neighbors
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(CroWPooler(), extractor, whitening, n_components, expand, n_neighbors)


def rmac(
    *, n_levels=3, extractor=None, whitening="pca", n_components=None, expand=None, n_neighbors=100
) -> Pipeline:
    """Return R-MAC (Tolias et al. 2016): its PCA-whitening works on each region, before the sum.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid.
    extractor, whitening, n_components, expand, n_neighbors
        See the module. With "learned" or a transformer the regions are only normalised and their sum is whitened.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    by_region = isinstance(whitening, str) and whitening == "pca"
    pooler = RMACPooler(n_levels, whiten=by_region, n_components=n_components if by_region else None)
    return _pipeline(pooler, extractor, None if by_region else whitening, n_components, expand, n_neighbors)


def spoc(
    *,
    center_prior=True,
    extractor=None,
    whitening="pca",
    n_components=256,
    expand=None,
    n_neighbors=100,
) -> Pipeline:
    """Return SPoC (Babenko and Lempitsky 2015): 256 whitened dimensions.

    Parameters
    ----------
    center_prior : bool, default=True
        False for Holidays, as in the paper.
    extractor, whitening, n_components, expand, n_neighbors
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(SPoCPooler(center_prior), extractor, whitening, n_components, expand, n_neighbors)


def mac(*, extractor=None, whitening="pca", n_components=None, expand=None, n_neighbors=100) -> Pipeline:
    """Return MAC (Razavian et al. 2014; Tolias et al. 2016).

    Parameters
    ----------
    extractor, whitening, n_components, expand, n_neighbors
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(MACPooler(), extractor, whitening, n_components, expand, n_neighbors)


def gem(
    *, p=3.0, extractor=None, whitening="pca", n_components=None, expand=None, n_neighbors=100
) -> Pipeline:
    """Return GeM (Radenovic et al. 2019), without the fine-tuned network of that paper.

    Parameters
    ----------
    p : float, default=3.0
        Of :class:`~skretrieval.pooling.GeMPooler`.
    extractor, whitening, n_components, expand, n_neighbors
        See the module.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    """
    return _pipeline(GeMPooler(p), extractor, whitening, n_components, expand, n_neighbors)


def _pipeline(
    pooler: BaseEstimator,
    extractor: Any,
    whitening: Any,
    n_components: int | None,
    expand: int | None,
    n_neighbors: int,
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
