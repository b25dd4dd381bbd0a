"""Tokens and facets as maps, torchvision's transformers at any size, and what their errors say."""

import numpy as np
import pytest
import timm
import torch
from fixtures.networks_of_today import hf_folder, network, three_shapes
from torch import nn
from torch.nn import functional
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.extraction._network_maps import NetworkMaps, called_modules, grid_of, unused_parts
from skretrieval.extraction._timm import TimmReader


def small_vit():
    return models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def small_maxvit():
    return models.MaxVit((64, 64), 8, 2, [8, 16, 16, 16], [1, 1, 1, 1], 8, 0.0)


def pixels_of(image):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.tensor(image) / 255 - mean) / std).permute(2, 0, 1)[None]


def test_torchvisions_vit_at_its_own_size_is_the_network():
    torch.manual_seed(0)
    module = small_vit().eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = {}
    module.encoder.ln.register_forward_hook(lambda _, __, out: seen.update(out=out))
    with torch.no_grad():
        module(pixels_of(image))
    extractor = ConvFeatureExtractor(module, image_size=64, tokens="patch+cls", device="cpu")
    maps, cls = extractor.fit_transform([image])[0]
    tokens = seen["out"][0].detach().numpy()
    np.testing.assert_allclose(maps.reshape(16, -1).T, tokens[1:], atol=1e-5)
    np.testing.assert_allclose(cls[:, 0, 0], tokens[0], atol=1e-5)


def test_torchvisions_maxvit_at_its_own_size_is_the_network():
    torch.manual_seed(0)
    module = small_maxvit().eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = {}
    module.blocks[-1].register_forward_hook(lambda _, __, out: seen.update(out=out))
    with torch.no_grad():
        module(pixels_of(image))
    maps = ConvFeatureExtractor(module, image_size=64, device="cpu").fit_transform([image])[0]
    np.testing.assert_allclose(maps, seen["out"][0].detach().numpy(), atol=1e-5)
    wide = np.concatenate([image, image], axis=1)
    extractor = ConvFeatureExtractor(module, image_size=128, layers=[0, -1], device="cpu")
    assert [layer.shape for layer in extractor.fit_transform([wide])[0]] == [(8, 16, 32), (16, 2, 4)]


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_torchvisions_transformers_take_three_shapes(name):
    for maps in network(name, layers=None).fit_transform(three_shapes()):
        assert maps.shape[0] == 768
        assert np.isfinite(maps).all()


def test_sides_become_the_nearest_multiples_of_the_patch():
    extractor = ConvFeatureExtractor(small_vit(), image_size=100, device="cpu")
    assert extractor.fit_transform([np.zeros((50, 100, 3), np.uint8)])[0].shape == (16, 3, 6)
    assert extractor.transform([np.zeros((3, 100, 3), np.uint8)])[0].shape == (16, 1, 6)


@pytest.mark.parametrize("facet", ["query", "key", "value"])
def test_facets_are_what_the_attention_makes(facet, tmp_path):
    place = ["query", "key", "value"].index(facet)
    image = three_shapes()[:1]
    expected = {}

    def note(weight, bias, tokens, prefix):
        expected["maps"] = functional.linear(tokens, weight, bias)[0, prefix:].T

    extractor = network("timm:test_vit", layers="blocks.2.attn:" + facet).fit(image)
    attention = extractor._network().module.maps.network.blocks[2].attn
    attention.register_forward_pre_hook(
        lambda part, args: note(part.qkv.weight.chunk(3)[place], part.qkv.bias.chunk(3)[place], args[0], 1)
    )
    # this hook comes after the extractor's, which ends the pass: so look before it
    attention._forward_pre_hooks.move_to_end(next(iter(attention._forward_pre_hooks)))
    maps = extractor.transform(image)[0]
    np.testing.assert_allclose(maps.reshape(64, -1), expected["maps"].numpy(), atol=1e-5)

    own = ConvFeatureExtractor(
        small_vit(),
        layers=f"encoder.layers.encoder_layer_1.self_attention:{facet}",
        image_size=64,
        device="cpu",
    )
    assert own.fit_transform(image)[0].shape == (16, 3, 4)

    hf = network(hf_folder(tmp_path), weights="DEFAULT", layers=f"layers.1.attention:{facet}")
    name = next(name for name, part in hf_module(hf).named_modules() if name.endswith("1.attention"))
    assert hf.set_params(layers=f"{name}:{facet}").fit_transform(image)[0].shape == (16, 6, 8)


def hf_module(extractor):
    from transformers import AutoModel

    return AutoModel.from_pretrained(extractor.backbone.removeprefix("hf:"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layers": "blocks.2:value"}, "no linear layer of queries, keys and values"),
        ({"layers": "blocks.2.attn:volume"}, "facets are query, key, value"),
        ({"layers": "blocks.2.attn.softmax:value"}, "is no layer of timm:test_vit"),
        ({"layers": 99}, "numbered from 0"),
        ({"layers": []}, "layers is empty"),
        ({"layers": ["blocks.1", 1]}, "mixes|neither|no layer"),
        ({"layers": "head"}, "did not run|no map"),
        ({"layers": 1.5}, "layers"),
        ({"tokens": "register"}, "tokens"),
    ],
)
def test_layers_and_tokens_that_do_not_exist(params, message):
    with pytest.raises(ValueError, match=message):
        network("timm:test_vit", **params).fit_transform(three_shapes())[0]


@pytest.mark.parametrize("name", ["timm:resnet10t", "resnet18", "timm:convnext_atto"])
def test_networks_without_a_cls_token_say_so(name):
    with pytest.raises(ValueError, match=f"{name} has no CLS token"):
        network(name, tokens="cls").fit(three_shapes())


def test_stages_of_torchvisions_networks_by_number():
    by_number = network("squeezenet1_1", layers=[-1, 0]).fit_transform(three_shapes())[0]
    by_name = network("squeezenet1_1", layers=["features.12", "features.1"]).fit_transform(three_shapes())[0]
    for one, other in zip(by_number, by_name, strict=True):
        assert np.array_equal(one, other)
    with pytest.raises(ValueError, match="has 4 stages"):
        network("squeezenet1_1", layers=7).fit(three_shapes())
    with pytest.raises(ValueError, match="only of a network by name"):
        ConvFeatureExtractor(nn.Conv2d(3, 4, 3), layers=0).fit(three_shapes())


def test_parts_that_do_not_run_are_found():
    network_ = timm.create_model("test_vit", dynamic_img_size=True).eval()
    maps = NetworkMaps(TimmReader(network_), [0], "patch", "test_vit")
    unused = unused_parts(maps, called_modules(maps, torch.zeros(1, 3, 32, 32)))
    assert "head" in unused
    assert "blocks.1" in unused
    assert not {"patch_embed", "blocks.0", "norm"} & set(unused)


@pytest.mark.parametrize(
    ("n_tokens", "height", "width", "grid"),
    [(12, 42, 56, (3, 4)), (12, 56, 42, (4, 3)), (13, 42, 56, None), (0, 42, 42, None), (7, 14, 98, (1, 7))],
)
def test_tokens_are_laid_out_as_the_photograph_is(n_tokens, height, width, grid):
    assert grid_of(n_tokens, height, width) == grid
