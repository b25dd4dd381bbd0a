"""`skretrieval index` without options."""

import pytest

from skretrieval.index import ImageIndex


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
