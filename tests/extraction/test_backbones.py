"""Networks and weights: where they come from, random ones, files that cannot be read."""

import hashlib
import io
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from fixtures.convolution import by_hand, photographs, small
from references.networks import (
    counting_network,
)
from torch import nn
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor


def slow_network():
    time.sleep(0.05)
    return nn.Conv2d(3, 4, 3)


def test_random_weights_follow_random_state_in_threads():
    def weights(seed):
        extractor = small(backbone=slow_network, weights=None, random_state=seed).fit(photographs(1))
        return extractor.transform(photographs(1))[0]

    alone = [weights(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for together, expected in zip(pool.map(weights, range(4)), alone, strict=True):
            np.testing.assert_allclose(together, expected, rtol=1e-5)


def test_random_weights_follow_random_state_not_torchs_own():
    image = photographs(1)
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)

    def maps(seed):
        extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=seed, image_size=64)
        return extractor.fit_transform(image)[0]

    assert np.array_equal(maps(0), maps(0))
    assert not np.array_equal(maps(0), maps(1))
    assert torch.rand(1) == before


def test_state_dict_from_a_path(tmp_path):
    torch.manual_seed(1)
    module = models.squeezenet1_1(weights=None).eval()
    path = tmp_path / "weights.pth"
    torch.save(module.state_dict(), path)
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=path, image_size=64)
    image = photographs(1)[0]
    np.testing.assert_allclose(
        extractor.fit_transform([image])[0], by_hand(module.features, image, 64), atol=1e-4
    )
    wrapped = {"state_dict": {f"module.{name}": value for name, value in module.state_dict().items()}}
    torch.save(wrapped, path)
    other = ConvFeatureExtractor("squeezenet1_1", weights=str(path), image_size=64).fit([image])
    assert other.fingerprint_ == extractor.fingerprint_


def test_weights_for_a_factory(tmp_path):
    changed = counting_network()
    with torch.no_grad():
        changed.first.weight.mul_(2)
    torch.save(changed.state_dict(), tmp_path / "w.pth")
    image = photographs(1)[0]
    seen = small(weights=tmp_path / "w.pth").fit_transform([image])[0]
    np.testing.assert_allclose(seen, by_hand(changed, image, 64), atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_weights_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "w.pth"
    if content is None:
        torch.save([1, 2], path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth"):
        small(weights=path).fit(photographs(1))


def test_pickles_with_code_are_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"weight": os.system}, path)
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        small(weights=path).fit(photographs(1))


def test_missing_and_misfitting_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        small(weights=tmp_path / "none.pth").fit(photographs(1))
    torch.save(counting_network().state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="do not fit the backbone"):
        ConvFeatureExtractor("squeezenet1_1", weights=tmp_path / "w.pth").fit(photographs(1))


def test_default_weights_offline_say_which_file_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = models.VGG16_Weights.DEFAULT
    # nothing listens on port 9 of this machine: a real refused connection, on any machine
    monkeypatch.setattr(type(weights), "url", "http://127.0.0.1:9/vgg16-397923af.pth", raising=False)
    with pytest.raises(OSError, match=r"vgg16-397923af\.pth \(its SHA-256 begins with 397923af\)") as caught:
        ConvFeatureExtractor("vgg16", image_size=64).fit(photographs(1))
    assert str(tmp_path) in str(caught.value)


def test_default_weights_are_taken_from_torchs_folder(monkeypatch, tmp_path):
    """The file that the message asks for is found: same name, same folder, hash checked."""
    buffer = io.BytesIO()
    torch.manual_seed(2)
    module = models.squeezenet1_1(weights=None).eval()
    torch.save(module.state_dict(), buffer)
    prefix = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f"squeeze-{prefix}.pth").write_bytes(buffer.getvalue())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "url", f"http://127.0.0.1:9/squeeze-{prefix}.pth", raising=False)
    extractor = ConvFeatureExtractor("squeezenet1_1", image_size=64)
    image = photographs(1)[0]
    np.testing.assert_allclose(
        extractor.fit_transform([image])[0], by_hand(module.features, image, 64), atol=1e-4
    )


@pytest.mark.parametrize(
    "name", ["googlenet", "mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5", "densenet121"]
)
def test_families_come_back_from_a_pickle_as_they_were(name):
    """Some prepare their input for trained weights, some keep a version in the state dict."""
    image = [np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)]
    extractor = ConvFeatureExtractor(name, weights=None, random_state=0, image_size=96, device="cpu")
    expected = extractor.fit_transform(image)[0]
    assert np.array_equal(pickle.loads(pickle.dumps(extractor)).transform(image)[0], expected)
    assert extractor.set_params(dtype="bfloat16").transform(image)[0].any()
    assert np.array_equal(extractor.set_params(dtype="float32").transform(image)[0], expected)


def test_partial_factories_keep_their_weights_in_a_pickle():
    extractor = small(backbone=partial(models.squeezenet1_1, num_classes=7), image_size=64)
    expected = extractor.fit_transform(photographs(1))[
        0
    ]  # random: only the stored weights can bring them back
    assert np.array_equal(pickle.loads(pickle.dumps(extractor)).transform(photographs(1))[0], expected)


def test_another_factory_of_the_same_name_is_another_network():
    def factory(scale):
        def network():
            module = counting_network()
            with torch.no_grad():
                module.second.weight.mul_(scale)
                module.second.bias.mul_(scale)
            return module

        return network

    extractor = small(backbone=factory(1)).fit(photographs(1))
    single = extractor.transform(photographs(1))[0]
    double = extractor.set_params(backbone=factory(2)).transform(photographs(1))[0]
    np.testing.assert_allclose(double, 2 * single, rtol=1e-5)


def test_weights_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    extractor = ConvFeatureExtractor("vgg16")
    assert "vgg16-397923af.pth" in extractor.missing_weights()
    assert extractor.missing_weights(download=True) is None
    assert ConvFeatureExtractor("vgg16", weights=None).missing_weights() is None
    assert ConvFeatureExtractor("vgg16", weights=str(tmp_path / "a.pth")).missing_weights().endswith("a.pth")
    place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.touch()
    assert extractor.missing_weights() is None
