"""rectify="auto": negative values are cut off only where the maps have none by design, and never silently."""

import math
import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import terms
from references.maps import make_map, make_signed_map
from references.networks import CountingNetwork, counting_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
from skretrieval.pooling import (
    ClassActivationMask,
    CroWPooler,
    EntropyPooler,
    GeMPooler,
    GRMACPooler,
    LayerwisePooler,
    MACPooler,
    PartWeightedPooler,
    PoolerFusion,
    RegionalSecondOrderPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    VLADPooler,
    WeightedPooler,
)


class SignedNetwork(CountingNetwork):
    """The network of the tests, without its last ReLU."""

    def forward(self, images):
        return self.second(self.first(images).relu())


def signed_network():
    network = SignedNetwork()
    network.load_state_dict(counting_network().state_dict())
    return network


def photographs(n=4):
    return list(np.random.default_rng(5).integers(0, 256, (n, 40, 56, 3), dtype=np.uint8))


def maps_of(network, **params):
    return ConvFeatureExtractor(network, weights=None, image_size=56, **params).fit_transform(photographs())


def learned_poolers(**params):
    return [
        PartWeightedPooler(3, **params),
        VLADPooler(2, n_local=None, random_state=0, **params),
        RegionalSecondOrderPooler(n_local=4, n_components=3, **params),
    ]


def poolers(**params):
    return [
        SumPooler(**params),
        SPoCPooler(**params),
        MACPooler(**params),
        GeMPooler(2.5, **params),
        RMACPooler(2, **params),
        GRMACPooler(2, **params),
        CroWPooler(**params),
        SJWPooler(**params),
        RegionIntegrationPooler(2, whiten=False, **params),
        SquareSumRMACPooler(2, **params),
        EntropyPooler(2, **params),
        WeightedPooler(reduce="regional_power_mean", **params),
        PoolerFusion([("a", GRMACPooler(2, **params)), ("b", SJWPooler(**params))]),
        *learned_poolers(**params),
    ]


@pytest.mark.parametrize("place", range(len(poolers())))
def test_auto_is_true_for_maps_that_end_in_a_relu(place):
    maps = maps_of(counting_network)
    assert maps.signed is False
    for X in (maps, list(maps)):
        auto, plain = (poolers(rectify=rectify)[place].fit_transform(X) for rectify in ("auto", True))
        for one, other in zip(auto, plain, strict=True):
            assert_array_equal(one, other)


@pytest.mark.parametrize("of_extractor", [True, False])
@pytest.mark.parametrize(
    ("pooler", "reference"),
    [
        (GeMPooler(2.5), lambda m: terms.signed_gem(m, 2.5)),
        (GeMPooler(2), lambda m: terms.signed_gem(m, 2)),
        (GRMACPooler(3, 4.6), lambda m: terms.signed_gem(m, 4.6, n_levels=3)),
        (GeMPooler(math.inf), lambda m: m.max(axis=(1, 2))),
        (MACPooler(), lambda m: m.max(axis=(1, 2))),
        (SumPooler(), lambda m: m.sum(axis=(1, 2))),
        (
            WeightedPooler(reduce="regional_power_mean"),
            lambda m: terms.regional_gem(m, signed=True),
        ),
        (WeightedPooler(reduce="power_mean"), lambda m: terms.signed_gem(m, 3)),
    ],
)
def test_signed_maps_keep_their_signs(pooler, reference, of_extractor):
    maps = maps_of(signed_network) if of_extractor else [make_signed_map(5, 6, 9, seed) for seed in range(3)]
    pooler = clone(pooler).set_params(rectify="auto")
    found = pooler.fit_transform(maps)
    assert not pooler.rectify_
    rtol = 2e-5 if of_extractor else 1e-10
    assert_allclose(found, [reference(m.astype(float)) for m in maps], rtol=rtol, atol=1e-6 * of_extractor)
    assert_array_equal(pooler.fit(maps).transform(maps), found)


@pytest.mark.parametrize("region_p", [2.5, 12.0])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_signed_regional_power_mean_is_odd(region_p, scale):
    maps = [make_signed_map(3, 6, 7).astype(np.float32)]
    params = {"p": 2.5, "region_p": region_p}
    pooler = WeightedPooler(reduce="regional_power_mean", reduce_params=params, rectify="auto")
    plain = pooler.fit_transform(maps)
    assert_allclose(pooler.transform([-maps[0] * np.float32(scale)]) / np.float32(scale), -plain, rtol=1e-4)


def test_one_map_is_described_as_in_its_batch():
    """What is cut off was decided in fit, and not by the values of the maps that come."""
    signed, plain = make_signed_map(4, 5, 6), make_map(4, 5, 6)
    pooler = GeMPooler(2.5, rectify="auto").fit([signed, plain])
    together = pooler.transform([signed, plain])
    for row, one in zip(together, (signed, plain), strict=True):
        assert_array_equal(pooler.transform([one])[0], row)
    fitted = GeMPooler(2.5, rectify="auto").fit([plain])
    assert fitted.rectify_
    assert_array_equal(fitted.transform([signed]), GeMPooler(2.5).fit_transform([signed]))


@pytest.mark.parametrize(
    "pooler",
    [
        CroWPooler(),
        SJWPooler(),
        RegionIntegrationPooler(),
        PartWeightedPooler(2),
        PoolerFusion([("a", SJWPooler())]),
    ],
)
def test_weights_without_a_meaning_for_signs_are_an_error(pooler):
    name = "a__rectify" if isinstance(pooler, PoolerFusion) else "rectify"
    with pytest.raises(ValueError, match=r"Entry 0: negative activations have no meaning for .*rectify=True"):
        clone(pooler).set_params(**{name: "auto"}).fit(maps_of(signed_network))


def test_each_layer_by_its_own_signs():
    maps = ConvFeatureExtractor(
        "squeezenet1_1",
        weights=None,
        layers=["features.12", "features.12.squeeze"],
        image_size=64,
        random_state=0,
    ).fit_transform(photographs(2))
    assert maps.signed == (False, True)
    pooler = LayerwisePooler(GeMPooler(2.5, rectify="auto")).fit(maps)
    assert [part.rectify_ for _, part in pooler.poolers_] == [True, False]
    arrays = LayerwisePooler(GeMPooler(2.5, rectify="auto")).fit(list(maps))
    assert [part.rectify_ for _, part in arrays.poolers_] == [True, False]
    assert_array_equal(arrays.transform(list(maps)), pooler.transform(maps))


def test_resolutions_have_the_signs_of_their_layers():
    signs = {None: (True, True), "stack": (True, True), "sum": True}
    for how, expected in signs.items():
        extractor = ConvFeatureExtractor(
            signed_network, weights=None, image_size=[56, 40], multi_resolution=how
        )
        assert extractor.fit_transform(photographs(1)).signed == expected


def test_what_is_cut_in_half_is_told_once():
    maps = maps_of(signed_network)
    with pytest.warns(UserWarning, match='rectify="auto" keeps them') as told:
        rows = GeMPooler().fit(maps).transform(maps)
    assert len(told) == 1
    assert told[0].filename == __file__
    arrays = list(maps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(GeMPooler().fit_transform(arrays), rows)
        for rectify in ("auto", False):
            GeMPooler(rectify=rectify).fit_transform(maps_of(signed_network))


def test_kernel_networks_are_not_signed():
    extractor = ConvKernelExtractor((8, 16), image_size=32, n_patches=500, random_state=0)
    assert extractor.fit_transform(photographs()).signed is False


def test_signs_follow_the_network():
    extractor = ConvFeatureExtractor(signed_network, weights=None, image_size=56)
    maps = extractor.fit_transform(photographs())
    assert maps.signed
    assert pickle.loads(pickle.dumps(extractor)).signed() == [True]
    extractor.set_params(backbone=counting_network)
    assert not maps.signed


def test_cached_descriptors_know_what_was_cut_off(tmp_path):
    """The same pooler fitted to maps with and without signs."""
    signed = maps_of(signed_network, memory=tmp_path)
    plain = GeMPooler(rectify="auto", p=2).fit(list(maps_of(counting_network)))
    with pytest.warns(UserWarning, match="cuts off"):
        cut = plain.transform(signed)
    kept = GeMPooler(rectify="auto", p=2).fit_transform(signed)
    assert not np.array_equal(cut, kept)
    assert_array_equal(GeMPooler(rectify="auto", p=2).fit_transform(maps_of(signed_network)), kept)
    both = PoolerFusion([("a", GeMPooler(rectify="auto", p=2))])
    assert_allclose(both.fit_transform(signed), kept / np.linalg.norm(kept, axis=1)[:, None], rtol=1e-5)


def test_auto_that_was_set_after_fit_is_an_error():
    pooler = GeMPooler().fit([make_map(3, 4, 5)]).set_params(rectify="auto")
    with pytest.raises(NotFittedError, match="decided in fit"):
        pooler.transform([make_map(3, 4, 5)])


def test_cell_weights_need_no_fit():
    maps = [make_map(3, 4, 5)]
    assert_array_equal(CroWPooler(rectify="auto").cell_weights(maps), CroWPooler().cell_weights(maps))
    with pytest.raises(ValueError, match="negative activations"):
        CroWPooler(rectify="auto").cell_weights([make_signed_map(3, 4, 5)])


def test_masked_maps_keep_their_signs():
    maps = [make_signed_map(512, 3, 4, seed).astype(np.float32) for seed in range(2)]
    masked = ClassActivationMask(
        SumPooler(rectify="auto"), backbone="resnet18", weights=None, random_state=0, threshold=0.0
    )
    assert (masked.fit_transform(maps) < 0).any()
    assert not masked.pooler_.rectify_


@pytest.mark.parametrize("rectify", ["yes", None, 2])
def test_other_values_are_an_error(rectify):
    with pytest.raises(ValueError, match="rectify"):
        GeMPooler(rectify=rectify).fit([make_map(3, 4, 5)])
