"""Models that hash alike wherever they are, and weights from checkpoints of many kinds."""

import copy
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
import torchvision
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from torch import nn

from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
from skretrieval.pooling import GeMPooler

IMAGES = [np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8) for i in range(3)]

HASHES = """
import joblib, numpy as np
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
images = [np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8) for i in range(3)]
conv = ConvFeatureExtractor("resnet18", weights=None, random_state=0, image_size=48, device="cpu")
kernel = ConvKernelExtractor((4, 8), image_size=48, n_patches=200, random_state=0, device="cpu")
for extractor in (conv, kernel):
    print(joblib.hash(extractor), joblib.hash(extractor.fit(images)), joblib.hash(extractor.transform(images)))
"""


def small(**params):
    given = {"weights": None, "random_state": 0, "image_size": 48, "device": "cpu", **params}
    return ConvFeatureExtractor("squeezenet1_1", **given)


def test_hashes_are_equal_in_two_processes():
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", HASHES],
            capture_output=True,
            check=True,
            text=True,
            timeout=100,
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == 6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copies_hash_alike_and_give_the_same_maps(dtype):
    extractor = small(dtype=dtype).fit(IMAGES)
    wanted = extractor.transform(IMAGES)[0]
    for other in (pickle.loads(pickle.dumps(extractor)), copy.deepcopy(extractor), copy.copy(extractor)):
        assert joblib.hash(other) == joblib.hash(extractor)
        np.testing.assert_array_equal(other.transform(IMAGES)[0], wanted)
    assert joblib.hash(small().fit(IMAGES)) != joblib.hash(small(random_state=1).fit(IMAGES))


def test_a_pipeline_with_memory_finds_its_results(tmp_path):
    steps = [("extractor", small()), ("pooler", GeMPooler()), ("last", "passthrough")]
    pipeline = Pipeline(steps, memory=joblib.Memory(tmp_path, verbose=0))
    first = pipeline.fit_transform(IMAGES)
    stored = sorted(path for path in tmp_path.rglob("output.pkl"))
    assert len(stored) == 2
    for _ in range(3):
        np.testing.assert_array_equal(clone(pipeline).fit_transform(IMAGES), first)
    assert sorted(tmp_path.rglob("output.pkl")) == stored


def test_a_mapped_model_gives_the_same_maps(tmp_path):
    extractor = small().fit(IMAGES)
    joblib.dump(extractor, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    np.testing.assert_array_equal(loaded.transform(IMAGES)[0], extractor.transform(IMAGES)[0])


# ------------------------------------------------------------------ checkpoints
@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).state_dict()


def maps_of(path):
    extractor = ConvFeatureExtractor("resnet18", weights=path, image_size=64, device="cpu")
    return extractor.fit_transform(IMAGES)[0]


@pytest.fixture(scope="module")
def wanted(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(trained, path)
    return maps_of(path)


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "net", "network", "model_ema", "state_dict_ema", "ema"]
)
def test_weights_within_a_checkpoint_are_found(key, trained, wanted, tmp_path):
    torch.save(
        {"epoch": 3, key: {f"module.{name}": value for name, value in trained.items()}}, tmp_path / "w.pth"
    )
    np.testing.assert_array_equal(maps_of(tmp_path / "w.pth"), wanted)


def test_of_two_sets_of_weights_the_trained_ones_count(trained, wanted, tmp_path):
    ema = {name: torch.zeros_like(value) for name, value in trained.items()}
    torch.save({"model_ema": ema, "model": trained}, tmp_path / "w.pth")
    np.testing.assert_array_equal(maps_of(tmp_path / "w.pth"), wanted)


def other_head(state):
    return {**state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}


def no_head(state):
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def more_parts(state):
    return {**state, "projector.weight": torch.zeros(3, 3), "n_averaged": torch.tensor(4)}


@pytest.mark.parametrize("change", [other_head, no_head, more_parts])
def test_parts_that_are_not_used_may_be_others(change, trained, wanted, tmp_path):
    torch.save(change(trained), tmp_path / "w.pth")
    np.testing.assert_array_equal(maps_of(tmp_path / "w.pth"), wanted)


@pytest.mark.parametrize("change", [other_head, no_head])
def test_the_classifier_needs_its_own_weights(change, trained, tmp_path):
    torch.save(change(trained), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"do not fit the backbone .* fc\.weight (has shape|is missing)"):
        ConvFeatureExtractor("resnet18", weights=tmp_path / "w.pth").classifier()


def test_used_weights_that_are_missing_are_named(trained, tmp_path):
    state = {name: value for name, value in trained.items() if name != "layer1.0.conv1.weight"}
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    match = (
        r"conv1\.weight has shape \(64, 3, 3, 3\), not \(64, 3, 7, 7\); layer1\.0\.conv1\.weight is missing"
    )
    with pytest.raises(ValueError, match=match):
        maps_of(tmp_path / "w.pth")


def test_a_module_takes_weights_of_another_head(trained, wanted, tmp_path):
    torch.save(other_head(trained), tmp_path / "w.pth")
    module = torchvision.models.resnet18(weights=None)
    extractor = ConvFeatureExtractor(module, weights=tmp_path / "w.pth", image_size=64, device="cpu")
    extractor.set_params(layers="layer4")
    np.testing.assert_array_equal(extractor.fit_transform(IMAGES)[0], wanted)


def test_kernel_extractors_hash_alike():
    extractors = [ConvKernelExtractor((4, 8), image_size=48, n_patches=99, random_state=0) for _ in range(2)]
    assert len({joblib.hash(extractor.fit(IMAGES)) for extractor in extractors}) == 1


MODULE_IN_A_PROCESS = """
import functools, joblib, numpy as np, torch, torchvision
from skretrieval.extraction import ConvFeatureExtractor, PatchNetwork
junk = [torch.zeros(k) for k in range({n_junk})]  # so that addresses differ
torch.manual_seed(0)
network = torchvision.models.squeezenet1_1(weights=None)
network.shared = network.classifier[1]
for backbone in (network, functools.partial(PatchNetwork, network, layer="features.3", input_size=32)):
    extractor = ConvFeatureExtractor(backbone, image_size=48)
    print(joblib.hash(extractor), joblib.hash(extractor.fit([np.full((40, 50, 3), 7, np.uint8)])))
"""


def test_a_module_is_hashed_alike_in_every_process():
    found = {
        subprocess.run(
            [sys.executable, "-c", MODULE_IN_A_PROCESS.format(n_junk=n_junk)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n_junk in (1, 500)
    }
    assert len(found) == 1
    assert len(set(found.pop().split())) >= 2


class OfAUser(nn.Module):
    """Has a weight twice, one that is not trained, and one of half precision."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = self.first
        self.first.bias.requires_grad_(False)
        self.register_buffer("scale", torch.full((), 0.5, dtype=torch.bfloat16))
        self.register_buffer("nothing", None)

    def forward(self, images):
        return torch.relu(self.second(images)) * self.scale.float()


def test_a_module_comes_back_from_a_pickle_as_it_was():
    module = OfAUser()
    extractor = ConvFeatureExtractor(module, layers="relu", image_size=48).fit(IMAGES)
    again = pickle.loads(pickle.dumps(extractor))
    for one, two in zip(extractor.transform(IMAGES), again.transform(IMAGES), strict=True):
        np.testing.assert_array_equal(one, two)
    assert again.backbone.second is again.backbone.first
    assert isinstance(again.backbone.first.weight, nn.Parameter)
    assert not again.backbone.first.bias.requires_grad
    assert again.backbone.scale.dtype == torch.bfloat16
    assert extractor.backbone is module
    assert isinstance(module.first.weight, nn.Parameter)
    assert copy.copy(extractor).backbone is module
    other = OfAUser()
    assert joblib.hash(ConvFeatureExtractor(other)) != joblib.hash(ConvFeatureExtractor(module))
