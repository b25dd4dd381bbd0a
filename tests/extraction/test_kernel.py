"""ConvKernelExtractor as users meet it: fit, maps, state, bad input."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skretrieval.extraction import ConvKernelExtractor, ImageCrop
from skretrieval.extraction._kernel_learning import gather_patches


def photographs(n=6, seed=0):
    """Return smooth noise in colour, in two shapes: many distinct patches and some structure."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(n):
        height, width = [(40, 56), (48, 36)][index % 2]
        coarse = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        images.append(np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)))
    return images


def small(**parameters):
    defaults = dict(n_channels=(8, 12), patch_size=(5, 3), subsampling=(2, 4), n_components=(None, 20))
    defaults.update(image_size=48, n_patches=600, random_state=0)
    return ConvKernelExtractor(**{**defaults, "device": "cpu", **parameters})


@pytest.fixture(scope="module")
def fitted():
    return small().fit(photographs())


def test_defaults_learn_from_two_photographs():
    maps = ConvKernelExtractor(image_size=56, random_state=0).fit_transform(photographs(2))
    assert [found.shape for found in maps] == [(512, 10, 14), (512, 14, 11)]


def test_maps_are_non_negative_float32_of_every_shape(fitted):
    maps = fitted.transform(photographs())
    for image, found in zip(photographs(), maps, strict=True):
        scale = 48 / max(image.shape)
        rows, columns = (-(-round(side * scale) // 8) for side in image.shape[:2])
        assert found.shape == (12, rows, columns)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert found.max() > 0.01
    assert list(fitted.get_feature_names_out()[:2]) == ["convkernelextractor0", "convkernelextractor1"]
    assert len(fitted.get_feature_names_out()) == 12


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 31, 3), (3, 5, 3), (17, 2, 3), (1000, 4, 3)])
def test_ragged_and_tiny_images(fitted, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for size in (None, 33):
        maps = clone(fitted).set_params(image_size=size).fit(photographs()).transform([image])[0]
        assert maps.shape[0] == 12
        assert min(maps.shape[1:]) >= 1
        assert np.isfinite(maps).all()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 90)])
def test_one_colour_gives_a_zero_map(fitted, colour):
    image = np.full((40, 56, 3), colour, dtype=np.uint8)
    maps = fitted.transform([image])[0]
    assert_array_equal(maps, np.zeros((12, 5, 6), dtype=np.float32))


def test_light_changes_little_and_content_much(fitted):
    first, second = photographs(2)
    brighter = np.clip(first.astype(float) * 0.7 + 20, 0, 255).astype(np.uint8)
    descriptors = [maps.mean(axis=(1, 2)) for maps in fitted.transform([first, brighter, second])]
    units = np.array([d / np.linalg.norm(d) for d in descriptors])
    assert units[0] @ units[1] > 0.999
    assert units[0] @ units[2] < units[0] @ units[1]


def test_same_seed_same_maps_other_seed_other_maps(fitted):
    again = small().fit(photographs())
    assert again.fingerprint_ == fitted.fingerprint_
    for found, expected in zip(again.transform(photographs()), fitted.transform(photographs()), strict=True):
        assert_array_equal(found, expected)
    assert small(random_state=1).fit(photographs()).fingerprint_ != fitted.fingerprint_
    assert small(batch_size=1, n_jobs=1).fit(photographs()).fingerprint_ == fitted.fingerprint_


def test_random_state_instance_and_none():
    one = small(random_state=np.random.RandomState(3)).fit(photographs())
    two = small(random_state=np.random.RandomState(3)).fit(photographs())
    assert one.fingerprint_ == two.fingerprint_
    assert small(random_state=None).fit(photographs()).fingerprint_ != one.fingerprint_


def test_pickle_gives_equal_bits(fitted):
    list(fitted.transform(photographs(1)))  # builds the network, which must not travel
    data = pickle.dumps(fitted)
    assert len(data) < 60_000
    loaded = pickle.loads(data)
    for found, expected in zip(loaded.transform(photographs()), fitted.transform(photographs()), strict=True):
        assert_array_equal(found, expected)


def test_clone_is_unfitted_and_equal_in_parameters(fitted):
    copy = clone(fitted)
    assert not hasattr(copy, "layers_")
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError, match="ConvKernelExtractor"):
        copy.transform(photographs())
    assert copy.fit(photographs()).fingerprint_ == fitted.fingerprint_


def test_fit_leaves_parameters_and_images_alone():
    images = photographs()
    before = [image.copy() for image in images]
    for image in images:
        image.flags.writeable = False
    extractor = small()
    parameters = dict(extractor.get_params())
    extractor.fit(images).transform(images)[0]
    assert extractor.get_params() == parameters
    for image, old in zip(images, before, strict=True):
        assert_array_equal(image, old)


def test_parameters_of_learning_take_effect_at_the_next_fit(fitted):
    changed = small().fit(photographs()).set_params(beta=1.0, n_channels=(4, 6))
    assert_array_equal(changed.transform(photographs(1))[0], fitted.transform(photographs(1))[0])
    assert changed.fit(photographs()).transform(photographs(1))[0].shape[0] == 6


def test_learned_whitening_and_filters(fitted):
    first, second = fitted.layers_
    assert first["projection"].shape[1:] == (3, 5, 5)
    assert first["filters"].shape == (8, first["projection"].shape[0])
    assert second["projection"].shape == (20, 8, 3, 3)
    assert second["filters"].shape == (12, 20)
    for layer in fitted.layers_:
        assert_allclose(np.linalg.norm(layer["filters"], axis=1), 1, rtol=1e-5)
    assert len(np.unique(second["filters"], axis=0)) == 12


def test_first_layer_has_white_input_without_regularisation():
    """Patches of the fit photographs, centred, contrast-normalised and projected, have second moment I."""
    image = photographs(1)[0]
    extractor = small(n_channels=(6,), n_components=None, patch_size=3, subsampling=1, beta=2.0, center=True)
    extractor.set_params(reg=0.0, image_size=None, n_patches=40 * 56 * 20).fit([image])
    (layer,) = extractor.layers_
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).double() / 255
    patches = gather_patches(pixels, 3, torch.arange(40 * 56)).numpy()
    patches = patches - patches.mean(axis=(2, 3), keepdims=True)
    power = (patches**2).mean(axis=(1, 2, 3))
    assert layer["reference"] == pytest.approx(power.mean(), rel=0.02)  # sampled with replacement
    patches /= np.sqrt(power + 0.01 * layer["reference"])[:, None, None, None]
    white = patches.reshape(len(patches), -1) @ layer["projection"].reshape(len(layer["projection"]), -1).T
    assert len(layer["projection"]) == 24  # 27 numbers less three means
    assert_allclose(white.T @ white / len(white), np.eye(24), atol=0.1)


@pytest.mark.parametrize("layers", [1, 3])
def test_any_number_of_layers(layers):
    extractor = small(
        n_channels=(6,) * layers, patch_size=3, subsampling=2, beta=6.0, center=True, n_components=None
    )
    maps = extractor.fit(photographs()).transform(photographs(1))[0]
    assert maps.shape == (6, -(-34 // 2**layers), -(-48 // 2**layers))
    assert (maps >= 0).all()
    assert maps.max() > 0


def test_several_resolutions(fitted):
    both = small(image_size=[32, 48]).fit(photographs()).transform(photographs(1))[0]
    assert [maps.shape for maps in both] == [(12, 3, 4), (12, 5, 6)]
    summed = (
        small(image_size=[32, 48], multi_resolution="sum").fit(photographs()).transform(photographs(1))[0]
    )
    assert summed.shape == (12, 5, 6)


def test_crops_and_paths(fitted, tmp_path):
    image = photographs(1)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    from_path, from_array = fitted.transform([tmp_path / "a.png", image])
    assert_array_equal(from_path, from_array)
    crop = fitted.transform([ImageCrop(image, (10, 4, 50, 34))])[0]
    assert_array_equal(crop, fitted.transform([image[4:34, 10:50]])[0])


def test_cache_is_keyed_by_the_filters(fitted, tmp_path):
    images = photographs(2)
    cached = small(memory=str(tmp_path)).fit(photographs())
    for _ in range(2):
        for found, expected in zip(cached.transform(images), fitted.transform(images), strict=True):
            assert_array_equal(found, expected)
    other = small(memory=str(tmp_path), random_state=1).fit(photographs())
    assert not np.array_equal(other.transform(images)[0], fitted.transform(images)[0])


def test_fit_reads_at_most_n_images():
    images = photographs(30)
    few = small(n_images=3, n_patches=300).fit(images)
    chosen = np.sort(np.random.RandomState(0).permutation(30)[:3])
    for index in set(range(30)) - set(chosen.tolist()):
        images[index] = np.zeros((1, 1, 3), dtype=np.uint8)  # would be refused if it were read
    assert small(n_images=3, n_patches=300).fit(images).fingerprint_ == few.fingerprint_


@pytest.mark.parametrize("n", [1, 7, 40])
def test_number_of_patches_does_not_grow_with_the_photographs(n):
    images = [photographs(2)[i % 2] for i in range(n)]
    patches = small()._sample_patches(images, np.arange(n), [], 5, np.random.RandomState(0))
    assert 600 <= len(patches) < 600 + n
    assert patches.shape[1:] == (3, 5, 5)


def test_unreadable_photographs(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    images = [*photographs(), broken]
    with pytest.raises(ValueError, match=r"Entry 6 .*broken\.jpg.*not an image"):
        small().fit(images)
    lenient = small(on_error="warn")
    with pytest.warns(
        UserWarning, match=r"1 of 7 images could not be read and were left out of fit: .*broken"
    ):
        lenient.fit(images)
    assert list(lenient.failed_) == [6]
    with pytest.warns(UserWarning, match="got a zero map"):
        maps = list(lenient.transform(images))
    assert_array_equal(maps[6], np.zeros((12, 1, 1)))
    with pytest.raises(ValueError, match=r"None of the 1 photographs can be read.*broken"):
        small(on_error="warn").fit([broken])
    with pytest.raises(FileNotFoundError, match=r"Entry 0 .*nowhere\.jpg"):
        small().fit([tmp_path / "nowhere.jpg"])


def test_too_few_distinct_patches():
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    with pytest.raises(
        ValueError, match=r"Layer 1 cannot be learned .* distinct patches for 64 filters.*n_channels"
    ):
        small(n_channels=(64, 12), image_size=None).fit([stripes])
    flat = np.full((32, 32, 3), 90, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"Layer 1 cannot be learned .*all patches are flat"):
        small().fit([flat])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_channels": ()}, "at least one layer"),
        ({"n_channels": (8, 0)}, r"n_channels must be an int >= 1, got 0"),
        ({"n_channels": (8, 2.5)}, r"n_channels must be an int >= 1, got 2\.5"),
        ({"n_channels": 8}, "n_channels"),
        ({"patch_size": (5, 3, 3)}, r"patch_size has 3 entries, but n_channels=\(8, 12\) makes 2 layers"),
        ({"patch_size": 0}, "patch_size must be an int >= 1"),
        ({"subsampling": (2, None)}, "subsampling must be an int >= 1, got None"),
        ({"beta": 0}, "beta must be a finite number > 0, got 0"),
        ({"beta": (1.0, np.inf)}, "beta must be a finite number > 0, got inf"),
        ({"beta": "auto"}, "beta"),
        ({"center": (1, 0)}, "center must be a bool, got 1"),
        ({"n_components": (None, 0)}, "n_components must be an int >= 1 or None, got 0"),
        ({"contrast": -1.0}, "contrast must be a finite number >= 0"),
        ({"reg": (0.1, -0.1)}, "reg must be a finite number >= 0"),
        ({"n_images": 0}, "n_images"),
        ({"n_patches": 0}, "n_patches"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(photographs(1))


def test_empty_input():
    with pytest.raises(ValueError, match="empty X"):
        small().fit([])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu(fitted):
    gpu = pickle.loads(pickle.dumps(fitted)).set_params(device="cuda")
    for found, expected in zip(gpu.transform(photographs()), fitted.transform(photographs()), strict=True):
        assert_allclose(found, expected, rtol=2e-2, atol=2e-3)
    assert small(device="cuda").fit(photographs()).transform(photographs(1))[0].shape == (12, 5, 6)


def test_a_file_that_was_cut_short_is_padded_where_asked(tmp_path):
    scene = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(scene).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    paths = [tmp_path / "whole.jpg", tmp_path / "cut.jpg"]
    extractor = ConvKernelExtractor(
        n_channels=(8, 16), image_size=64, random_state=0, memory=str(tmp_path / "memory")
    )
    extractor.fit([scene, scene[::-1]]).set_params(truncated="pad")
    whole, cut = list(extractor.transform(paths))
    assert whole.shape == cut.shape
    assert not np.array_equal(whole, cut)
    with pytest.raises(ValueError, match=r"Entry 1 \(.*cut\.jpg.*runcated"):
        list(extractor.set_params(truncated="raise").transform(paths))  # nor does the cache hide it
