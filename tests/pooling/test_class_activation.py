"""Masks from class activation: the class, the heat, the mask, and what is pooled."""

import numpy as np
import pytest
import torch
from references.networks import counting_network
from sklearn.base import clone
from sklearn.decomposition import PCA
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import ClassActivationMask, LayerwisePooler, MACPooler, RMACPooler, SumPooler


def resnet():
    torch.manual_seed(0)
    return models.resnet18(weights=None).eval()


def photographs(n=3):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (96, 96 + 32 * (i % 2), 3), dtype=np.uint8) for i in range(n)]


def slow(feature_map, weight, bias, threshold=0.9, n_resolutions=1):
    """One map, with loops over classes and cells."""
    mean = feature_map.mean(axis=(1, 2)) / n_resolutions
    scores = [
        sum(w * m for w, m in zip(row, mean, strict=True)) + b for row, b in zip(weight, bias, strict=True)
    ]
    row = weight[int(np.argmax(scores))]
    heat = np.array(
        [
            [sum(row[k] * feature_map[k, i, j] for k in range(len(row))) for j in range(feature_map.shape[2])]
            for i in range(feature_map.shape[1])
        ]
    )
    mask = heat >= threshold * heat.mean()
    return mask if mask.any() else np.ones_like(mask)


class Classifier(torch.nn.Module):
    """Only a classifier, with given weights."""

    def __init__(self, n_channels=5, n_classes=4, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.fc = torch.nn.Linear(n_channels, n_classes)


@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.2])
@pytest.mark.parametrize("n_resolutions", [1, 3])
def test_against_a_slow_reference(threshold, n_resolutions):
    rng = np.random.default_rng(1)
    maps = [rng.random((5, *shape)) for shape in [(4, 6), (1, 1), (4, 6), (3, 14)]]
    module = Classifier()
    weight = module.fc.weight.detach().double().numpy()
    bias = module.fc.bias.detach().double().numpy()
    expected = [(m * slow(m, weight, bias, threshold, n_resolutions)).sum(axis=(1, 2)) for m in maps]
    pooler = ClassActivationMask(
        SumPooler(), backbone=module, threshold=threshold, n_resolutions=n_resolutions
    )
    np.testing.assert_allclose(pooler.fit_transform(maps), expected, rtol=1e-8)


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


def test_empty_masks_keep_everything():
    """All heat equal and negative: 0.9 times the mean is above every cell."""
    module = Classifier(2, 1)
    with torch.no_grad():
        module.fc.weight.fill_(-1.0)
    maps = np.ones((1, 2, 3, 4))
    assert np.array_equal(ClassActivationMask(SumPooler(), backbone=module).fit_transform(maps), [[12, 12]])
    zero = np.zeros((1, 2, 3, 4))
    assert not ClassActivationMask(SumPooler(), backbone=module).fit_transform(zero).any()


def test_other_layers_get_the_mask_by_nearest_neighbour():
    rng = np.random.default_rng(2)
    maps = [(rng.random((5, 3, 4)), rng.random((7, 6, 8)))]
    module = Classifier()
    weight, bias = module.fc.weight.detach().double().numpy(), module.fc.bias.detach().double().numpy()
    mask = slow(maps[0][0], weight, bias)
    expected = np.concatenate(
        [
            (maps[0][0] * mask).max(axis=(1, 2)),
            (maps[0][1] * mask.repeat(2, axis=0).repeat(2, axis=1)).max(axis=(1, 2)),
        ]
    )
    pooler = ClassActivationMask(LayerwisePooler(MACPooler(), norm=None), backbone=module)
    np.testing.assert_allclose(pooler.fit_transform(maps)[0], expected)


def test_squeezenets_convolutional_classifier():
    masks = ClassActivationMask(MACPooler(), backbone="squeezenet1_1", weights=None, random_state=0)
    assert masks.fit(np.ones((1, 512, 3, 3), np.float32)).class_weights_.shape == (1000, 512)
    again = clone(masks).fit(np.ones((1, 512, 3, 3), np.float32))
    assert np.array_equal(again.class_weights_, masks.class_weights_)


def test_nested_parameters():
    masks = ClassActivationMask(RMACPooler(), backbone=Classifier())
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
    ],
)
def test_bad_parameters(params, error, message):
    masks = ClassActivationMask(**{"pooler": MACPooler(), "backbone": Classifier(), **params})
    with pytest.raises(error, match=message):
        masks.fit(np.ones((2, 5, 3, 3)))
