"""`skretrieval evaluate`: options, results, and running a result again."""

import json
import os
import shutil

import pytest

from skretrieval import recipes
from skretrieval.cli._evaluate import make_pipeline, parse
from skretrieval.datasets import load_image_folder
from skretrieval.evaluation import evaluate
from skretrieval.extraction import ConvFeatureExtractor


def figures(path):
    return [one["metrics"]["map"]["mean"] for one in json.loads(path.read_text())["evaluations"]]


def test_a_folder_is_evaluated_and_the_result_reruns(photographs, tmp_path, network_options, run):
    out = tmp_path / "result.json"
    output = run(
        "evaluate",
        "--dataset",
        photographs,
        "--recipe",
        "mac",
        "--out",
        out,
        "--no-progress",
        *network_options,
    )
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, image_size=64, random_state=0)
    expected = evaluate(recipes.mac(extractor=extractor, whitening=None), photographs)
    assert figures(out) == [expected.metrics["map"]["mean"]]
    assert str(expected).split("\n")[-1].split()[1:] == output.split("\n")[2].split()[1:]
    again = run("evaluate", "--from", out, "--no-progress")
    assert "to the digit" in again

    content = json.loads(out.read_text())
    content["evaluations"][0]["metrics"]["map"]["mean"] += 1e-12
    content["evaluations"][0]["per_query"]["map"][0] += 1e-12
    out.write_text(json.dumps(content))
    assert "Differs from" in run("evaluate", "--from", out, "--no-progress", fails=True)
    moved = shutil.move(photographs, tmp_path / "elsewhere")
    assert "elsewhere" not in run("evaluate", "--from", out, "--no-progress", fails=True)
    assert "elsewhere" in run("evaluate", "--from", out, "--dataset", moved, "--no-progress", fails=True)


def test_recipes_are_compared_with_everything_learned_elsewhere(
    photographs, tmp_path, network_options, run, draw_photograph
):
    for number in range(8):
        draw_photograph(tmp_path / "others" / "xy"[number % 2] / f"{number}.png", 70 + number)
    out, cache = tmp_path / "result.json", tmp_path / "cache"
    options = ["--whitening-set", tmp_path / "others", "--expand", 1, "--cache", cache, "--no-progress"]
    asked = ["--recipe", "gem", "--recipe", "crow", "--n-components", 3, "--set", "retriever__alpha=2"]
    output = run("evaluate", "-d", f"folder:{photographs}", "-o", out, *asked, *options, *network_options)
    lines = output.splitlines()
    assert lines[0] == "photographs: 12 images, 12 queries"
    assert lines[1].split() == ["method", "map", "p@1", "p@5", "p@10"]
    assert [line.split()[0] for line in lines[2:4]] == ["gem", "crow"]
    assert "paired randomisation test" in output
    content = json.loads(out.read_text())
    assert [one["dimension"] for one in content["evaluations"]] == [3, 3]
    assert content["evaluations"][0]["whitening_set"]["n_images"] == 8
    assert content["p_values"]["map"][0][:2] == ["gem", "crow"]
    assert any(cache.rglob("*.pkl"))
    pipeline = make_pipeline(
        "gem",
        {"backbone": "squeezenet1_1", "weights": "random", "image_size": 64},
        {},
        whitening=None,
        learns_elsewhere=True,
        n_components=3,
        expand=1,
        params={"retriever__alpha": 2},
    )
    expected = evaluate(pipeline, photographs, whitening_set=tmp_path / "others")
    assert figures(out)[0] == expected.metrics["map"]["mean"]
    assert "to the digit" in run("evaluate", "--from", out, "--no-progress")


def test_queries_may_have_boxes_and_parameters_of_their_own(photographs, tmp_path, network_options, run):
    files = [os.path.relpath(path, photographs) for path in load_image_folder(photographs).images]
    table = photographs / "table.csv"
    rows = ["path,label,role,box", f"{files[0]},a,query,10 10 60 50"]
    table.write_text("\n".join([*rows, *(f"{name},{name[0]},gallery," for name in files[1:])]))
    boxed, whole = tmp_path / "boxed.json", tmp_path / "whole.json"
    asked = ["evaluate", "-d", table, "--no-progress", *network_options]
    run(*asked, "-r", "mac", "-o", boxed)
    run(*asked, "-r", "mac", "-o", whole, "--whole-queries")
    assert figures(boxed) != figures(whole)
    regional = ["-r", "regional_second_order", "--n-components", 4, "--set", "pooler__n_local=4"]
    assert "--fit-on gallery" in run(*asked, *regional, fails=True)
    regional += ["--fit-on", "gallery"]
    run(*asked, *regional, "-o", boxed)
    run(*asked, *regional, "-o", whole, "--query-set", "pooler__regions=whole")
    assert figures(boxed) != figures(whole)
    assert "to the digit" in run("evaluate", "--from", whole, "--no-progress")


def test_rules_of_the_figures_can_be_chosen(photographs, tmp_path, network_options, run):
    asked = ["evaluate", "-d", photographs, "-r", "mac", "--no-progress", *network_options]
    usual, other = tmp_path / "usual.json", tmp_path / "other.json"
    assert run(*asked, "-o", usual).splitlines()[1].split() == ["method", "map", "p@1", "p@5", "p@10"]
    rules = ["--kappa", 2, "--kappa", 12, "--kappa", 13, "--precision", "revisitop", "--ap", "finite"]
    output = run(*asked, *rules, "-o", other)
    assert output.splitlines()[1].split() == ["method", "map", "p@2", "p@12"], "there are 12 photographs"
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, image_size=64, random_state=0)
    params = {"kappas": [2, 12, 13], "precision": "revisitop", "method": "finite"}
    pipeline = recipes.mac(extractor=extractor, whitening=None)
    expected = evaluate(pipeline, photographs, protocol_params=params)
    written = json.loads(other.read_text())["evaluations"][0]["metrics"]
    assert written == expected.metrics
    assert figures(usual) != figures(other)
    standard = evaluate(pipeline, photographs, protocol_params={"kappas": [12]}).metrics["p@12"]
    assert written["p@12"] != standard
    assert "to the digit" in run("evaluate", "--from", other, "--no-progress")


@pytest.mark.filterwarnings("ignore:The scatter of the same-label pairs is singular")  # so few pairs
@pytest.mark.parametrize("whitening", ["learned", "pca", "auto"])
def test_whitening_is_scored_on_other_objects(whitening, tmp_path, network_options, run, draw_photograph):
    for number in range(12):
        draw_photograph(
            tmp_path / "things" / "abcd"[number % 4] / f"{number}.png", 30 + number % 4 + number // 8
        )
    out = tmp_path / "result.json"
    asked = ["evaluate", "-d", tmp_path / "things", "-r", "mac", "--no-progress", *network_options]
    output = run(*asked, "--whitening", whitening, "-o", out)
    assert "mac: whitening fitted on one half of the objects, the other half scored, both ways" in output
    (record,) = json.loads(out.read_text())["evaluations"]
    assert f"without whitening map is {record['unwhitened']['map']['mean']:.4f}" in output
    assert "to the digit" in run("evaluate", "--from", out, "--no-progress")
    plain = run(*asked, "--fit-on", "halves")
    assert f"{record['unwhitened']['map']['mean']:.4f}" in plain
    if whitening != "learned":
        flattered = run(*asked, "--whitening", whitening, "--fit-on", "gallery")
        assert "whitening fitted on the photographs that are scored: the figure flatters" in flattered


def test_files_that_cannot_be_read_are_listed(photographs, network_options, run):
    (photographs / "a" / "00.png").write_bytes(b"nothing")
    asked = ["evaluate", "-d", photographs, "-r", "mac", "--no-progress", *network_options]
    assert "00.png" in run(*asked, fails=True)
    output = run(*asked, "--on-error", "warn")
    assert "Could not be read, gallery" in output
    assert "00.png" in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give --dataset, or --from"),
        (["-d", "oxford7k"], "neither a folder nor one of"),
        (["-d", "FOLDER", "-r", "magic"], "unknown recipe 'magic'"),
        (["-d", "FOLDER", "--whitening", "soap"], "whitening must be"),
        (["-d", "FOLDER", "--ap", "area"], "--ap takes trapezoid, finite, printed; got 'area'"),
        (["-d", "FOLDER", "--precision", "loose"], "--precision takes standard, revisitop"),
        (["-d", "ukbench", "--kappa", "3"], "ukbench is scored by N-S"),
        (["--from", "FOLDER", "--kappa", "3"], "are those of the result"),
        (["--from", "FOLDER", "--fit-on", "halves"], "are those of the result"),
        (["-d", "FOLDER", "--whitening", "pca"], "--fit-on gallery"),
        (["-d", "FOLDER", "--whitening", "learned"], "--whitening-set FOLDER"),
        (["-d", "FOLDER", "--set", "pooler"], "--set takes NAME=VALUE"),
        (["-d", "FOLDER", "--set", "pooler__colour=1"], "colour"),
        (["-d", "FOLDER", "--whitening-set", "sibling"], "no sibling"),
        (["-d", "FOLDER", "--option", "upright=true"], "options"),
        (["-d", "oxford5k", "--data-home", "FOLDER"], "oxbuild_images"),
        (["--from", "FOLDER/none.json"], "No such file"),
    ],
)
def test_mistakes_are_told_in_a_line(shared_photographs, network_options, run, options, words):
    options = [str(option).replace("FOLDER", str(shared_photographs)) for option in options]
    output = run("evaluate", *options, "--no-progress", *network_options, fails=True)
    assert words in output
    assert "Traceback" not in output


def test_settings_are_json_or_text():
    assert parse(["a=1", "b=[0.5, null]", "c=whole", "d=true", "e=x=y"], "--set") == {
        "a": 1,
        "b": [0.5, None],
        "c": "whole",
        "d": True,
        "e": "x=y",
    }


NETWORK = {"backbone": None, "weights": None, "image_size": None}
OTHERS = {"whitening": None, "n_components": None, "expand": 0, "params": {}}


@pytest.mark.parametrize("name", sorted(recipes.__all__))
@pytest.mark.parametrize("elsewhere", [False, True])
def test_every_recipe_can_be_asked_for(name, elsewhere):
    pipeline = make_pipeline(name, NETWORK, {"device": "cpu"}, learns_elsewhere=elsewhere, **OTHERS)
    published = getattr(recipes, name)()
    assert pipeline.named_steps["extractor"].device == "cpu"
    if elsewhere or name == "regional_second_order":
        assert list(pipeline.named_steps) == list(published.named_steps)
    else:
        assert "whitening" not in pipeline.named_steps
        assert not getattr(pipeline.named_steps["pooler"], "whiten", False)
