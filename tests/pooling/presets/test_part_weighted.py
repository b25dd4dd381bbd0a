"""Part weights of SBA and PWA."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import parts as ref
from references.maps import SHAPES, make_map, make_ragged, special_maps
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skretrieval.pooling import PartWeightedPooler
from skretrieval.pooling._presets._part_weighted import StreamedVariance

PARAMETERS = [{}, {"norm_order": 1.0, "root": 1.0}, {"norm_order": 3.5, "root": 0.7}]


def expected_of(pooler, maps):
    return np.stack([ref.part_weighted(m, pooler.parts_, pooler.norm_order, pooler.root) for m in maps])


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_against_reference(parameters):
    maps = make_ragged(n_channels=6, seed=20)
    pooler = PartWeightedPooler(n_parts=3, **parameters)
    actual = pooler.fit_transform(maps)
    channels, variances = ref.part_channels(maps, 3)
    assert_array_equal(pooler.parts_, channels)
    assert_allclose(pooler.variances_, variances, rtol=1e-10)
    assert actual.shape == (len(SHAPES), 18)
    assert_allclose(actual, expected_of(pooler, maps), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_against_reference_single(parameters):
    maps = make_ragged(n_channels=6, seed=20, dtype=np.float32)
    pooler = PartWeightedPooler(n_parts=3, **parameters)
    actual = pooler.fit_transform(maps)
    assert actual.dtype == np.float32
    assert_allclose(actual, expected_of(pooler, maps), rtol=2e-4)


@pytest.mark.parametrize("kind", sorted(set(special_maps()) - {"one_channel"}))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_special_maps(kind, dtype):
    maps = make_ragged(n_channels=5, shapes=[(4, 5), (3, 6)], dtype=dtype)
    pooler = PartWeightedPooler(n_parts=2).fit(maps)
    feature_map = special_maps()[kind].astype(dtype)
    actual = pooler.transform([feature_map])
    assert actual.dtype == dtype
    rtol = 1e-8 if dtype == np.float64 else 2e-4
    assert_allclose(actual, expected_of(pooler, [feature_map]), rtol=rtol, atol=1e-12)


def test_one_cell_and_constant_maps_by_hand():
    pooler = PartWeightedPooler(n_parts=2).fit([np.ones((3, 1, 1)), np.full((3, 2, 2), 5.0)])
    assert_array_equal(pooler.parts_, [0, 1])  # all vary alike: the lower channels
    assert_allclose(pooler.transform([np.array([2.0, 3.0, 0.0])[:, None, None]]), [[2, 3, 0, 2, 3, 0]])
    # four cells of one value: x / ||x|| = 1/2 each, so weights sqrt(1/2)
    assert_allclose(pooler.transform([np.full((3, 2, 2), 7.0)]), np.full((1, 6), 4 * 7 * np.sqrt(0.5)))


def test_part_that_does_not_show():
    maps = make_ragged(n_channels=4, shapes=[(3, 4), (4, 4), (5, 3)])
    pooler = PartWeightedPooler(n_parts=2).fit(maps)
    maps[0][pooler.parts_[0]] = 0
    first, second = pooler.transform(maps[:1])[0].reshape(2, 4)
    assert not first.any()
    assert second.any()


def test_loud_channels_do_not_win_by_loudness():
    """Variance over images, not size: a channel of large constant sum is no part."""
    maps = [make_map(3, 4, 5, seed=seed) for seed in range(5)]
    for t, feature_map in enumerate(maps):
        feature_map[0] = 1e3
        feature_map[2] *= t
    assert_array_equal(PartWeightedPooler(n_parts=1).fit(maps).parts_, [2])


def test_equal_variances_in_the_order_of_the_channels():
    maps = np.stack([np.full((200, 2, 2), value) for value in (1.0, 2.0, 4.0)])
    maps[2, 150] = 50.0
    pooler = PartWeightedPooler(n_parts=60).fit(maps)
    assert_array_equal(pooler.parts_, [150, *range(59)])


def test_maps_as_a_batch_or_one_by_one():
    maps = np.stack([make_map(5, 6, 7, seed=seed) for seed in range(6)])
    together = PartWeightedPooler(n_parts=4).fit(maps)
    apart = PartWeightedPooler(n_parts=4).fit([*maps[3:, :, ::-1], *maps[:3]])
    assert_allclose(apart.variances_, together.variances_, rtol=1e-12)
    assert_allclose(together.transform(maps), np.concatenate([together.transform([m]) for m in maps]))


def test_streamed_variance_keeps_its_digits():
    rows = np.random.default_rng(0).standard_normal((1000, 3)) + np.array([0.0, 1e6, -1e8])
    streamed = StreamedVariance(3)
    for part in np.split(rows, [1, 2, 10, 500, 501]):
        streamed.update(part)
    assert_allclose(streamed.variance(), rows.var(axis=0), rtol=1e-9)
    constant = StreamedVariance(2)
    for _ in range(3):
        constant.update(np.full((4, 2), 0.1))
    assert_array_equal(constant.variance(), [0, 0])


def test_negative_activations():
    maps = [feature_map - 0.5 for feature_map in make_ragged(4, [(3, 4), (4, 4), (3, 4)])]
    rectified = [np.maximum(feature_map, 0) for feature_map in maps]
    expected = PartWeightedPooler(n_parts=2).fit_transform(rectified)
    assert_allclose(PartWeightedPooler(n_parts=2).fit_transform(maps), expected)
    pooler = PartWeightedPooler(n_parts=2, rectify=False)
    assert_allclose(pooler.fit_transform(rectified), expected)
    with pytest.raises(ValueError, match=r"Entry 0: negative activations .*rectify=True"):
        clone(pooler).fit(maps)
    with pytest.raises(ValueError, match=r"Entry 1: negative activations .*rectify=True"):
        pooler.transform([rectified[0], maps[1], rectified[2]])


def test_more_parts_than_channels():
    with pytest.raises(ValueError, match=r"n_parts=25 exceeds the channels, n_features=4"):
        PartWeightedPooler().fit(np.ones((2, 4, 3, 3)))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale(scale):
    maps = make_ragged(4, [(3, 4), (4, 4), (3, 4)], dtype=np.float32)
    expected = PartWeightedPooler(n_parts=2).fit_transform(maps) * np.float64(scale)
    actual = PartWeightedPooler(n_parts=2).fit_transform([m * np.float32(scale) for m in maps])
    assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize(("old", "new", "value"), [("alpha", "norm_order", 3.5), ("beta", "root", 0.7)])
def test_old_names_still_work_with_a_warning(old, new, value):
    maps = make_ragged(n_channels=6, seed=20)
    expected = PartWeightedPooler(n_parts=3, **{new: value}).fit_transform(maps)
    pooler = PartWeightedPooler(n_parts=3, **{old: value})
    with pytest.warns(FutureWarning, match=f"{old} is called {new} now") as caught:
        pooler.fit(maps)
    assert caught[0].filename == __file__
    assert_array_equal(pooler.transform(maps), expected)
    assert clone(pooler).get_params()[old] == value


@pytest.mark.parametrize("exponents", [{}, {"norm_order": 1.0, "root": 3.0}])
def test_weights_of_the_cells_make_the_descriptor(exponents):
    maps = make_ragged(n_channels=6, seed=20)
    pooler = PartWeightedPooler(n_parts=3, **exponents).fit(maps)
    described = pooler.transform(maps).reshape(len(maps), 3, 6)
    of_all = pooler.cell_weights(maps, part=None)
    for part in range(3):
        for index, weights in enumerate(pooler.cell_weights(maps, part=part)):
            assert weights.shape == maps[index].shape[1:]
            assert_allclose((weights * maps[index]).sum(axis=(1, 2)), described[index, part], rtol=1e-10)
            assert_array_equal(of_all[index][part], weights)
    assert_array_equal(pooler.cell_weights(maps)[1], of_all[1][0])


def test_weights_of_cells_that_cannot_be_told():
    maps = make_ragged(n_channels=6, seed=20)
    with pytest.raises(NotFittedError):
        PartWeightedPooler(3).cell_weights(maps)
    pooler = PartWeightedPooler(3).fit(maps)
    for part in (3, -1):
        with pytest.raises(IndexError, match=f"part {part} is out of range for 3 parts"):
            pooler.cell_weights(maps, part=part)
    with pytest.raises(ValueError, match="Entry 0: has 2 channels, but 6 were expected"):
        pooler.cell_weights(np.ones((1, 2, 3, 3)))
