"""The papers' methods on a folder of photographs."""

import json

import numpy as np
import pytest
from fixtures.papers import NETWORK
from PIL import Image

from skretrieval import recipes
from skretrieval.datasets import load_image_folder
from skretrieval.evaluation import (
    reproduce_on_folder,
    stand_in,
)
from skretrieval.evaluation._halves import split_in_halves
from skretrieval.evaluation._photo_set import load_photo_set
from skretrieval.evaluation.papers._adapt import Adapter
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
from skretrieval.metrics import leave_one_out_map


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Eight labels of four pictures."""
    folder = tmp_path_factory.mktemp("folder") / "things"
    for number in range(32):
        path = folder / f"label{number % 8}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        base = np.random.RandomState(number % 8).randint(0, 256, (6, 8, 3))
        own = np.random.RandomState(100 + number).randint(0, 256, (6, 8, 3))
        pixels = np.where(own[..., :1] % 2, base, own).astype(np.uint8)
        Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(path)
    return folder


def halves_by_hand(pipeline, folder):
    """Leave-one-out mAP within each half, what is learned being learned on the other."""
    photographs = load_image_folder(folder)
    images, labels = np.array(photographs.images), photographs.labels
    first, second = split_in_halves(load_photo_set(folder))
    assert not set(labels[first]) & set(labels[second])
    scores = []
    for here, there in ((first, second), (second, first)):
        fitted = pipeline.fit(list(images[there]))
        scores.append(leave_one_out_map(fitted, list(images[here]), labels[here]))
    return scores


METHODS = ["gsw", "rmac", "multi_resolution_pfa", "ms_rmac", "mop_cnn"]


def test_methods_on_a_folder(things, tmp_path):
    found = reproduce_on_folder(things, methods=METHODS, sweeps=False, **NETWORK)
    rows = {row.name: row for row in found.rows}
    network = stand_in(ConvFeatureExtractor("vgg16", layers="pool5"), "squeezenet1_1", "random", 64)
    expected = halves_by_hand(recipes.gsw(extractor=network, whitening=None), things)
    assert rows["S000 GSW (512)"].ours == pytest.approx(np.mean(expected), abs=1e-9)
    assert rows["S000 GSW (512)"].printed["S000 Table 5", "oxford5k"] == pytest.approx(0.729)
    assert rows["S000 GSW (512)"].ours != rows["S000 GSW + QE (512)"].ours
    both = rows["S003 M-R l_j & l_j-1 (3072)"]
    layers = stand_in(recipes.multi_resolution_pfa().named_steps["extractor"], "squeezenet1_1", "random", 64)
    ends = ConvFeatureExtractor("squeezenet1_1").block_ends()
    assert (layers.layers, layers.image_size) == ([ends[-1], ends[-2]], [84, 64, 44])
    pipeline = recipes.multi_resolution_pfa(extractor=layers, n_features=10_000)
    assert both.ours == pytest.approx(np.mean(halves_by_hand(pipeline, things)), abs=1e-9)
    assert rows["S003 M-R l_j (2048)"].ours != both.ours
    assert {row.recipe for row in found.rows} == set(METHODS) - {"mop_cnn"}
    assert "60 runs" in found.skipped["mop_cnn"]
    assert any("whitening" in note for note in found.notes)
    columns = {(table, dataset): (n, rho) for table, dataset, n, rho in found.trends()}
    assert columns["S003 Table 4", "oxford5k"][0] == 5
    assert -1 <= columns["S003 Table 4", "oxford5k"][1] <= 1
    assert "AlexNet" not in str(found)
    path = tmp_path / "folder.json"
    found.to_json(path)
    assert len(json.loads(path.read_text())["rows"]) == len(found.rows)


def test_sweeps_on_a_folder(things):
    found = reproduce_on_folder(
        things, ["S000", "S001"], methods=["sjw", "region_integration"], tables=False, **NETWORK
    )
    sweeps = {(str(one.sweep), one.sweep.dataset): one for one in found.sweeps}
    rho = sweeps["S000 Table 10: SJW, rho", "oxford5k"]
    network = stand_in(ConvFeatureExtractor("vgg16", layers="pool5"), "squeezenet1_1", "random", 64)
    pipeline = recipes.sjw(extractor=network, whitening=None)
    expected = [
        np.mean(halves_by_hand(pipeline.set_params(pooler__rho=point), things)) for point in (1, 10, 100, 500)
    ]
    np.testing.assert_allclose(rho.ours, expected, atol=1e-9)
    assert len(set(rho.ours)) > 1
    assert -1 <= rho.correlation <= 1
    expansion = sweeps["S001 Fig. 3: Ours, VGG16, qe", "oxford5k"]
    assert expansion.correlation is None
    assert expansion.sweep.points == (0, 4, 9, 19, 29, 49)
    assert expansion.ours[0] != expansion.ours[1]
    text = str(found)
    assert "S000 Table 10: SJW, rho (oxford5k in the paper)" in text
    assert "69.62" in text
    assert "best at 100 in the paper" in text


@pytest.mark.slow
def test_an_extractor_that_learns_does_so_on_one_half(things):
    """Neither half may teach the network that searches it, in methods nor in sweeps."""
    found = reproduce_on_folder(
        things, ["S000"], methods=["sjw"], tables=False, backbone="kernel", image_size=64
    )
    (rho,) = [one for one in found.sweeps if one.sweep.argument == "pooler__rho"]
    pipeline = recipes.sjw(extractor=ConvKernelExtractor(random_state=0, image_size=64), whitening=None)
    expected = [
        np.mean(halves_by_hand(pipeline.set_params(pooler__rho=rho), things)) for rho in (1, 10, 100, 500)
    ]
    np.testing.assert_allclose(rho.ours, expected, atol=1e-9)


def test_a_folder_needs_labels(tmp_path, folder):
    with pytest.raises(ValueError, match="at least four labels"):
        reproduce_on_folder(folder)
    (tmp_path / "loose").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "loose" / "one.png")
    with pytest.raises(ValueError, match="labels are needed"):
        reproduce_on_folder(tmp_path / "loose")
    with pytest.raises(ValueError, match="unknown papers"):
        reproduce_on_folder(folder, ["S7"])


def test_what_takes_the_place_of_a_papers_network():
    blocks = stand_in(recipes.ms_rmac().named_steps["extractor"], "squeezenet1_0", None, 100)
    assert blocks.layers == ConvFeatureExtractor("squeezenet1_0").block_ends()
    assert blocks.weights == "DEFAULT"
    late = stand_in(recipes.late_fusion_rmac().named_steps["extractor"], None, None, 400)
    assert (late.backbone, late.image_size) == ("resnet50", [275, 400, 525])
    same = stand_in(recipes.crow().named_steps["extractor"])
    assert (same.backbone, same.layers, same.image_size) == ("vgg16", "pool5", 1024)
    codes = stand_in(recipes.neural_codes().named_steps["extractor"], "squeezenet1_1", "random", 64)
    assert codes.backbone.args == ("squeezenet1_1",)
    assert codes.image_size == 256
    kernel = stand_in(
        recipes.gem().named_steps["extractor"], "kernel", None, 96, device="cpu", batch_size=None
    )
    assert isinstance(kernel, ConvKernelExtractor)
    assert (kernel.image_size, kernel.device) == (96, "cpu")
    assert kernel.batch_size == ConvKernelExtractor().batch_size, "None leaves a parameter as it is"
    with pytest.raises(ValueError, match="several layers"):
        stand_in(recipes.late_fusion_rmac().named_steps["extractor"], "kernel")
    with pytest.raises(ValueError, match="learns from the photographs"):
        stand_in(recipes.gem().named_steps["extractor"], "kernel", "random")


def test_whitening_is_learned_only_from_enough(things):
    photographs = load_photo_set(things)
    notes = []
    adapt = Adapter(photographs, split_in_halves(photographs), "squeezenet1_1", "random", 64, notes)
    adapt.n_learn = 100  # of 512 channels
    assert adapt("region_integration", {}).named_steps["pooler"].whiten
    assert not adapt("region_integration", {"n_levels": 1}).named_steps["pooler"].whiten
    assert not adapt("region_integration", {}, "pooler__n_levels").named_steps["pooler"].whiten
    assert "whitening" in adapt("crow", {"n_components": 50}).named_steps
    assert "whitening" not in adapt("crow", {"n_components": 51}).named_steps
    assert "whitening" not in adapt("crow", {}).named_steps
    assert notes == ["whitening that would need more than 100 photographs to learn from is left out"]
    selector = adapt("multi_resolution_pfa", {}).named_steps["selector"]
    assert selector.n_features == (512 + 256) // 4  # the paper's share of both layers
    assert adapt("crow", {"expand": 10}).named_steps["retriever"].n_expand == 2
    assert adapt("crow", {"expand": 10}, "retriever__n_expand").named_steps["retriever"].n_expand == 10
