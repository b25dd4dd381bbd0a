"""The papers' tables run: on small collections in the published form, and on a folder."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from skretrieval import recipes
from skretrieval.datasets import load_image_folder
from skretrieval.evaluation import (
    evaluate,
    paper_sweeps,
    paper_tables,
    reproduce,
    reproduce_on_folder,
    rerun,
    stand_in,
)
from skretrieval.evaluation._photo_set import load_photo_set
from skretrieval.evaluation.papers import _reproduce
from skretrieval.evaluation.papers._adapt import Adapter, split_in_halves
from skretrieval.evaluation.papers._reproduce import Reproduced, Reproduction
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
from skretrieval.extraction._base import BaseExtractor
from skretrieval.metrics import leave_one_out_map

NETWORK = {"backbone": "squeezenet1_1", "weights": "random", "image_size": 64}


def buildings(home, folder, images, truth, names, seed):
    """Write a collection in the form of Oxford5k: two landmarks of three photographs, and two others."""
    photographs = home / folder / images[0]
    for number, name in enumerate(names):
        path = photographs / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        base = np.random.RandomState(seed + number // 3).randint(0, 256, (6, 8, 3))
        own = np.random.RandomState(seed + 50 + number).randint(0, 256, (6, 8, 3))
        pixels = np.where(own[..., :1] % 2, base, own).astype(np.uint8)
        Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(path)
    for empty in images[1:]:
        (home / folder / empty).mkdir()
    texts = home / folder / truth
    texts.mkdir()
    for number, (own, good) in enumerate([(0, [0, 1]), (3, [3, 4])], start=1):
        prefix = "oxc1_" if folder.startswith("ox") else ""
        (texts / f"hall_{number}_query.txt").write_text(f"{prefix}{names[own]} 4.0 4.0 70.0 56.0")
        (texts / f"hall_{number}_good.txt").write_text("\n".join(names[i] for i in good))
        (texts / f"hall_{number}_ok.txt").write_text(names[own + 2])
        (texts / f"hall_{number}_junk.txt").write_text(names[6])


OXFORD = [f"hall_{number:06d}" for number in range(8)]
PARIS = [f"paris_arc_{number:06d}" for number in range(20)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Oxford5k and Paris6k, in small; no other collection."""
    home = tmp_path_factory.mktemp("home")
    buildings(home, "oxbuildings", ["oxbuild_images-v1"], "gt_files_170407", OXFORD, 0)
    buildings(home, "parisbuildings", ["paris_1-v1", "paris_2-v1"], "paris_120310", PARIS, 900)
    return home


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def full_home(home, tmp_path_factory):
    """All collections that the tables name, in small."""
    full = shutil.copytree(home, tmp_path_factory.mktemp("full") / "home")
    for folder, name, images in (("oxbuildings", "roxford5k", OXFORD), ("parisbuildings", "rparis6k", PARIS)):
        entry = {"bbx": [2.0, 2.0, 70.0, 50.0], "easy": [0, 1], "hard": [2], "junk": [3]}
        content = {"gnd": [entry], "imlist": images[:6], "qimlist": images[6:7]}
        (full / folder / f"gnd_{name}.pkl").write_bytes(pickle.dumps(content))
    for number in (100000, 100001, 100100, 100101, 100102):
        picture(full / "holidays" / "jpg1" / f"{number}.jpg", number)
    (full / "holidays" / "jpg2").mkdir()
    (full / "holidays" / "holidays-rotate.yaml").write_text('{\n"100001.jpg": 90,\n}\n')
    for number in range(8):
        picture(full / "ukbench" / "ukbench" / "full" / f"ukbench{number:05d}.jpg", number)
    for number in range(3):
        picture(full / "flickr100k" / "oxc1_100k" / "cat" / f"cat_{number:06d}.jpg", 70 + number)
    return full


@pytest.mark.filterwarnings("ignore:n_components=")  # so few photographs have few axes
def test_rows_of_every_kind_of_collection_are_run(full_home):
    found = reproduce(methods=["crow", "late_fusion_rmac"], sweeps=False, data_home=full_home, **NETWORK)
    assert not found.missing
    sizes = {}
    for evaluation in found.evaluations:
        data = evaluation.record["dataset"]
        sizes.setdefault(data["name"], set()).add((data["n_images"], data["n_queries"], data["protocol"]))
    assert sizes == {
        "oxford5k": {(8, 2, "oxford")},
        "paris6k": {(20, 2, "oxford")},
        "oxford105k": {(11, 2, "oxford")},
        "paris106k": {(23, 2, "oxford")},
        "roxford5k": {(6, 1, "revisited")},
        "rparis6k": {(6, 1, "revisited")},
        "holidays": {(5, 2, "holidays"), (3, 2, "labels")},
    }
    upright = {
        evaluation.record["dataset"]["source"]["options"].get("upright", False)
        for evaluation in found.evaluations
        if evaluation.record["dataset"]["name"] == "holidays"
    }
    assert upright == {True, False}
    again = rerun(found.evaluations[0], data_home=full_home)
    assert again.differences(found.evaluations[0]) == []
    enlarged = next(one for one in found.evaluations if one.record["dataset"]["name"] == "oxford105k")
    assert enlarged.differences(rerun(enlarged, data_home=full_home)) == []


def test_ukbench_is_asked_as_the_paper_asks(full_home):
    (row,) = [row for row in paper_tables(["S003"]) if row.dataset == "ukbench" and row.settings.get("local")]
    assert row.evaluate_params == {"options": {"queries": "first"}}
    network = stand_in(ConvFeatureExtractor("vgg16", layers="pool5"), "squeezenet1_1", "random", 64)
    pipeline = recipes.mac(extractor=network, whitening=None)
    found = evaluate(pipeline, "ukbench", data_home=full_home, **row.evaluate_params)
    assert found.record["dataset"]["n_queries"] == 2
    every = evaluate(pipeline, "ukbench", data_home=full_home)
    assert every.record["dataset"]["n_queries"] == 8
    assert 1 <= every.metrics["ns"]["mean"] <= 4


def test_what_is_there_is_run_and_the_rest_is_told(home, tmp_path):
    found = reproduce(["S000"], methods=["gsw", "rmac"], data_home=home, sweeps=False, **NETWORK)
    run = {(str(done.row), done.row.dataset): done for done in found.rows if done.ours is not None}
    assert {dataset for _, dataset in run} == {"oxford5k", "paris6k"}
    one = run["S000 Table 5: GSW", "oxford5k"]
    row = next(row for row in paper_tables(["S000"]) if str(row) == "S000 Table 5: GSW")
    network = stand_in(row.pipeline().named_steps["extractor"], "squeezenet1_1", "random", 64)
    expected = evaluate(row.pipeline(network), "oxford5k", whitening_set="paris6k", data_home=home)
    assert one.ours == expected.metrics["map"]["mean"]
    assert 0 < one.ours < 1
    assert one.standard_error == expected.metrics["map"]["standard_error"]
    assert run["S000 Table 6: GSW", "oxford5k"].ours == one.ours
    assert len(found.evaluations) < len(run), "equal Pipelines are evaluated once"

    waiting = {done.row.dataset: done.missing for done in found.rows if done.ours is None}
    assert waiting == {
        "holidays": ("holidays",),
        "roxford5k": ("roxford5k", "rparis6k"),
        "rparis6k": ("rparis6k", "roxford5k"),
    }
    assert "jpg1.tar.gz" in found.files["holidays"]
    text = str(found)
    difference = 100 * (one.ours - 0.7290)
    assert f"{100 * one.ours:.2f} ± {100 * one.standard_error:.2f}" in text
    assert f"{difference:+.2f}" in text
    assert re.search(r"\n  holidays +\d+ figures\n", text)
    assert "Data set holidays is not complete in" in text
    path = tmp_path / "all.json"
    found.to_json(path)
    written = json.loads(path.read_text())
    assert len(written["rows"]) == len(found.rows)
    assert written["evaluations"][0]["dataset"]["name"] == "oxford5k"


def test_swept_parameters_are_run_as_rows(home):
    found = reproduce(["S000"], methods=["sjw"], tables=False, data_home=home, **NETWORK)
    sweeps = {"S000 Table 9": 10, "S000 Table 10": 4}
    rows = [f"{done.row.paper} {done.row.table}" for done in found.rows]
    assert {name: rows.count(name) for name in sweeps} == sweeps
    by_rho = [done.ours for done in found.rows if done.row.table == "Table 10"]
    assert all(0 < value <= 1 for value in by_rho)
    assert found.rows[-1].row.method == "SJW, rho = 500"


@pytest.mark.filterwarnings("ignore:n_(local|components)=")  # so few photographs have few axes
def test_a_sweep_is_what_evaluation_gives_at_each_point(home):
    """Also where queries have parameters of their own, and where the pooler learns."""
    found = reproduce(
        ["S000", "S004"], methods=["sjw", "regional_second_order"], tables=False, data_home=home, **NETWORK
    )
    run = [done for done in found.rows if done.ours is not None]
    assert {done.row.table for done in run if done.row.paper == "S004"} == {"Table 1"}
    evaluations = {one.name: one for one in found.evaluations}
    for paper, argument, point in (("S000", "pooler__rho", 500), ("S004", "pooler__n_components", 128)):
        (sweep,) = [one for one in paper_sweeps([paper]) if one.argument == argument]
        (done,) = [one for one in run if one.row.method == f"{sweep.method}, {sweep.parameter} = {point}"]
        network = stand_in(sweep.pipeline().named_steps["extractor"], "squeezenet1_1", "random", 64)
        pipeline = sweep.pipeline(network).set_params(**{argument: point})
        expected = evaluate(pipeline, sweep.dataset, data_home=home, **sweep.settings["evaluate"])
        ours = evaluations[str(done.row)]
        assert expected.differences(ours) == []
        assert done.ours == expected.metrics["map"]["mean"]
        assert done.standard_error == expected.metrics["map"]["standard_error"]
        ignored = ("name", "seconds", "failed")
        both = [
            {key: one.record[key] for key in one.record if key not in ignored} for one in (ours, expected)
        ]
        assert both[0] == both[1]
    one = evaluations["S000 Table 10: SJW, rho = 500"]
    assert one.differences(rerun(one, data_home=home)) == []


def test_each_photograph_goes_through_the_network_once(home, monkeypatch):
    """Oxford5k has eight photographs and two queries in small, Paris6k twenty and two."""
    counted = []
    forward = BaseExtractor._forward

    def counting(self, per_size):
        counted.extend(array for arrays in per_size for array in arrays)
        return forward(self, per_size)

    monkeypatch.setattr(BaseExtractor, "_forward", counting)
    methods = ["sjw", "gsw", "rmac"]
    found = reproduce(["S000"], methods=methods, data_home=home, **NETWORK)
    assert sum(done.ours is not None for done in found.rows) > 10
    assert len(counted) == 32
    assert all(one.pipeline is None for one in found.evaluations), (
        "galleries of all rows would fill the memory"
    )


def test_descriptors_are_dropped_after_the_last_row_to_need_them(home, monkeypatch):
    kept = {}

    def spy(pipeline, dataset, *, workspace, **kwargs):
        found = evaluate(pipeline, dataset, workspace=workspace, **kwargs)
        settings = repr(pipeline.named_steps["extractor"]) + repr(pipeline.named_steps["pooler"])
        kept.setdefault(settings, []).append((len(workspace._encoders), len(workspace._described)))
        return found

    monkeypatch.setattr(_reproduce, "evaluate", spy)
    methods = ["sjw", "gsw", "rmac"]
    found = reproduce(["S000"], methods=methods, sweeps=False, data_home=home, **NETWORK)
    assert len(kept) >= 3
    assert any(len(counts) > 1 for counts in kept.values()), "shared while they are needed"
    for counts in kept.values():
        assert max(counts) <= (2, 4), "two collections learned from, a gallery and queries of each"
    waiting = [done.row for done in found.rows]
    assert waiting == [row for row in paper_tables(["S000"]) if row.recipe in methods], (
        "in the order of print"
    )


def test_missing_collections_are_told_apart(full_home, tmp_path):
    home = shutil.copytree(full_home, tmp_path / "home")
    shutil.rmtree(home / "flickr100k")
    broken = home / "holidays" / "holidays-rotate.yaml"
    broken.write_text("no such thing {")
    (home / "oxbuildings" / "gt_files_170407" / "hall_1_good.txt").write_text("hall_999999")
    found = reproduce(["S000", "S001", "S002"], methods=["crow"], sweeps=False, data_home=home, **NETWORK)
    waiting = {done.row.dataset: done.missing for done in found.rows if done.ours is None and done.row.recipe}
    assert waiting["paris106k"] == ("flickr100k", "oxford5k")
    assert waiting["oxford5k"] == ("oxford5k",)
    assert "oxc1_100k" in found.files["flickr100k"]
    assert "hall_999999" in found.files["oxford5k"]
    assert "--dataset oxford105k" not in str(found)


def test_a_reproduction_without_figures_is_valid_json(full_home, tmp_path):
    """No query of this collection has a positive: there is nothing to compare."""
    home = shutil.copytree(full_home, tmp_path / "home")
    for text in (home / "oxbuildings" / "gt_files_170407").glob("*_*[dk].txt"):
        if "good" in text.name or "ok" in text.name:
            text.write_text("")
    path = tmp_path / "out.json"
    found = reproduce(["S000"], methods=["sjw"], data_home=home, **NETWORK)
    (waiting,) = {done.missing for done in found.rows if done.row.dataset == "oxford5k"}
    assert waiting == ("positives of a query of oxford5k",)
    found.to_json(path)
    written = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert any(row["ours"] is None for row in written["rows"])
    figures = Reproduction([Reproduced(found.rows[0].row, float("nan"), float("nan"))])
    assert json.loads(figures.to_json(), parse_constant=pytest.fail)["rows"][0]["ours"] is None


def test_nothing_at_hand_fails_nothing(tmp_path):
    found = reproduce(data_home=tmp_path / "none", weights=tmp_path)
    assert all(done.ours is None for done in found.rows)
    assert len(found.rows) == len(paper_tables()) + sum(bool(p) for s in paper_sweeps() for p in s.printed)
    text = str(found)
    assert f"0 of {len(found.rows)} figures were run" in text
    assert "vgg16.pth" in text
    assert re.search(r"\n  oxford5k +\d+ figures\n", text)
    assert "no counterpart" in text


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
