"""What the command line's options say of an index, and of one that was made before there was an option."""

import pytest

from skretrieval.cli._settings import make_pipeline, resolve_settings
from skretrieval.index import ImageIndex
from skretrieval.pooling import GRMACPooler


def extractor_of(index):
    opened = ImageIndex(index)
    return opened._in_one_state(lambda _, settings: opened._encoder(settings))["extractor"]


def test_own_photographs_are_not_enlarged(photographs, run, network_options, tmp_path):
    for option, expected in ((), False), (("--enlarge",), True), (("--no-enlarge",), False):
        index = tmp_path / "-".join(("index", *option))
        run("index", photographs, "--out", index, "--no-progress", *option, *network_options)
        assert ImageIndex(index).info()["settings"]["enlarge"] is expected
        assert extractor_of(index).enlarge is expected
        assert "unchanged" in run("index", photographs, "--out", index, "--no-progress")
    output = run("index", photographs, "--out", index, "--enlarge", fails=True)
    assert "made with enlarge=False (asked for: True)" in output


def test_an_index_without_the_option_enlarges_as_before(photographs, run, tmp_path):
    settings = resolve_settings({"extractor": "squeezenet1_1", "weights": "random", "size": 64})
    del settings["enlarge"]
    pipeline = make_pipeline(settings)
    del pipeline["extractor"].__dict__["enlarge"]
    index = tmp_path / "index"
    ImageIndex.create(index, pipeline, settings=settings)
    for options in (), ("--enlarge",), ():
        run("index", photographs, "--out", index, "--no-progress", *options)
        assert extractor_of(index).enlarge is True
    assert "enlarge" not in ImageIndex(index).info()["settings"]
    output = run("index", photographs, "--out", index, "--no-enlarge", fails=True)
    assert "made with enlarge=True (asked for: False)" in output


@pytest.mark.parametrize("recipe", ["gsw", "grmac", "vlad", "region_integration", "gem"])
def test_maps_of_both_signs_are_not_cut_in_half(recipe):
    found = make_pipeline(resolve_settings({"recipe": recipe})).get_params()
    rectified = {name: value for name, value in found.items() if name.endswith("__rectify")}
    assert rectified
    assert set(rectified.values()) == {"auto"}


def test_what_a_recipe_does_not_rectify_stays():
    found = make_pipeline(resolve_settings({"recipe": "neural_codes"})).get_params()
    assert found["pooler__rectify"] is False
    assert GRMACPooler().rectify is True
