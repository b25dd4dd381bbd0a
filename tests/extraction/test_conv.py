"""ConvFeatureExtractor: maps, sizes, parameters, persistence, containers of scikit-learn."""

import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from fixtures.convolution import by_hand, photographs, small
from references.networks import (
    CountingNetwork,
    counting_network,
    flat_network,
    no_network,
)
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch.nn import functional

from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps
from skretrieval.pooling import GeMPooler


def test_maps_are_those_of_the_network():
    module = counting_network()
    for image, maps in zip(photographs(), small(image_size=96).fit_transform(photographs()), strict=True):
        np.testing.assert_allclose(maps, by_hand(module, image, 96), atol=1e-5)


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


def test_a_cpu_takes_large_photographs_singly_small_in_batches():
    rng = np.random.default_rng(0)
    sizes = {(64, 96): 5, (400, 500): 1, (1000, 900): 1}
    for (height, width), together in sizes.items():
        images = list(rng.integers(0, 256, (5, height, width, 3), dtype=np.uint8))
        extractor = ConvFeatureExtractor(
            "squeezenet1_1", weights=None, random_state=0, image_size=None, device="cpu"
        )
        counts = [len(indices) for indices, _ in extractor.fit_transform(images).batches()]
        assert counts == [together] * (5 // together)
