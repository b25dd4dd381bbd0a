"""What regional second-order pooling learns: passes, memory, ranks, parameters of old."""

import inspect

import numpy as np
import pytest
from fixtures.second_order import assert_same_sets, pooler
from references import second_order as ref
from references.maps import make_map
from sklearn.base import clone

from skretrieval._linalg import _principal_axes
from skretrieval.pooling import PoolerFusion, RegionalSecondOrderPooler
from skretrieval.pooling._second_order import _region_pieces


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
