"""What every pooler owes its user: input kinds, dtypes, errors, and the conventions of scikit-learn."""

import ast
import pickle
import re
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pooling.cases import N_CHANNELS, POOLERS, PUBLIC, as_table, parametrize_with_poolers
from references.maps import make_map, make_ragged
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

SMALL = [(4, 6), (7, 7), (1, 1), (4, 6), (3, 14)]


pytest_generate_tests = parametrize_with_poolers


@pytest.fixture
def pooler(case):
    return case.make()


@pytest.fixture
def maps():
    return make_ragged(n_channels=N_CHANNELS, shapes=SMALL, seed=30)


@pytest.fixture
def stacked():
    return np.stack([make_map(N_CHANNELS, 6, 8, seed=seed) for seed in range(4)])


def fitted(pooler, X):
    """Descriptors of what the pooler is fitted on, as a table."""
    return as_table(pooler.fit_transform(X))


def described(pooler, X):
    return as_table(pooler.transform(X))


# ---------------------------------------------------------------------------------------------------------------------
# The list


def test_every_public_pooler_is_in_the_list():
    assert {type(case.battery[0]).__name__ for case in POOLERS} == PUBLIC
    assert len({case.name for case in POOLERS}) == len(POOLERS)


def functions(path):
    tree = ast.parse((Path(__file__).parent / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("own", POOLERS, ids=lambda own: own.name)
def test_replaced_tests_have_a_replacement(own):
    assert set(own.replaced) <= functions("test_common.py") | functions("engine/test_feature_maps.py")
    for replacement in own.replaced.values():
        path, _, name = replacement.partition("::")
        assert name in functions(path)


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of input


def test_output_for_as_few_images_as_it_needs(case, pooler, stacked):
    output = pooler.fit_transform(stacked[: case.n_images])
    assert isinstance(output, list) == (case.output == "sets")
    assert len(output) == case.n_images
    assert as_table(output).shape[1] == len(pooler.get_feature_names_out())
    assert np.isfinite(as_table(output)).all()


def test_batch_equals_one_at_a_time(pooler, maps):
    together = fitted(pooler, maps)
    apart = np.concatenate([described(pooler, [feature_map]) for feature_map in maps])
    assert_allclose(together, apart, rtol=1e-12, atol=1e-13)


def test_list_equals_array(pooler, stacked):
    expected = fitted(pooler, stacked)
    assert_allclose(described(pooler, list(stacked)), expected, rtol=1e-12)
    assert_allclose(described(pooler, tuple(stacked)), expected, rtol=1e-12)
    assert_allclose(described(pooler.fit(stacked), stacked), expected, rtol=0)


def test_object_array_of_maps(pooler, maps):
    ragged = np.empty(len(maps), dtype=object)
    ragged[:] = maps
    assert_allclose(fitted(pooler, ragged), fitted(clone(pooler), maps), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_tensors(pooler, maps, stacked, dtype):
    tensors = [torch.tensor(feature_map, dtype=dtype) for feature_map in maps]
    actual = fitted(pooler, tensors)
    assert isinstance(actual, np.ndarray)
    assert_array_equal(actual, fitted(clone(pooler), [tensor.numpy() for tensor in tensors]))
    batch = torch.tensor(stacked, dtype=dtype)
    assert_array_equal(described(pooler, batch), described(pooler, batch.numpy()))


def test_torch_tensors_that_require_grad(pooler, maps):
    tensors = [torch.tensor(feature_map, requires_grad=True) for feature_map in maps]
    assert_array_equal(fitted(pooler, tensors), fitted(clone(pooler), maps))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[..., ::-1].copy()[..., ::-1],  # a negative stride, which torch.from_numpy refuses
        lambda a: np.ascontiguousarray(np.moveaxis(a, 0, -1)).transpose(2, 0, 1),  # channels last
        lambda a: a.astype(">f8"),
    ],
    ids=["fortran", "negative_stride", "channels_last", "big_endian"],
)
def test_memory_layouts(pooler, maps, change):
    expected = fitted(clone(pooler), maps)
    assert_allclose(fitted(pooler, [change(feature_map) for feature_map in maps]), expected, rtol=1e-10)


def test_negative_strides_of_a_batch(pooler, stacked):
    actual = fitted(pooler, stacked[::-1])
    assert_allclose(actual, as_table(pooler.transform(stacked)[::-1]), rtol=1e-12)


def test_input_is_never_written(pooler, maps, stacked):
    signed = [feature_map - 0.5 for feature_map in maps]
    copies = [feature_map.copy() for feature_map in signed]
    pooler.fit(signed).transform(signed)
    for before, after in zip(copies, signed, strict=True):
        assert_array_equal(before, after)
    tensor = torch.tensor(stacked) - 0.5
    before = tensor.clone()
    pooler.fit(tensor).transform(tensor)
    assert torch.equal(tensor, before)


def test_read_only_input(pooler, maps, stacked, tmp_path):
    expected = fitted(clone(pooler), maps)
    for feature_map in maps:
        feature_map.flags.writeable = False
    assert_array_equal(fitted(pooler, maps), expected)
    joblib.dump(stacked, tmp_path / "maps.joblib")
    mapped = joblib.load(tmp_path / "maps.joblib", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert_array_equal(fitted(pooler, mapped), fitted(clone(pooler), stacked))


# ---------------------------------------------------------------------------------------------------------------------
# Dtypes


@pytest.mark.parametrize(
    ("given", "expected"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_dtype(pooler, maps, stacked, given, expected):
    assert fitted(pooler, [feature_map.astype(given) for feature_map in maps]).dtype == expected
    assert described(pooler, stacked.astype(given)).dtype == expected


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16])
def test_half_tensors_are_accumulated_in_single(pooler, maps, given):
    tensors = [torch.tensor(feature_map).to(given) for feature_map in maps]
    actual = fitted(pooler, tensors)
    assert actual.dtype == np.float32
    single = fitted(clone(pooler), [tensor.float().numpy() for tensor in tensors])
    assert_allclose(actual, single, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("given", ["uint8", "int16", "int64"])
def test_integers_become_floats(pooler, stacked, given):
    whole = np.round(stacked).astype(given)
    actual = fitted(pooler, whole)
    assert actual.dtype.kind == "f"
    assert_allclose(actual, fitted(clone(pooler), whole.astype(np.float64)), rtol=2e-4, atol=1e-5)


def test_integers(pooler, stacked):
    counts = np.round(10 * stacked).astype(np.uint8)
    assert_array_equal(fitted(pooler, counts), fitted(clone(pooler), counts.astype(np.float32)))


def test_large_half_precision(pooler, stacked):
    """60000 is close to the largest float16: sums in half precision are infinite."""
    loud = (stacked / stacked.max() * 60000).astype(np.float16)
    actual = fitted(pooler, loud)
    assert np.isfinite(actual).all()
    assert_array_equal(actual, fitted(clone(pooler), loud.astype(np.float32)))


def test_half_precision_does_not_overflow(pooler):
    # 60000 is close to the largest float16: any sum in half precision is infinite
    loud = np.full((1, N_CHANNELS, 5, 5), 60000, dtype=np.float16)
    loud[0, 1, 0, 0] = 0
    assert np.isfinite(fitted(pooler, loud)).all()


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf(pooler, maps, stacked, method, bad):
    pooler.fit(maps)
    maps[3][2, 1, 1] = bad  # -inf too, which cutting off negative responses would hide
    with pytest.raises(ValueError, match=r"(?i)\b3\b.*(NaN|infinity|inf)\b"):
        getattr(pooler, method)(maps)
    stacked[2, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"(?i)\b2\b.*(NaN|infinity|inf)\b"):
        getattr(pooler, method)(stacked)
    with pytest.raises(ValueError, match=r"(?i)\b2\b.*(NaN|infinity|inf)\b"):
        getattr(pooler, method)(torch.tensor(stacked))


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_wrong_rank(pooler, method):
    maps = [make_map(N_CHANNELS, 4, 4, seed=seed) for seed in range(20)]
    pooler.fit(maps)
    maps[17] = maps[17][0]
    with pytest.raises(ValueError, match=r"Entry 17: expected 3 dimensions, got 2"):
        getattr(pooler, method)(maps)
    maps[17] = np.zeros((1, N_CHANNELS, 4, 4))
    with pytest.raises(ValueError, match=r"Entry 17: expected 3 dimensions, got 4"):
        getattr(pooler, method)(maps)


@pytest.mark.parametrize("X", [np.zeros((3, 4, 4)), torch.zeros(3, 4, 4)], ids=["array", "tensor"])
def test_one_bare_map(pooler, X):
    with pytest.raises(ValueError, match=r"(?i)3"):
        pooler.fit(X)


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_channels_differ_within_a_list(pooler, maps, method):
    maps[4] = maps[4][:3]
    with pytest.raises(ValueError, match=r"(?=.*\b4\b)(?=.*\b3\b)(?=.*\b5\b)"):
        getattr(pooler, method)(maps)


def test_channels_differ_from_fit(pooler, maps, stacked):
    pooler.fit(maps)
    with pytest.raises(ValueError, match=r"(?=.*\b0\b)(?=.*\b7\b)(?=.*\b5\b)"):
        described(pooler, np.ones((2, 7, 4, 4)))
    with pytest.raises(ValueError, match=r"(?=.*\b2\b)(?=.*\b7\b)(?=.*\b5\b)"):
        described(pooler, [maps[0], maps[1], np.ones((7, 4, 4))])


@pytest.mark.parametrize(
    "empty",
    [[], (), np.empty((0, 4, 3, 3)), torch.empty(0, 4, 3, 3)],
    ids=["list", "tuple", "array", "tensor"],
)
def test_empty(pooler, maps, empty):
    with pytest.raises(ValueError, match="0 feature maps"):
        pooler.fit(empty)
    pooler.fit(maps)
    with pytest.raises(ValueError, match="0 feature maps"):
        pooler.transform(empty)


@pytest.mark.parametrize("shape", [(5, 0, 3), (5, 3, 0), (0, 3, 3)])
def test_map_without_cells_or_channels(pooler, maps, shape):
    maps[1] = np.empty(shape)
    with pytest.raises(ValueError, match=r"\b1\b"):
        pooler.fit(maps)
    with pytest.raises(ValueError, match=r"."):
        clone(pooler).fit(np.empty((2, *shape)))


@pytest.mark.parametrize(
    "X",
    [3.0, "photo.jpg", ["photo.jpg"], [None], None, np.ones((2, 3)), np.ones((1, 2, 3, 4, 5))],
    ids=["scalar", "string", "paths", "nones", "none", "2d", "5d"],
)
def test_not_feature_maps(pooler, X):
    with pytest.raises((ValueError, TypeError)):
        pooler.fit(X)


def test_complex(pooler, maps):
    with pytest.raises((ValueError, TypeError), match=r"(?i)complex"):
        pooler.fit([feature_map.astype(complex) for feature_map in maps])


# ---------------------------------------------------------------------------------------------------------------------
# scikit-learn


def test_fit_returns_self_and_only_assigns_before(case, pooler, maps):
    assert not [name for name in vars(pooler) if name.endswith("_") and not name.startswith("_")]
    assert pooler.fit(maps) is pooler
    assert pooler.n_features_in_ == N_CHANNELS * case.n_layers


def test_clone_keeps_parameters(pooler, maps):
    model = pooler.fit(maps)
    copy = clone(model)
    assert not hasattr(copy, "n_features_in_")
    assert repr(copy) == repr(model)
    assert_array_equal(fitted(copy, maps), described(model, maps))


def test_pickle_and_joblib_are_bit_equal(pooler, maps, tmp_path):
    expected = fitted(pooler, maps)
    assert_array_equal(described(pickle.loads(pickle.dumps(pooler)), maps), expected)
    joblib.dump(pooler, tmp_path / "pooler.joblib")
    assert_array_equal(described(joblib.load(tmp_path / "pooler.joblib"), maps), expected)


def test_models_mapped_read_only(pooler, stacked, tmp_path):
    if "n_local" in pooler.get_params():
        pooler.set_params(n_local="all")
    expected = described(pooler.fit(stacked), stacked)
    joblib.dump(pooler, tmp_path / "pooler.joblib")
    mapped = joblib.load(tmp_path / "pooler.joblib", mmap_mode="r")
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns of read-only memory once in a process
    try:
        assert_array_equal(described(mapped, stacked), expected)
    finally:
        torch.set_warn_always(always)


def test_feature_names(pooler, maps):
    descriptors = fitted(pooler, maps)
    names = pooler.get_feature_names_out()
    prefix = type(pooler).__name__.lower()
    assert list(names) == [f"{prefix}{t}" for t in range(descriptors.shape[1])]


def test_pandas_output(pooler, maps):
    expected = fitted(pooler, maps)
    pooler.set_output(transform="pandas")
    for frame in (pooler.transform(maps), pooler.fit_transform(maps)):
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == list(pooler.get_feature_names_out())
        assert_array_equal(frame.to_numpy(), expected)


def test_tags(pooler):
    tags = pooler.__sklearn_tags__()
    assert not tags.input_tags.two_d_array
    assert not tags.input_tags.allow_nan
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert tags.transformer_tags.preserves_dtype == ["float64", "float32"]


def test_unknown_parameter_values(pooler, maps):
    for name in pooler.get_params(deep=False):
        broken = clone(pooler).set_params(**{name: object()})
        with pytest.raises((ValueError, TypeError), match=rf"(?i){re.escape(name)}"):
            broken.fit(maps)


def mark(maps, y):
    """Two classes: in each another channel is silent in all but a few cells."""
    for feature_map, label in zip(maps, y, strict=True):
        feature_map[label, 1:] = 0
        feature_map[label, 0] *= 0.1


def test_cross_val_predict_of_ragged_lists(pooler):
    maps = make_ragged(N_CHANNELS, shapes=[(4, 6), (5, 5), (6, 4)] * 12, seed=70, dtype=np.float32)
    y = np.arange(len(maps)) % 2
    mark(maps, y)
    model = make_pipeline(pooler, Normalizer(), LogisticRegression())
    assert (cross_val_predict(model, maps, y, cv=3) == y).mean() > 0.8


def test_grid_search_in_two_processes(case):
    """More than a megabyte, so that joblib hands the workers read-only memory maps."""
    maps = np.stack([make_map(N_CHANNELS, 11, 12, seed=seed) for seed in range(200)])
    assert maps.nbytes > 1_000_000
    y = np.arange(len(maps)) % 2
    mark(maps, y)
    model = make_pipeline(case.make(), Normalizer(), LogisticRegression())
    parameter = next(name for name in model.get_params() if name.endswith("__rectify"))
    search = GridSearchCV(model, {parameter: [True, False]}, cv=2, n_jobs=2, error_score="raise")
    search.fit(maps, y)
    assert search.best_score_ > 0.8
    alone = cross_val_predict(search.best_estimator_, maps, y, cv=2)
    assert_array_equal(cross_val_predict(search.best_estimator_, maps, y, cv=2, n_jobs=2), alone)
