"""PoolerFusion over tuples of maps, with parts that take them and parts that don't."""

import numpy as np
import pytest
import torch
from fixtures.fusion import COMBINE
from numpy.testing import assert_allclose
from references import pooling as ref
from references.maps import golden_map, make_map
from references.networks import two_layer_network
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import (
    GeMPooler,
    LayerwisePooler,
    MACPooler,
    PoolerFusion,
    RMACPooler,
    SumPooler,
)


def make_tuples():
    sizes = [[(4, 6), (2, 3)], [(7, 7), (3, 4)], [(4, 6), (2, 3)], [(1, 1), (1, 1)]]
    return [
        tuple(make_map(k, *size, seed=10 * t + k) for k, size in zip((5, 3), pair, strict=True))
        for t, pair in enumerate(sizes)
    ]


@pytest.mark.parametrize("combine", sorted(COMBINE))
def test_tuples_of_maps(combine):
    tuples = make_tuples()
    fusion = PoolerFusion(
        [("max", LayerwisePooler(MACPooler())), ("gem", LayerwisePooler(GeMPooler(), norm=None))],
        combine=combine,
        weights=[1.0, 0.5],
    )
    expected = []
    for maps in tuples:
        first = np.concatenate([ref.l2(ref.mac(feature_map)) for feature_map in maps])
        second = np.concatenate([ref.gem(feature_map) for feature_map in maps])
        expected.append(COMBINE[combine]([ref.l2(first), 0.5 * ref.l2(second)]))
    assert_allclose(fusion.fit_transform(tuples), expected, rtol=1e-8)
    assert_allclose(fusion.transform([list(maps) for maps in tuples]), expected, rtol=1e-8)
    tensors = [tuple(torch.tensor(feature_map) for feature_map in maps) for maps in tuples]
    assert_allclose(fusion.transform(tensors), expected, rtol=1e-8)
    assert fusion.n_features_in_ == 8
    with pytest.raises(ValueError, match="expected a tuple of maps"):
        fusion.transform([tuples[0][0]])


def test_tuples_with_parts_that_learn():
    tuples = make_tuples()
    white = LayerwisePooler(RMACPooler(whiten=True, n_components=2))
    fusion = PoolerFusion(
        [("white", white), ("max", LayerwisePooler(MACPooler()))], combine="concat", norm=None
    )
    expected = np.hstack(
        [clone(white).fit_transform(tuples), LayerwisePooler(MACPooler()).fit_transform(tuples)]
    )
    assert_allclose(fusion.fit_transform(tuples), expected)
    assert len(fusion.get_feature_names_out()) == expected.shape[1] == 12


def test_tuples_from_an_extractor():
    rng = np.random.default_rng(0)
    photographs = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(64, 48), (48, 64)]]
    extractor = ConvFeatureExtractor(two_layer_network, weights=None, image_size=None, device="cpu")
    fusion = PoolerFusion(
        [("max", LayerwisePooler(MACPooler())), ("sum", LayerwisePooler(SumPooler()))], combine="regions"
    )
    model = make_pipeline(extractor, fusion)
    sets = model.fit_transform(photographs)
    assert [own.shape for own in sets] == [(2, 16)] * 2
    arrays = list(model[0].transform(photographs))
    assert_allclose(sets, clone(fusion).fit_transform(arrays), rtol=1e-5, atol=1e-7)


def test_mixed_parts():
    fusion = PoolerFusion([("layers", LayerwisePooler(MACPooler())), ("max", MACPooler())], combine="concat")
    for X in (make_tuples(), [golden_map()]):
        with pytest.raises(ValueError, match=r"(?=.*'layers'.*tuples)(?=.*'max'.*single)"):
            fusion.fit(X)
        with pytest.raises(ValueError, match=r"tuples"):
            fusion.fit_transform(X)
