"""Layers of networks by their names: which maps they are, and what of a photograph they see."""

import numpy as np
import pytest
import torch
from fixtures.convolution import by_hand, photographs
from references.networks import (
    two_layer_network,
)
from torch.nn import functional
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import GeMPooler, LayerwisePooler


@pytest.mark.parametrize(
    ("name", "layers", "expected"),
    [
        ("squeezenet1_1", None, "features"),
        ("vgg11", None, "features"),
        ("vgg11", "pool5", "features.20"),
        ("vgg11", "relu5_2", "features.19"),
        ("vgg11", "last_conv", "features.19"),
        ("vgg11", "conv4_1", "features.11"),
        ("alexnet", "relu5", "features.11"),
        ("alexnet", "pool5", "features.12"),
        ("mobilenet_v3_small", "last_conv", "features.12"),
        ("resnet18", None, "layer4"),
        ("resnet18", "last_conv", "layer4"),
    ],
)
def test_layers_by_alias(name, layers, expected):
    torch.manual_seed(0)
    module = models.get_model(name, weights=None).eval()
    extractor = ConvFeatureExtractor(module, layers=layers, image_size=96, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    maps = extractor.fit_transform([image])[0]
    seen = {}
    # a copy, since the activations of these networks write over their input
    module.get_submodule(expected).register_forward_hook(lambda _, __, out: seen.update(out=out.clone()))
    by_hand(module, image)
    np.testing.assert_allclose(maps, seen["out"][0].detach().numpy(), atol=1e-4)


def test_vgg16_pool5_and_relu5_3_are_the_papers_layers():
    names = ConvFeatureExtractor(
        "vgg16", weights=None, random_state=0, layers=["pool5", "relu5_3", "conv5_3"], image_size=64
    )
    pool5, relu5, conv5 = names.fit_transform([np.zeros((64, 64, 3), np.uint8)])[0]
    assert pool5.shape == (512, 2, 2)
    assert conv5.min() < 0  # not overwritten by the activation that follows
    assert np.array_equal(relu5, np.maximum(conv5, 0))
    pooled = functional.max_pool2d(torch.tensor(relu5)[None], 2)[0].numpy()
    np.testing.assert_allclose(pool5, pooled, atol=1e-6)


def test_several_layers_give_tuples_in_the_asked_order():
    extractor = ConvFeatureExtractor(
        "resnet18", weights=None, random_state=0, layers=["layer4", "layer3"], image_size=64
    )
    entry = extractor.fit_transform(photographs(1))[0]
    assert [layer.shape[0] for layer in entry] == [512, 256]
    alone = extractor.set_params(layers="layer3").fit_transform(photographs(1))[0]
    np.testing.assert_allclose(entry[1], alone, atol=1e-5)


def test_factory_that_returns_a_tuple():
    maps = ConvFeatureExtractor(two_layer_network, image_size=64).fit_transform(photographs(2))
    assert [len(entry) for entry in maps] == [2, 2]
    assert LayerwisePooler(GeMPooler()).fit_transform(maps).shape == (2, 16)


def test_layers_that_end_a_resolution():
    assert ConvFeatureExtractor("vgg16").block_ends()[:5] == [
        "features.3",
        "features.8",
        "features.15",
        "features.22",
        "features.29",
    ]
    assert ConvFeatureExtractor("resnet18").block_ends()[-2:] == ["layer3", "layer4"]
    with pytest.raises(ValueError, match="are not known"):
        ConvFeatureExtractor("googlenet").block_ends()
