"""PoolerFusion: weighted sum of unit parts, one pass over the maps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import pooling as ref
from references.maps import golden_map, make_map, make_ragged
from sklearn.base import clone

from skretrieval.pooling import (
    GeMPooler,
    GRMACPooler,
    MACPooler,
    PoolerFusion,
    RMACPooler,
    SJWPooler,
    SumPooler,
)


def gsw(**kwargs):
    return PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4], **kwargs)


def test_gsw_of_the_golden_map():
    expected = ref.fuse(
        [
            np.array([84.584174, 82.41878, 68.453477, 87.930632]),
            np.array([397.239062, 365.382754, 338.183234, 452.641727]),
        ],
        [0.6, 0.4],
    )
    actual = gsw().fit_transform([golden_map()])
    assert_allclose(actual[0], expected, rtol=0, atol=1e-7)
    assert_allclose(np.linalg.norm(actual), 1.0)


def test_ragged():
    maps = make_ragged(5, [(4, 6), (7, 7), (4, 6), (1, 1), (2, 5)], seed=3)
    assert_allclose(gsw().fit_transform(maps), [ref.gsw(feature_map) for feature_map in maps], rtol=1e-8)


@pytest.mark.parametrize(
    "weights", [None, [1, 1, 1], [0.2, 0.5, 0.3], [5, 0, 2], (0.0, 1.0, 0.0), np.array([1.0, 2.0, 3.0])]
)
def test_weights(weights):
    poolers = [("max", MACPooler()), ("sum", SumPooler()), ("regions", RMACPooler())]
    feature_map = make_map(6, 7, 9, seed=1)
    parts = [ref.mac(feature_map), ref.sum_pool(feature_map), ref.rmac(feature_map)]
    expected = ref.fuse(parts, None if weights is None else list(weights))
    actual = PoolerFusion(poolers, weights=weights).fit_transform([feature_map])
    assert_allclose(actual[0], expected, rtol=1e-10)


def test_zero_part_is_left_out():
    signed = np.array([[[1.0, -1.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, -2.0]]])  # every channel sums to zero
    poolers = [("signed", SumPooler(rectify=False)), ("max", MACPooler())]
    actual = PoolerFusion(poolers, weights=[0.9, 0.1]).fit_transform([signed])
    assert_allclose(actual[0], ref.l2([1.0, 2.0]), rtol=1e-12)


def test_zero_map_stays_zero():
    actual = gsw().fit_transform([np.zeros((4, 3, 5)), golden_map()])
    assert not actual[0].any()
    assert_allclose(np.linalg.norm(actual[1]), 1.0)


def test_nested_parameters():
    pooler = gsw()
    pooler.set_params(grmac__p=5.0, sjw__rho=10.0, weights=[0.5, 0.5])
    assert pooler.get_params()["grmac__p"] == 5.0
    feature_map = make_map(4, 6, 8, seed=2)
    expected = ref.fuse([ref.grmac(feature_map, p=5.0), ref.sjw(feature_map, rho=10.0)], [0.5, 0.5])
    assert_allclose(pooler.fit_transform([feature_map])[0], expected, rtol=1e-8)
    pooler.set_params(sjw=MACPooler())
    expected = ref.fuse([ref.grmac(feature_map, p=5.0), ref.mac(feature_map)])
    assert_allclose(clone(pooler).fit_transform([feature_map])[0], expected, rtol=1e-8)


def test_parts_are_not_fitted_in_place():
    part = GeMPooler()
    PoolerFusion([("gem", part), ("max", MACPooler())]).fit([golden_map()])
    assert not hasattr(part, "n_features_in_")


def test_fusion_of_fusions():
    inner = PoolerFusion([("max", MACPooler()), ("sum", SumPooler())])
    outer = PoolerFusion([("inner", inner), ("gem", GeMPooler())], weights=[0.7, 0.3])
    feature_map = make_map(4, 6, 8, seed=2)
    expected = ref.fuse(
        [ref.fuse([ref.mac(feature_map), ref.sum_pool(feature_map)]), ref.gem(feature_map)], [0.7, 0.3]
    )
    assert_allclose(outer.fit_transform([feature_map])[0], expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("poolers", "weights", "match"),
    [
        ([], None, "PoolerFusion needs at least one"),
        ([("a", MACPooler()), ("a", SumPooler())], None, "(?i)unique"),
        ([("a__b", MACPooler())], None, "__"),
        ([("a", MACPooler())], [0.5, 0.5], "weights"),
        ([("a", MACPooler())], [np.nan], "weights"),
        ([("a", MACPooler()), ("b", SumPooler())], [0.0, 0.0], "weights"),
        ([("a", "mac")], None, "poolers|a"),
    ],
    ids=["empty", "names", "dunder", "count", "nan", "all_zero", "not_a_pooler"],
)
def test_bad_parameters(poolers, weights, match):
    with pytest.raises((ValueError, TypeError), match=match):
        PoolerFusion(poolers, weights=weights).fit([golden_map()])
