"""Poolers that learn a codebook, each with its brute-force reference for the codebook that it learned."""

from functools import partial
from typing import NamedTuple

import numpy as np
from references import codebooks as ref
from references.maps import make_ragged

from skretrieval.pooling import (
    BoWPooler,
    FisherVectorPooler,
    NetVLADPooler,
    TEmbeddingPooler,
    VLADPooler,
)
from skretrieval.pooling._codebooks._centers import rounding

N_CHANNELS = 5


def common(pooler):
    axes = getattr(pooler, "local_axes_", None)
    return {
        "axes": None if axes is None else (axes.mean, axes.components),
        "rectify": pooler.rectify,
    }


def bow(pooler):
    return partial(ref.bow, centers=pooler.cluster_centers_, upsample=pooler.upsample, **common(pooler))


def vlad(pooler):
    return partial(
        ref.vlad,
        centers=pooler.cluster_centers_,
        floor=rounding(pooler.cluster_centers_),
        power=pooler.power,
        intra_norm=pooler.intra_norm,
        **common(pooler),
    )


def fisher(pooler):
    return partial(
        ref.fisher,
        weights=pooler.weights_,
        means=pooler.means_,
        variances=pooler.variances_,
        power=pooler.power,
        **common(pooler),
    )


def netvlad(pooler):
    return partial(
        ref.netvlad,
        centers=pooler.cluster_centers_,
        alpha=pooler.alpha_,
        floor=rounding(pooler.cluster_centers_),
        **common(pooler),
    )


def t_embedding(pooler):
    return partial(
        ref.t_embedding,
        centers=pooler.cluster_centers_,
        mean=pooler.embedding_axes_.mean,
        components=pooler.embedding_axes_.components,
        floor=rounding(pooler.cluster_centers_),
        aggregation=pooler.aggregation,
        n_iter=pooler.n_iter,
        power=pooler.power,
        **common(pooler),
    )


class Case(NamedTuple):
    name: str
    pooler: object
    reference: object  # fitted pooler -> function of one (K, H, W) map


CASES = [
    Case("bow", BoWPooler(7, random_state=0, sparse_output=False), bow),
    Case("bow-plain", BoWPooler(4, n_local=None, upsample=1, random_state=0, sparse_output=False), bow),
    Case("vlad", VLADPooler(4, random_state=0), vlad),
    Case("vlad-plain", VLADPooler(3, power=1, intra_norm=False, random_state=0), vlad),
    Case("vlad-local", VLADPooler(3, n_local=3, random_state=1), vlad),
    Case("fisher", FisherVectorPooler(3, n_local=4, random_state=0), fisher),
    Case("fisher-plain", FisherVectorPooler(2, n_local=None, power=1, random_state=0), fisher),
    Case("t_embedding", TEmbeddingPooler(3, n_local=4, random_state=0), t_embedding),
    Case("t_embedding-sum", TEmbeddingPooler(3, n_local=4, aggregation="sum", random_state=0), t_embedding),
    Case(
        "t_embedding-plain",
        TEmbeddingPooler(2, n_local=None, n_drop=1, power=0.8, n_iter=3, random_state=0),
        t_embedding,
    ),
    Case("netvlad", NetVLADPooler(4, random_state=0), netvlad),
    Case("netvlad-local", NetVLADPooler(3, n_local="all", random_state=0), netvlad),
]


def training_maps(dtype=np.float64, signed=False):
    maps = make_ragged(N_CHANNELS, [(6, 7), (5, 5), (6, 7), (3, 9), (5, 5)], seed=100)
    return [(feature_map - 0.4 * signed).astype(dtype) for feature_map in maps]
