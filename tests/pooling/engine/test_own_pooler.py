"""A pooler of a user's: ten lines, and everything that the package's own poolers do."""

import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references.maps import make_map, make_ragged
from references.networks import counting_network
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import BasePooler, ClassActivationMask, LayerwisePooler, MACPooler, PoolerFusion
from skretrieval.utils import all_estimators


class DeviationPooler(BasePooler):
    def __init__(self, power=1.0):
        self.power = power

    def pool_maps(self, maps):
        return maps.std(dim=(2, 3), correction=0) ** self.power


@pytest.fixture
def maps():
    return make_ragged(4, [(6, 8), (7, 7), (6, 8), (1, 1), (5, 9)], seed=4)


def expected_of(maps, power=1.0):
    return np.stack([feature_map.std(axis=(1, 2)) ** power for feature_map in maps])


def test_every_way_gives_the_formula(maps):
    pooler = DeviationPooler(power=0.5)
    expected = expected_of(maps, 0.5)
    assert_allclose(pooler.fit_transform(maps), expected, atol=1e-12)
    assert_allclose(pooler.fit(maps).transform([torch.tensor(entry) for entry in maps]), expected, atol=1e-12)
    stacked = np.stack([maps[0], maps[2]])
    assert_allclose(clone(pooler).fit_transform(stacked), expected[[0, 2]], atol=1e-12)
    assert pooler.n_features_in_ == 4
    assert list(pooler.get_feature_names_out()) == [f"deviationpooler{k}" for k in range(4)]
    frame = pooler.set_output(transform="pandas").transform(maps)
    assert isinstance(frame, pd.DataFrame)
    assert_allclose(frame, expected, atol=1e-12)
    assert pooler.transform([entry.astype(np.float32) for entry in maps]).to_numpy().dtype == np.float32


def test_lazy_maps_take_one_pass_and_are_not_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(tmp_path / "log"))
    photographs = list(np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8))
    extractor = ConvFeatureExtractor(
        counting_network,
        weights=None,
        image_size=None,
        device="cpu",
        memory=tmp_path / "memory",
        memory_keeps="descriptors",
    )
    lazy = extractor.fit(photographs).transform(photographs)
    for passes in (1, 2):
        rows = DeviationPooler().fit_transform(lazy)
        assert (tmp_path / "log").read_text().count("image") == 5 * passes
    assert_allclose(rows, expected_of(list(lazy)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_errors_name_the_entry(maps, method, bad):
    pooler = DeviationPooler().fit(maps)
    broken = [entry.copy() for entry in maps]
    broken[3][1, 0, 0] = bad
    with pytest.raises(ValueError, match=r"Entry 3\b.*(NaN|infinity)"):
        getattr(pooler, method)(broken)
    with pytest.raises(ValueError, match=r"Entry 1\b.*3 channels.*4"):
        pooler.transform([maps[0], maps[1][:3]])
    with pytest.raises(ValueError, match=r"Entry 0\b.*LayerwisePooler"):
        pooler.fit([(maps[0], maps[1])])


def test_parameters_are_checked_where_constraints_say_so(maps):
    class Checked(DeviationPooler):
        _parameter_constraints = {"power": [float]}

    assert Checked(2.0).fit(maps).power == 2.0
    with pytest.raises(ValueError, match="'power' parameter of Checked"):
        Checked("two").fit(maps)


class Broken(BasePooler):
    def __init__(self, result):
        self.result = result

    def pool_maps(self, maps):
        return self.result


@pytest.mark.parametrize(
    ("result", "got"),
    [(torch.zeros(3), "shape (3,)"), (torch.zeros(9, 3), "shape (9, 3)"), (np.zeros((1, 3)), "ndarray")],
    ids=["vector", "rows", "array"],
)
def test_what_comes_back_is_checked(maps, result, got):
    with pytest.raises(
        ValueError, match=re.escape(f"Broken.pool_maps must return a tensor of shape (1, d), got {got}.")
    ):
        Broken(result).fit(maps[:1])


def test_nothing_implemented_is_told(maps):
    class Nothing(BasePooler):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing must implement pool_maps\(maps\)"):
        Nothing().fit(maps)


def test_inside_fusion_layers_and_mask(maps):
    fusion = PoolerFusion([("mine", DeviationPooler()), ("max", MACPooler())], combine="concat", norm=None)
    largest = np.stack([entry.max(axis=(1, 2)) for entry in maps])
    assert_allclose(fusion.fit_transform(maps), np.hstack([expected_of(maps), largest]), atol=1e-12)
    assert fusion.set_params(mine__power=2.0).get_params()["mine__power"] == 2.0
    tuples = [(entry, entry**2) for entry in maps]
    layers = LayerwisePooler(DeviationPooler(), norm=None)
    squares = expected_of([entry**2 for entry in maps])
    assert_allclose(layers.fit_transform(tuples), np.hstack([expected_of(maps), squares]), atol=1e-12)
    mask = ClassActivationMask(DeviationPooler(), backbone=torch.nn.Linear(4, 3), threshold=0.0)
    assert mask.fit_transform(maps).shape == (5, 4)


def test_pipeline_grid_search_and_disk(tmp_path):
    maps = np.stack([make_map(4, 6, 8, seed=seed) for seed in range(12)])
    y = np.arange(12) % 2
    maps[np.arange(12), y] *= 4
    model = make_pipeline(DeviationPooler(), LogisticRegression())
    search = GridSearchCV(model, {"deviationpooler__power": [0.5, 2.0]}, cv=3, error_score="raise").fit(
        maps, y
    )
    assert search.best_score_ > 0.8
    copy = clone(search.best_estimator_[0])
    assert not hasattr(copy, "n_features_in_")
    joblib.dump(search.best_estimator_, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    assert_array_equal(again.predict_proba(maps), search.best_estimator_.predict_proba(maps))


def test_the_base_class_is_no_estimator_of_its_own():
    assert "BasePooler" not in dict(all_estimators())
