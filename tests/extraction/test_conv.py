"""ConvFeatureExtractor: networks, weights, layers, sizes, cache, persistence, bad files."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from references.networks import (
    CountingNetwork,
    counting_network,
    flat_network,
    no_network,
    two_layer_network,
)
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional
from torchvision import models

from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps, ImageCrop
from skretrieval.pooling import GeMPooler, LayerwisePooler, RMACPooler


def photographs(n=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40 + 8 * (i % 3), 64, 3), dtype=np.uint8) for i in range(n)]


def small(**params):
    return ConvFeatureExtractor(**{"backbone": counting_network, "image_size": 64, "device": "cpu", **params})


def by_hand(module, image, size=None):
    """Resize, normalise and run one image with nothing of the package."""
    picture = Image.fromarray(image)
    if size is not None:
        scale = size / max(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
        )
    pixels = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None].float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        return module((pixels - mean) / std)[0].numpy()


def test_maps_are_those_of_the_network():
    module = counting_network()
    for image, maps in zip(photographs(), small(image_size=96).fit_transform(photographs()), strict=True):
        np.testing.assert_allclose(maps, by_hand(module, image, 96), atol=1e-5)


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


def test_several_sizes_stack_or_sum():
    images = photographs(3)
    single = {size: list(small(image_size=size).fit_transform(images)) for size in (64, 96)}
    stacked = list(small(image_size=[64, 96]).fit_transform(images))
    summed = list(small(image_size=[64, 96], multi_resolution="sum").fit_transform(images))
    for index in range(3):
        for place, size in enumerate((64, 96)):
            np.testing.assert_allclose(stacked[index][place], single[size][index], atol=1e-6)
        large = torch.tensor(single[96][index])[None]
        resized = functional.interpolate(
            torch.tensor(single[64][index])[None], large.shape[2:], mode="bilinear", align_corners=False
        )
        np.testing.assert_allclose(summed[index], (large + resized)[0].numpy(), atol=1e-5)


def test_original_size():
    assert small(image_size=None).fit_transform([np.zeros((80, 56, 3), np.uint8)])[0].shape == (10, 10, 7)


@pytest.mark.parametrize("image_size", [0, -3, [], [64, 0], "large", [64, None]])
def test_bad_image_size(image_size):
    with pytest.raises(ValueError, match="image_size"):
        small(image_size=image_size).fit(photographs(1))


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


def test_random_weights_follow_random_state_and_leave_torch_alone():
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


def test_default_weights_without_network_say_which_file_to_put_where(monkeypatch, tmp_path):
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
    ("params", "message"),
    [
        ({"backbone": "resnet51"}, "no torchvision classification network; near: resnet"),
        ({"backbone": flat_network}, r"maps of shape \(N, C, H, W\), got \(1, 3\)"),
        ({"backbone": no_network}, "must return an nn.Module, got str"),
        ({"layers": "nowhere"}, "'nowhere' is no layer of CountingNetwork"),
        ({"layers": []}, "layers is empty"),
        ({"device": "cuda:77"} if not torch.cuda.is_available() else {"layers": "no"}, "CUDA|no layer"),
        ({"dtype": "float8"}, "dtype"),
        ({"batch_size": 0}, "batch_size"),
        ({"on_error": "ignore"}, "on_error"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        list(small(**params).fit_transform(photographs(1)))


def test_images_too_small_for_the_network():
    extractor = ConvFeatureExtractor("vgg11", weights=None, random_state=0, image_size=16)
    with pytest.raises(ValueError, match=r"Entry 0 .*: 16x10 pixels after resizing are too few"):
        list(extractor.fit_transform([np.zeros((40, 64, 3), np.uint8)]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_maps_arrive_as_float32(dtype):
    exact = small().fit_transform(photographs(2))[0]
    half = small(dtype=dtype).fit_transform(photographs(2))[0]
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.05


def test_nothing_is_built_before_fit_and_clone_drops_the_network():
    extractor = small()
    assert "_net" not in vars(extractor)
    extractor.fit(photographs(1))
    assert "_net" in vars(extractor)
    assert "_net" not in vars(clone(extractor))


def test_transform_needs_no_fit():
    assert np.array_equal(
        small().transform(photographs(1))[0], small().fit(photographs(1)).transform(photographs(1))[0]
    )


def test_a_changed_parameter_rebuilds_the_network():
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=64)
    extractor.fit(photographs(1))
    first = extractor.fingerprint_
    extractor.set_params(layers="features.3")
    assert extractor.transform(photographs(1))[0].shape[0] == 128
    assert extractor.fingerprint_ != first
    extractor.set_params(backbone=counting_network, layers=None, weights=None)
    assert extractor.transform(photographs(1))[0].shape[0] == 10


def test_module_parameter_is_left_as_it_was():
    module = counting_network().train()
    before = module.first.weight.clone()
    ConvFeatureExtractor(module, image_size=64, dtype="bfloat16").fit_transform(photographs(1))[0]
    assert module.training
    assert module.first.weight.dtype == torch.float32
    assert torch.equal(module.first.weight, before)
    assert module.first.weight.requires_grad


def test_persistence_is_bit_equal_in_a_new_process(tmp_path):
    """One process for all combinations: importing torch takes most of the time."""
    images = photographs(3)
    extractors = [
        ConvFeatureExtractor(
            backbone, weights=None, random_state=0, image_size=64, store_weights=stored, device="cpu"
        )
        for backbone in (counting_network, "squeezenet1_1", CountingNetwork())
        for stored in (True, False)
    ]
    expected = [maps.ravel() for extractor in extractors for maps in extractor.fit_transform(images)]
    joblib.dump((extractors, images), tmp_path / "model.joblib")
    code = (
        "import joblib, numpy as np, sys\n"
        "extractors, images = joblib.load(sys.argv[1])\n"
        "np.save(sys.argv[2], np.concatenate([m.ravel() for e in extractors for m in e.transform(images)]))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, tmp_path / "model.joblib", tmp_path / "out.npy"]
    subprocess.run(command, check=True, env=env)
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.concatenate(expected))


def test_stored_weights_make_the_file_needless(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(counting_network().state_dict(), path)
    kept, named = (small(weights=path, store_weights=stored).fit(photographs(1)) for stored in (True, False))
    expected = kept.transform(photographs(1))[0]
    for name, extractor in (("kept", kept), ("named", named)):
        joblib.dump(extractor, tmp_path / name)
    path.unlink()
    assert np.array_equal(joblib.load(tmp_path / "kept").transform(photographs(1))[0], expected)
    with pytest.raises(FileNotFoundError):
        joblib.load(tmp_path / "named").transform(photographs(1))


def test_changed_weights_are_noticed(tmp_path):
    path = tmp_path / "w.pth"
    module = counting_network()
    torch.save(module.state_dict(), path)
    joblib.dump(small(weights=path, store_weights=False).fit(photographs(1)), tmp_path / "model")
    with torch.no_grad():
        module.first.weight.add_(1)
    torch.save(module.state_dict(), path)
    with pytest.raises(ValueError, match="no longer those that this extractor was fitted with"):
        joblib.load(tmp_path / "model").transform(photographs(1))


def test_only_the_weights_in_use_are_stored():
    extractor = ConvFeatureExtractor("alexnet", weights=None, random_state=0, image_size=64)
    assert len(pickle.dumps(extractor.fit(photographs(1)))) < 12e6  # 2.5 M of 61 M parameters


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


# ---------------------------------------------------------------------- cache


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


# ---------------------------------------------------------------------- bad files


@pytest.fixture
def folder(tmp_path):
    good = []
    for index, image in enumerate(photographs(3)):
        good.append(tmp_path / f"good{index}.png")
        Image.fromarray(image).save(good[-1])
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(good[0].read_bytes()[:2000])
    empty = tmp_path / "empty.jpg"
    empty.touch()
    return [good[0], truncated, good[1], empty, tmp_path / "missing.jpg", good[2]]


@pytest.mark.parametrize(("place", "error"), [(1, ValueError), (3, ValueError), (4, FileNotFoundError)])
def test_bad_files_raise_with_entry_and_path(folder, place, error):
    images = [folder[0], folder[place]]
    with pytest.raises(error, match=rf"Entry 1 \(.*{folder[place].name}"):
        list(small().fit_transform(images))


def test_unreadable_headers_raise_before_any_work(folder):
    with pytest.raises(ValueError, match="Entry 3"):
        small().fit_transform([folder[0]] * 3 + [folder[3]])


def test_on_error_warn_gives_zero_maps_one_warning_and_the_list(folder):
    extractor = small(on_error="warn")
    maps = extractor.fit_transform(folder)
    with pytest.warns(UserWarning, match=r"3 of 6 images could not be read") as caught:
        listed = list(maps)
    assert len(caught) == 1
    for name in ("cut.png", "empty.jpg", "missing.jpg"):
        assert name in str(caught[0].message)
    assert sorted(extractor.failed_) == sorted(maps.failed_) == [1, 3, 4]
    for index, entry in enumerate(listed):
        if index in maps.failed_:
            assert entry.shape == (10, 1, 1)
            assert not entry.any()
        else:
            assert entry.any()


def test_crops_of_one_opened_image_share_its_decoder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "big.png")
    with Image.open(tmp_path / "big.png") as opened:
        crops = [ImageCrop(opened, (10 * i, 0, 10 * i + 300, 300)) for i in range(8)]
        maps = list(small(n_jobs=8).fit_transform(crops))
    for index, entry in enumerate(maps):
        by_array = small().fit_transform([ImageCrop(noise, crops[index].box)])[0]
        np.testing.assert_allclose(entry, by_array, atol=1e-5)


def test_too_small_for_the_network_is_listed_like_an_unreadable_file(tmp_path):
    Image.fromarray(np.zeros((6, 128, 3), dtype=np.uint8)).save(tmp_path / "strip.png")
    images = [photographs(1)[0], tmp_path / "strip.png", photographs(1)[0]]
    params = {"backbone": "squeezenet1_1", "weights": None, "random_state": 0, "image_size": 96}
    with pytest.raises(ValueError, match=r"Entry 1 \(.*strip\.png\): 96x4 pixels"):
        list(small(**params).fit_transform(images))
    maps = small(**params, on_error="warn").fit_transform(images)
    with pytest.warns(UserWarning, match=r"1 of 3 images.*strip\.png"):
        listed = list(maps)
    assert not listed[1].any()
    assert listed[2].any()
    assert list(maps.failed_) == [1]


def test_one_entry_warns_and_is_listed(folder):
    maps = small(on_error="warn").fit_transform(folder)
    with pytest.warns(UserWarning, match=r"Entry 3 .*empty\.jpg"):
        assert not maps[3].any()
    assert list(maps.failed_) == [3]


def test_one_warning_however_many_passes(folder):
    maps = small(on_error="warn").fit_transform([folder[3], *folder])
    pooler = RMACPooler(whiten=True, n_components=2)
    with pytest.warns(UserWarning, match="4 of 7 images") as caught:
        descriptors = pooler.fit_transform(
            maps
        )  # a look at the first map, a pass to learn, a pass to describe
    assert len(caught) == 1
    list(maps[:3])
    assert not descriptors[[0, 2, 4, 5]].any()


def test_positions_of_failures_survive_slicing(folder):
    maps = small(on_error="warn").fit_transform(folder)[2:5]
    with pytest.warns(UserWarning, match="Entry 3"):
        list(maps)
    assert sorted(maps.failed_) == [3, 4]


def test_zero_maps_pool_to_zero(folder):
    with pytest.warns(UserWarning, match="could not be read"):
        descriptors = make_pipeline(small(on_error="warn"), GeMPooler()).fit_transform(folder)
    assert not descriptors[[1, 3, 4]].any()
    assert descriptors[[0, 2, 5]].any(axis=1).all()


def test_no_warning_when_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(small(on_error="warn").fit_transform(photographs(2)))


def test_box_outside_names_the_entry():
    with pytest.raises(ValueError, match=r"Entry 1 .*outside the image of 64x40"):
        list(small().fit_transform([photographs(1)[0], ImageCrop(photographs(1)[0], (0, 0, 65, 10))]))


# ---------------------------------------------------------------------- scikit-learn


def test_maps_pass_a_configured_container_untouched():
    pytest.importorskip("pandas")
    with config_context(transform_output="pandas"):
        maps = small().fit_transform(photographs())
        model = make_pipeline(small(), GeMPooler())
        frame = model.fit_transform(photographs())
    assert isinstance(maps, FeatureMaps)
    assert frame.columns.tolist() == model.get_feature_names_out().tolist()


def test_pipeline_names_and_output_containers():
    model = make_pipeline(small(), GeMPooler()).set_output(transform="pandas")
    frame = model.fit_transform(photographs(3))
    assert list(frame.columns) == [f"gempooler{k}" for k in range(10)]
    assert list(model.get_feature_names_out()) == list(frame.columns)
    assert list(small().fit(photographs(1)).get_feature_names_out())[:2] == [
        "convfeatureextractor0",
        "convfeatureextractor1",
    ]


def test_progress_bar(capfd):
    list(small(verbose=True).fit_transform(photographs(2)))
    assert "2/2" in capfd.readouterr().err
    list(small().fit_transform(photographs(2)))
    assert capfd.readouterr().err == ""


def test_large_photographs_go_through_a_cpu_one_by_one_and_small_ones_together():
    rng = np.random.default_rng(0)
    sizes = {(64, 96): 5, (400, 500): 1, (1000, 900): 1}
    for (height, width), together in sizes.items():
        images = list(rng.integers(0, 256, (5, height, width, 3), dtype=np.uint8))
        extractor = ConvFeatureExtractor(
            "squeezenet1_1", weights=None, random_state=0, image_size=None, device="cpu"
        )
        counts = [len(indices) for indices, _ in extractor.fit_transform(images).batches()]
        assert counts == [together] * (5 // together)


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
