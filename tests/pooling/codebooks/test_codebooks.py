"""Every codebook pooler against its brute-force reference, with the codebook that it learned."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pooling.codebook_cases import CASES, N_CHANNELS, common, training_maps
from references import codebooks as ref
from references.maps import SHAPES, make_map, make_ragged, special_maps
from scipy import sparse
from sklearn.base import clone

from skretrieval.pooling import (
    BoWPooler,
    NetVLADPooler,
    PoolerFusion,
    VLADPooler,
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def double(case):
    return clone(case.pooler).fit(training_maps())


@pytest.fixture(scope="module")
def single(case):
    return clone(case.pooler).fit(training_maps(np.float32))


def expected_of(case, pooler, maps):
    reference = case.reference(pooler)
    return np.stack([reference(feature_map) for feature_map in maps])


def clear(case, pooler, maps):
    """Whether no descriptor lies so close between two words that float32 may choose the other."""
    if not case.name.startswith(("bow", "vlad")):
        return True
    kwargs = {**common(pooler), "upsample": getattr(pooler, "upsample", 1)}
    found = ref.margins(maps, pooler.cluster_centers_, **kwargs)
    return found.size == 0 or found.min() > 1e-6


def assert_close_single(actual, expected):
    """2e-4 of the value, or of the largest value where the descriptor nearly cancels."""
    assert actual.dtype == np.float32
    scale = np.abs(expected).max(axis=-1, keepdims=True)
    assert np.all(np.abs(actual - expected) <= 2e-4 * np.abs(expected) + 2e-6 * scale)


@pytest.fixture(scope="module")
def ragged():
    maps = make_ragged(N_CHANNELS, [shape for shape in SHAPES if shape != (32, 24)], seed=20)
    return [*maps, make_map(N_CHANNELS, 7, 7, seed=50), make_map(N_CHANNELS, 2, 5, seed=51)]


def test_ragged_double(case, double, ragged):
    actual = double.transform(ragged)
    assert actual.dtype == np.float64
    assert_allclose(actual, expected_of(case, double, ragged), rtol=1e-8, atol=1e-12)
    assert_allclose(np.linalg.norm(actual, axis=1), 1)


def test_ragged_single(case, single, ragged):
    maps = [feature_map.astype(np.float32) for feature_map in ragged]
    assert clear(case, single, maps)
    assert_close_single(single.transform(maps), expected_of(case, single, maps))


def test_double_maps_with_a_codebook_from_single(case, single, ragged):
    maps = ragged[1:5]
    assert_allclose(single.transform(maps), expected_of(case, single, maps), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", sorted(set(special_maps(N_CHANNELS)) - {"one_channel", "all_equal_large"}))
def test_special_maps(case, double, single, kind, dtype):
    feature_map = special_maps(N_CHANNELS)[kind].astype(dtype)
    pooler = double if dtype == np.float64 else single
    actual = pooler.transform([feature_map])
    expected = expected_of(case, pooler, [feature_map])
    if dtype == np.float64:
        assert_allclose(actual, expected, rtol=1e-8, atol=1e-12)
    else:
        assert_close_single(actual, expected)
    assert actual.any() == (feature_map > 0).any()


def test_scale_of_the_activations_does_not_matter(case, double, ragged):
    expected = double.transform(ragged[:4])
    scaled = double.transform([feature_map * 1e30 for feature_map in ragged[:4]])
    assert_allclose(scaled, expected, rtol=1e-7, atol=1e-9)


def test_without_rectification(case, ragged):
    pooler = clone(case.pooler).set_params(rectify=False).fit(training_maps(signed=True))
    signed = [feature_map - 0.4 for feature_map in ragged[:4]]
    actual = pooler.transform(signed)
    assert_allclose(actual, expected_of(case, pooler, signed), rtol=1e-8, atol=1e-12)
    rectified = clone(case.pooler).fit(training_maps()).transform(signed)
    assert rectified.shape != actual.shape or not np.allclose(rectified, actual)


def test_negative_maps_are_zero_maps(double):
    assert not double.transform([-np.ones((N_CHANNELS, 3, 4))]).any()


def test_more_zero_cells_change_nothing(case, double):
    """Cells without activation are no descriptors: padding with them leaves the descriptor as it is."""
    if case.name == "bow":  # enlarging mixes a cell with its neighbours
        return
    feature_map = make_map(N_CHANNELS, 4, 5, seed=9)
    padded = np.pad(feature_map, [(0, 0), (1, 2), (3, 1)])
    assert_allclose(double.transform([padded]), double.transform([feature_map]), rtol=1e-10, atol=1e-13)


def test_cells_in_any_order(case, double):
    if case.name == "bow":
        return
    feature_map = make_map(N_CHANNELS, 4, 6, seed=9)
    order = np.random.default_rng(0).permutation(24)
    shuffled = feature_map.reshape(N_CHANNELS, 24)[:, order].reshape(N_CHANNELS, 3, 8)
    assert_allclose(double.transform([shuffled]), double.transform([feature_map]), rtol=1e-10, atol=1e-13)


def test_blocks_of_images(case, double, ragged, monkeypatch):
    """A batch is worked through in pieces when its intermediate results are large."""
    maps = np.stack([make_map(N_CHANNELS, 4, 5, seed=seed) for seed in range(7)])
    expected = double.transform(maps)
    monkeypatch.setattr("skretrieval.pooling._codebooks._base.BLOCK_NUMBERS", 1000)
    assert_allclose(double.transform(maps), expected, rtol=1e-10, atol=1e-13)
    refitted = clone(case.pooler).fit(training_maps())
    assert_allclose(refitted.transform(maps), expected, rtol=1e-7, atol=1e-10)


def test_order_of_the_images_does_not_change_the_codebook(case):
    """Only images of one shape are taken in another order, so that the sample is the same rows."""
    maps = training_maps()
    as_array = clone(case.pooler).fit(np.stack([maps[0], maps[2]]))
    as_list = clone(case.pooler).fit([maps[0], maps[2]])
    assert_array_equal(as_list.transform(maps), as_array.transform(maps))


def test_random_state(case):
    maps = training_maps()
    first = clone(case.pooler).set_params(sample_size=50).fit(maps)
    again = clone(case.pooler).set_params(sample_size=50).fit(maps)
    assert_array_equal(first.transform(maps), again.transform(maps))
    other = clone(case.pooler).set_params(sample_size=50, random_state=7).fit(maps).transform(maps)
    assert other.shape != first.transform(maps).shape or not np.allclose(other, first.transform(maps))
    generator = clone(case.pooler).set_params(random_state=np.random.RandomState(3))
    assert np.isfinite(generator.fit_transform(maps)).all()


def test_too_few_descriptors(case):
    one_cell = make_map(N_CHANNELS, 1, 1, density=1.0)
    pooler = clone(case.pooler).set_params(n_clusters=9)
    if "upsample" in pooler.get_params():
        pooler.set_params(upsample=1)
    with pytest.raises(ValueError, match=r"n_samples=1 .*n_clusters=9"):
        pooler.fit([one_cell, np.zeros((N_CHANNELS, 3, 3))])


def test_nothing_to_whiten(case):
    constant = np.full((2, N_CHANNELS, 3, 3), 4.0)
    with pytest.raises(ValueError, match=r"all local descriptors are equal .*\(n_samples=2\b.*n_features=5"):
        clone(case.pooler).set_params(n_local="all").fit(constant)


def test_nothing_to_learn_from(case):
    with pytest.raises(ValueError, match="every cell of every feature map is zero"):
        clone(case.pooler).fit(np.zeros((3, N_CHANNELS, 2, 2)))


def test_refit_forgets(case):
    pooler = clone(case.pooler).set_params(n_local=3).fit(training_maps())
    pooler.set_params(n_local=None).fit(training_maps())
    assert not hasattr(pooler, "local_axes_")
    fresh = clone(case.pooler).set_params(n_local=None).fit(training_maps())
    assert_array_equal(pooler.transform(training_maps()), fresh.transform(training_maps()))


def test_feature_names(double, ragged):
    names = double.get_feature_names_out()
    assert len(names) == double.transform(ragged[:2]).shape[1]
    assert double.n_features_in_ == N_CHANNELS


def test_fusion_of_codebooks(ragged):
    """Parts of a fusion learn from the same maps."""
    maps = training_maps()
    parts = [("vlad", VLADPooler(3, random_state=0)), ("netvlad", NetVLADPooler(3, random_state=0))]
    fused = PoolerFusion(parts, weights=[0.3, 0.7]).fit(maps).transform(ragged[:3])
    alone = [clone(part).fit(maps).transform(ragged[:3]) for _, part in parts]
    total = 0.3 * alone[0] + 0.7 * alone[1]
    assert_allclose(fused, total / np.linalg.norm(total, axis=1, keepdims=True), rtol=1e-10)
    bags = PoolerFusion([("bow", BoWPooler(7, random_state=0))]).fit(maps).transform(ragged[:3])
    assert not sparse.issparse(bags)
