"""The complete battery of scikit-learn, with nothing excused, through an adapter that turns rows into 1x1 maps.

Poolers take feature maps and say so in their tags (``two_d_array=False``), for which scikit-learn silently skips
its battery. The adapter inherits the pooler (its constructor, parameters, tags and output names) and adds the
two-dimensional side: it rejects what is not a table, remembers the columns, and hands ``X[:, :, None, None]`` to a
pooler with the same parameters. NaN, infinity, dtypes of the output, values of parameters and the state of the fit
stay the pooler's business. A pooler of several layers is given each map twice; of region sets, which have one region
here, the adapter makes a table again.
"""

from functools import cache
from unittest import SkipTest

import pytest
from pooling.cases import POOLERS, PUBLIC, PoolerCase, as_table, twice
from sklearn.decomposition import FastICA
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted, validate_data

from skretrieval.pooling import FisherVectorPooler, LayerwisePooler


class Rows:
    """Delegate rows, seen as 1x1 maps, to the pooler that comes next in the method resolution order."""

    def _pooler(self, n_channels):
        (pooler_class,) = [base for base in type(self).__bases__ if base is not Rows]
        pooler = PoolerCase(pooler_class.__name__, pooler_class(**self.get_params(deep=False))).make(
            n_channels
        )
        # containers of the output are the adapter's affair: it knows the index of a data frame
        return pooler.set_output(transform="default")

    def _maps(self, X):
        maps = X[:, :, None, None]
        return twice(maps) if isinstance(self, LayerwisePooler) else maps

    def fit(self, X, y=None):
        X = validate_data(self, X, ensure_all_finite=False)
        self.pooler_ = self._pooler(X.shape[1]).fit(self._maps(X), y)
        return self

    def transform(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite=False)
        return as_table(self.pooler_.transform(self._maps(X)))

    def fit_transform(self, X, y=None):
        X = validate_data(self, X, ensure_all_finite=False)
        self.pooler_ = self._pooler(X.shape[1])
        return as_table(self.pooler_.fit_transform(self._maps(X), y))

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


# fitted attributes are the pooler's; the check of iterative estimators asks the adapter for this one
adapter_of(FisherVectorPooler).n_iter_ = property(lambda self: self.pooler_.n_iter_)

SETTINGS = [pooler for case in POOLERS for pooler in case.battery]
FIRST = [case.battery[0] for case in POOLERS]
N_CHECKS = 45  # of scikit-learn 1.6; later versions have more


def test_every_pooler_is_checked():
    assert {type(pooler).__name__ for pooler in FIRST} == PUBLIC
    assert len(FIRST) == len(PUBLIC)


def name_of(check):
    return check.func.__name__ if hasattr(check, "func") else check.__name__


@pytest.mark.parametrize("pooler", SETTINGS, ids=repr)
def test_the_battery_is_complete(pooler):
    """As many checks as for a dense transformer that excuses itself from none; the silent skip would collect none."""
    collected = [name_of(check) for _, check in checks.estimator_checks_generator(rows(pooler))]
    plain = [name_of(check) for _, check in checks.estimator_checks_generator(FastICA())]
    assert sorted(collected) == sorted(plain)
    assert len(collected) >= N_CHECKS
    tags = pooler.__sklearn_tags__()
    assert tags.requires_fit
    assert not any([tags.no_validation, tags.non_deterministic, tags._skip_test])
    with pytest.warns(Warning, match="requires input"):  # what happens without the adapter
        assert len(list(checks.estimator_checks_generator(pooler))) <= 1


@checks.parametrize_with_checks([rows(pooler) for pooler in SETTINGS])
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
@pytest.mark.parametrize("pooler", FIRST, ids=lambda pooler: type(pooler).__name__)
def test_checks_scikit_learn_keeps_for_its_own(pooler, check):
    """Output names, pandas output and messages about parameters, which the public battery leaves out."""
    name = type(pooler).__name__
    estimator = rows(pooler)
    # messages about parameters come from the pooler, messages about output from the adapter
    check(name if check is checks.check_param_validation else type(estimator).__name__, estimator)
