"""Poolers away from their defaults, each with the brute-force reference of the same formula."""

import math
from functools import partial

from pooling.cases import PoolerCase
from references import pooling as ref
from references import terms

from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    GeMPooler,
    GRMACPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    WeightedPooler,
)


def _case(name, pooler, reference, **kwargs):
    return PoolerCase(name, pooler, partial(reference, **kwargs))


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
    *[
        _case(
            f"relup-{alpha}-{levels}",
            WeightedPooler(
                regions="whole" if levels is None else "rmac",
                reduce="relup_power_mean",
                reduce_params={"alpha": alpha, "p": p},
            ),
            terms.relup_gem,
            alpha=alpha,
            p=p,
            n_levels=levels,
        )
        for alpha, p, levels in ((0.0, 3.0, None), (0.014, 4.6, None), (0.4, 2.5, 3), (0.4, math.inf, None))
    ],
    _case(
        "regional_gem-relup",
        WeightedPooler(reduce="regional_power_mean", reduce_params={"alpha": 0.3}),
        terms.regional_gem,
        alpha=0.3,
    ),
    _case(
        "regional_gem-weighted",
        WeightedPooler("crow", reduce="regional_power_mean"),
        terms.regional_gem,
        weights=ref.crow_spatial,
    ),
]
