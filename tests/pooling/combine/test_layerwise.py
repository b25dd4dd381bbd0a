"""LayerwisePooler: tuples of maps from several layers or resolutions."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.combinators import scale_gem
from references.maps import SHAPES, make_map, make_signed_map
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from torch import nn

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import (
    GeMPooler,
    GRMACPooler,
    LayerwisePooler,
    MACPooler,
    PoolerFusion,
    RMACPooler,
    SumPooler,
)


def make_tuples(channels=(5, 5), seed=0):
    """Entries of unlike size; two of equal size with another between them."""
    sizes = [[(4, 6), (2, 3)], [(7, 7), (3, 4)], [(4, 6), (2, 3)], [(1, 1), (1, 1)], [(4, 6), (3, 3)]]
    return [
        tuple(
            make_map(k, *size, seed=seed + 10 * t + layer)
            for layer, (k, size) in enumerate(zip(channels, pair))
        )
        for t, pair in enumerate(sizes)
    ]


@pytest.fixture
def tuples():
    return make_tuples()


COMBINE = {
    "concat": np.concatenate,
    "sum": lambda parts: np.sum(parts, axis=0),
    "mean": lambda parts: np.mean(parts, axis=0),
    "max": lambda parts: np.max(parts, axis=0),
}


@pytest.mark.parametrize("combine", sorted(COMBINE))
@pytest.mark.parametrize("norm", ["l2", None])
@pytest.mark.parametrize("weights", [None, [0.3, 2.0]])
def test_combine(tuples, combine, norm, weights):
    expected = []
    for maps in tuples:
        parts = [ref.gem(feature_map) for feature_map in maps]
        parts = [ref.l2(part) for part in parts] if norm else parts
        parts = [weight * part for weight, part in zip(weights or [1, 1], parts, strict=True)]
        expected.append(COMBINE[combine](parts))
    pooler = LayerwisePooler(GeMPooler(), combine=combine, norm=norm, weights=weights)
    actual = pooler.fit_transform(tuples)
    assert_allclose(actual, expected, rtol=1e-8, atol=1e-12)
    assert len(pooler.get_feature_names_out()) == actual.shape[1]
    single = clone(pooler).fit_transform([tuple(m.astype(np.float32) for m in maps) for maps in tuples])
    assert single.dtype == np.float32
    assert_allclose(single, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("p", [0.5, 1, 2.7, 10.0, 64.0, np.inf])
@pytest.mark.parametrize("norm", ["l2", None])
@pytest.mark.parametrize("weights", [None, [0.3, 2.0, -1.0]])
def test_power_mean_over_scales(p, norm, weights):
    """Scale GeM on ReLU-free maps, so that the smallest entry matters; zero and constant maps among them."""
    entries = [
        tuple(make_signed_map(5, *size, seed=9 * t + scale) for scale in range(3))
        for t, size in enumerate(SHAPES)
    ]
    entries.append((np.zeros((5, 2, 3)), np.full((5, 2, 3), 0.7), np.zeros((5, 4, 4))))
    entries.append((np.zeros((5, 2, 3)),) * 3)
    expected = []
    for maps in entries:
        parts = [feature_map.sum(axis=(1, 2)) for feature_map in maps]
        parts = [ref.l2(part) for part in parts] if norm else parts
        parts = [weight * part for weight, part in zip(weights or [1, 1, 1], parts, strict=True)]
        expected.append(scale_gem(parts, p))
    scale = np.abs(expected).max(axis=1, keepdims=True)
    pooler = LayerwisePooler(SumPooler(rectify=False), combine="power_mean", p=p, norm=norm, weights=weights)
    actual = pooler.fit_transform(entries)
    assert_allclose(actual, expected, rtol=1e-8, atol=1e-12)
    single = pooler.transform([tuple(m.astype(np.float32) for m in maps) for maps in entries])
    assert single.dtype == np.float32
    assert (np.abs(single - expected) <= 2e-4 * np.abs(expected) + 1e-5 * scale).all()


@pytest.mark.parametrize("p", [0.5, 10.0])
def test_power_mean_of_an_image_is_independent_of_its_neighbours(p):
    """Images of one shape, described together, of which one has far smaller entries."""
    entries = [tuple(make_signed_map(5, 3, 4, seed=2 * t + scale) for scale in range(2)) for t in range(4)]
    entries[2] = tuple(feature_map - 50 for feature_map in entries[2])
    pooler = LayerwisePooler(SumPooler(rectify=False), combine="power_mean", p=p, norm=None)
    expected = [scale_gem([feature_map.sum(axis=(1, 2)) for feature_map in maps], p) for maps in entries]
    assert_allclose(pooler.fit_transform(entries), expected, rtol=1e-10)
    assert_allclose(np.concatenate([pooler.transform([maps]) for maps in entries]), expected, rtol=1e-10)


def test_infinite_power_is_the_maximum(tuples):
    expected = LayerwisePooler(GeMPooler(), combine="max").fit_transform(tuples)
    limit = LayerwisePooler(GeMPooler(), combine="power_mean", p=np.inf)
    assert_array_equal(limit.fit_transform(tuples), expected)
    near = LayerwisePooler(GeMPooler(), combine="power_mean", p=2000.0).fit_transform(tuples)
    assert_allclose(near, expected, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_power_mean_keeps_the_range_of_float32(scale):
    maps = [tuple(np.float32(scale) * make_map(4, 3, 3, seed=s).astype(np.float32) for s in range(2))]
    parts = [ref.mac(feature_map.astype(float)) for feature_map in maps[0]]
    actual = LayerwisePooler(MACPooler(), combine="power_mean", norm=None).fit_transform(maps)[0]
    assert actual.dtype == np.float32
    assert_allclose(actual, scale_gem(parts, 10.0), rtol=2e-4)


def test_default_is_the_multi_layer_form():
    """Unit parts side by side, not normalised again: the norm is sqrt(2)."""
    maps = make_tuples((4, 9))
    descriptors = LayerwisePooler(MACPooler()).fit_transform(maps)
    assert descriptors.shape == (5, 13)
    assert_allclose(np.linalg.norm(descriptors, axis=1), np.sqrt(2))


def test_late_fusion(tuples):
    """R-MAC per resolution, l2 each, sum."""
    descriptors = LayerwisePooler(RMACPooler(), combine="sum").fit_transform(tuples)
    expected = [sum(ref.l2(ref.rmac(feature_map)) for feature_map in maps) for maps in tuples]
    assert_allclose(descriptors, expected, rtol=1e-8)


def test_one_pooler_per_layer():
    maps = make_tuples((4, 6))
    pooler = LayerwisePooler([("fine", GeMPooler(p=5.0)), ("coarse", GRMACPooler())])
    expected = [np.concatenate([ref.l2(ref.gem(a, p=5.0)), ref.l2(ref.grmac(b))]) for a, b in maps]
    assert_allclose(pooler.fit_transform(maps), expected, rtol=1e-8)
    pooler.set_params(fine__p=1.0, coarse=MACPooler())
    expected = [np.concatenate([ref.l2(ref.gem(a, p=1.0)), ref.l2(ref.mac(b))]) for a, b in maps]
    assert_allclose(clone(pooler).fit_transform(maps), expected, rtol=1e-8)
    single = LayerwisePooler(GeMPooler()).set_params(poolers__p=2.0)
    assert single.get_params()["poolers__p"] == 2.0


def test_nested_with_fusion(tuples):
    fusion = PoolerFusion([("max", MACPooler()), ("sum", SumPooler())])
    actual = LayerwisePooler(fusion, combine="sum").fit_transform(tuples)
    expected = [sum(ref.fuse([ref.mac(m), ref.sum_pool(m)]) for m in maps) for maps in tuples]
    assert_allclose(actual, expected, rtol=1e-8)


def test_zero_layer(tuples):
    tuples[2] = (tuples[2][0], np.zeros_like(tuples[2][1]))
    actual = LayerwisePooler(MACPooler()).fit_transform(tuples)
    assert np.isfinite(actual).all()
    assert not actual[2, 5:].any()
    assert_allclose(actual[2, :5], ref.l2(ref.mac(tuples[2][0])))


def test_kinds_of_input(tuples):
    pooler = LayerwisePooler(MACPooler())
    expected = pooler.fit_transform(tuples)
    assert_array_equal(pooler.transform([list(maps) for maps in tuples]), expected)
    tensors = [tuple(torch.tensor(feature_map) for feature_map in maps) for maps in tuples]
    assert_array_equal(pooler.transform(tensors), expected)
    for maps in tuples:
        for feature_map in maps:
            feature_map.flags.writeable = False
    assert_array_equal(pooler.fit_transform(tuples), expected)


def test_lazy_maps():
    rng = np.random.default_rng(0)
    photographs = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(64, 48), (48, 64), (64, 48), (50, 50)]
    ]
    extractor = ConvFeatureExtractor(
        TwoLayers, weights=None, random_state=0, image_size=None, batch_size=2, device="cpu"
    )
    lazy = extractor.fit(photographs).transform(photographs)
    arrays = list(lazy)
    assert isinstance(arrays[0], tuple)
    for pooler in (LayerwisePooler(GeMPooler()), LayerwisePooler(RMACPooler(whiten=True, n_components=2))):
        actual = pooler.fit_transform(lazy)
        assert_allclose(actual, clone(pooler).fit_transform(arrays), rtol=1e-4, atol=1e-5)
        assert_array_equal(make_pipeline(clone(extractor), clone(pooler)).fit_transform(photographs), actual)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 5, stride=4), nn.Conv2d(6, 4, 3, stride=2)

    def forward(self, images):
        fine = self.first(images).relu()
        return fine, self.second(fine).relu()


def test_whitened_regions_per_layer(tuples):
    pooler = LayerwisePooler([("a", RMACPooler(whiten=True, n_components=3)), ("b", MACPooler())])
    alone = RMACPooler(whiten=True, n_components=3).fit_transform([maps[0] for maps in tuples])
    actual = pooler.fit_transform(tuples)
    assert_allclose(actual[:, :3], [ref.l2(row) for row in alone], rtol=1e-7)
    assert len(pooler.get_feature_names_out()) == 8
    assert_allclose(pooler.transform(tuples[:2]), actual[:2])


def test_errors(tuples):
    pooler = LayerwisePooler(MACPooler()).fit(tuples)
    with pytest.raises(ValueError, match=r"\b2\b.*tuple|tuple.*\b2\b"):
        pooler.transform([*tuples[:2], tuples[2][0]])
    broken = [tuple(feature_map.copy() for feature_map in maps) for maps in tuples]
    broken[3][1][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"\b3\b.*(NaN|nan)"):
        pooler.transform(broken)
    with pytest.raises(ValueError, match=r"(?=.*\b1\b)(?=.*\b7\b)(?=.*\b5\b)"):
        pooler.transform([tuples[0], (tuples[1][0], np.ones((7, 2, 2)))])
    with pytest.raises(ValueError, match=r"\b1\b"):
        pooler.transform([tuples[0], (*tuples[1], tuples[1][0])])
    with pytest.raises(ValueError, match=r"Entry 1: expected 3 dimensions, got 2"):
        pooler.transform([tuples[0], (tuples[1][0], np.ones((5, 2)))])
    with pytest.raises(ValueError, match=r"(?i)empty"):
        pooler.transform([])
    with pytest.raises(ValueError, match=r"LayerwisePooler"):
        MACPooler().fit(tuples)


@pytest.mark.parametrize(
    ("poolers", "kwargs", "match"),
    [
        ([("one", MACPooler())], {}, "1 pooler"),
        (MACPooler(), {"weights": [1.0]}, "weights"),
        (MACPooler(), {"weights": [1.0, np.inf]}, "weights"),
        (MACPooler(), {"weights": [0.0, 0.0]}, "weights"),
        (MACPooler(), {"p": 0}, "p"),
        (MACPooler(), {"p": np.nan}, "p"),
        (LayerwisePooler(MACPooler()), {}, "tuples"),
        ([("a", MACPooler()), ("b", LayerwisePooler(MACPooler()))], {}, "'b'.*tuples"),
        (MACPooler(), {"combine": "product"}, "combine"),
        (MACPooler(), {"norm": "l1"}, "norm"),
        ("mac", {}, "poolers"),
        ([], {}, "LayerwisePooler"),
        ([("a", MACPooler()), ("b", "mac")], {}, "b"),
    ],
)
def test_bad_parameters(tuples, poolers, kwargs, match):
    with pytest.raises((ValueError, TypeError), match=match):
        LayerwisePooler(poolers, **kwargs).fit(tuples)


def test_unequal_lengths_only_concatenate():
    maps = make_tuples((4, 6))
    with pytest.raises(ValueError, match=r"(?=.*4)(?=.*6)"):
        LayerwisePooler(MACPooler(), combine="sum").fit(maps)


def test_unequal_lengths_that_are_learned():
    maps = make_tuples((4, 6))
    parts = [("a", RMACPooler(whiten=True, n_components=2)), ("b", MACPooler())]
    with pytest.raises(ValueError, match=r"(?=.*'a': 2)(?=.*'b': 6)"):
        LayerwisePooler(parts, combine="power_mean").fit(maps)


def test_fitted_parts_can_be_used():
    maps = make_tuples((4, 6))
    for second in (GeMPooler(), RMACPooler(whiten=True, n_components=3)):
        pooler = LayerwisePooler([("a", MACPooler()), ("b", second)]).fit(maps)
        for layer, (_, fitted) in enumerate(pooler.poolers_):
            own = [entry[layer] for entry in maps]
            expected = clone(fitted).fit(own)
            assert_array_equal(fitted.transform(own), expected.transform(own))
            assert list(fitted.get_feature_names_out()) == list(expected.get_feature_names_out())


def test_scikit_learn(tuples):
    pooler = LayerwisePooler([("a", GeMPooler()), ("b", MACPooler())])
    expected = pooler.fit_transform(tuples)
    assert_array_equal(pickle.loads(pickle.dumps(pooler)).transform(tuples), expected)
    assert_array_equal(clone(pooler).fit_transform(tuples), expected)
    frame = pooler.set_output(transform="pandas").fit_transform(tuples)
    assert list(frame.columns) == [f"layerwisepooler{t}" for t in range(10)]
    assert pooler.n_features_in_ == 10
    many = [maps for seed in range(4) for maps in make_tuples(seed=100 * seed)]
    y = np.arange(len(many)) % 2
    model = make_pipeline(LayerwisePooler(GeMPooler()), LogisticRegression())
    assert_array_equal(
        cross_val_predict(model, many, y, cv=2, n_jobs=2), cross_val_predict(model, many, y, cv=2)
    )
