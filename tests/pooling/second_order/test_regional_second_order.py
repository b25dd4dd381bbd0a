"""Regional second-order pooling as an estimator: reference end to end, region sets, retrieval, battery."""

import inspect
import pickle
import re
import sys
import warnings
from itertools import product

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from references import second_order as ref
from references.maps import make_map, make_ragged, special_maps
from references.networks import counting_network
from sklearn.base import clone
from sklearn.decomposition import FastICA
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted, validate_data

from skretrieval._linalg import _principal_axes
from skretrieval.datasets import make_feature_maps
from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps, ImageCrop
from skretrieval.pooling import PoolerFusion, RegionalSecondOrderPooler
from skretrieval.pooling._second_order import _region_pieces
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion

SMALL = {"n_local": 5, "n_components": 6}


@pytest.fixture(scope="module")
def maps():
    """Structured maps of many shapes, one 1x1, one 2x5, one zero."""
    found, _ = make_feature_maps(14, n_channels=8, sides=(3, 8), random_state=0)
    extra = [
        make_map(8, 1, 1, seed=1),
        make_map(8, 2, 5, seed=2),
        np.zeros((8, 3, 4)),
        make_map(8, 3, 14, seed=3),
    ]
    return [*(feature_map.astype(np.float64) for feature_map in found), *extra]


@pytest.fixture(scope="module")
def stacked():
    return np.stack([make_map(6, 5, 7, seed=seed, density=0.4) for seed in range(12)])


def pooler(**params):
    return RegionalSecondOrderPooler(**{**SMALL, **params})


def assert_same_sets(actual, expected, **tolerance):
    assert [own.shape for own in actual] == [own.shape for own in expected]
    for own, other in zip(actual, expected, strict=True):
        assert_allclose(own, other, **tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# The reference, end to end. The axes are fitted on both sides from the same maps: with n_local and n_components where
# the spectrum has gaps (neighbouring variances differ by a tenth and more, the last is a tenth of the first), 1e-8
# survives the eigenvectors and the division by the root of the variances; with all components nothing would.

WORDS = [
    {},
    {"order": 1},
    {"regions": "whole"},
    {"regions": "whole", "order": 1},
    {"center_local": False},
    {"trace_normalize": True},
    {"offdiag_scale": 2**0.5},
    {"reg": 1e-1},
    {"n_clusters": 2, "n_min": 12, "min_cells": 4},
]


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_against_the_reference(maps, words):
    expected, axes = ref.regional_second_order(maps, 5, 6, **words)
    fitted = pooler(**words).fit(maps)
    sets = fitted.transform(maps)
    assert_same_sets(sets, expected, rtol=0, atol=1e-8)
    assert all(own.dtype == np.float64 for own in sets)
    if axes is None:
        assert not hasattr(fitted, "local_axes_")
    else:
        assert_allclose(fitted.local_axes_, axes, atol=1e-9)


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_single_precision_against_the_reference(maps, words):
    single = [feature_map.astype(np.float32) for feature_map in maps]
    expected, _ = ref.regional_second_order(single, 5, 6, **words)
    sets = pooler(**words).fit_transform(single)
    assert all(own.dtype == np.float32 for own in sets)
    assert_same_sets(sets, expected, rtol=0, atol=1e-4)  # of unit vectors


def test_new_maps_against_the_reference(maps):
    """Special maps described with axes fitted on others, vector by vector before the whitening and after."""
    fitted = pooler().fit(maps)
    whitening = fitted.region_whitening_
    special = [value for value in special_maps(8).values() if value.shape[0] == 8 and value[0].size < 100]
    for feature_map, own in zip(special, fitted.transform(special), strict=True):
        masks, _ = ref.candidate_regions(feature_map)
        rows = [ref.second_order(feature_map, mask, fitted.local_axes_) for mask in masks]
        axes = whitening.components * np.sqrt(whitening.eigenvalues)[:, None]
        expected = [ref.whiten(row, whitening.mean, axes, whitening.eigenvalues) for row in rows]
        assert_allclose(own, expected, rtol=0, atol=1e-8)


def test_zero_map_has_one_row_of_zeros(maps):
    sets = pooler().fit_transform(maps)
    (zero,) = [own for feature_map, own in zip(maps, sets, strict=True) if not feature_map.any()]
    assert zero.shape == (1, 6)
    assert not zero.any()
    assert all(np.allclose(np.linalg.norm(own, axis=1), 1) for own in sets if own is not zero)


def test_whole_region_is_the_last_row_of_all(maps):
    fitted = pooler().fit(maps)
    everything = fitted.transform(maps)
    whole = fitted.set_params(regions="whole").transform(maps)
    assert [own.shape for own in whole] == [(1, 6)] * len(maps)
    assert_same_sets(whole, [own[-1:] for own in everything], atol=1e-10)


def test_signed_maps():
    """Local descriptors keep their sign with rectify=False; the weights and regions are those of the positive part."""
    signed = [make_map(8, 5, 6, seed=seed) - 0.5 for seed in range(9)]
    positive = [np.maximum(feature_map, 0) for feature_map in signed]
    assert_same_sets(pooler().fit_transform(signed), pooler().fit_transform(positive), rtol=0)
    kept = pooler(rectify=False)
    sets = kept.fit_transform(signed)
    assert_same_sets([r.masks for r in kept.regions_of(signed)], [r.masks for r in kept.regions_of(positive)])
    assert all(np.isfinite(own).all() for own in sets)
    assert np.abs(sets[0] - pooler().fit_transform(positive)[0]).max() > 0.1
    assert_same_sets(kept.fit_transform(positive), pooler().fit_transform(positive), rtol=0)


# ---------------------------------------------------------------------------------------------------------------------
# Fit: passes, memory, ranks


@pytest.mark.parametrize("words", [{}, {"order": 1}, {"regions": "whole"}], ids=str)
def test_fit_transform_is_fit_then_transform(maps, words):
    assert_same_sets(
        pooler(**words).fit_transform(maps), pooler(**words).fit(maps).transform(maps), atol=1e-12
    )


def test_more_regions_than_entries_of_a_vector(maps):
    """With n_local=3 a vector has 6 entries: the covariance is summed up, and no row is kept."""
    model = RegionalSecondOrderPooler(n_local=3, n_components=4)
    expected, _ = ref.regional_second_order(maps, 3, 4)
    assert_same_sets(model.fit_transform(maps), expected, rtol=0, atol=1e-8)
    assert_same_sets(model.transform(maps), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("words", [{}, {"order": 1}, {"n_clusters": 2}], ids=str)
def test_working_memory_does_not_matter(stacked, words, monkeypatch):
    expected = pooler(**words).fit_transform(stacked)
    monkeypatch.setattr(_region_pieces, "_PIECE_BYTES", 1)
    assert_same_sets(pooler(**words).fit_transform(stacked), expected, atol=1e-9)


def test_row_blocks_do_not_matter(maps, monkeypatch):
    model = RegionalSecondOrderPooler(n_local=3, n_components=4)
    expected = model.fit_transform(maps)
    monkeypatch.setattr(
        _principal_axes, "row_blocks", lambda rows: [slice(i, i + 2) for i in range(0, len(rows), 2)]
    )
    assert_same_sets(clone(model).fit_transform(maps), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_local": 9}, "n_local=9 exceeds the rank 8"),
        ({"n_components": 500}, r"n_components=500 exceeds the rank 15 of the region vectors of 18 image"),
    ],
    ids=str,
)
def test_more_dimensions_than_the_data_has(maps, params, message):
    model = pooler(**params)
    with pytest.warns(UserWarning, match=message):
        sets = model.fit_transform(maps)
    assert all(np.isfinite(own).all() for own in sets)
    assert sets[0].shape[1] == model.n_components_ == min(15, model.n_components)
    assert model.n_local_ == min(8, model.n_local)


def test_as_many_dimensions_as_the_data_has(maps):
    model = RegionalSecondOrderPooler(n_local="all", n_components=None).fit(maps[:3])
    n_regions = sum(map(len, model.transform(maps[:3])))
    assert model.n_local_ == 8
    assert model.n_components_ <= n_regions - 1


def test_none_for_n_local_still_means_all_with_a_warning(maps):
    expected = RegionalSecondOrderPooler(n_local="all", n_components=4).fit_transform(maps)
    model = RegionalSecondOrderPooler(n_local=None, n_components=4)
    with pytest.warns(FutureWarning, match='n_local=None .* write n_local="all"') as caught:
        model.fit(maps)
    assert [warning.filename for warning in caught] == [__file__]
    assert_same_sets(model.transform(maps), expected, atol=0)
    fusion = PoolerFusion([("regions", clone(model))], combine="regions")
    with pytest.warns(FutureWarning, match="n_local=None"):
        fusion.fit(maps)


def test_positional_parameters_still_work_with_a_warning():
    with pytest.warns(FutureWarning, match="pass n_local, n_components, points by name") as caught:
        old = RegionalSecondOrderPooler(2, 5, 6, "hessian")
    assert caught[0].filename == __file__
    new = RegionalSecondOrderPooler(2, n_local=5, n_components=6, points="hessian")
    assert old.get_params() == new.get_params() == clone(old).get_params()
    with pytest.warns(FutureWarning, match="regions by name"):
        every = RegionalSecondOrderPooler(2, 5, 6, "grid", 10, 3, 0.1, "whole", order=1)
    assert (every.n_max, every.n_min, every.reg, every.regions, every.order) == (10, 3, 0.1, "whole", 1)
    kinds = [p.kind for p in inspect.signature(RegionalSecondOrderPooler).parameters.values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] + [inspect.Parameter.KEYWORD_ONLY] * 14
    with pytest.raises(TypeError, match="positional arguments"):
        RegionalSecondOrderPooler(2, 5, 6, "grid", 10, 3, 0.1, "whole", 1)
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match=r"multiple values for .* 'n_local'"):
        RegionalSecondOrderPooler(2, 5, n_local=6)


def test_n_local_is_bounded_by_the_number_of_regions():
    with pytest.warns(UserWarning, match="n_local=5 exceeds the rank 2"):
        model = pooler(n_components=1).fit([make_map(8, 1, 1, seed=seed, density=1.0) for seed in range(3)])
    assert model.local_axes_.shape == (2, 8)


@pytest.mark.parametrize(
    "alike",
    [
        [np.zeros((4, 3, 3))] * 3,
        [make_map(4, 1, 1, density=1.0)],
        np.full((3, 4, 5, 5), 0.5),
        np.ones((5, 1, 3, 3)),
    ],
    ids=["zero", "one_region", "constant", "one_channel"],
)
def test_nothing_to_learn_from(alike):
    with pytest.raises(ValueError, match=rf"nothing to learn .*n_samples={len(alike)}\b"):
        pooler().fit(alike)


def test_refit_forgets(maps, stacked):
    model = pooler().fit(maps)
    assert model.n_features_in_ == 8
    model.set_params(order=1).fit(stacked)
    assert model.n_features_in_ == 6
    assert not hasattr(model, "local_axes_")
    assert_same_sets(model.transform(stacked), pooler(order=1).fit_transform(stacked), atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of input and output


def test_kinds_of_input(stacked):
    expected = pooler().fit_transform(stacked)
    objects = np.empty(len(stacked), dtype=object)
    objects[:] = list(stacked)
    for X in (
        list(stacked),
        tuple(stacked),
        objects,
        torch.tensor(stacked),
        [torch.tensor(m) for m in stacked],
    ):
        assert_same_sets(pooler().fit_transform(X), expected, atol=1e-9)
    frozen = stacked.copy()
    frozen.flags.writeable = False
    assert_same_sets(pooler().fit_transform(frozen), expected, rtol=0)
    assert_same_sets(pooler().fit_transform(stacked[::-1]), expected[::-1], atol=1e-8)


def test_input_is_never_written(stacked):
    signed = stacked - 0.3
    before = signed.copy()
    for words in ({}, {"rectify": False}, {"order": 1}):
        pooler(**words).fit_transform(signed)
        assert_array_equal(signed, before)


def test_batch_equals_one_at_a_time(maps):
    fitted = pooler().fit(maps)
    together = fitted.transform(maps)
    assert_same_sets([fitted.transform([feature_map])[0] for feature_map in maps], together, atol=1e-10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64"), ("int16", "float32")],
)
def test_dtype(stacked, given, expected):
    cast = (10 * stacked).astype(given)
    assert {own.dtype.name for own in pooler().fit_transform(cast)} == {expected}


def test_one_dtype_for_all(maps):
    mixed = [maps[0].astype(np.float32), *maps[1:]]
    assert {own.dtype.name for own in pooler().fit(maps).transform(mixed)} == {"float64"}


def test_boxes_where_the_shape_tells_them(maps):
    """Hulls depend on the map: their boxes come with them; the whole image is known from its size."""
    model = pooler(regions="whole")
    assert_array_equal(model.boxes((3, 4), (640, 480)), [[0, 0, 640, 480]])
    model.set_params(regions="all")
    assert not hasattr(model, "boxes")
    with pytest.raises(AttributeError, match=r"boxes") as caught:
        model.boxes((3, 4), (640, 480))
    assert "regions_of(X)" in str(caught.value.__cause__)
    for own in model.regions_of(maps):
        boxes = own.boxes((640, 480))
        assert_array_equal(boxes[-1], [0, 0, 640, 480])
        for (left, top, right, bottom), polygon in zip(boxes, own.polygons, strict=True):
            x, y = (polygon * (640, 480)).T
            assert (left, top, right, bottom) == (x.min(), y.min(), x.max(), y.max())


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform", "regions_of"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf(maps, method, bad):
    broken = [feature_map.copy() for feature_map in maps]
    broken[3][1, 0, 0] = bad
    with pytest.raises(ValueError, match=r"Entry 3\b.*(NaN|infinity)"):
        getattr(pooler().fit(maps), method)(broken)


def test_bad_input(maps):
    fitted = pooler().fit(maps)
    with pytest.raises(ValueError, match=r"Entry 1\b.*7 channels.*8"):
        fitted.transform([maps[0], maps[1][:7]])
    with pytest.raises(ValueError, match=r"(?i)0 feature maps"):
        fitted.transform([])
    with pytest.raises(ValueError, match=r"Entry 0\b.*3 dimensions"):
        fitted.fit([np.ones((3, 4))])
    with pytest.raises(ValueError, match=r"Entry 0\b.*tuple"):
        fitted.fit([(maps[0], maps[1])])


def test_unknown_parameter_values(maps):
    for name in RegionalSecondOrderPooler().get_params():
        with pytest.raises(ValueError, match=re.escape(repr(name))):
            pooler(**{name: object()}).fit(maps)
    for params in (
        {"n_clusters": 0},
        {"n_clusters": 9},
        {"order": 3},
        {"reg": 0.0},
        {"min_cells": 0},
        {"n_min": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(params))):
            pooler(**params).fit(maps)


def test_set_output_leaves_lists_alone(maps):
    expected = pooler().fit_transform(maps)
    for asked in ("pandas", "default"):
        model = pooler().set_output(transform=asked)
        for sets in (model.fit_transform(maps), model.transform(maps)):
            assert isinstance(sets, list)
            assert_same_sets(sets, expected, atol=1e-12)
    pipe = make_pipeline(pooler(), NearestNeighborsRetriever(n_neighbors=2)).set_output(transform="default")
    assert pipe.fit(maps).predict(maps).shape == (len(maps), 2)


def test_feature_names(maps):
    names = pooler().fit(maps).get_feature_names_out()
    assert list(names) == [f"regionalsecondorderpooler{k}" for k in range(6)]


@pytest.mark.parametrize("words", [{}, {"order": 1}], ids=str)
def test_clone_pickle_and_joblib(maps, words, tmp_path):
    model = pooler(**words)
    assert not [name for name in vars(model) if name.endswith("_")]
    assert model.fit(maps) is model
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "n_features_in_")
    expected = model.transform(maps)
    joblib.dump(model, tmp_path / "pooler.joblib")
    for loaded in (
        pickle.loads(pickle.dumps(model)),
        joblib.load(tmp_path / "pooler.joblib"),
        joblib.load(tmp_path / "pooler.joblib", mmap_mode="r"),
        copy.fit(maps),
    ):
        assert_same_sets(loaded.transform(maps), expected, rtol=0)


# ---------------------------------------------------------------------------------------------------------------------
# Regions of images


def test_regions_are_the_rows(maps):
    fitted = pooler().fit(maps)
    for feature_map, own, rows in zip(maps, fitted.regions_of(maps), fitted.transform(maps), strict=True):
        assert len(own.polygons) == len(own.masks) == len(rows)
        masks, polygons = ref.candidate_regions(feature_map)
        assert_array_equal(own.masks, masks)
        for corners, polygon in zip(polygons, own.polygons, strict=True):
            assert_allclose(sorted(map(tuple, polygon)), sorted(corners), atol=1e-12)
            assert polygon.min() >= 0
            assert polygon.max() <= 1


def test_regions_need_no_fit_and_follow_the_parameters(stacked):
    assert all(len(own.masks) == 1 for own in pooler(regions="whole").regions_of(stacked))
    assert max(len(own.masks) for own in pooler(n_clusters=2).regions_of(stacked)) == 4
    with pytest.raises(ValueError, match="n_clusters"):
        pooler(n_clusters=0).regions_of(stacked)


# ---------------------------------------------------------------------------------------------------------------------
# Retrieval


def views(n_objects=6, n_views=4, seed=0):
    """An object of its own channels at another place of each map, on clutter."""
    rng = np.random.default_rng(seed)
    maps, labels = [], []
    for label, _ in product(range(n_objects), range(n_views)):
        height, width = rng.integers(9, 14, 2)
        feature_map = rng.gamma(0.4, 0.6, (16, height, width)) * (rng.random((16, height, width)) < 0.5)
        top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
        patch = np.random.default_rng(100 + label).gamma(0.5, 4.0, (16, 4, 4))
        feature_map[:, top : top + 4, left : left + 4] += patch
        maps.append(feature_map.astype(np.float32))
        labels.append(label)
    return maps, np.array(labels)


def test_region_sets_go_into_a_retriever():
    maps, labels = views()
    model = make_pipeline(pooler(n_min=24), NearestNeighborsRetriever(n_neighbors=4)).fit(maps, labels)
    assert model[-1].region_offsets_[-1] == sum(map(len, model[0].transform(maps)))
    assert model.score(maps, labels) > 0.6
    distances, indices = model[-1].kneighbors(model[0].transform(maps))
    assert_array_equal(indices[:, 0], np.arange(len(maps)))
    assert_allclose(distances[:, 0], 0, atol=1e-6)
    # the paper's queries: only the whole image
    whole = model.set_params(regionalsecondorderpooler__regions="whole")
    assert whole.predict(maps).shape == (len(maps), 4)


def test_query_expansion_of_the_paper():
    maps, labels = views()
    sets = pooler(n_min=24).fit_transform(maps)
    retriever = NearestNeighborsRetriever(n_neighbors=4)
    expanded = QueryExpansion(retriever, n_expand=2, include_query=False).fit(sets, labels)
    assert expanded.predict(sets).shape == (len(maps), 4)
    assert expanded.score(sets, labels) > 0.6


def test_best_matching_region_in_image_coordinates():
    """The pair that best_regions names is the best pair of rows, and regions_of tells where it lies."""
    maps, labels = views()
    model = pooler(n_min=24).fit(maps)
    sets = model.transform(maps)
    retriever = NearestNeighborsRetriever(n_neighbors=3).fit(sets, labels)
    indices = retriever.predict(sets)
    query_regions, gallery_regions = retriever.best_regions(sets, indices)
    regions = model.regions_of(maps)
    for query, row in enumerate(indices):
        for place, item in enumerate(row):
            cosines = sets[query] @ sets[item].T
            mine, other = query_regions[query, place], gallery_regions[query, place]
            assert cosines[mine, other] == pytest.approx(cosines.max(), abs=1e-5)
            polygon, mask = regions[item].polygons[other], regions[item].masks[other]
            height, width = mask.shape
            i, j = np.nonzero(mask)
            low, high = polygon.min(axis=0) * (width, height), polygon.max(axis=0) * (width, height)
            assert low[0] <= j.min() + 0.5 + 1e-9
            assert high[0] >= j.max() + 0.5 - 1e-9
            assert low[1] <= i.min() + 0.5 + 1e-9
            assert high[1] >= i.max() + 0.5 - 1e-9


def test_grid_search_in_two_processes():
    """More than a megabyte, so that joblib hands the workers read-only memory maps."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    maps = rng.gamma(0.5, 1.0, (24, 12, 22, 22))
    maps[np.arange(24), labels] *= 4
    assert maps.nbytes > 1_000_000
    model = make_pipeline(pooler(n_min=50), NearestNeighborsRetriever(n_neighbors=3))
    grid = {"regionalsecondorderpooler__regions": ["all", "whole"]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2, error_score="raise").fit(maps, labels)
    assert search.best_score_ > 0.7
    alone = cross_val_score(search.best_estimator_, maps, labels, cv=2)
    assert_array_equal(cross_val_score(search.best_estimator_, maps, labels, cv=2, n_jobs=2), alone)


# ---------------------------------------------------------------------------------------------------------------------
# Lazy maps and photographs


@pytest.fixture(scope="module")
def photographs():
    """Photographs of blobs, on noise; one of one colour."""
    rng = np.random.default_rng(0)
    images = []
    for width, height in [(120, 90), (90, 120), (120, 90), (100, 100), (120, 90), (150, 60), (120, 90)]:
        image = rng.normal(128, 4, (height, width))
        rows, columns = np.mgrid[:height, :width]
        for _ in range(25):
            x, y, sigma = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 6)
            image += rng.choice([-70, 70]) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        images.append(np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2))
    images.append(np.full((90, 120, 3), 99, np.uint8))
    return images


@pytest.fixture(scope="module")
def extractor(photographs):
    return ConvFeatureExtractor(
        counting_network, weights=None, image_size=96, batch_size=2, device="cpu"
    ).fit(photographs)


def test_lazy_maps_are_their_arrays(extractor, photographs):
    lazy = extractor.transform(photographs)
    fitted = pooler(n_components=4).fit(lazy)
    assert_same_sets(fitted.transform(lazy), fitted.transform(list(lazy)), atol=1e-4)
    assert_same_sets(fitted.transform(lazy[[4, 1]]), [fitted.transform(lazy)[k] for k in (4, 1)], atol=1e-4)
    model = make_pipeline(clone(extractor), pooler(n_components=4), NearestNeighborsRetriever(n_neighbors=2))
    assert_array_equal(model.fit(photographs).predict(photographs)[:, 0], np.arange(len(photographs)))


def test_passes_over_lazy_maps(extractor, photographs, monkeypatch):
    lazy = extractor.transform(photographs[:4])
    passes = []
    batches = FeatureMaps.batches

    def counted(self):
        passes.append(len(self))
        return batches(self)

    monkeypatch.setattr(FeatureMaps, "batches", counted)
    # up to 32 regions; a vector has 36 entries with n_local=8, 10 channels in the first order, 3 with n_local=2
    for words, of_fit, of_both in [
        ({"n_local": 8}, 2, 2),
        ({"order": 1}, 1, 2),
        ({"order": 1, "regions": "whole"}, 1, 1),
        ({"n_local": 2}, 2, 3),
    ]:
        model = pooler(**{"n_components": 2, **words})
        passes.clear()
        model.fit(lazy)
        assert len(passes) == of_fit
        passes.clear()
        model.fit_transform(lazy)
        assert len(passes) == of_both


def regions_by_hand(extractor, images, model):
    """Points detected in the photograph as the network saw it, hulls by scipy, cells by the resized coordinates."""
    from scipy.spatial import ConvexHull, Delaunay

    from skretrieval.pooling._grammar._salient_points import hessian_points
    from skretrieval.pooling._second_order._candidate_regions import global_fast_kmeans

    for image, feature_map in zip(images, extractor.transform(images), strict=True):
        upright = image.image if isinstance(image, ImageCrop) else image
        upright = upright if isinstance(upright, Image.Image) else Image.fromarray(upright)
        upright = upright.crop(image.box) if isinstance(image, ImageCrop) else upright
        scale = 96 / max(upright.size)
        size = tuple(round(side * scale) for side in upright.size)
        grey = np.asarray(upright.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
        points = hessian_points(grey)
        assert len(points) >= model.n_min
        labels = global_fast_kmeans(points[None], np.ones((1, len(points)), bool), model.n_clusters)[0]
        _, height, width = feature_map.shape
        i, j = np.indices((height, width))
        centres = np.stack([(j + 0.5) * size[0] / width, (i + 0.5) * size[1] / height], axis=-1).reshape(
            -1, 2
        )
        masks, areas = [], []
        for bits in range(1, 2**model.n_clusters):
            members = points[[bool(bits >> label & 1) for label in labels]]
            mask = Delaunay(members).find_simplex(centres, tol=1e-9) >= 0
            if mask.sum() >= model.min_cells:
                masks.append(mask.reshape(height, width))
                areas.append(ConvexHull(members).volume / (size[0] * size[1]))
        yield masks, areas


def area(polygon):
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_points_detected_in_photographs(extractor, photographs):
    images = [*photographs[:-1], ImageCrop(photographs[0], (10, 5, 110, 85)), Image.fromarray(photographs[1])]
    lazy = extractor.transform(images)
    model = pooler(points="hessian", n_min=8, n_components=4)
    regions = model.regions_of(lazy)
    for own, (masks, areas) in zip(regions, regions_by_hand(extractor, images, model), strict=True):
        assert_array_equal(own.masks[:-1], masks)
        assert_allclose([area(polygon) for polygon in own.polygons], [*areas, 1.0], rtol=1e-9)
    sets = model.fit_transform(lazy)
    assert [len(own) for own in sets] == [len(own.masks) for own in regions]
    assert_same_sets(model.transform(lazy), sets, atol=1e-5)
    assert_same_sets(clone(model).set_params(n_jobs=2).fit_transform(lazy), sets, atol=1e-5)
    assert_same_sets(model.transform(lazy[[3]]), sets[3:4], atol=1e-4)


def test_few_detections_fall_back_to_cells(extractor, photographs):
    """A photograph of one colour has no detections; with n_min beyond all detections, no photograph has enough."""
    lazy = extractor.transform(photographs)
    sizes = [(96, 72), (72, 96), (96, 72), (96, 96), (96, 72), (96, 38), (96, 72), (96, 72)]
    grid = pooler(n_min=10_000).regions_of(lazy)
    detected = pooler(points="hessian", n_min=10_000).regions_of(lazy)
    for of_grid, own, (width, height), feature_map in zip(grid, detected, sizes, lazy, strict=True):
        if width * feature_map.shape[1] == height * feature_map.shape[2]:  # same aspect: the same clusters
            assert_array_equal(own.masks, of_grid.masks)
        assert own.masks[-1].all()
    few = pooler(points="hessian", n_min=8).regions_of(lazy[[7]])[0]
    assert_array_equal(few.masks, pooler(n_min=8).regions_of(lazy[[7]])[0].masks)


def test_unreadable_photographs_keep_the_whole(extractor, photographs, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    warning = clone(extractor).set_params(on_error="warn").fit(photographs)
    lazy = warning.transform([*photographs[:6], str(tmp_path / "broken.jpg")])
    with pytest.warns(UserWarning, match="could not be read"):
        sets = pooler(points="hessian", n_min=8, n_components=4).fit_transform(lazy)
    assert sets[-1].shape == (1, 4)
    assert not sets[-1].any()


def test_maps_in_memory_have_no_photographs(maps, extractor, photographs):
    model = pooler(points="hessian")
    for method in ("fit", "fit_transform", "regions_of"):
        with pytest.raises(ValueError, match=r"hessian.*FeatureMaps.*list"):
            getattr(model, method)(maps)
    fitted = pooler(points="hessian", n_min=8, n_components=4).fit(extractor.transform(photographs))
    arrays = list(extractor.transform(photographs[:2]))
    with pytest.raises(ValueError, match=r"hessian.*FeatureMaps"):
        fitted.transform(arrays)
    assert len(fitted.set_params(regions="whole").transform(arrays)) == 2  # the whole needs no points


def test_the_missing_extra_is_named_before_any_work(extractor, photographs, monkeypatch):
    lazy = extractor.transform(photographs)
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(FeatureMaps, "batches", lambda self: pytest.fail("the network ran"))
    with pytest.raises(ImportError, match=r"scikit-retrieval\[photos\]"):
        pooler(points="hessian").fit(lazy)


# ---------------------------------------------------------------------------------------------------------------------
# scikit-learn's battery. Maps are no table, so that scikit-learn would skip it: rows are handed over as 1x1 maps, whose
# region sets (one region each) are stacked to a table again.


class RegionalSecondOrderRows(RegionalSecondOrderPooler):
    def _pooler(self):
        return RegionalSecondOrderPooler(**self.get_params(deep=False))

    def fit(self, X, y=None):
        X = validate_data(self, X, ensure_all_finite=False)
        self.pooler_ = self._pooler().fit(X[:, :, None, None], y)
        return self

    def transform(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite=False)
        return np.concatenate(self.pooler_.transform(X[:, :, None, None]))

    def fit_transform(self, X, y=None):
        X = validate_data(self, X, ensure_all_finite=False)
        self.pooler_ = self._pooler()
        return np.concatenate(self.pooler_.fit_transform(X[:, :, None, None], y))

    @property
    def _n_features_out(self):
        return len(self.pooler_.get_feature_names_out())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = False
        return tags


BATTERY = [
    RegionalSecondOrderRows(n_local="all", n_components=None, reg=0.1),
    RegionalSecondOrderRows(n_local="all", n_components=None, order=1),
    RegionalSecondOrderRows(n_local="all", n_components=None, reg=0.1, rectify=False, regions="whole"),
]


def name_of(check):
    return check.func.__name__ if hasattr(check, "func") else check.__name__


@pytest.mark.parametrize("estimator", BATTERY, ids=repr)
def test_the_battery_is_complete(estimator):
    collected = [name_of(check) for _, check in checks.estimator_checks_generator(estimator)]
    plain = [name_of(check) for _, check in checks.estimator_checks_generator(FastICA())]
    assert sorted(collected) == sorted(plain)
    tags = RegionalSecondOrderPooler().__sklearn_tags__()
    assert not tags.input_tags.two_d_array
    assert tags.requires_fit
    assert not any([tags.no_validation, tags.non_deterministic, tags._skip_test])


@checks.parametrize_with_checks(BATTERY)
def test_estimator(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it the check of array namespaces skips itself
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_(local|components)=")
        check(estimator)


def test_common_shapes_end_to_end():
    """Every spatial size, the large ones too, in one ragged list."""
    sets = RegionalSecondOrderPooler(n_local=4, n_components=5).fit_transform(make_ragged(6))
    assert [own.shape[1] for own in sets] == [5] * 8
    assert all(np.allclose(np.linalg.norm(own, axis=1), 1) for own in sets)
    assert [len(own) for own in sets][:2] == [1, 1]  # 1x1 and a single row of cells: no hull has an area
