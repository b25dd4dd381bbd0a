"""Masks from class activation: the class, the heat, the mask, and what is pooled."""

import pickle
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.classifiers import linear_classifier, tiny_resnet
from references.combinators import class_activation_mask, nearest_mask
from references.maps import SHAPES, make_map, make_ragged, make_signed_map, special_maps
from references.networks import counting_network
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
from skretrieval.pooling import (
    ClassActivationMask,
    GRMACPooler,
    LayerwisePooler,
    MACPooler,
    PoolerFusion,
    RMACPooler,
    SquareSumRMACPooler,
    SumPooler,
)


def resnet():
    torch.manual_seed(0)
    return models.resnet18(weights=None).eval()


def photographs(n=3):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (96, 96 + 32 * (i % 2), 3), dtype=np.uint8) for i in range(n)]


def parameters_of(module):
    """Weights and bias of the classifier, in float64."""
    return module.fc.weight.detach().double().numpy(), module.fc.bias.detach().double().numpy()


def every_map():
    """Ragged and special maps of five channels: ReLU-free, zero and constant ones among them."""
    special = [feature_map for feature_map in special_maps(5).values() if len(feature_map) == 5]
    signed = [make_signed_map(5, *shape, seed=40 + t) for t, shape in enumerate(SHAPES)]
    return [*make_ragged(5, SHAPES, seed=20), *signed, *special]


@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.2])
@pytest.mark.parametrize("n_resolutions", [1, 3])
@pytest.mark.parametrize(
    ("pooler", "reference"),
    [
        (SumPooler(rectify=False), partial(ref.sum_pool, rectify=False)),
        (SquareSumRMACPooler(), ref.square_sum_rmac),
        (GRMACPooler(), ref.grmac),
    ],
    ids=["sum", "square_sum", "grmac"],
)
def test_against_a_slow_reference(threshold, n_resolutions, pooler, reference):
    maps = every_map()
    module = linear_classifier()
    masks = [class_activation_mask(m, *parameters_of(module), threshold, n_resolutions) for m in maps]
    assert not all(mask.all() for mask in masks)
    expected = [reference(feature_map * mask) for feature_map, mask in zip(maps, masks, strict=True)]
    scales = [np.abs(feature_map).max() * feature_map[0].size for feature_map in maps]
    masked = ClassActivationMask(pooler, backbone=module, threshold=threshold, n_resolutions=n_resolutions)
    double = masked.fit_transform(maps)
    single = masked.transform([feature_map.astype(np.float32) for feature_map in maps])
    assert double.dtype == np.float64
    assert single.dtype == np.float32
    for own, float32, wanted, scale in zip(double, single, expected, scales, strict=True):
        assert_allclose(own, wanted, rtol=1e-8, atol=1e-12 * scale)
        assert_allclose(float32, wanted, rtol=2e-4, atol=1e-6 * scale)


def test_the_class_is_the_networks_own():
    module = resnet()
    maps = ConvFeatureExtractor(module, layers="layer4", image_size=None, device="cpu").fit_transform(
        photographs()
    )
    masks = ClassActivationMask(MACPooler(), backbone=module).fit(maps)
    logits = []
    module.fc.register_forward_hook(lambda _, __, out: logits.append(out[0].detach().numpy()))
    for image in photographs():
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        with torch.no_grad():
            module((pixels - mean) / std)
    for feature_map, expected in zip(maps, logits, strict=True):
        scores = masks.class_weights_ @ feature_map.mean(axis=(1, 2)) + masks.class_bias_
        np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_cell_weights_are_the_mask():
    maps = make_ragged(5, SHAPES[:5], seed=3)
    masked = ClassActivationMask(SumPooler(), backbone=linear_classifier())
    with pytest.raises(NotFittedError):
        masked.cell_weights(maps)
    weights = masked.fit(maps).cell_weights(maps)
    for own, entry in zip(weights, maps, strict=True):
        assert own.shape == entry.shape[1:]
        assert own.dtype == entry.dtype
        assert set(np.unique(own)) <= {0.0, 1.0}
    expected = [np.maximum(entry * own, 0).sum(axis=(1, 2)) for own, entry in zip(weights, maps, strict=True)]
    assert_allclose(masked.transform(maps), expected)
    assert any(0 < own.mean() < 1 for own in weights)


def test_heat_at_the_threshold_is_kept():
    module = linear_classifier(1, 1)
    with torch.no_grad():
        module.fc.weight.fill_(1.0)
    maps = np.array([[[[1.0, 3.0], [2.0, 2.0]]]])  # the mean is 2
    masked = ClassActivationMask(SumPooler(), backbone=module, threshold=1.0)
    assert np.array_equal(masked.fit_transform(maps), [[7.0]])


def test_empty_masks_keep_everything():
    """All heat equal and negative: 0.9 times the mean is above every cell."""
    module = linear_classifier(2, 1)
    with torch.no_grad():
        module.fc.weight.fill_(-1.0)
    maps = np.ones((1, 2, 3, 4))
    assert np.array_equal(ClassActivationMask(SumPooler(), backbone=module).fit_transform(maps), [[12, 12]])
    zero = np.zeros((1, 2, 3, 4))
    assert not ClassActivationMask(SumPooler(), backbone=module).fit_transform(zero).any()


@pytest.mark.parametrize("second", [(6, 8), (3, 4), (5, 7), (12, 9), (1, 2)])
def test_other_layers_get_the_mask_by_nearest_neighbour(second):
    maps = [(make_map(5, 3, 4, seed=t), make_map(7, *second, seed=10 + t)) for t in range(4)]
    module = linear_classifier()
    expected = []
    for first, other in maps:
        mask = class_activation_mask(first, *parameters_of(module))
        parts = [ref.mac(first * mask), ref.mac(other * nearest_mask(mask, *second))]
        expected.append(np.concatenate(parts))
    masked = ClassActivationMask(LayerwisePooler(MACPooler(), norm=None), backbone=module)
    assert_allclose(masked.fit_transform(maps), expected, rtol=1e-12)


def test_an_image_alone_and_among_others():
    maps = every_map()
    masked = ClassActivationMask(SquareSumRMACPooler(), backbone=linear_classifier()).fit(maps)
    alone = np.concatenate([masked.transform([feature_map]) for feature_map in maps])
    assert_allclose(masked.transform(maps), alone, rtol=1e-12, atol=1e-14)


def test_squeezenets_convolutional_classifier():
    masks = ClassActivationMask(MACPooler(), backbone="squeezenet1_1", weights=None, random_state=0)
    assert masks.fit(np.ones((1, 512, 3, 3), np.float32)).class_weights_.shape == (1000, 512)
    again = clone(masks).fit(np.ones((1, 512, 3, 3), np.float32))
    assert np.array_equal(again.class_weights_, masks.class_weights_)


def test_nested_parameters():
    masks = ClassActivationMask(RMACPooler(), backbone=linear_classifier())
    assert masks.set_params(pooler__n_levels=2).pooler.n_levels == 2


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"backbone": "resnet18", "weights": None}, ValueError, "takes 512 values, but the first map has 5"),
        ({"backbone": torch.nn.Sequential()}, ValueError, "takes none values"),
        ({"backbone": counting_network}, ValueError, "takes 54 values"),
        ({"pooler": PCA()}, TypeError, "pooler of this package"),
        ({"pooler": RMACPooler(whiten=True)}, ValueError, "learn nothing"),
        ({"threshold": -1}, ValueError, "threshold"),
        (
            {"pooler": PoolerFusion([("a", MACPooler()), ("b", SumPooler())], combine="regions")},
            ValueError,
            "region sets",
        ),
    ],
)
def test_bad_parameters(params, error, message):
    masks = ClassActivationMask(**{"pooler": MACPooler(), "backbone": linear_classifier(), **params})
    with pytest.raises(error, match=message):
        masks.fit(np.ones((2, 5, 3, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# scikit-learn


def masked_sum(n_channels=4):
    return ClassActivationMask(SumPooler(), backbone=partial(linear_classifier, n_channels))


def test_kinds_of_input():
    stacked = np.stack([make_map(4, 6, 8, seed=seed) for seed in range(3)])
    masked = masked_sum()
    expected = masked.fit_transform(stacked)
    assert_allclose(masked.transform(list(stacked)), expected, rtol=1e-12)
    assert_array_equal(masked.transform(torch.tensor(stacked)), expected)
    stacked.flags.writeable = False
    assert_array_equal(masked.fit_transform(stacked), expected)


def test_lazy_maps(tmp_path):
    extractor = ConvFeatureExtractor(
        tiny_resnet, weights=None, layers=["layer4", "layer3"], image_size=None, device="cpu"
    )
    lazy = extractor.fit(photographs()).transform(photographs())
    masked = ClassActivationMask(LayerwisePooler(SquareSumRMACPooler()), backbone=tiny_resnet)
    expected = clone(masked).fit_transform(list(lazy))
    assert expected.shape == (3, 28)
    for actual in (masked.fit_transform(lazy), clone(masked).fit(lazy).transform(lazy)):
        assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    pipeline = make_pipeline(extractor, clone(masked)).fit(photographs())
    joblib.dump(pipeline, tmp_path / "pipeline.joblib")
    again = joblib.load(tmp_path / "pipeline.joblib", mmap_mode="r").transform(photographs())
    assert_array_equal(again, pipeline.transform(photographs()))


def saved(seed, path):
    """Weights of a whole TinyResNet, classifier included, in a file."""
    network = tiny_resnet()
    generator = torch.Generator().manual_seed(seed)
    for values in network.state_dict().values():
        values.copy_(torch.randn(values.shape, generator=generator) / 5)
    torch.save(network.state_dict(), path)
    return str(path)


def following(weights, image_size=(128, 96, 64)):
    """An extractor and a mask that follows it, with the mask that is told all that the other finds out."""
    extractor = ConvFeatureExtractor(
        tiny_resnet,
        layers=["layer4", "layer3"],
        weights=weights,
        image_size=list(image_size),
        multi_resolution="sum",
        device="cpu",
    )
    inner = LayerwisePooler(SquareSumRMACPooler(), norm=None)
    told = {"backbone": tiny_resnet, "weights": weights, "n_resolutions": len(image_size)}
    return make_pipeline(extractor, ClassActivationMask(inner, backbone=None)), make_pipeline(
        extractor, ClassActivationMask(clone(inner), **told)
    )


@pytest.mark.parametrize("wrap", [False, True])
def test_the_mask_follows_the_extractor(tmp_path, wrap):
    first, second = saved(1, tmp_path / "first.pth"), saved(2, tmp_path / "second.pth")
    model, told = following(first)
    if wrap:
        model.steps[1] = ("fusion", PoolerFusion([("local", model[1])], combine="regions", norm=None))
        told.steps[1] = ("fusion", PoolerFusion([("local", told[1])], combine="regions", norm=None))
    before = told.fit_transform(photographs())
    assert_array_equal(model.fit_transform(photographs()), before)
    assert_array_equal(model.transform(photographs()), before)
    # fitted again, and not, after a change of the extractor alone
    for refit in (False, True):
        model, _ = following(first)
        _, told = following(second, (96, 64))
        if wrap:
            model.steps[1] = ("fusion", PoolerFusion([("local", model[1])], combine="regions", norm=None))
            told.steps[1] = ("fusion", PoolerFusion([("local", told[1])], combine="regions", norm=None))
        model.fit(photographs())
        model.set_params(convfeatureextractor__weights=second, convfeatureextractor__image_size=[96, 64])
        if refit:
            model.fit(photographs())
        after = told.fit_transform(photographs())
        assert_array_equal(model.transform(photographs()), after)
        assert not np.allclose(after, before)


def test_a_mask_that_follows_is_saved_with_its_classifier(tmp_path):
    weights = saved(1, tmp_path / "weights.pth")
    model, told = following(weights)
    expected = told.fit_transform(photographs())
    model.fit(photographs())
    joblib.dump(model, tmp_path / "model.joblib")
    (tmp_path / "weights.pth").unlink()
    again = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert_array_equal(again.transform(photographs()), expected)
    # maps in memory have no extractor: they get the classifier of the last that had
    arrays = list(again[0].transform(photographs()))
    assert_allclose(again[1].transform(arrays), expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_followed():
    maps = [make_map(5, 3, 4)]
    with pytest.raises(
        ValueError, match=r"backbone=None.*FeatureMaps of a ConvFeatureExtractor.*maps in memory"
    ):
        ClassActivationMask(SumPooler(), backbone=None).fit(maps)
    kernel = ConvKernelExtractor((8, 16), image_size=64, n_patches=500, random_state=0)
    with pytest.raises(ValueError, match=r"backbone=None.*got those of a ConvKernelExtractor"):
        make_pipeline(kernel, ClassActivationMask(SumPooler(), backbone=None)).fit(photographs())


def test_the_wrong_order_of_layers_is_told():
    maps = [(make_map(12, 6, 8, seed=0), make_map(16, 3, 4, seed=1))]
    masked = ClassActivationMask(LayerwisePooler(MACPooler()), backbone=tiny_resnet)
    with pytest.raises(ValueError, match="takes 16 values, but the first map has 12 channels"):
        masked.fit(maps)


def test_fitted_parts_and_pickles():
    maps = make_ragged(4, SHAPES[:5], seed=2)
    masked = masked_sum().fit(maps)
    assert len(masked.pooler_.get_feature_names_out()) == 4
    expected = masked.transform(maps)
    assert_array_equal(pickle.loads(pickle.dumps(masked)).transform(maps), expected)
    assert_array_equal(clone(masked).fit_transform(maps), expected)
    frame = masked.set_output(transform="pandas").transform(maps)
    assert list(frame.columns) == [f"classactivationmask{t}" for t in range(4)]


def test_the_network_that_was_given_is_left_alone():
    module = linear_classifier()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    masked = ClassActivationMask(SumPooler(), backbone=module).fit([make_map(5, 3, 4)])
    masked.class_weights_[:] = 0
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_weights_from_a_file(tmp_path):
    torch.save(linear_classifier(seed=8).state_dict(), tmp_path / "weights.pth")
    wanted = parameters_of(linear_classifier(seed=8))
    module = linear_classifier()
    for backbone in (module, linear_classifier):
        masked = ClassActivationMask(SumPooler(), backbone=backbone, weights=str(tmp_path / "weights.pth"))
        masked.fit([make_map(5, 3, 4)])
        assert_allclose(masked.class_weights_, wanted[0])
        assert_allclose(masked.class_bias_, wanted[1])
    assert not np.allclose(parameters_of(module)[0], wanted[0])


def test_grid_search_in_two_processes():
    """More than a megabyte, so that joblib hands the workers read-only memory maps."""
    maps = np.stack([make_map(4, 48, 64, seed=seed) for seed in range(12)])
    assert maps.nbytes > 1_000_000
    y = np.arange(len(maps)) % 2
    maps[np.arange(len(maps)), y] *= 4
    model = make_pipeline(masked_sum(), Normalizer(), LogisticRegression())
    grid = {
        "classactivationmask__threshold": [0.5, 0.9],
        "classactivationmask__pooler__rectify": [True, False],
    }
    search = GridSearchCV(model, grid, cv=3, n_jobs=2, error_score="raise").fit(maps, y)
    assert search.best_score_ > 0.8
    alone = cross_val_predict(search.best_estimator_, list(maps), y, cv=3)
    assert_array_equal(cross_val_predict(search.best_estimator_, list(maps), y, cv=3, n_jobs=2), alone)
