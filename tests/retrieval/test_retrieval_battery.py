"""The complete scikit-learn battery on the retrievers, nothing excused."""

import importlib.util

import pytest
from sklearn.neighbors import KNeighborsTransformer
from sklearn.utils import estimator_checks as checks
from sklearn.utils import get_tags

from skretrieval import retrieval
from skretrieval.retrieval import (
    DiffusionReranker,
    DiscriminativeQueryExpansion,
    KReciprocalReranker,
    NearestNeighborsRetriever,
    QueryExpansion,
    SuperGlobalReranker,
)

# The data of the checks have no objects.
pytestmark = [
    pytest.mark.filterwarnings("ignore:k=.* links nodes"),
    pytest.mark.filterwarnings("ignore:n_refine=.* is more than"),
]

ESTIMATORS = [
    NearestNeighborsRetriever(),
    NearestNeighborsRetriever(metric="euclidean"),
    NearestNeighborsRetriever(metric="manhattan"),
    NearestNeighborsRetriever(metric="manhattan", region_pairs="same"),
    QueryExpansion(NearestNeighborsRetriever()),
    QueryExpansion(NearestNeighborsRetriever(), alpha=3.0, include_query=False, exclude_self=True),
    QueryExpansion(QueryExpansion(NearestNeighborsRetriever(metric="manhattan"))),
    QueryExpansion(NearestNeighborsRetriever(region_pairs="same")),
    KReciprocalReranker(NearestNeighborsRetriever()),
    SuperGlobalReranker(NearestNeighborsRetriever()),
    DiffusionReranker(NearestNeighborsRetriever()),
    DiffusionReranker(NearestNeighborsRetriever(), 5, k=3),
    DiscriminativeQueryExpansion(NearestNeighborsRetriever()),
    SuperGlobalReranker(KReciprocalReranker(QueryExpansion(NearestNeighborsRetriever()))),
]


def run(check, *arguments):
    """Run one check; a skip is a failure unless a data frame library is really missing."""
    try:
        check(*arguments)
    except checks.SkipTest as skipped:
        package, _, reason = str(skipped).partition(" ")
        if not reason.startswith("is not installed") or importlib.util.find_spec(package):
            pytest.fail(f"{check} was skipped: {skipped}")
        raise


@checks.parametrize_with_checks(ESTIMATORS)
def test_battery(estimator, check, monkeypatch):
    # Without it the check of NumPy input under array API dispatch leaves itself out.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    run(check, estimator)


@pytest.mark.parametrize(
    "check",
    [
        checks.check_dataframe_column_names_consistency,
        checks.check_get_feature_names_out_error,
        checks.check_param_validation,
        checks.check_set_output_transform,
        checks.check_transformer_get_feature_names_out,
        checks.check_transformer_get_feature_names_out_pandas,
    ],
    ids=lambda check: check.__name__,
)
# These checks mix frames and arrays between fit and transform on purpose.
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_checks_outside_the_public_battery(estimator, check):
    run(check, type(estimator).__name__, estimator)


def collected(estimator):
    """Names of the checks of an estimator, but for those of array libraries other than NumPy."""
    names = {check.func.__name__ for _, check in checks.estimator_checks_generator(estimator)}
    return {name for name in names if not name.startswith("check_array_api")}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_the_battery_is_complete(estimator):
    names = collected(estimator)
    assert len(names) >= 40
    # As many as for the transformer of scikit-learn they resemble: a tag that switches checks off would show.
    assert names >= collected(KNeighborsTransformer())
    tags = get_tags(estimator)
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert not tags._skip_test


def test_every_public_estimator_is_covered():
    assert {type(estimator).__name__ for estimator in ESTIMATORS} == set(retrieval.__all__)
