"""Maps on disk: what a cache of maps tells apart, and what it keeps from being run again."""

import warnings

import joblib
import numpy as np
import torch
from fixtures.convolution import photographs, small
from references.networks import (
    counting_network,
)
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor, ImageCrop


def test_cache_tells_architectures_and_input_ranges_apart(tmp_path):
    image = photographs(1)
    first = counting_network().first
    for pool in (torch.nn.MaxPool2d(2), torch.nn.AvgPool2d(2)):
        module = torch.nn.Sequential(first, torch.nn.ReLU(), pool)
        cached, plain = (
            small(backbone=module, memory=place).fit_transform(image)[0] for place in (tmp_path, None)
        )
        assert np.array_equal(cached, plain)
    torch.manual_seed(0)
    module = models.googlenet(weights=None, init_weights=False, aux_logits=True)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    maps = []
    for backbone in (module.eval(), "googlenet"):  # the name prepares its input for trained weights
        extractor = small(
            backbone=backbone, weights=tmp_path / "w.pth", memory=tmp_path, layers="inception5b"
        )
        maps.append(extractor.fit_transform(image)[0])
    assert not np.allclose(*maps)


def test_a_damaged_cache_entry_is_computed_again(tmp_path):
    expected = small(memory=tmp_path).fit_transform(photographs(1))[0]
    (stored,) = tmp_path.rglob("output.pkl")
    for _ in range(2):
        stored.write_bytes(stored.read_bytes()[:50])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib tells of the damage
            assert np.array_equal(small(memory=tmp_path).fit_transform(photographs(1))[0], expected)


def test_cache_runs_each_photograph_once_per_setting(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(log))

    def runs():
        return log.read_text().count("image") if log.exists() else 0

    images = photographs(4)
    cache = tmp_path / "cache"
    plain = list(small().fit_transform(images))
    assert runs() == 4
    for expected in (8, 8):
        cached = list(small(memory=cache).fit_transform(images))
        assert runs() == expected
        for first, second in zip(plain, cached, strict=True):
            np.testing.assert_array_equal(first, second)
    for change, expected in (
        ({"image_size": 32}, 12),
        ({"dtype": "bfloat16"}, 16),
        ({"batch_size": 1}, 16),
        ({"image_size": [64, 32]}, 24),
        ({"image_size": [64, 32], "multi_resolution": "sum"}, 32),
    ):
        list(small(memory=str(cache), **change).fit_transform(images))
        assert runs() == expected, change
    list(
        small(memory=joblib.Memory(str(cache), verbose=0)).fit_transform(
            [*images, ImageCrop(images[0], (0, 0, 30, 30))]
        )
    )
    assert runs() == 33


def test_cache_tells_weights_apart(tmp_path):
    images = photographs(1)
    maps = [
        ConvFeatureExtractor(
            "squeezenet1_1", weights=None, random_state=seed, image_size=64, memory=tmp_path
        ).fit_transform(images)[0]
        for seed in (0, 1)
    ]
    assert not np.array_equal(*maps)


def test_half_precision_maps_come_back_from_the_cache(tmp_path):
    first, second = (
        small(dtype="bfloat16", memory=tmp_path).fit_transform(photographs(2))[1] for _ in range(2)
    )
    assert np.array_equal(first, second)
