"""Nested names of the terms' parameters: reading, setting, searching."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references.maps import make_ragged
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline

from skretrieval.pooling import GeMPooler, GRMACPooler, PoolerFusion, SJWPooler, SumPooler, WeightedPooler


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).random((12, 6, 5, 7))


def nested(pooler):
    return {name: value for name, value in pooler.get_params().items() if "_params__" in name}


def test_defaults_of_the_terms_are_listed():
    assert nested(WeightedPooler()) == {}
    assert nested(WeightedPooler(reduce="power_mean", regions="rmac")) == {
        "reduce_params__p": 3.0,
        "region_params__n_levels": 3,
        "region_params__include_global": False,
    }
    assert nested(WeightedPooler("adaptive_gaussian", "element")) == {
        "spatial_params__alpha": 0.1,
        "spatial_params__sigma_scale": 0.25,
        "channel_params__eps": 1e-12,
    }


def test_what_is_set_comes_before_the_default():
    pooler = WeightedPooler(reduce="power_mean", reduce_params={"p": 5})
    assert pooler.get_params()["reduce_params__p"] == 5
    assert nested(pooler.set_params(reduce_params__p=7)) == {"reduce_params__p": 7}
    assert "reduce_params__p" not in pooler.get_params(deep=False)


@pytest.mark.parametrize(
    ("params", "preset"),
    [
        ({"reduce": "power_mean", "reduce_params__p": 5.5}, GeMPooler(5.5)),
        (
            {
                "regions": "rmac",
                "reduce": "power_mean",
                "region_params__n_levels": 2,
                "region_params__include_global": True,
            },
            GRMACPooler(2, include_global=True),
        ),
        (
            {
                "spatial": "saliency",
                "channel": "sparsity_deviation",
                "spatial_params__rho": 7.0,
                "spatial_params__eps": 1e-3,
                "channel_params__eps": 1e-3,
            },
            SJWPooler(rho=7.0, eps=1e-3),
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else type(value).__name__,
)
def test_nested_names_reach_the_terms(params, preset):
    maps = make_ragged(5, [(3, 4), (7, 7)], seed=60)
    pooler = WeightedPooler().set_params(**params)
    assert_allclose(pooler.fit_transform(maps), preset.fit_transform(maps), rtol=1e-12)


def test_a_dict_of_the_user_is_not_changed():
    given = {"n_levels": 2}
    pooler = WeightedPooler(regions="rmac", region_params=given)
    copy = clone(pooler)
    pooler.set_params(region_params__include_global=True)
    assert given == {"n_levels": 2}
    assert pooler.region_params == {"n_levels": 2, "include_global": True}
    assert copy.region_params == {"n_levels": 2}
    assert clone(pooler).get_params() == pooler.get_params()


def test_a_dict_and_a_nested_name_at_once():
    pooler = WeightedPooler(regions="rmac", region_params={"include_global": True})
    pooler.set_params(region_params__n_levels=1, region_params={"n_levels": 4})
    assert pooler.region_params == {"n_levels": 1}


def test_terms_are_set_before_their_parameters():
    pooler = WeightedPooler()
    with pytest.raises(ValueError, match=r"reduce='sum' has no parameter p\. Valid parameters: none\."):
        pooler.set_params(reduce_params__p=2)
    assert pooler.set_params(reduce_params__p=2, reduce="power_mean").reduce_params == {"p": 2}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"reduce_params__q": 2}, r"reduce='power_mean' has no parameter q\. Valid parameters: p\."),
        (
            {"region_params__levels": 2},
            r"regions='rmac' .* levels\. Valid parameters: n_levels, include_global\.",
        ),
        ({"spatial_params__alpha": 2}, r"spatial=None has no parameter alpha\. Valid parameters: none\."),
        ({"channel_params__maps": 2}, r"channel=None has no parameter maps\. Valid parameters: none\."),
        ({"reduce_params__maps": 2}, r"has no parameter maps\."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unknown_names_are_refused_with_the_valid_ones(params, message, maps):
    pooler = WeightedPooler(regions="rmac", reduce="power_mean")
    with pytest.raises(ValueError, match=message):
        pooler.set_params(**params)
    ((key, value),) = params.items()
    name, _, parameter = key.partition("__")
    with pytest.raises(ValueError, match=message):
        pooler.set_params(**{name: {parameter: value}}).fit(maps)


def test_other_nested_names_are_scikit_learns_affair():
    with pytest.raises(ValueError, match="Invalid parameter 'reduction_params'"):
        WeightedPooler().set_params(reduction_params__p=2)


def test_functions_of_the_user(maps):
    def border(maps, strength, *, floor=0.0):
        weights = maps.new_full((1, *maps.shape[2:]), floor)
        weights[:, 0] = strength
        return weights

    def anything(maps, **params):
        return maps.new_full((1, *maps.shape[2:]), params["level"])

    pooler = WeightedPooler(border)
    assert nested(pooler) == {"spatial_params__floor": 0.0}  # strength has no default
    pooler.set_params(spatial_params__strength=2.0)
    assert nested(pooler) == {"spatial_params__floor": 0.0, "spatial_params__strength": 2.0}
    assert_allclose(pooler.fit_transform(maps), 2 * maps[:, :, 0].sum(axis=2))
    with pytest.raises(ValueError, match=r"has no parameter level\. Valid parameters: strength, floor\."):
        pooler.set_params(spatial_params__level=1)
    pooler = WeightedPooler(anything).set_params(spatial_params__level=3.0)
    assert_allclose(pooler.fit_transform(maps), 3 * maps.sum(axis=(2, 3)))
    pooler = WeightedPooler(partial(border, strength=4.0))
    assert nested(pooler) == {"spatial_params__strength": 4.0, "spatial_params__floor": 0.0}


def test_values_that_fit_refuses_can_be_read():
    pooler = WeightedPooler(spatial="nothing", regions=object(), reduce_params=3)
    assert nested(pooler) == {}
    assert "WeightedPooler" in repr(pooler) + pooler._repr_html_()


def test_a_grid_search_in_a_pipeline(maps):
    labels = np.arange(12) % 3
    model = Pipeline([("pooler", WeightedPooler(reduce="power_mean")), ("classes", KNeighborsClassifier(1))])
    grid = {"pooler__reduce_params__p": [1.0, 2.0, 64.0], "pooler__reduce_params": [{"p": 3.0}]}
    search = GridSearchCV(model, grid, cv=2).fit(maps, labels)
    scores = search.cv_results_["mean_test_score"]
    for p, score in zip([1.0, 2.0, 64.0], scores, strict=True):
        fixed = clone(model).set_params(pooler=GeMPooler(p))
        alone = GridSearchCV(fixed, {"pooler__p": [p]}, cv=2).fit(maps, labels)
        assert alone.best_score_ == score
    assert grid["pooler__reduce_params"] == [{"p": 3.0}]
    assert (
        search.best_estimator_.get_params()["pooler__reduce_params__p"]
        == search.best_params_["pooler__reduce_params__p"]
    )


def test_through_a_fusion(maps):
    fusion = PoolerFusion([("means", WeightedPooler(reduce="power_mean")), ("sum", SumPooler())])
    assert fusion.get_params()["means__reduce_params__p"] == 3.0
    fusion.set_params(means__reduce_params__p=5.0)
    expected = PoolerFusion([("means", GeMPooler(5.0)), ("sum", SumPooler())]).fit_transform(maps)
    assert_array_equal(fusion.fit_transform(maps), expected)
