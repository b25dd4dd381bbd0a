"""How photographs are prepared: normalisation, interpolation, multiples; part of what caches go by."""

import numpy as np
import pytest
import torch
from fixtures.networks_of_today import network, three_shapes
from PIL import Image
from torch import nn

from skretrieval.extraction import ConvFeatureExtractor, resize_longest


class Pixels(nn.Module):
    """Give back what comes in."""

    def forward(self, images):
        return images


class Asking(Pixels):
    input_mean, input_std, size_multiple = (0.5, 0.25, 0.125), (0.5, 0.5, 0.25), 8


def seen(module, image, **params):
    extractor = ConvFeatureExtractor(module, image_size=None, device="cpu", **params)
    return extractor.fit_transform([image])[0]


def test_a_pair_is_subtracted_and_divided():
    image = three_shapes()[0]
    for pair in ((0.5, 0.25), [[0.5, 0.4, 0.3], [0.25] * 3], np.array([[0.5] * 3, [0.2] * 3])):
        mean, std = (np.broadcast_to(np.asarray(part, dtype=float), 3) for part in pair)
        expected = ((image / 255 - mean) / std).transpose(2, 0, 1)
        np.testing.assert_allclose(seen(Pixels(), image, normalization=pair), expected, atol=1e-5)


def test_a_module_says_what_it_asks_for():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    expected = ((image / 255 - Asking.input_mean) / np.array(Asking.input_std)).transpose(2, 0, 1)
    np.testing.assert_allclose(seen(Asking(), image), expected, atol=1e-5)
    assert seen(Asking(), np.zeros((30, 50, 3), np.uint8)).shape == (3, 32, 48)


@pytest.mark.parametrize(
    "normalization",
    ["imagenet", (0.5,), (0.5, 0), (0.5, -1), ((0.5, 0.5), 1), (0.5, float("nan")), ("a", "b"), 3, (0.5, None),
     (0.1, (1, 1, float("inf")))],
)  # fmt: skip
def test_a_normalization_that_is_none(normalization):
    with pytest.raises(ValueError, match="normalization"):
        seen(Pixels(), three_shapes()[0], normalization=normalization)


@pytest.mark.parametrize("multiple", [0, -2, 1.5, True, "8", 10**9])
def test_a_size_multiple_that_is_none(multiple):
    module = Asking()
    module.size_multiple = multiple
    with pytest.raises(ValueError, match="size_multiple of Asking must be a number from 1"):
        seen(module, three_shapes()[0])


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "lanczos", "bicubic"])
def test_interpolation_is_pillows(interpolation):
    image = three_shapes()[0]
    wanted = np.asarray(Image.fromarray(image).resize((40, 30), Image.Resampling[interpolation.upper()]))
    assert np.array_equal(resize_longest(Image.fromarray(image), 40, interpolation=interpolation), wanted)
    extractor = ConvFeatureExtractor(
        Pixels(), image_size=40, interpolation=interpolation, normalization=(0, 1), device="cpu"
    )
    maps = extractor.fit_transform([image])[0]
    np.testing.assert_allclose(maps, wanted.transpose(2, 0, 1) / 255, atol=1e-6)


def test_large_photographs_are_resized_alike():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    large = image.resize((1800, 1350), Image.Resampling.BICUBIC)
    for interpolation in ("bilinear", "lanczos"):
        found = resize_longest(large, 200, interpolation=interpolation)
        wanted = np.asarray(large.resize((200, 150), Image.Resampling[interpolation.upper()]))
        assert np.abs(found.astype(int) - wanted).max() <= 2


def test_interpolation_has_to_be_known():
    with pytest.raises(ValueError, match="interpolation"):
        seen(Pixels(), three_shapes()[0], interpolation="area")


def test_caches_tell_preparations_apart():
    extractors = [
        network("timm:test_vit", **params).fit(three_shapes())
        for params in (
            {}, {"normalization": (0, 1)}, {"interpolation": "nearest"},
            {"tokens": "cls"}, {"layers": 1}, {"layers": 0},
        )
    ]  # fmt: skip
    assert len({extractor.cache_key() for extractor in extractors}) == len(extractors)


def test_a_changed_preparation_is_seen_at_once():
    extractor = network("timm:test_vit").fit(three_shapes())
    before = extractor.transform(three_shapes())[0]
    after = extractor.set_params(normalization=(0.0, 1.0)).transform(three_shapes())[0]
    assert not np.allclose(before, after)
    assert torch.tensor(after).isfinite().all()
