"""PoolerFusion: region sets, made of the parts, and of parts that are sets."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from fixtures.fusion import COMBINE
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.maps import SHAPES, golden_map, make_map, make_ragged
from references.networks import counting_network
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import (
    GeMPooler,
    LayerwisePooler,
    MACPooler,
    PoolerFusion,
    RegionalSecondOrderPooler,
)
from skretrieval.retrieval import NearestNeighborsRetriever


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
