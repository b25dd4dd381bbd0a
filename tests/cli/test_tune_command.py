"""`skretrieval tune`, and what `index` makes of it."""

from functools import partial
from pathlib import Path

import pytest
from fixtures.flat_photographs import photographs as flat_photographs
from PIL import Image

from skretrieval import evaluation
from skretrieval.evaluation._tuning_grid import LAYERS
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.index import ImageIndex

ROOT = Path(evaluation.__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    """Twelve sheets, photographed twice each."""
    images, labels = flat_photographs(12, 2)
    for place, (image, label) in enumerate(zip(images, labels)):
        path = tmp_path / "photographs" / f"sheet {label:02d}" / f"{place % 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photographs"


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The same network without trained weights, at two small sizes."""
    extractor = ConvFeatureExtractor("timm:tf_efficientnet_lite0", weights=None, random_state=0)
    small = partial(evaluation.tune, extractor=extractor, layers=LAYERS, image_sizes=(48, 64))
    monkeypatch.setattr(evaluation, "tune", small)


def write_pairs(path, pairs):
    path.write_text("first,second\n\n" + "".join(f"{first},{second}\n" for first, second in pairs))
    return path


def test_tune_prints_the_table_and_says_why(folder, run):
    pytest.importorskip("cv2")
    output = run("tune", folder, "--labels", "--top", 3)
    lines = output.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("evidence"))
    assert lines[head].split() == ["evidence", "mAP", "setting"]
    scores = [float(line.split()[0]) for line in lines[head + 1 : head + 4]]
    assert scores == sorted(scores, reverse=True)
    assert output.count("(default)") == output.count("(chosen)") == 1
    assert "pairs of 12 objects" in output
    assert lines[-1].startswith("Chosen: ")
    assert "the default" in lines[-1]


def test_index_takes_the_encoder_that_tune_wrote(folder, run, tmp_path):
    encoder, pairs = tmp_path / "encoder.skops", tmp_path / "pairs.csv"
    absolute = [(folder / f"sheet {i:02d}" / "0.png", f"sheet {i:02d}/1.png") for i in range(12)]
    output = run("tune", folder, "--pairs", write_pairs(pairs, absolute), "--no-verify", "--out", encoder)
    assert "12 pairs of 12 objects" in output
    assert f"Encoder: {encoder}" in output
    index = tmp_path / "index"
    run("index", folder, "--out", index, "--encoder", encoder, "--no-progress")
    query = folder / "sheet 03" / "1.png"
    found = ImageIndex(index).search(query, 2)
    assert found.paths[0] == str(query)
    assert found.similarities[0] == pytest.approx(1, abs=1e-4)
    # Brought up to date with the encoder or without a word, but not with another one.
    assert "24 unchanged" in run("index", folder, "--out", index, "--encoder", encoder, "--no-progress")
    assert "24 unchanged" in run("index", folder, "--out", index, "--no-progress")
    assert "made with" in run("index", folder, "--out", index, "--recipe", "gem", fails=True)


def test_recipe_auto_tunes_first_and_only_once(folder, run, tmp_path):
    index = tmp_path / "index"
    first = run("index", folder, "--out", index, "--recipe", "auto", "--no-progress")
    assert "Chosen: " in first
    settings = ImageIndex(index).info()["settings"]
    assert settings["recipe"] == "auto"
    assert settings["chosen"] in first
    again = run("index", folder, "--out", index, "--recipe", "auto", "--no-progress")
    assert "Chosen: " not in again
    assert "24 unchanged" in again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "auto", "--size", 64], "--recipe auto decides all of the encoder: leave out --size."),
        (
            ["--encoder", "{file}", "--recipe", "auto"],
            "--encoder decides all of the encoder: leave out --recipe.",
        ),
        (["--encoder", "{file}", "--whitening", "pca"], "leave out --whitening."),
        (["--encoder", "{missing}"], "No such file: "),
        (["--encoder", "{junk}"], "junk.skops is damaged"),
    ],
)
def test_what_an_encoder_does_not_go_with(folder, run, tmp_path, options, message):
    from skretrieval import recipes
    from skretrieval.index import save_encoder

    places = {name: tmp_path / f"{name}.skops" for name in ("file", "missing", "junk")}
    save_encoder(recipes.gem(whitening=None), places["file"])
    places["junk"].write_bytes(b"junk")
    given = [str(option).format(**places) for option in options]
    assert message in run("index", folder, "--out", tmp_path / "index", *given, fails=True)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sheet 00/0.png", "1 values; two paths are needed."),
        ("sheet 00/0.png,sheet 00/7.png", "'sheet 00/7.png' is no photograph of"),
        ("sheet 00/0.png,sheet 00/0.png", "both are the same photograph, 'sheet 00/0.png'."),
        ("a,b,c", "3 values; two paths are needed."),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(folder, run, tmp_path, line, message):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(f"sheet 01/0.png,sheet 01/1.png\n{line}\n")
    output = run("tune", folder, "--pairs", pairs, fails=True)
    assert f"{pairs}, line 2: " in output
    assert message in output


def test_a_table_without_pairs_is_an_error(folder, run, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.csv", [])
    assert f"{pairs} has no pairs." in run("tune", folder, "--pairs", pairs, fails=True)
    assert "No such file: " in run("tune", folder, "--pairs", tmp_path / "none.csv", fails=True)


def test_a_folder_without_photographs_is_an_error(run, tmp_path):
    assert "--no-verify needs --pairs" in run("tune", tmp_path, "--no-verify", fails=True)
    assert "has no photographs." in run("tune", tmp_path, fails=True)
    assert "No such folder: " in run("tune", tmp_path / "none", fails=True)


def test_no_command_and_no_index_unpickles():
    for package in ("cli", "index"):
        for path in (ROOT / package).glob("*.py"):
            if path.name != "_upgrade.py":
                text = path.read_text(encoding="utf-8")
                assert "import pickle" not in text
                assert "joblib.load" not in text
