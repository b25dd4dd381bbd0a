"""Methods that describe regions of one map per photograph."""

from __future__ import annotations

from typing import Unpack

from sklearn.pipeline import Pipeline

from ..extraction import ConvFeatureExtractor
from ..pooling import (
    EntropyPooler,
    GRMACPooler,
    PoolerFusion,
    RegionalSecondOrderPooler,
    RegionIntegrationPooler,
    RegionSetPooler,
    RMACPooler,
)
from ._build import Settings, describe_and_search, in_a_row, whiten_regions


def grmac(*, n_levels: int = 3, p: float = 3.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return GR-MAC alone (Zhao et al. 2021, section 3.2).

    Parameters
    ----------
    n_levels, p : int, float
        Of :class:`~skretrieval.pooling.GRMACPooler`.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, section 3.2, eqs 11-13.
    """
    return describe_and_search(GRMACPooler(n_levels, p), {}, **settings)


def patchify(*, n_levels: int = 4, **settings: Unpack[Settings]) -> Pipeline:
    """Return means of the parts of grids, each by itself, of which the most alike count (Patchify, 2026).

    Two photographs are as alike as their most alike regions;
    :meth:`~skretrieval.retrieval.NearestNeighborsRetriever.matched_regions` says which.

    Parameters
    ----------
    n_levels : int, default=4
        Grids of up to n_levels x n_levels parts: 30 regions with four.
    **settings
        See the package. `whitening` is None unless given; ``whitening="pca", n_components=128`` makes regions compact.

    Returns
    -------
    pipeline : Pipeline
        Unfitted, with the steps extractor, pooler, whitening where it is asked for, and retriever.

    Raises
    ------
    ValueError
        If `whitening` is an unknown name, or `n_components` was given without one.

    References
    ----------
    Patchify, IEEE/CVF Winter Conference on Applications of Computer Vision, 2026.
    """
    model = describe_and_search(
        RegionSetPooler(n_levels=n_levels, region_norm="l2"), {"whitening": None}, **settings
    )
    # the cosine is blind to lengths, and scikit-learn's Normalizer takes no region sets
    return Pipeline([step for step in model.steps if not step[0].endswith("normalizer")])


def rmac(*, n_levels: int = 3, **settings: Unpack[Settings]) -> Pipeline:
    """Return R-MAC (Tolias et al. 2016): its PCA-whitening works on each region, before the sum.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid.
    **settings
        See the package. "pca" whitens the regions; anything else is applied to their sum.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Tolias, Sicre, Jegou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016.
    """
    return whiten_regions(RMACPooler(n_levels), {}, **settings)


def region_integration(*, n_levels: int = 3, **settings: Unpack[Settings]) -> Pipeline:
    """Return region integration (Liao et al. 2022): every weighted region is whitened before the sum.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid.
    **settings
        See the package. "pca" whitens the regions; anything else is applied to their sum. The paper expands queries
        with 5 (Oxford5k), 10 or 30 (Paris6k) results, the query counted among them: ``expand`` 4, 9 or 29.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Liao, Fan, Zheng, Lin, Cao, "Image retrieval based on the weighted and regional integration of CNN features", KSII
    Transactions on Internet and Information Systems 16(3):894-907, 2022, sections 3.2 and 3.3.
    """
    return whiten_regions(RegionIntegrationPooler(n_levels), {}, **settings)


def fde(
    *, weight: float = 0.1, n_levels: int = 3, n_bins: int = 10, **settings: Unpack[Settings]
) -> Pipeline:
    """Return R-MAC fused with the entropies of the activations (FDE, Liu et al. 2019).

    :class:`~skretrieval.pooling.EntropyPooler` says what is inferred.

    Parameters
    ----------
    weight : float, default=0.1
        Of the entropies; R-MAC has ``1 - weight``.
    n_levels, n_bins : int
        Of :class:`~skretrieval.pooling.EntropyPooler`; R-MAC shares the levels.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Liu, Gou, Guo, Zhang, Zhao, Zhou, "Fusing feature distribution entropy with R-MAC features in image retrieval",
    Entropy 21(11):1037, 2019.
    """
    parts = [("rmac", RMACPooler(n_levels)), ("entropy", EntropyPooler(n_levels, n_bins=n_bins))]
    return describe_and_search(PoolerFusion(parts, weights=[1 - weight, weight]), {}, **settings)


def regional_second_order(
    *, n_clusters: int = 3, n_local: int | None = 128, **settings: Unpack[Settings]
) -> Pipeline:
    """Return regional second-order pooling (Jeong et al. 2017): region sets, compared by their best pair (eq 7).

    VGG19's relu5_4 unless another extractor is given. Queries that are crops want their whole region only:
    ``set_params(pooler__regions="whole")`` before they are described. Query expansion takes the best regions of 10
    results and leaves the query out (eq 8): ``expand=10``, but not for Holidays.

    Parameters
    ----------
    n_clusters, n_local : int
        Of :class:`~skretrieval.pooling.RegionalSecondOrderPooler`.
    **settings
        See the package. The method is whitened inside the pooler, to 512 dimensions unless `n_components` says
        otherwise: `whitening` can only be "pca", or "auto", which is the same here: nothing is left of the method
        without it.

    Returns
    -------
    pipeline : Pipeline
        Unfitted; it has no steps between the pooler and the retriever.

    Raises
    ------
    ValueError
        If another whitening is asked for.

    References
    ----------
    Jeong, Choo, Seo, Cho, "Regional deep feature aggregation for image retrieval", ICASSP 2017, eqs 1-8.
    """
    whitening = settings.get("whitening", "pca")
    if whitening not in ("auto", "pca"):
        raise ValueError(
            f"regional_second_order whitens in its pooler: whitening must be 'pca', got {whitening!r}."
        )
    settings["extractor"] = settings.get("extractor") or ConvFeatureExtractor("vgg19", layers="relu5_4")
    pooler = RegionalSecondOrderPooler(
        n_clusters, n_local=n_local, n_components=settings.get("n_components", 512)
    )
    return in_a_row(pooler, [], None, False, **settings)  # eq 8 leaves the query out
