"""The complete battery of scikit-learn, with nothing excused, through an adapter that turns rows into 1x1 maps.

Poolers take feature maps and say so in their tags (``two_d_array=False``), for which scikit-learn silently skips
its battery. The adapter inherits the pooler (its constructor, parameters, tags and output names) and adds the
two-dimensional side: it rejects what is not a table, remembers the columns, and hands ``X[:, :, None, None]`` to a
pooler with the same parameters. NaN, infinity, dtypes of the output, values of parameters and the state of the fit
stay the pooler's business.
"""

import inspect
from functools import cache, partial
from unittest import SkipTest

import pytest
from references.classifiers import linear_classifier
from sklearn.decomposition import FastICA
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted, validate_data

from skretrieval import pooling
from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    ClassActivationMask,
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


class Rows:
    """Delegate rows, seen as 1x1 maps, to the pooler that comes next in the method resolution order."""

    def _pooler(self, n_channels):
        (pooler_class,) = [base for base in type(self).__bases__ if base is not Rows]
        parameters = self.get_params(deep=False)
        if parameters.get("backbone") is linear_classifier:  # the battery has tables of many widths
            parameters["backbone"] = partial(linear_classifier, n_channels)
        # containers of the output are the adapter's affair: it knows the index of a data frame
        return pooler_class(**parameters).set_output(transform="default")

    def fit(self, X, y=None):
        X = validate_data(self, X, ensure_all_finite=False)
        self.pooler_ = self._pooler(X.shape[1]).fit(X[:, :, None, None], y)
        return self

    def transform(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite=False)
        return self.pooler_.transform(X[:, :, None, None])

    def fit_transform(self, X, y=None):
        X = validate_data(self, X, ensure_all_finite=False)
        self.pooler_ = self._pooler(X.shape[1])
        return self.pooler_.fit_transform(X[:, :, None, None], y)

    @property
    def _n_features_out(self):
        return len(self.pooler_.get_feature_names_out())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = False
        return tags


@cache
def adapter_of(pooler_class):
    # methods of the class itself are those that set_output wraps
    own = {"__module__": __name__, "transform": Rows.transform, "fit_transform": Rows.fit_transform}
    adapter = type(f"{pooler_class.__name__}Rows", (Rows, pooler_class), own)
    globals()[adapter.__name__] = adapter  # where pickle looks for it
    return adapter


def rows(pooler):
    """The adapter of a pooler, with the parameters of the pooler."""
    return adapter_of(type(pooler))(**pooler.get_params(deep=False))


POOLERS = [
    SumPooler(),
    SPoCPooler(),
    MACPooler(),
    GeMPooler(),
    CroWPooler(),
    RMACPooler(),
    GRMACPooler(),
    SJWPooler(),
    WeightedPooler(),
    PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4]),
    # rows are 1x1 maps, where the channel weight log(K / 2) of region integration leaves nothing of the battery's two
    # columns to whiten; the whitening is that of RMACPooler below
    RegionIntegrationPooler(whiten=False),
    AdaptiveGaussianPooler(),
    SquareSumRMACPooler(),
    ClassActivationMask(SumPooler(), backbone=linear_classifier),
]
VARIANTS = [
    SumPooler(rectify=False),
    SPoCPooler(center_prior=False, rectify=False),
    MACPooler(rectify=False),
    GeMPooler(p=1.0, rectify=False),
    RMACPooler(include_global=True, rectify=False),
    GRMACPooler(region_norm="l2", include_global=True, p=2.5),
    RMACPooler(whiten=True),
    WeightedPooler(spatial="crow", channel="sparsity", regions="rmac", region_norm="l2", whiten=True),
    PoolerFusion(
        [("max", MACPooler()), ("white", RMACPooler(whiten=True))],
        combine="concat",
        norm=None,
        weights=[1.0, 0.5],
    ),
    ClassActivationMask(
        PoolerFusion([("max", MACPooler(rectify=False)), ("gem", GeMPooler())]),
        backbone=linear_classifier,
        threshold=1.1,
        n_resolutions=3,
    ),
]
# no rows to adapt to: one takes tuples of maps, one gives ragged sets of regions; each has its own tests
WITHOUT_ROWS = {"LayerwisePooler", "RegionalSecondOrderPooler"}


def test_every_pooler_is_checked():
    from pooling.codebooks.test_codebook_checks import POOLERS as LEARNED  # which imports this module

    public = {
        name
        for name in pooling.__all__
        if inspect.isclass(getattr(pooling, name)) and name.endswith("Pooler") and name != "BasePooler"
    } | {"PoolerFusion", "ClassActivationMask"}
    assert {type(pooler).__name__ for pooler in POOLERS + LEARNED} == public - WITHOUT_ROWS


def name_of(check):
    return check.func.__name__ if hasattr(check, "func") else check.__name__


@pytest.mark.parametrize("pooler", POOLERS + VARIANTS, ids=repr)
def test_the_battery_is_complete(pooler):
    """As many checks as for a dense transformer that excuses itself from none; the silent skip would collect none."""
    collected = [name_of(check) for _, check in checks.estimator_checks_generator(rows(pooler))]
    plain = [name_of(check) for _, check in checks.estimator_checks_generator(FastICA())]
    assert sorted(collected) == sorted(plain)
    assert len(collected) >= 45
    tags = pooler.__sklearn_tags__()
    assert tags.requires_fit
    assert not any([tags.no_validation, tags.non_deterministic, tags._skip_test])
    with pytest.warns(Warning, match="requires input"):  # what happens without the adapter
        assert len(list(checks.estimator_checks_generator(pooler))) <= 1


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
    """Output names, pandas output and messages about parameters, which the public battery leaves out."""
    name = type(pooler).__name__
    estimator = rows(pooler)
    # messages about parameters come from the pooler, messages about output from the adapter
    check(name if check is checks.check_param_validation else type(estimator).__name__, estimator)
