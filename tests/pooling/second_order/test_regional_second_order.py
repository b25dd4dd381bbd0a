"""Regional second-order pooling as an estimator: against the reference, kinds of input and of output."""

import pickle
import re

import joblib
import numpy as np
import pytest
import torch
from fixtures.second_order import assert_same_sets, pooler
from numpy.testing import assert_allclose, assert_array_equal
from references import second_order as ref
from references.maps import make_map, make_ragged, special_maps
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skretrieval.pooling import RegionalSecondOrderPooler
from skretrieval.retrieval import NearestNeighborsRetriever

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


def test_common_shapes_end_to_end():
    """Every spatial size, the large ones too, in one ragged list."""
    sets = RegionalSecondOrderPooler(n_local=4, n_components=5).fit_transform(make_ragged(6))
    assert [own.shape[1] for own in sets] == [5] * 8
    assert all(np.allclose(np.linalg.norm(own, axis=1), 1) for own in sets)
    assert [len(own) for own in sets][:2] == [1, 1]  # 1x1 and a single row of cells: no hull has an area
