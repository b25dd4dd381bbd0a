"""PoolerFusion: several poolers over the same maps, one pass, one descriptor."""

import sys
from inspect import CO_GENERATOR

import numpy as np
import pytest
from fixtures.fusion import COMBINE
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.maps import SHAPES, golden_map, make_map, make_ragged, special_maps
from sklearn.base import BaseEstimator, clone

from skretrieval.pooling import (
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    PartWeightedPooler,
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


@pytest.mark.parametrize(
    ("parameters", "match"), [({"combine": "mean"}, "combine"), ({"norm": "l1"}, "norm")]
)
def test_bad_words(parameters, match):
    with pytest.raises(ValueError, match=match):
        PoolerFusion([("a", MACPooler())], **parameters).fit([golden_map()])


# ---------------------------------------------------------------------------------------------------------------------
# What the parts become

PARTS = [("gem", GeMPooler()), ("sum", SumPooler()), ("regions", RMACPooler())]


def parts_of(feature_map, norm, weights):
    parts = [ref.gem(feature_map), ref.sum_pool(feature_map), ref.rmac(feature_map)]
    parts = [ref.l2(part) for part in parts] if norm else parts
    return [weight * part for weight, part in zip(weights or [1, 1, 1], parts, strict=True)]


@pytest.mark.parametrize("combine", sorted(COMBINE))
@pytest.mark.parametrize("norm", ["l2", None])
@pytest.mark.parametrize("weights", [None, [0.3, 2.0, 0.0]])
def test_combine(combine, norm, weights):
    maps = [*make_ragged(5, SHAPES, seed=4), *special_maps(5).values()]
    maps = [feature_map for feature_map in maps if len(feature_map) == 5]
    expected = [COMBINE[combine](parts_of(feature_map, norm, weights)) for feature_map in maps]
    fusion = PoolerFusion(PARTS, combine=combine, norm=norm, weights=weights)
    actual = fusion.fit_transform(maps)
    single = fusion.transform([feature_map.astype(np.float32) for feature_map in maps])
    for own, float32, wanted in zip(actual, single, expected, strict=True):
        assert own.dtype == np.float64
        assert float32.dtype == np.float32
        assert own.shape == float32.shape == wanted.shape
        scale = np.abs(wanted).max()
        assert_allclose(own, wanted, rtol=1e-8, atol=1e-10 * scale)
        assert_allclose(float32, wanted, rtol=2e-4, atol=2e-6 * scale)
    assert len(fusion.get_feature_names_out()) == expected[0].shape[-1]


def test_parts_of_unlike_length_only_concatenate():
    parts = [("gem", GeMPooler()), ("parts", PartWeightedPooler(2))]
    maps = make_ragged(4, SHAPES[:4], seed=1)
    concat = PoolerFusion(parts, combine="concat", norm=None).fit(maps)
    alone = PartWeightedPooler(2).fit_transform(maps)
    assert_allclose(concat.transform(maps)[:, 4:], alone)
    assert len(concat.get_feature_names_out()) == 4 + 8
    for combine in ("sum", "regions"):
        with pytest.raises(ValueError, match=r"(?=.*equal length)(?=.*'gem': 4)(?=.*'parts': 8)"):
            PoolerFusion(parts, combine=combine).fit(maps)


def test_fitted_parts_can_be_used():
    maps = make_ragged(5, SHAPES[:4], seed=1)
    for parts in (PARTS, [*PARTS, ("white", RMACPooler(whiten=True, n_components=3))]):
        fusion = PoolerFusion(parts, combine="concat").fit(maps)
        for (_, fitted), (_, part) in zip(fusion.poolers_, parts, strict=True):
            expected = clone(part).fit(maps)
            assert_array_equal(fitted.transform(maps), expected.transform(maps))
            assert list(fitted.get_feature_names_out()) == list(expected.get_feature_names_out())
            assert fitted.n_features_in_ == 5


def test_a_part_that_has_no_meaning_for_the_values():
    fusion = PoolerFusion([("crow", CroWPooler(rectify=False)), ("max", MACPooler())])
    maps = [np.ones((3, 2, 2)), np.ones((3, 2, 2)), -np.ones((3, 2, 2))]
    with pytest.raises(ValueError, match="Entry 2: negative activations"):
        fusion.fit(maps)


# ---------------------------------------------------------------------------------------------------------------------
# How deep the first formula lies


def calls_above(name, work):
    """Names of the functions of the package on the stack when `name` starts, itself included; no generators."""
    found = []

    def look(frame, event, _):
        if event == "call" and frame.f_code.co_name == name and not found:
            while frame is not None:
                code = frame.f_code
                if "skretrieval" in frame.f_globals.get("__name__", "") and not code.co_flags & CO_GENERATOR:
                    found.append(code.co_qualname)
                frame = frame.f_back

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("combine", ["sum", "regions"])
def test_the_first_formula_lies_at_most_six_calls_deep(combine):
    fusion = gsw(combine=combine).fit([golden_map()])
    calls = calls_above("power_mean_cells", lambda: fusion.transform([golden_map()]))
    assert calls[0] == "power_mean_cells"
    assert 3 <= len(calls) <= 6, calls


def test_a_strange_pooler():
    class Strange(BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return X

    with pytest.raises(TypeError, match="strange"):
        PoolerFusion([("strange", Strange())]).fit([golden_map()])
