"""Poolers on the lazy maps of an extractor: the same numbers as on arrays, in one pass."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pooling.cases import as_table, parametrize_with_poolers
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn

from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps

N_CHANNELS = 6
pytest_generate_tests = parametrize_with_poolers


@pytest.fixture
def pooler(case):
    return case.make(N_CHANNELS)


def small_network():
    """A network without weights to load: two strided convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Conv2d(8, N_CHANNELS, 3, stride=2), nn.ReLU()
    )


@pytest.fixture(scope="module")
def extractor():
    return ConvFeatureExtractor(
        small_network, weights=None, random_state=0, layers=None, image_size=None, batch_size=3, device="cpu"
    )


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(0)
    sizes = [(64, 48), (48, 64), (64, 48), (33, 90), (64, 48), (64, 48), (48, 64)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def lazy(extractor, photographs):
    maps = clone(extractor).fit(photographs).transform(photographs)
    assert isinstance(maps, FeatureMaps)
    return maps


def test_same_as_on_arrays(pooler, case, lazy):
    """Batches of another size and order, which give what learns another order of sums."""
    arrays = list(lazy)
    actual = as_table(pooler.fit_transform(lazy))
    assert actual.dtype == np.float32
    rtol, atol = (1e-5, 1e-7) if case.reference and not case.learns else (1e-4, 1e-5)
    assert_allclose(actual, as_table(clone(pooler).fit_transform(arrays)), rtol=rtol, atol=atol)
    if case.reference and not case.learns:
        expected = np.stack([case.reference(feature_map) for feature_map in arrays])
        assert_allclose(actual, expected, rtol=2e-4, atol=1e-6 * np.abs(expected).max())


def test_subsets(pooler, lazy):
    everything = pooler.fit_transform(lazy)
    assert pooler.n_features_in_ == N_CHANNELS
    for key in (slice(2, 5), np.array([6, 0, 3]), np.arange(7) % 2 == 0):
        expected = [everything[index] for index in np.arange(len(lazy))[key]]
        for own, other in zip(pooler.transform(lazy[key]), expected, strict=True):
            assert_allclose(own, other, rtol=1e-5, atol=1e-7)


def test_transform_reads_the_maps_once(pooler, lazy, monkeypatch):
    passes = []
    batches = FeatureMaps.batches

    def counted(self):
        passes.append(len(self))
        return batches(self)

    pooler.fit(lazy)
    monkeypatch.setattr(FeatureMaps, "batches", counted)
    pooler.transform(lazy)
    assert passes == [len(lazy)]


def test_fit_reads_the_maps_once(pooler, case, lazy, monkeypatch):
    """One pass to learn; where nothing is learned, a look at the first map."""
    passes = []
    batches = FeatureMaps.batches

    def counted(self):
        passes.append(len(self))
        return batches(self)

    monkeypatch.setattr(FeatureMaps, "batches", counted)
    pooler.fit(lazy)
    assert passes == [len(lazy) if case.learns else 1]


def test_fit_does_not_run_the_network_over_everything(pooler, lazy, monkeypatch):
    """A stateless pooler only needs the number of channels."""
    seen = []
    batches = FeatureMaps.batches

    def counted(self):
        for indices, maps in batches(self):
            seen.extend(indices)
            yield indices, maps

    monkeypatch.setattr(FeatureMaps, "batches", counted)
    pooler.fit(lazy)
    assert len(seen) < len(lazy)


def test_fit_transform_reads_the_maps_once(pooler, lazy, monkeypatch):
    seen = []
    batches = FeatureMaps.batches

    def counted(self):
        for indices, maps in batches(self):
            seen.extend(indices)
            yield indices, maps

    monkeypatch.setattr(FeatureMaps, "batches", counted)
    pooler.fit_transform(lazy)
    assert sorted(seen) == list(range(len(lazy)))


def test_pipeline(pooler, extractor, photographs, lazy):
    model = make_pipeline(clone(extractor), pooler)
    descriptors = as_table(model.fit_transform(photographs))
    assert_array_equal(descriptors, as_table(clone(pooler).fit_transform(lazy)))
    expected = as_table(clone(pooler).fit(lazy).transform(lazy[:3]))
    assert_array_equal(as_table(model.transform(photographs[:3])), expected)


def test_pandas_output_of_lazy_maps(pooler, lazy):
    expected = clone(pooler).fit_transform(lazy)
    for frame in (pooler.set_output(transform="pandas").fit_transform(lazy), pooler.transform(lazy)):
        assert list(frame.columns) == list(pooler.get_feature_names_out())
        assert_array_equal(frame.to_numpy(), expected)


def test_no_lazy_maps(pooler, lazy):
    with pytest.raises(ValueError, match="0 feature maps"):
        pooler.fit(lazy[:0])


class Stretch(nn.Module):
    """Pixels stretched to [0, 1], with 0 / 0 on a photograph of one colour."""

    def forward(self, images):
        low = images.amin(dim=(2, 3), keepdim=True)
        return (images - low) / (images.amax(dim=(2, 3), keepdim=True) - low)


@pytest.mark.parametrize("method", ["transform", "fit_transform"])
def test_nan_in_a_lazy_map_names_the_photograph(case, photographs, method):
    pooler = case.make(3)
    extractor = ConvFeatureExtractor(Stretch, weights=None, image_size=None, batch_size=3, device="cpu")
    blank = [*photographs[:5], np.zeros((64, 48, 3), np.uint8), *photographs[5:]]
    pooler.fit(extractor.fit(photographs).transform(photographs))
    with pytest.raises(ValueError, match=r"(?i)\b5\b.*NaN"):
        getattr(pooler, method)(extractor.transform(blank))
