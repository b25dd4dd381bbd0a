"""The complete battery of scikit-learn for poolers that learn from the maps, through the adapter of the others."""

from unittest import SkipTest

import pytest
from pooling.test_estimator_checks import adapter_of, name_of, rows
from sklearn.decomposition import FastICA
from sklearn.utils import estimator_checks as checks

from skretrieval.pooling import (
    BoWPooler,
    EntropyPooler,
    FisherVectorPooler,
    NetVLADPooler,
    PartWeightedPooler,
    TEmbeddingPooler,
    VLADPooler,
)

# fitted attributes are the pooler's; the check of iterative estimators asks the adapter for this one
adapter_of(FisherVectorPooler).n_iter_ = property(lambda self: self.pooler_.n_iter_)

POOLERS = [
    BoWPooler(2),
    VLADPooler(2),
    FisherVectorPooler(2, n_local="all"),
    TEmbeddingPooler(2, n_local=None, n_drop=1),
    NetVLADPooler(2),
    PartWeightedPooler(2),
    EntropyPooler(),
]
VARIANTS = [
    BoWPooler(2, n_local=None, upsample=1, sparse_output=False),
    VLADPooler(2, n_local="all", intra_norm=False, power=1, rectify=False),
    FisherVectorPooler(2, n_local=None, rectify=False),
    TEmbeddingPooler(2, n_local=None, n_drop=0, aggregation="sum"),
    NetVLADPooler(3, n_local="all", rectify=False, points="grid", n_points=1),
    PartWeightedPooler(1, norm_order=1.0),
    EntropyPooler(rectify=False, n_bins=3),
]


@pytest.mark.parametrize("pooler", POOLERS + VARIANTS, ids=repr)
def test_the_battery_is_complete(pooler):
    collected = [name_of(check) for _, check in checks.estimator_checks_generator(rows(pooler))]
    plain = [name_of(check) for _, check in checks.estimator_checks_generator(FastICA())]
    assert sorted(collected) == sorted(plain)
    tags = pooler.__sklearn_tags__()
    assert tags.requires_fit
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert not tags._skip_test


@checks.parametrize_with_checks([rows(pooler) for pooler in POOLERS + VARIANTS])
def test_estimator(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it the check of array namespaces skips itself
    try:
        check(estimator)
    except SkipTest as skipped:
        pytest.fail(f"{name_of(check)} skipped itself: {skipped}")


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")  # fits on frames, transforms arrays
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize(
    "check",
    [
        checks.check_transformer_get_feature_names_out,
        checks.check_transformer_get_feature_names_out_pandas,
        checks.check_get_feature_names_out_error,
        checks.check_set_output_transform,
        checks.check_set_output_transform_pandas,
        checks.check_global_output_transform_pandas,
        checks.check_dataframe_column_names_consistency,
        checks.check_param_validation,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("pooler", POOLERS, ids=lambda pooler: type(pooler).__name__)
def test_checks_scikit_learn_keeps_for_its_own(pooler, check):
    name = type(pooler).__name__
    estimator = rows(pooler)
    check(name if check is checks.check_param_validation else type(estimator).__name__, estimator)
