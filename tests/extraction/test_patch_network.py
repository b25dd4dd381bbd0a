"""PatchNetwork: vectors of windows against a plain loop over crops, and what the extractor makes of it."""

import hashlib
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from references.networks import counting_network
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch.nn import functional
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor, PatchNetwork
from skretrieval.pooling import LayerwisePooler, SumPooler, VLADPooler

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def photographs(n=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (48 + 12 * (i % 2), 80, 3), dtype=np.uint8) for i in range(n)]


def starts(size, side, stride):
    """Left borders of windows, walked from the left; the last one flush with the right."""
    found, start = [], 0
    while start + side < size:
        found.append(start)
        start += stride
    return [*found, max(size - side, 0)]


def by_hand(vector, image, patches, input_size):
    """One crop after another through ``vector``, a function of (1, 3, S, S)."""
    pixels = (torch.tensor(image).permute(2, 0, 1).float() / 255 - MEAN) / STD
    height, width = image.shape[:2]
    maps = []
    for patch in patches:
        rows, cols, high, wide = [0], [0], height, width
        if patch is not None:
            side, stride = patch
            rows, cols = starts(height, side, stride), starts(width, side, stride)
            high, wide = min(side, height), min(side, width)
        cells = []
        for row in rows:
            for col in cols:
                crop = pixels[None, :, row : row + high, col : col + wide]
                square = functional.interpolate(
                    crop, (input_size, input_size), mode="bilinear", antialias=True
                )
                with torch.no_grad():
                    cells.append(vector(square)[0].numpy())
        maps.append(np.stack(cells, axis=1).reshape(-1, len(rows), len(cols)))
    return maps


def squeezenet(module):
    return lambda images: module(images)


def mobilenet(module):
    return lambda images: module.features(images).mean(dim=(2, 3))


def alexnet(module):
    def fc7(images):
        values = module.avgpool(module.features(images)).flatten(1)
        return module.classifier[:6](values)

    return fc7


NETWORKS = {
    "squeezenet1_0": ("flatten", squeezenet, 64),
    "mobilenet_v2": ("flatten", mobilenet, 32),
    "alexnet": ("classifier.5", alexnet, 64),
}
PATCHES = (None, (32, 16), (24, 20), (64, 8))  # windows of 64 are higher than the photographs


def network(name="squeezenet1_0", **params):
    layer, _, input_size = NETWORKS[name]
    return partial(PatchNetwork, name, **{"layer": layer, "input_size": input_size, **params})


def extractor_of(backbone, **params):
    return ConvFeatureExtractor(
        backbone, **{"weights": None, "image_size": None, "random_state": 0, "device": "cpu", **params}
    )


def plain(name, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.get_model(name, weights=None).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_windows_are_those_of_a_loop_over_crops(name):
    _, vector, input_size = NETWORKS[name]
    images = photographs()
    extractor = extractor_of(network(name, patches=PATCHES, chunk_size=7))
    vector = vector(plain(name))
    for image, actual in zip(images, extractor.fit_transform(images), strict=True):
        expected = by_hand(vector, image, PATCHES, input_size)
        assert [len(own) for own in actual] == [len(expected[0])] * 4
        for own, other in zip(actual, expected, strict=True):
            assert own.shape == other.shape
            np.testing.assert_allclose(own, other, atol=2e-5 * np.abs(other).max(), rtol=1e-3)


def test_grids():
    maps = extractor_of(network(patches=PATCHES)).fit_transform(photographs())
    assert [own.shape[1:] for own in maps[0]] == [(1, 1), (2, 4), (3, 4), (1, 3)]
    assert [own.shape[1:] for own in maps[1]] == [(1, 1), (3, 4), (3, 4), (1, 3)]


def test_mop_cnn_grid_of_the_paper():
    """A square photograph of 256 pixels: 1, 25 and 49 windows."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    patches = ((256, 32), (128, 32), (64, 32))
    maps = extractor_of(network("mobilenet_v2", patches=patches)).fit_transform([image])[0]
    assert [own.shape for own in maps] == [(1280, 1, 1), (1280, 5, 5), (1280, 7, 7)]
    for patch, own in zip(patches, maps, strict=True):
        assert np.unique(own.reshape(1280, -1), axis=1).shape[1] == own[0].size, patch
    whole = extractor_of(network("mobilenet_v2")).fit_transform([image])[0]
    np.testing.assert_allclose(maps[0], whole, rtol=1e-3, atol=1e-5 * whole.max())


@pytest.mark.parametrize("shape", [(2, 2), (2, 40), (9, 64), (64, 9)])
def test_photographs_smaller_than_a_window(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    patches = ((32, 16), None)
    actual = extractor_of(network("mobilenet_v2", patches=patches)).fit_transform([image])[0]
    expected = by_hand(mobilenet(plain("mobilenet_v2")), image, patches, 32)
    for own, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5 * np.abs(other).max(), rtol=1e-3)


def test_chunks_do_not_matter_and_bound_what_is_run_together():
    images = photographs(2)
    expected = extractor_of(network(patches=PATCHES)).fit_transform(images)[1]
    for chunk_size in (1, 5, 1000):
        extractor = extractor_of(network(patches=PATCHES, chunk_size=chunk_size)).fit(images)
        sizes = []

        def seen(_, given, sizes=sizes):
            sizes.append(len(given[0]))

        extractor._network().module.network.register_forward_pre_hook(seen)
        for own, other in zip(extractor.transform(images)[1], expected, strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)
        assert max(sizes) <= chunk_size
        assert sum(sizes) == 1 + 12 + 12 + 3


def test_half_precision():
    images = photographs(1)
    exact = extractor_of(network(patches=((32, 16),))).fit_transform(images)[0]
    half = extractor_of(network(patches=((32, 16),)), dtype="bfloat16").fit_transform(images)[0]
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.1 * np.abs(exact).max()


# ---------------------------------------------------------------------------------------------------------------------
# Weights, pickles, caches


@pytest.mark.parametrize("name", ["squeezenet1_0", "mobilenet_v2"])
def test_weights_are_a_plain_state_dict_of_the_network_inside(name, tmp_path):
    _, vector, input_size = NETWORKS[name]
    module = plain(name, seed=7)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    extractor = extractor_of(network(name, patches=((40, 40),)), weights=tmp_path / "weights.pth")
    image = photographs(1)[0]
    (expected,) = by_hand(vector(module), image, ((40, 40),), input_size)
    actual = extractor.fit_transform([image])[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())
    (tmp_path / "weights.pth").unlink()  # a pickle carries its weights
    copy = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(copy.transform([image])[0], actual)
    assert set(extractor._state) <= set(module.state_dict())


def test_only_the_weights_that_the_layer_needs_are_kept():
    extractor = extractor_of(network("alexnet", layer="classifier.2")).fit(photographs(1))
    assert not [name for name in extractor._state if name.startswith(("classifier.4", "classifier.6"))]
    assert "classifier.1.weight" in extractor._state


def test_default_weights_are_those_of_the_network_inside(monkeypatch, tmp_path):
    module = plain("squeezenet1_0", seed=2)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f"squeeze-{prefix}.pth").write_bytes(content)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = models.SqueezeNet1_0_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "url", f"http://127.0.0.1:9/squeeze-{prefix}.pth", raising=False)
    image = photographs(1)
    default = extractor_of(network(), weights="DEFAULT").fit(image)
    given = extractor_of(network(), weights=tmp_path / "weights.pth").fit(image)
    assert default.fingerprint_ == given.fingerprint_
    np.testing.assert_array_equal(default.transform(image)[0], given.transform(image)[0])
    (folder / f"squeeze-{prefix}.pth").unlink()
    with pytest.raises(OSError, match=rf"squeeze-{prefix}\.pth"):
        clone(default).fit(image)


def test_random_weights_follow_random_state():
    image = photographs(1)
    first, again, other = (
        extractor_of(network(), random_state=seed).fit_transform(image)[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_misfitting_weights(tmp_path):
    torch.save(plain("mobilenet_v2").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="do not fit the backbone"):
        extractor_of(network(), weights=tmp_path / "weights.pth").fit(photographs(1))


def test_weights_found_again_where_they_were(tmp_path):
    module = plain("squeezenet1_0", seed=7)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    extractor = extractor_of(network(), weights=tmp_path / "weights.pth", store_weights=False)
    expected = extractor.fit_transform(photographs(1))[0]
    pickled = pickle.dumps(extractor)
    assert len(pickled) < 10_000
    np.testing.assert_array_equal(pickle.loads(pickled).transform(photographs(1))[0], expected)
    with torch.no_grad():
        module.features[0].weight.mul_(2)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="no longer those"):
        pickle.loads(pickled).transform(photographs(1))


def test_cache_tells_windows_apart(tmp_path):
    images = photographs(2)
    settings = [
        {"patches": ((32, 16),)},
        {"patches": ((32, 20),)},
        {"patches": ((32, 16),), "input_size": 80},
        {"patches": ((32, 16),), "layer": "classifier.3"},
    ]
    for _ in range(2):
        for params in settings:
            cached = extractor_of(network(**params), memory=tmp_path).fit_transform(images)
            direct = extractor_of(network(**params)).fit_transform(images)
            for own, other in zip(cached, direct, strict=True):
                np.testing.assert_array_equal(own, other)


def test_a_cached_pass_runs_nothing(tmp_path):
    extractor = extractor_of(network(), memory=tmp_path)
    expected = list(extractor.fit_transform(photographs(2)))
    fresh = clone(extractor).fit(photographs(1))
    fresh._network().module.network.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    np.testing.assert_array_equal(list(fresh.transform(photographs(2)))[1], expected[1])


def small_network():
    """A factory of a user's own, with a layer of vectors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            counting_network(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(10, 4)
        )


def test_networks_of_a_user(tmp_path):
    """A factory inside, a module inside, and a built PatchNetwork as it is."""
    params = {"layer": "3", "input_size": 32, "patches": (None, (32, 24))}
    image = photographs(1)
    expected = by_hand(small_network().eval(), image[0], params["patches"], 32)
    backbones = [
        partial(PatchNetwork, small_network, **params),
        partial(PatchNetwork, backbone=small_network(), **params),
        PatchNetwork(small_network(), **params),
    ]
    for backbone in backbones:
        extractor = extractor_of(backbone, random_state=None).fit(image)
        for copy in (extractor, pickle.loads(pickle.dumps(extractor)), clone(extractor)):
            for own, other in zip(copy.transform(image)[0], expected, strict=True):
                np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)
    torch.save(small_network().state_dict(), tmp_path / "weights.pth")
    loaded = extractor_of(backbones[0], weights=tmp_path / "weights.pth").fit_transform(image)[0]
    np.testing.assert_allclose(loaded[1], expected[1], rtol=1e-4, atol=1e-6)


def test_changed_windows_rebuild_the_network():
    extractor = extractor_of(network(patches=((32, 16),))).fit(photographs(1))
    assert extractor.transform(photographs(1))[0].shape[1:] == (2, 4)
    extractor.set_params(backbone=network(patches=((32, 40),)))
    assert extractor.transform(photographs(1))[0].shape[1:] == (2, 3)


def test_in_pipelines():
    """Neural codes, and MOP-CNN without its whitening."""
    images = photographs(4)
    codes = make_pipeline(extractor_of(network("mobilenet_v2")), SumPooler()).fit_transform(images)
    assert codes.shape == (4, 1280)
    pooler = LayerwisePooler(
        [("whole", SumPooler()), ("half", VLADPooler(3, n_local=8, random_state=0))],
    )
    patches = (None, (32, 8))
    mop = make_pipeline(extractor_of(network("mobilenet_v2", patches=patches)), pooler)
    assert mop.fit_transform(images).shape == (4, 1280 + 3 * 8)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"patches": ()}, "patches must be a sequence"),
        ({"patches": None}, "patches must be a sequence"),
        ({"patches": (32,)}, "patches: 32 is neither None nor"),
        ({"patches": ((32, 0),)}, r"patches: \(32, 0\) is neither"),
        ({"patches": ((32, 16, 8),)}, "neither"),
        ({"patches": ((32.5, 16),)}, "neither"),
        ({"input_size": 0}, "input_size"),
        ({"chunk_size": 2.5}, "chunk_size"),
        ({"layer": ["flatten"]}, "layer must be the name of one node"),
        ({"layer": "classifier.9"}, "'classifier.9' is no layer of SqueezeNet"),
        ({"layer": "features.3"}, r"layer='features.3' gives \(\d+, 128, \d+, \d+\) for .* windows"),
    ],
    ids=str,
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        list(extractor_of(network(**params)).fit_transform(photographs(1)))


def test_unknown_names():
    with pytest.raises(ValueError, match="no torchvision classification network; near: vgg"):
        extractor_of(partial(PatchNetwork, "vgg17")).fit(photographs(1))
    with pytest.raises(ValueError, match="no torchvision classification network"):
        PatchNetwork("vgg17")
    with pytest.raises(TypeError, match="layre"):
        extractor_of(partial(PatchNetwork, "alexnet", layre="flatten")).fit(photographs(1))
    with pytest.raises(ValueError, match=r"layers='last_conv': .*PatchNetwork.* names the layer itself"):
        extractor_of(network(), layers="last_conv").fit(photographs(1))
