"""Methods that learn a codebook of local descriptors, the columns of one map per photograph."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from sklearn.pipeline import Pipeline

from ..extraction import ConvFeatureExtractor
from ..pooling import (
    BoWPooler,
    FisherVectorPooler,
    NetVLADPooler,
    TEmbeddingPooler,
    VLADPooler,
)
from ..retrieval import NearestNeighborsRetriever
from ._build import Settings, describe_and_search


def vlad(
    *,
    n_clusters: int = 64,
    n_local: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return VLAD of a map's columns, reduced to 128 whitened dimensions (Ng et al. 2015).

    Parameters
    ----------
    n_clusters, n_local : int or None
        Of :class:`~skretrieval.pooling.VLADPooler`.
    random_state : int, RandomState instance or None, default=None
        Of the codebook.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Ng, Yang, Davis, "Exploiting local features from deep networks for image retrieval", CVPR Workshops 2015.

    Jegou, Douze, Schmid, Perez, "Aggregating local descriptors into a compact image representation", CVPR 2010.
    """
    pooler = VLADPooler(n_clusters, n_local=n_local, random_state=random_state)
    return describe_and_search(pooler, {"n_components": 128}, **settings)


def fisher(
    *,
    n_clusters: int = 64,
    n_local: int | None = 64,
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return the Fisher vector of a map's columns (Perronnin et al. 2010, on maps as the papers cite it).

    Parameters
    ----------
    n_clusters, n_local : int
        Of :class:`~skretrieval.pooling.FisherVectorPooler`.
    random_state : int, RandomState instance or None, default=None
        Of the codebook.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Perronnin, Sanchez, Mensink, "Improving the Fisher kernel for large-scale image classification", ECCV 2010, sections
    2 and 3.
    """
    pooler = FisherVectorPooler(n_clusters, n_local=n_local, random_state=random_state)
    return describe_and_search(pooler, {}, **settings)


def t_embedding(
    *,
    n_clusters: int = 16,
    n_local: int | None = 128,
    aggregation: str = "democratic",
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return triangulation embedding with democratic weights (Jegou and Zisserman 2014).

    Parameters
    ----------
    n_clusters, n_local, aggregation : int, int, str
        Of :class:`~skretrieval.pooling.TEmbeddingPooler`.
    random_state : int, RandomState instance or None, default=None
        Of the codebook.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Jegou, Zisserman, "Triangulation embedding and democratic aggregation for image search", CVPR 2014, sections 3 and
    4.
    """
    pooler = TEmbeddingPooler(n_clusters, n_local=n_local, aggregation=aggregation, random_state=random_state)
    return describe_and_search(pooler, {}, **settings)


def netvlad(
    *,
    n_clusters: int = 64,
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return NetVLAD without training: soft assignment to centres of k-means (Arandjelovic et al. 2016).

    4096 whitened dimensions unless `n_components` says otherwise. The published figures use trained weights.

    Parameters
    ----------
    n_clusters : int, default=64
        Of :class:`~skretrieval.pooling.NetVLADPooler`.
    random_state : int, RandomState instance or None, default=None
        Of the codebook.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Arandjelovic, Gronat, Torii, Pajdla, Sivic, "NetVLAD: CNN architecture for weakly supervised place recognition",
    CVPR 2016, eqs 2-4 and the initialisation of its appendix.
    """
    pooler = NetVLADPooler(n_clusters, random_state=random_state)
    return describe_and_search(pooler, {"n_components": 4096}, **settings)


def bow_cnn(
    *,
    n_clusters: int = 25000,
    n_local: int | None = 512,
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return the bag of words of a convolutional map (BoW-CNN, Mohedano et al. 2016).

    VGG16's conv5_1 at longest side 336, enlarged twofold, PCA-whitened; sparse histograms of 25,000 words. The
    vocabulary needs at least as many local descriptors: 19 photographs of 4:3.

    Parameters
    ----------
    n_clusters, n_local : int
        Of :class:`~skretrieval.pooling.BoWPooler`.
    random_state : int, RandomState instance or None, default=None
        Of the codebook.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Mohedano, Salvador, McGuinness, Marques, O'Connor, Giro-i-Nieto, "Bags of local convolutional features for scalable
    instance search", ICMR 2016, section 3.
    """
    extractor = ConvFeatureExtractor("vgg16", layers="relu5_1", image_size=336)
    sparse = settings.get("whitening") is None  # which takes dense histograms
    pooler = BoWPooler(n_clusters, n_local=n_local, sparse_output=sparse, random_state=random_state)
    retriever = NearestNeighborsRetriever(accept_sparse=sparse)
    return describe_and_search(pooler, {"extractor": extractor, "whitening": None}, retriever, **settings)
