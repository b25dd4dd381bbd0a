"""What `skretrieval index` makes of its options, and without any."""

import os

import numpy as np
import pytest

from skretrieval import recipes
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.index import ImageIndex


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ([], lambda extractor: recipes.grmac(extractor=extractor, whitening="auto")),
        (["--whitening", "none"], lambda extractor: recipes.grmac(extractor=extractor, whitening=None)),
        (
            ["--recipe", "rmac", "--whitening", "pca", "--expand", "2"],
            lambda extractor: recipes.rmac(extractor=extractor, whitening="pca", expand=2),
        ),
        pytest.param(
            ["--recipe", "crow", "--whitening", "learned"],
            lambda extractor: recipes.crow(extractor=extractor, whitening="learned"),
            marks=pytest.mark.filterwarnings("ignore:The scatter of the same-label pairs is singular"),
        ),
    ],
)
def test_search_equals_the_python_pipeline(tmp_path, photographs, run, network_options, options, recipe):
    index = tmp_path / "index"
    run(
        "index",
        photographs,
        "--out",
        index,
        "--no-progress",
        "--dtype",
        "float32",
        *network_options,
        *options,
    )
    files = sorted(str(file) for file in photographs.rglob("*.png"))
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=64)
    pipeline = recipe(extractor).fit(files, [file.split(os.sep)[-2] for file in files])
    for query in (files[0], files[7]):
        found = ImageIndex(index).search(query, 12)
        distances, indices = pipeline.steps[-1][1].kneighbors(
            pipeline[:-1].transform([query]), n_neighbors=12
        )
        assert found.paths == [files[place] for place in indices[0]]
        np.testing.assert_allclose(found.distances, distances[0], rtol=1e-4, atol=2e-6)


def test_without_out_the_index_has_the_name_of_the_folder(
    tmp_path, photographs, run, network_options, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run("index", photographs, "--no-progress", *network_options)
    assert len(ImageIndex(tmp_path / "photographs.index")) == 12
    monkeypatch.chdir(photographs)
    run("index", ".", "--no-progress", *network_options)
    assert len(ImageIndex(photographs / "photographs.index")) == 12, (
        "inside, its own files are no photographs"
    )
    assert "12 unchanged" in run("index", ".", "--no-progress", *network_options)


@pytest.mark.parametrize("name", ["vgg161", "timm:nope", "hf:/nowhere/at/all"])
def test_an_unknown_network_leaves_nothing_behind(tmp_path, photographs, run, name):
    out = tmp_path / "index"
    output = run("index", photographs, "--out", out, "--extractor", name, "--no-progress", fails=True)
    assert name.partition(":")[2] in output
    assert not out.exists()


def test_an_index_that_holds_nothing_takes_other_options(tmp_path, photographs, run, network_options):
    """A network that takes squares only failed before anything was described."""
    out = tmp_path / "index"
    options = ["--weights", "random", "--size", "224", "--no-progress"]
    failed = run(
        "index", photographs, "--out", out, "--extractor", "timm:mixer_s32_224", *options, fails=True
    )
    assert "224 x 224" in failed
    assert "12 described" in run("index", photographs, "--out", out, "--no-progress", *network_options)
    refused = run("index", photographs, "--out", out, "--extractor", "vgg16", fails=True)
    assert "--rebuild" in refused


def test_one_photograph_is_an_index(tmp_path, run, draw_photograph, network_options):
    draw_photograph(tmp_path / "one" / "a.png", 1)
    run("index", tmp_path / "one", "--out", tmp_path / "index", "--no-progress", *network_options)
    assert ImageIndex(tmp_path / "index").search(tmp_path / "one" / "a.png").similarities == pytest.approx(
        [1]
    )
    draw_photograph(tmp_path / "one" / "b.png", 1)
    draw_photograph(tmp_path / "one" / "c.png", 2)
    run("index", tmp_path / "one", "--out", tmp_path / "index", "--no-progress", *network_options)
    found = ImageIndex(tmp_path / "index").search(tmp_path / "one" / "a.png")
    assert found.names[:2] == ["a.png", "b.png"]


def test_the_default_is_a_network_trained_on_imagenet(tmp_path, photographs, run):
    """With weights that came through pip."""
    output = run("index", photographs, "--out", tmp_path / "index", "--no-progress")
    assert "12 described" in output
    settings = ImageIndex(tmp_path / "index").info()["settings"]
    assert settings["extractor"] == "timm:tf_efficientnet_lite0"
    assert (settings["size"], settings["enlarge"], settings["whitening"]) == (384, False, "auto")
    assert settings["weights_licence"]
