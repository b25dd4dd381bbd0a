"""The grid of tuning.py: every pooler, what comes after it, and the scores of all settings."""

from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    WeightedPooler,
)
from skretrieval.postprocessing import PCAWhitening, PowerNormalizer
from skretrieval.retrieval import NearestNeighborsRetriever

POOLERS = [
    SumPooler(),
    SPoCPooler(),
    MACPooler(),
    CroWPooler(),
    *(GeMPooler(p=p) for p in (1.5, 2.0, 3.0, 5.0, 8.0)),
    *(AdaptiveGaussianPooler(alpha=alpha) for alpha in (0.05, 0.1, 0.3)),
    AdaptiveGaussianPooler(channel=None),
    SJWPooler(),
    SJWPooler(rho=1.0),
    SJWPooler(n_channels=0.1),
    *(RMACPooler(n_levels=n_levels) for n_levels in (1, 2, 3, 4)),
    *(
        GRMACPooler(p=p, n_levels=n_levels, region_norm=norm)
        for p in (2.0, 3.0, 5.0)
        for n_levels in (2, 3)
        for norm in (None, "l2")
    ),
    *(RegionIntegrationPooler(n_levels=n_levels, whiten=False) for n_levels in (2, 3)),
    SquareSumRMACPooler(),
    WeightedPooler("center_prior", None, "whole", "power_mean"),
    WeightedPooler("center_prior", None, "rmac", "sum", "l2"),
    WeightedPooler("center_prior", "sparsity", "whole", "sum"),
    WeightedPooler("crow", "sparsity", "rmac", "sum", "l2"),
    WeightedPooler("saliency", None, "rmac", "power_mean", "l2"),
    WeightedPooler(None, "sparsity", "whole", "sum"),
    WeightedPooler(None, "sparsity_deviation", "whole", "power_mean"),
]
AFTER_POOLING = Pipeline(
    [
        ("power", PowerNormalizer()),
        ("unit", Normalizer()),
        ("whitening", PCAWhitening()),
        ("unit again", Normalizer()),
        ("retriever", NearestNeighborsRetriever()),
    ]
)
GRID = {
    "power__exponent": [1.0, 0.5],
    "whitening": ["passthrough", PCAWhitening(64, power=0.25), PCAWhitening(64, power=0.5)],
}


def grid_scores(descriptors, y=None, **search):
    """Score every setting after pooling; with several scorers, return their scores by name."""
    results = GridSearchCV(AFTER_POOLING, GRID, refit=False, error_score="raise", **search).fit(
        descriptors, y
    )
    names = search["scoring"] if isinstance(search.get("scoring"), dict) else ["score"]
    scores = {name: results.cv_results_[f"mean_test_{name}"] for name in names}
    return scores if len(scores) > 1 else scores["score"]
