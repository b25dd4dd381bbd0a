"""Recipes in ways of their own: of several maps, of regions, of windows, with features selected."""

import numpy as np
import pytest
from fixtures.recipes import MULTI, network, pictures, small
from sklearn.base import clone

from skretrieval import recipes


@pytest.mark.parametrize("name", MULTI)
def test_recipes_of_several_maps(name):
    maps = list(zip(*[network(image_size=size).fit_transform(pictures(8)) for size in (64, 96)], strict=True))
    if name == "mop_cnn":
        maps = [(*pair, pair[1]) for pair in maps]
    model = small(name, extractor="passthrough", whitening=None, n_neighbors=3).fit(maps)
    assert np.array_equal(model.predict(maps)[:, 0], np.arange(8))
    lengths = {"cls_gem": 20, "ms_rmac": 20, "mop_cnn": 10 + 2 * 3 * 4}
    assert model.named_steps["pooler"]._n_features_out == lengths.get(name, 10)


def test_multi_layer_recipes_name_the_published_layers():
    extractor = recipes.ms_rmac().named_steps["extractor"]
    extractor = clone(extractor).set_params(weights=None, random_state=0, image_size=64)
    channels = [maps.shape[0] for maps in extractor.fit_transform(pictures(1))[0]]
    assert channels == [64, 128, 256, 512, 512]
    assert recipes.late_fusion_rmac().named_steps["extractor"].image_size == [550, 800, 1050]


def test_regional_second_order_is_the_papers_system():
    model = recipes.regional_second_order(expand=10)
    assert list(model.named_steps) == ["extractor", "pooler", "retriever"]
    pooler = model.named_steps["pooler"]
    assert (pooler.n_clusters, pooler.n_local, pooler.n_components, pooler.reg) == (3, 128, 512, 1e-3)
    expansion = model.named_steps["retriever"]
    assert (expansion.n_expand, expansion.include_query, expansion.retriever.metric) == (10, False, "cosine")
    with pytest.raises(ValueError, match="whitens in its pooler"):
        recipes.regional_second_order(whitening=None)


def test_regional_second_order_finds_the_gallery_itself():
    gallery = pictures(8)
    model = recipes.regional_second_order(extractor=network(), n_local=6, n_components=5, n_neighbors=3).fit(
        gallery
    )
    assert np.array_equal(model.predict(gallery)[:, 0], np.arange(8))
    whole = model.set_params(pooler__regions="whole")[:-1].transform(gallery)
    assert all(len(regions) == 1 for regions in whole)
    assert np.array_equal(model[-1].predict(whole)[:, 0], np.arange(8))


@pytest.mark.parametrize("local", [False, True])
def test_multi_resolution_pfa_is_the_papers_system(local):
    extractor = network(
        backbone="resnet18",
        weights=None,
        layers=["layer4", "layer3"],
        image_size=[96, 64],
        multi_resolution="sum",
        random_state=0,
    )
    gallery = pictures(8)
    model = recipes.multi_resolution_pfa(
        local=local, n_features=40, extractor=extractor, random_state=0, n_neighbors=3
    ).fit(gallery)
    assert list(model.named_steps) == ["extractor", "pooler", "selector", "retriever"]
    assert np.array_equal(model.predict(gallery)[:, 0], np.arange(8))
    retriever = model.named_steps["retriever"]
    assert retriever.metric == "manhattan"
    described = model[:-1].transform(gallery)
    if local:
        assert retriever.region_pairs == "same"
        assert all(regions.shape == (2, 40) for regions in described)
        assert model.named_steps["pooler"].poolers[1][1].backbone is None  # the mask follows the extractor
        stacked = np.stack(described)
        apart = np.abs(stacked[:, None] - stacked[None]).sum(axis=3).min(axis=2)
    else:
        assert described.shape == (8, 40)
        apart = np.abs(described[:, None] - described[None]).sum(axis=2)
    found, indices = retriever.kneighbors(described, n_neighbors=8)
    np.testing.assert_allclose(found, np.take_along_axis(apart, indices, axis=1), rtol=1e-5, atol=1e-5)


def test_multi_resolution_pfa_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="whitening"):
        recipes.multi_resolution_pfa(whitening="pca")
    with pytest.raises(ValueError, match="n_components"):
        recipes.multi_resolution_pfa(n_components=5)
    with pytest.raises(ValueError, match="local=True needs a ConvFeatureExtractor"):
        recipes.multi_resolution_pfa(local=True, extractor="passthrough")


def test_neural_codes_are_reduced_without_whitening():
    whitening = recipes.neural_codes().named_steps["whitening"]
    assert (whitening.n_components, whitening.power) == (128, 0)
    assert recipes.neural_codes(n_components=256).named_steps["whitening"].n_components == 256
    assert "whitening" not in recipes.neural_codes(whitening=None).named_steps


@pytest.mark.parametrize("name", ["neural_codes", "mop_cnn"])
def test_patches_go_through_the_network(name):
    """A small network in the place of VGG16, its pooled features in that of a fully connected layer."""
    own = {"backbone": "squeezenet1_1", "layer": "flatten", "weights": None}
    model = small(name, whitening=None, n_neighbors=3, **own).fit(pictures(4))
    assert np.array_equal(model.predict(pictures(4))[:, 0], np.arange(4))


def test_patch_ckn_learns_from_the_photographs():
    model = small("patch_ckn", points="hessian", n_neighbors=3)
    model.set_params(extractor__image_size=64, extractor__n_channels=(8, 16), extractor__n_patches=500)
    model.fit(pictures(4))
    assert np.array_equal(model.predict(pictures(4))[:, 0], np.arange(4))


def test_parts_of_multi_resolution_pfa_have_own_parameters():
    model = recipes.multi_resolution_pfa(local=True).set_params(pooler__global__poolers__n_levels=2)
    assert model.get_params()["pooler__local__pooler__poolers__n_levels"] == 3


@pytest.mark.parametrize("name", ["neural_codes", "mop_cnn"])
def test_layers_without_a_relu_keep_their_signs(name):
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(6, 10, 1, 1))
    maps = list(whole)
    if name == "mop_cnn":
        maps = [(one, rng.normal(size=(10, 2, 3)), rng.normal(size=(10, 3, 4))) for one in whole]
    pooler = small(name, extractor="passthrough", whitening=None).named_steps["pooler"]
    described = pooler.fit_transform(maps)
    whole = whole[:, :, 0, 0]
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True) if name == "mop_cnn" else whole
    np.testing.assert_allclose(described[:, :10], expected, rtol=1e-12)
    if name == "mop_cnn":  # VLAD tells a cell from its opposite
        flipped = [(one, -half, -quarter) for one, half, quarter in maps]
        assert (np.abs(pooler.transform(flipped) - described)[:, 10:].max(axis=1) > 0.1).all()
