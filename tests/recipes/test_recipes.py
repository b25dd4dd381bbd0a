"""Recipes: complete Pipelines that fit, search, persist and can be searched over."""

import os
import subprocess
import sys
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
from fixtures.recipes import NAMES, PLAIN, SMALL, network, pictures, small
from references.networks import counting_network
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from skretrieval import recipes
from skretrieval.datasets import make_photo_views
from skretrieval.pooling import GRMACPooler, PoolerFusion, RMACPooler, SJWPooler
from skretrieval.postprocessing import LearnedWhitening, PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("whitening", [None, "auto", "pca", "learned"])
def test_every_recipe_finds_the_gallery_itself(name, whitening):
    if (name, whitening) == ("patchify", "learned"):
        return  # learned from one descriptor per photograph: the next test
    gallery = pictures(8) + pictures(8, seed=1)
    y = np.arange(16) // 4  # 12 same-label directions for 10 channels
    reduced = {} if whitening is None else {"n_components": 5}
    model = small(name, extractor=network(), whitening=whitening, n_neighbors=3, **reduced)
    with warnings.catch_warnings():
        if (name in SMALL or name == "scda") and whitening == "learned":
            warnings.simplefilter("ignore", UserWarning)  # more dimensions than pairs: a ridge is added
        model.fit(gallery, y)
    found = model.predict(gallery)
    assert found.shape == (16, 3)
    assert np.array_equal(found[:, 0], np.arange(16))
    assert 0 < model.score(gallery, y) <= 1


def test_regions_have_no_learned_whitening():
    model = recipes.patchify(extractor=network(), whitening="learned")
    with pytest.raises(ValueError, match="LearnedWhitening learns from one descriptor per image"):
        model.fit(pictures(8), np.arange(8) // 2)


def test_gsw_is_the_papers_system():
    model = recipes.gsw(expand=10)
    assert list(model.named_steps) == [
        "extractor",
        "pooler",
        "normalizer",
        "whitening",
        "whitened_normalizer",
        "retriever",
    ]
    pooler = model.named_steps["pooler"]
    assert isinstance(pooler, PoolerFusion)
    assert pooler.weights == [0.6, 0.4]
    (_, grmac), (_, sjw) = pooler.poolers
    assert isinstance(grmac, GRMACPooler)
    assert (grmac.n_levels, grmac.p, grmac.region_norm, grmac.include_global) == (3, 3.0, None, False)
    assert isinstance(sjw, SJWPooler)
    assert (sjw.n_channels, sjw.rho, sjw.saliency_norm) == (0.3, 100.0, "sum")
    assert isinstance(model.named_steps["whitening"], PCAWhitening)
    assert model.named_steps["whitening"].n_components is None
    assert isinstance(model.named_steps["retriever"], QueryExpansion)
    assert model.named_steps["retriever"].n_expand == 10
    extractor = model.named_steps["extractor"]
    assert (extractor.backbone, extractor.layers, extractor.image_size) == ("vgg16", "pool5", 1024)


def test_whitening_is_chosen():
    assert isinstance(recipes.crow(whitening="learned").named_steps["whitening"], LearnedWhitening)
    assert "whitening" not in recipes.crow(whitening=None).named_steps
    by_size = recipes.spoc(whitening="auto").named_steps["whitening"]
    assert (by_size.shrinkage, by_size.n_components) == ("size", None)  # not the paper's 256
    assert recipes.spoc(whitening="auto", n_components=9).named_steps["whitening"].n_components == 9
    assert not recipes.rmac(whitening="auto").named_steps["pooler"].whiten
    assert "whitening" not in recipes.multi_resolution_pfa(whitening="auto").named_steps
    assert "whitening" not in recipes.regional_second_order(whitening="auto").named_steps
    assert recipes.spoc().named_steps["whitening"].n_components == 256
    assert recipes.spoc(n_components=None).named_steps["whitening"].n_components is None
    pca = recipes.gem(whitening=PCA(3, whiten=True)).named_steps["whitening"]
    assert isinstance(pca, PCA)
    with pytest.raises(ValueError, match="whitening must be 'pca', 'learned'"):
        recipes.gem(whitening="zca")


def test_rmac_whitens_regions_as_published():
    model = recipes.rmac(n_components=7)
    assert "whitening" not in model.named_steps
    pooler = model.named_steps["pooler"]
    assert isinstance(pooler, RMACPooler)
    assert pooler.whiten
    assert pooler.n_components == 7
    assert not recipes.rmac(whitening="learned").named_steps["pooler"].whiten


def test_whitening_from_a_sibling_collection_stays_as_fitted():
    sibling = recipes.gem(extractor=network(), whitening="pca").fit(pictures(12, seed=5))
    fitted = sibling.named_steps["whitening"]
    model = recipes.gem(extractor=network(), whitening=FrozenEstimator(fitted)).fit(pictures())
    assert model.named_steps["whitening"].estimator is not None
    assert np.array_equal(model.named_steps["whitening"].estimator.mean_, fitted.mean_)


def test_two_recipes_share_nothing():
    extractor = network()
    first, second = recipes.mac(extractor=extractor), recipes.mac(extractor=extractor)
    assert first.named_steps["extractor"] is not extractor
    assert first.named_steps["extractor"] is not second.named_steps["extractor"]


def test_maps_can_be_given_instead_of_photographs():
    maps = list(network().fit_transform(pictures()))
    by_maps = recipes.grmac(extractor="passthrough", whitening=None, n_neighbors=3).fit(maps)
    by_images = recipes.grmac(extractor=network(), whitening=None, n_neighbors=3).fit(pictures())
    assert np.array_equal(by_maps.predict(maps), by_images.predict(pictures()))


def test_the_papers_networks():
    """Backbone, layers and size of the recipes that have their own; None stands for them too."""
    asked = {
        "bow_cnn": ("vgg16", "relu5_1", 336),
        "regional_second_order": ("vgg19", "relu5_4", 1024),
        "multi_resolution_pfa": ("resnet50", ["layer4", "layer3"], [1050, 800, 550]),
        "super_global": ("resnet101", "layer4", [724, 1024, 1448]),
        "mfc": ("vgg16", "pool5", [512, 768, 1024]),
        "anyloc": ("timm:vit_giant_patch14_dinov2.lvd142m", "blocks.31.attn:value", 1024),
    }
    for name, expected in asked.items():
        for model in (getattr(recipes, name)(), getattr(recipes, name)(extractor=None)):
            extractor = model.named_steps["extractor"]
            assert (extractor.backbone, extractor.layers, extractor.image_size) == expected
    assert recipes.multi_resolution_pfa().named_steps["extractor"].multi_resolution == "sum"


def test_anyloc_is_vlad_without_powers_of_signed_tokens():
    """Two tokens of one direction and one of the opposite: residuals to the nearest centre, l2 per centre, l2."""
    centers = np.array([[1.0, 0.0], [-1.0, 0.0]])
    pooler = recipes.anyloc(n_clusters=2).named_steps["pooler"]
    tokens = np.array([[3.0, 0.0, -2.0], [0.3, 1.0, 0.2]])[:, :, None]
    pooler.fit([np.random.default_rng(0).normal(size=(2, 9, 9))])
    pooler.cluster_centers_ = centers.astype(pooler.cluster_centers_.dtype)
    unit = tokens[:, :, 0] / np.linalg.norm(tokens[:, :, 0], axis=0)
    parts = np.stack([(unit[:, :2].T - centers[0]).sum(axis=0), unit[:, 2] - centers[1]])
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    np.testing.assert_allclose(
        pooler.transform([tokens])[0], parts.ravel() / np.sqrt(2), rtol=1e-5, atol=1e-6
    )


def test_cls_gem_has_both_beside_each_other():
    tokens = np.random.default_rng(0).normal(size=(5, 3, 4))
    cls = np.random.default_rng(1).normal(size=(5, 1, 1))
    found = recipes.cls_gem(p=3.0).named_steps["pooler"].fit_transform([(tokens, cls)])[0]
    mean = np.mean(np.sign(tokens) * np.abs(tokens) ** 3, axis=(1, 2))
    patch = np.sign(mean) * np.abs(mean) ** (1 / 3)
    expected = [vector / np.linalg.norm(vector) for vector in (patch, cls[:, 0, 0])]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-6)


def test_components_need_a_whitening_that_takes_them():
    with pytest.raises(ValueError, match="n_components=7 is for whitening='pca' or 'learned', not for None"):
        recipes.gem(whitening=None, n_components=7)
    with pytest.raises(ValueError, match="n_components=7 is for"):
        recipes.gem(whitening=PCA(3), n_components=7)
    assert "whitening" not in recipes.spoc(whitening=None).named_steps  # its own 256 fall away too


@pytest.mark.parametrize("name", NAMES)
def test_recipes_clone_and_document_themselves(name):
    recipe = getattr(recipes, name)
    model = recipe()
    assert isinstance(model, Pipeline)
    assert clone(model).get_params().keys() == model.get_params().keys()
    assert "Parameters\n    ----------" in recipe.__doc__


def test_views_are_found():
    gallery = pictures(10)
    views = make_photo_views(gallery, n_views=2, kinds=("blur", "jpeg", "relight"), random_state=0)
    model = recipes.gsw(extractor=network(), whitening=None, n_neighbors=1).fit(gallery, np.arange(10))
    assert model.score(views.images, views.labels) > 0.6  # chance is 0.29


def test_grid_search_over_a_whole_pipeline_runs_no_network_twice(tmp_path):
    """Parameters of every stage at once, in two processes."""
    log = tmp_path / "log"
    gallery = pictures(12)
    y = np.arange(12) % 4
    extractor = network(backbone=partial(counting_network, str(log)), memory=str(tmp_path / "cache"))
    model = recipes.gsw(extractor=extractor, whitening=None, expand=1, n_neighbors=2)
    grid = [
        {"extractor__image_size": [64, 96], "pooler__grmac__p": [1.0, 3.0], "pooler__sjw__rho": [1.0, 100.0]},
        {"pooler__grmac__n_levels": [2, 3], "retriever__n_expand": [1, 2]},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # joblib restarts workers when memory is short
        search = GridSearchCV(model, grid, cv=KFold(3), n_jobs=2).fit(gallery, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 12
    assert np.isfinite(scores).all()
    # two processes can each reach an uncached image at the same moment, but 36 fits would need 36 * 12
    assert 24 <= log.read_text().count("image") <= 48
    before = log.read_text().count("image")
    GridSearchCV(model, grid, cv=KFold(3), n_jobs=2).fit(gallery, y)
    assert log.read_text().count("image") == before


def test_a_fitted_pipeline_ranks_alike_in_a_new_process(tmp_path):
    gallery, queries = pictures(8), pictures(3, seed=9)
    model = recipes.gsw(extractor=network(), whitening="pca", expand=2, n_neighbors=4).fit(gallery)
    distances, indices = retrieve(model, queries)
    joblib.dump((model, queries), tmp_path / "model.joblib")
    code = (
        "import joblib, numpy as np, sys\n"
        "model, queries = joblib.load(sys.argv[1])\n"
        "found = model[-1].kneighbors(model[:-1].transform(queries))\n"
        "np.savez(sys.argv[2], distances=found[0], indices=found[1])\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "model.joblib", tmp_path / "out.npz"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    with np.load(tmp_path / "out.npz") as loaded:
        assert np.array_equal(loaded["indices"], indices)
        assert np.array_equal(loaded["distances"], distances)


def retrieve(model, queries):
    return model[-1].kneighbors(model[:-1].transform(queries))


def test_retriever_directly_behind_a_pooler():
    model = Pipeline(
        [("pool", GRMACPooler()), ("norm", Normalizer()), ("find", NearestNeighborsRetriever(2))]
    )
    maps = np.random.default_rng(0).random((5, 6, 7, 8), dtype=np.float32)
    assert np.array_equal(model.fit(maps).predict(maps)[:, 0], np.arange(5))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused(name):
    with pytest.raises(TypeError, match=r"unknown settings \['n_expand'\].*'expand'"):
        getattr(recipes, name)(n_expand=10)
    for inner in ("retriever", "include_query", "pooler", "steps", "defaults"):
        with pytest.raises(TypeError, match=inner):
            getattr(recipes, name)(**{inner: None})
