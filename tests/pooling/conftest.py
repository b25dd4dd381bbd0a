"""Every pooler paired with the brute-force reference of the same formula."""

import math
from functools import partial
from typing import NamedTuple

import pytest
from references import pooling as ref
from references import terms
from sklearn.base import clone

from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    PoolerFusion,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    WeightedPooler,
)


class PoolerCase(NamedTuple):
    name: str
    pooler: object
    reference: object  # one (K, H, W) map -> (K,) float64


def _case(name, pooler, reference, **kwargs):
    return PoolerCase(name, pooler, partial(reference, **kwargs))


def _gsw():
    return PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4])


#: the papers' settings, one per public pooler
DEFAULTS = [
    _case("sum", SumPooler(), ref.sum_pool),
    _case("spoc", SPoCPooler(), ref.spoc),
    _case("mac", MACPooler(), ref.mac),
    _case("gem", GeMPooler(), ref.gem),
    _case("crow", CroWPooler(), ref.crow),
    _case("rmac", RMACPooler(), ref.rmac),
    _case("grmac", GRMACPooler(), ref.grmac),
    _case("sjw", SJWPooler(), ref.sjw),
    _case("gsw", _gsw(), ref.gsw),
    _case("region_integration", RegionIntegrationPooler(whiten=False), ref.region_integration),
    _case("adaptive_gaussian", AdaptiveGaussianPooler(), ref.adaptive_gaussian),
    _case("square_sum_rmac", SquareSumRMACPooler(), ref.square_sum_rmac),
]

#: their parameters away from the defaults
VARIANTS = [
    _case("spoc-no_prior", SPoCPooler(center_prior=False), ref.spoc, center_prior=False),
    *[
        _case(f"gem-{p}", GeMPooler(p=p), ref.gem, p=p)
        for p in (1, 1.0, 1.5, 2, 2.7, 4.0, 7.9, 20.0, 64.0, math.inf)
    ],
    *[_case(f"rmac-{n}", RMACPooler(n_levels=n), ref.rmac, n_levels=n) for n in (1, 2, 5)],
    _case("rmac-global", RMACPooler(include_global=True), ref.rmac, include_global=True),
    *[
        _case(f"grmac-{n}-{p}", GRMACPooler(n_levels=n, p=p), ref.grmac, n_levels=n, p=p)
        for n, p in [(1, 3.0), (4, 2), (3, 1.0), (3, 2.7), (2, 20.0), (3, math.inf)]
    ],
    _case("grmac-l2", GRMACPooler(region_norm="l2"), ref.grmac, region_norm="l2"),
    _case("grmac-global", GRMACPooler(include_global=True), ref.grmac, include_global=True),
    _case(
        "grmac-l2-global-max",
        GRMACPooler(p=math.inf, region_norm="l2", include_global=True),
        ref.rmac,
        include_global=True,
    ),
    *[_case(f"sjw-n{n}", SJWPooler(n_channels=n), ref.sjw, n_channels=n) for n in (0.01, 0.5, 1.0)],
    *[_case(f"sjw-rho{rho}", SJWPooler(rho=rho), ref.sjw, rho=rho) for rho in (0.0, 1.0, 500.0)],
    *[
        _case(f"sjw-{norm}", SJWPooler(saliency_norm=norm), ref.sjw, saliency_norm=norm)
        for norm in ("none", "l2", "max", "minmax")
    ],
    _case("sjw-eps", SJWPooler(eps=1e-2), ref.sjw, eps=1e-2),
    _case("sjw-sum", SJWPooler(channel_combine="sum"), ref.sjw, channel_combine="sum"),
    _case(
        "sjw-all",
        SJWPooler(n_channels=0.5, rho=7.0, saliency_norm="l2", channel_combine="sum", eps=1e-4),
        ref.sjw,
        n_channels=0.5,
        rho=7.0,
        saliency_norm="l2",
        channel_combine="sum",
        eps=1e-4,
    ),
    *[
        _case(f"regions-{n}", RegionIntegrationPooler(n, whiten=False), ref.region_integration, n_levels=n)
        for n in (1, 4)
    ],
    *[
        # the six combinations of figure 4 of Wang et al. (2018); alpha = 1 is nGaussian
        _case(
            f"gaussian-{alpha}-{channel}",
            AdaptiveGaussianPooler(alpha, channel),
            ref.adaptive_gaussian,
            alpha=alpha,
            channel=channel,
            eps=1e-6 if channel == "sparsity" else 1e-12,
        )
        for alpha in (0.1, 0.35, 1.0)
        for channel in ("element", "sparsity", None)
    ],
    *[_case(f"square_sum-{n}", SquareSumRMACPooler(n), ref.square_sum_rmac, n_levels=n) for n in (1, 2, 5)],
    _case("activation_norm", WeightedPooler("activation_norm"), terms.activation_norm),
    _case(
        "activation_norm-signed",
        WeightedPooler("activation_norm", rectify=False),
        terms.activation_norm,
        rectify=False,
    ),
    *[
        _case(f"scda-{reduce}", WeightedPooler("scda", reduce=reduce), terms.scda, reduce=reduce)
        for reduce in ("mean", "max")
    ],
    _case(
        "scda-8",
        WeightedPooler("scda", reduce="mean", spatial_params={"connectivity": 8}),
        terms.scda,
        connectivity=8,
    ),
    *[
        _case(
            f"signed_gem-{p}",
            WeightedPooler(reduce="signed_power_mean", reduce_params={"p": p}, rectify=False),
            terms.signed_gem,
            p=p,
        )
        for p in (1, 1.5, 2, 3.0, 4.6, 20.0)
    ],
    *[
        _case(
            f"signed_gem-rmac-{p}",
            WeightedPooler(regions="rmac", reduce="signed_power_mean", reduce_params={"p": p}, rectify=False),
            terms.signed_gem,
            p=p,
            n_levels=3,
        )
        for p in (3.0, 7.0)
    ],
    *[
        _case(
            "regional_gem" + "".join(f"-{value}" for value in params.values()),
            WeightedPooler(reduce="regional_power_mean", reduce_params=params),
            terms.regional_gem,
            **params,
        )
        for params in (
            {},
            {"p": 3, "region_p": 2},
            {"p": math.inf, "region_p": math.inf, "window": 3},
            {"p": 1, "region_p": 30.0, "window": 7},
            {"p": 2.5, "region_p": 1, "window": 1},
        )
    ],
    _case(
        "regional_gem-rmac",
        WeightedPooler(regions="rmac", reduce="regional_power_mean"),
        terms.regional_gem,
        n_levels=3,
    ),
    _case(
        "regional_gem-weighted",
        WeightedPooler("crow", reduce="regional_power_mean"),
        terms.regional_gem,
        weights=ref.crow_spatial,
    ),
]


@pytest.fixture(scope="session", params=DEFAULTS, ids=lambda case: case.name)
def case(request):
    """A pooler with the papers' settings."""
    return request.param


@pytest.fixture(scope="session", params=DEFAULTS + VARIANTS, ids=lambda case: case.name)
def variant(request):
    """A pooler with any settings."""
    return request.param


@pytest.fixture
def pooler(case):
    """An unfitted copy of the pooler of ``case``."""
    return clone(case.pooler)
