"""What every pooler owes its user, for those that learn from the maps: the tests of the others, and some more."""

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pooling.engine.test_feature_maps import (  # noqa: F401
    extractor,
    lazy,
    photographs,
    test_nan_in_a_lazy_map_names_the_photograph,
    test_pipeline,
    test_subsets,
    test_transform_reads_the_maps_once,
)
from pooling.test_common import (  # noqa: F401
    maps,
    stacked,
    test_batch_equals_one_at_a_time,
    test_channels_differ_from_fit,
    test_channels_differ_within_a_list,
    test_clone_keeps_parameters,
    test_complex,
    test_dtype,
    test_feature_names,
    test_fit_returns_self_and_only_assigns_before,
    test_half_tensors_are_accumulated_in_single,
    test_input_is_never_written,
    test_list_equals_array,
    test_map_without_cells_or_channels,
    test_memory_layouts,
    test_nan_and_inf,
    test_negative_strides_of_a_batch,
    test_not_feature_maps,
    test_object_array_of_maps,
    test_one_bare_map,
    test_pandas_output,
    test_pickle_and_joblib_are_bit_equal,
    test_read_only_input,
    test_tags,
    test_torch_tensors,
    test_torch_tensors_that_require_grad,
    test_unknown_parameter_values,
    test_wrong_rank,
)
from references.maps import make_map, make_ragged
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import FeatureMaps
from skretrieval.pooling import (
    BoWPooler,
    EntropyPooler,
    FisherVectorPooler,
    NetVLADPooler,
    PartWeightedPooler,
    TEmbeddingPooler,
    VLADPooler,
)


class Case:
    def __init__(self, pooler):
        self.pooler = pooler
        self.name = type(pooler).__name__


CASES = [
    Case(BoWPooler(6, n_local=None, random_state=0, sparse_output=False)),
    Case(VLADPooler(2, random_state=0)),
    Case(FisherVectorPooler(2, n_local=None, random_state=0)),
    Case(TEmbeddingPooler(2, n_local=None, n_drop=1, random_state=0)),
    Case(NetVLADPooler(2, random_state=0)),
    Case(PartWeightedPooler(2)),
    Case(EntropyPooler()),
]


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture
def pooler(case):
    return clone(case.pooler)


def test_lazy_maps_as_arrays(pooler, lazy):  # noqa: F811
    """Batches of another size and order give the same codebook and the same descriptors."""
    arrays = list(lazy)
    actual = pooler.fit_transform(lazy)
    assert actual.dtype == np.float32
    assert_allclose(actual, clone(pooler).fit_transform(arrays), rtol=1e-4, atol=1e-5)


def test_fit_reads_the_maps_once(pooler, case, lazy, monkeypatch):  # noqa: F811
    """One pass to learn; where nothing is learned, a look at the first map."""
    passes = []
    batches = FeatureMaps.batches

    def counted(self):
        passes.append(len(self))
        return batches(self)

    monkeypatch.setattr(FeatureMaps, "batches", counted)
    pooler.fit(lazy)
    assert passes == ([1] if case.name == "EntropyPooler" else [len(lazy)])


def test_models_mapped_read_only(pooler, stacked, tmp_path):  # noqa: F811
    if "n_local" in pooler.get_params():
        pooler.set_params(n_local="all")
    expected = pooler.fit(stacked).transform(stacked)
    joblib.dump(pooler, tmp_path / "pooler.joblib")
    mapped = joblib.load(tmp_path / "pooler.joblib", mmap_mode="r")
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns of read-only memory once in a process
    try:
        assert_array_equal(mapped.transform(stacked), expected)
    finally:
        torch.set_warn_always(always)


@pytest.mark.parametrize("X", [[], np.empty((0, 4, 3, 3))], ids=["list", "array"])
def test_empty(pooler, stacked, X):  # noqa: F811
    with pytest.raises(ValueError, match="0 feature maps"):
        pooler.fit(X)
    with pytest.raises(ValueError, match="0 feature maps"):
        pooler.fit(stacked).transform(X)


def test_large_half_precision(pooler, stacked):  # noqa: F811
    """60000 is close to the largest float16: sums in half precision are infinite."""
    loud = (stacked / stacked.max() * 60000).astype(np.float16)
    actual = pooler.fit_transform(loud)
    assert np.isfinite(actual).all()
    assert_array_equal(actual, clone(pooler).fit_transform(loud.astype(np.float32)))


def test_integers(pooler, stacked):  # noqa: F811
    counts = np.round(10 * stacked).astype(np.uint8)
    assert_array_equal(pooler.fit_transform(counts), clone(pooler).fit_transform(counts.astype(np.float32)))


def mark(maps, y):  # noqa: F811
    """Two classes: in each another channel is silent in all but a few cells."""
    for feature_map, label in zip(maps, y, strict=True):
        feature_map[label, 1:] = 0
        feature_map[label, 0] *= 0.1


def test_cross_val_predict_of_ragged_lists(pooler):
    maps = make_ragged(n_channels=4, shapes=[(4, 6), (5, 5), (6, 4)] * 6, seed=70, dtype=np.float32)  # noqa: F811
    y = np.arange(len(maps)) % 2
    mark(maps, y)
    predicted = cross_val_predict(make_pipeline(pooler, LogisticRegression()), maps, y, cv=3)
    assert (predicted == y).mean() > 0.8


def test_grid_search_in_two_processes(case):
    """More than a megabyte, so that joblib hands the workers read-only memory maps."""
    maps = np.stack([make_map(4, 11, 12, seed=seed) for seed in range(300)])  # noqa: F811
    assert maps.nbytes > 1_000_000
    y = np.arange(len(maps)) % 2
    mark(maps, y)
    model = make_pipeline(clone(case.pooler), LogisticRegression())
    search = GridSearchCV(
        model, {f"{model.steps[0][0]}__rectify": [True, False]}, cv=2, n_jobs=2, error_score="raise"
    )
    search.fit(maps, y)
    assert search.best_score_ > 0.8
    alone = cross_val_predict(search.best_estimator_, maps, y, cv=2)
    assert_array_equal(cross_val_predict(search.best_estimator_, maps, y, cv=2, n_jobs=2), alone)
