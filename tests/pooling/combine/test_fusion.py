"""PoolerFusion: several poolers over the same maps, one pass, one descriptor or one region set per image."""

import pickle
import sys
from inspect import CO_GENERATOR

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.maps import SHAPES, golden_map, make_map, make_ragged, special_maps
from references.networks import counting_network, two_layer_network
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import (
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    LayerwisePooler,
    MACPooler,
    PartWeightedPooler,
    PoolerFusion,
    RegionalSecondOrderPooler,
    RMACPooler,
    SJWPooler,
    SumPooler,
)
from skretrieval.retrieval import NearestNeighborsRetriever


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
COMBINE = {
    "sum": lambda parts: ref.l2(np.sum(parts, axis=0)),
    "concat": np.concatenate,
    "regions": np.array,
}


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
# Region sets


def regions(**kwargs):
    return PoolerFusion([("max", MACPooler()), ("gem", GeMPooler())], combine="regions", **kwargs)


def test_region_sets_are_a_list_of_arrays():
    maps = make_ragged(5, [(4, 6), (7, 7), (4, 6), (1, 1)], seed=3)
    fusion = regions()
    sets = fusion.fit_transform(maps)
    assert isinstance(sets, list)
    assert [own.shape for own in sets] == [(2, 5)] * 4
    for own, again in zip(sets, fusion.fit(maps).transform(maps), strict=True):
        assert_array_equal(own, again)
    mixed = fusion.transform([maps[0].astype(np.float32), maps[1]])  # one dtype for all, as for descriptors
    assert {own.dtype for own in mixed} == {np.dtype(np.float64)}


def test_containers_leave_region_sets_alone():
    maps = make_ragged(4, SHAPES[:3], seed=2)
    expected = regions().fit_transform(maps)
    with config_context(transform_output="pandas"):
        assert_array_equal(regions().fit(maps).transform(maps), expected)
    fusion = regions().set_output(transform="pandas")
    for sets in (fusion.fit_transform(maps), fusion.transform(maps)):
        assert isinstance(sets, list)
        assert_array_equal(sets, expected)
    model = make_pipeline(clone(fusion), NearestNeighborsRetriever(2)).set_output(transform="pandas")
    assert model.fit(maps).predict(maps).shape == (3, 2)
    # the same object, told to concatenate, gives tables again
    frame = fusion.set_params(combine="concat").fit_transform(maps)
    assert isinstance(frame, pd.DataFrame)
    assert frame.shape == (3, 8)


def test_region_sets_of_lazy_maps_take_one_pass(tmp_path):
    rng = np.random.default_rng(0)
    photographs = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(64, 48), (48, 64), (64, 48)]
    ]
    extractor = ConvFeatureExtractor(
        counting_network(str(tmp_path / "log")), weights=None, image_size=None, device="cpu"
    )
    lazy = extractor.fit(photographs).transform(photographs)
    arrays = list(lazy)
    (tmp_path / "log").write_text("")
    sets = regions().fit_transform(lazy)
    assert len((tmp_path / "log").read_text().splitlines()) == len(photographs)
    assert_allclose(sets, regions().fit_transform(arrays), rtol=1e-5)


def test_pickles_and_processes(tmp_path):
    maps = np.stack([make_map(4, 48, 64, seed=seed) for seed in range(12)])
    assert maps.nbytes > 1_000_000  # so that joblib hands the workers read-only memory maps
    y = np.arange(len(maps)) % 2
    maps[np.arange(len(maps)), y] *= 4
    fusion = regions().fit(maps)
    expected = fusion.transform(maps)
    assert_array_equal(pickle.loads(pickle.dumps(fusion)).transform(maps), expected)
    joblib.dump(fusion, tmp_path / "fusion.joblib")
    assert_array_equal(joblib.load(tmp_path / "fusion.joblib", mmap_mode="r").transform(maps), expected)
    model = make_pipeline(regions(), NearestNeighborsRetriever(5))
    grid = {"poolerfusion__norm": ["l2", None], "poolerfusion__combine": ["regions", "concat"]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2, error_score="raise").fit(maps, y)
    assert search.best_score_ > 0.8


@pytest.mark.parametrize(
    "outer",
    [
        lambda inner: PoolerFusion([("inner", inner), ("max", MACPooler())], combine="concat"),
        lambda inner: LayerwisePooler(inner),
    ],
    ids=["fusion", "layerwise"],
)
def test_region_sets_are_parts(outer):
    """Combined row by row, which takes equal numbers."""
    pooler = outer(regions())
    if isinstance(pooler, LayerwisePooler):
        tuples = [(make_map(4, 5, 6, seed=i), make_map(4, 3, 3, seed=9 + i)) for i in range(3)]
        (first, second) = (regions().fit_transform(list(layer)) for layer in zip(*tuples, strict=True))
        expected = [
            np.hstack([[ref.l2(row) for row in own] for own in pair])
            for pair in zip(first, second, strict=True)
        ]
        for own, wanted in zip(pooler.fit_transform(tuples), expected, strict=True):
            assert_allclose(own, wanted)
    else:
        with pytest.raises(ValueError, match=r"Entry 0.*'inner': 2, 'max': 1.*combine='regions'"):
            pooler.fit([golden_map()]).transform([golden_map()])


def second_order(**kwargs):
    return RegionalSecondOrderPooler(**{"n_local": 3, "n_components": 4, "n_min": 20, **kwargs})


@pytest.mark.parametrize("weights", [None, [2.0, 0.5]])
def test_regions_of_all_parts_become_one_set(weights):
    maps = make_ragged(4, [(6, 8), (7, 7), (6, 8), (1, 1), (5, 9)], seed=4)
    parts = [("hulls", second_order()), ("max", MACPooler()), ("inner", regions(norm=None))]
    weights = None if weights is None else [*weights, 1.0]
    fusion = PoolerFusion(parts, combine="regions", weights=weights)
    alone = [clone(pooler).fit(maps).transform(maps) for _, pooler in parts]
    factors = weights or [1.0] * 3
    sets = fusion.fit_transform(maps)
    for index, own in enumerate(sets):
        expected = [
            factor * ref.l2(row)
            for factor, part in zip(factors, alone, strict=True)
            for row in np.atleast_2d(part[index])
        ]
        assert_allclose(own, expected, rtol=1e-9, atol=1e-12)
    assert len({len(own) for own in sets}) > 1  # hulls differ in number
    for own, again in zip(sets, clone(fusion).fit(maps).transform(maps), strict=True):
        assert_array_equal(own, again)
    for index, own in enumerate(sets):  # neighbours have no part in it
        (again,) = fusion.transform([maps[index]])
        assert_allclose(own, again, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("combine", ["sum", "concat"])
def test_as_many_regions_are_combined_one_by_one(combine):
    maps = make_ragged(4, [(6, 8), (7, 7), (5, 9)] * 4, seed=4)
    parts = [("whole", second_order(regions="whole")), ("max", MACPooler())]
    fusion = PoolerFusion(parts, combine=combine)
    first = second_order(regions="whole").fit_transform(maps)
    second = MACPooler().fit_transform(maps)
    expected = [COMBINE[combine]([own[0], ref.l2(row)]) for own, row in zip(first, second, strict=True)]
    sets = fusion.fit_transform(maps)
    assert isinstance(sets, list)
    assert_allclose(np.stack(sets)[:, 0], expected, rtol=1e-8)
    unlike = fusion.set_params(whole__regions="all")
    with pytest.raises(ValueError, match=rf"Entry \d: .*{combine}.*'max': 1.*combine='regions'"):
        unlike.fit(maps).transform(maps)


def test_unlike_lengths_of_regions_are_named():
    maps = make_ragged(4, SHAPES[:5], seed=4)
    fusion = PoolerFusion([("hulls", second_order(n_components=3)), ("max", MACPooler())], combine="regions")
    with pytest.raises(ValueError, match=r"equal length.*'hulls': 3, 'max': 4"):
        fusion.fit(maps)


def test_a_chain_with_regions_of_all_parts(tmp_path):
    maps = np.stack([make_map(4, 6, 8, seed=seed) for seed in range(9)])
    fusion = PoolerFusion([("hulls", second_order()), ("max", MACPooler())], combine="regions")
    model = make_pipeline(fusion, NearestNeighborsRetriever(3)).set_output(transform="pandas").fit(maps)
    assert_array_equal(model.predict(maps)[:, 0], np.arange(9))
    joblib.dump(model, tmp_path / "model.joblib")
    assert_array_equal(joblib.load(tmp_path / "model.joblib").predict(maps), model.predict(maps))
    assert len(model[0].get_feature_names_out()) == 4


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


# ---------------------------------------------------------------------------------------------------------------------
# Tuples of maps


def make_tuples():
    sizes = [[(4, 6), (2, 3)], [(7, 7), (3, 4)], [(4, 6), (2, 3)], [(1, 1), (1, 1)]]
    return [
        tuple(make_map(k, *size, seed=10 * t + k) for k, size in zip((5, 3), pair, strict=True))
        for t, pair in enumerate(sizes)
    ]


@pytest.mark.parametrize("combine", sorted(COMBINE))
def test_tuples_of_maps(combine):
    tuples = make_tuples()
    fusion = PoolerFusion(
        [("max", LayerwisePooler(MACPooler())), ("gem", LayerwisePooler(GeMPooler(), norm=None))],
        combine=combine,
        weights=[1.0, 0.5],
    )
    expected = []
    for maps in tuples:
        first = np.concatenate([ref.l2(ref.mac(feature_map)) for feature_map in maps])
        second = np.concatenate([ref.gem(feature_map) for feature_map in maps])
        expected.append(COMBINE[combine]([ref.l2(first), 0.5 * ref.l2(second)]))
    assert_allclose(fusion.fit_transform(tuples), expected, rtol=1e-8)
    assert_allclose(fusion.transform([list(maps) for maps in tuples]), expected, rtol=1e-8)
    tensors = [tuple(torch.tensor(feature_map) for feature_map in maps) for maps in tuples]
    assert_allclose(fusion.transform(tensors), expected, rtol=1e-8)
    assert fusion.n_features_in_ == 8
    with pytest.raises(ValueError, match="expected a tuple of maps"):
        fusion.transform([tuples[0][0]])


def test_tuples_with_parts_that_learn():
    tuples = make_tuples()
    white = LayerwisePooler(RMACPooler(whiten=True, n_components=2))
    fusion = PoolerFusion(
        [("white", white), ("max", LayerwisePooler(MACPooler()))], combine="concat", norm=None
    )
    expected = np.hstack(
        [clone(white).fit_transform(tuples), LayerwisePooler(MACPooler()).fit_transform(tuples)]
    )
    assert_allclose(fusion.fit_transform(tuples), expected)
    assert len(fusion.get_feature_names_out()) == expected.shape[1] == 12


def test_tuples_from_an_extractor():
    rng = np.random.default_rng(0)
    photographs = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(64, 48), (48, 64)]]
    extractor = ConvFeatureExtractor(two_layer_network, weights=None, image_size=None, device="cpu")
    fusion = PoolerFusion(
        [("max", LayerwisePooler(MACPooler())), ("sum", LayerwisePooler(SumPooler()))], combine="regions"
    )
    model = make_pipeline(extractor, fusion)
    sets = model.fit_transform(photographs)
    assert [own.shape for own in sets] == [(2, 16)] * 2
    arrays = list(model[0].transform(photographs))
    assert_allclose(sets, clone(fusion).fit_transform(arrays), rtol=1e-5, atol=1e-7)


def test_mixed_parts():
    fusion = PoolerFusion([("layers", LayerwisePooler(MACPooler())), ("max", MACPooler())], combine="concat")
    for X in (make_tuples(), [golden_map()]):
        with pytest.raises(ValueError, match=r"(?=.*'layers'.*tuples)(?=.*'max'.*single)"):
            fusion.fit(X)
        with pytest.raises(ValueError, match=r"tuples"):
            fusion.fit_transform(X)


def test_a_strange_pooler():
    class Strange(BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return X

    with pytest.raises(TypeError, match="strange"):
        PoolerFusion([("strange", Strange())]).fit([golden_map()])
