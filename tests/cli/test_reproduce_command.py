"""`skretrieval reproduce`: what can be run is run, the rest is told."""

import json

import pytest


@pytest.fixture
def things(tmp_path, draw_photograph):
    for number in range(24):
        draw_photograph(
            tmp_path / "things" / f"label{number % 8}" / f"{number}.png", number % 8 * 3 + number // 8 % 2
        )
    return tmp_path / "things"


def test_without_data_everything_is_missing(tmp_path, run):
    output = run(
        "reproduce", "--paper", "S004", "--data-home", tmp_path, "--weights", tmp_path, "--no-progress"
    )
    assert "0 of" in output
    assert "vgg19.pth" in output
    assert "holidays" in output


def test_a_folder_stands_in(things, tmp_path, run, network_options):
    out = tmp_path / "out.json"
    options = ["--folder", things, "--recipe", "sjw", "--recipe", "crow", "--paper", "S000", "--out", out]
    output = run("reproduce", *options, *network_options)
    assert "things: 24 photographs, squeezenet1_1, longest side 64" in output
    assert "S000 CroW (512)" in output
    assert "S000 Table 10: SJW, rho" in output
    assert "rank correlation" in output
    content = json.loads(out.read_text())
    assert {row["recipe"] for row in content["rows"]} == {"sjw", "crow"}
    assert len(content["sweeps"]) == 2
    only = run("reproduce", *options[:-2], "--no-sweeps", "--no-progress", *network_options)
    assert "Table 10" not in only
    rest = run("reproduce", *options[:-2], "--no-tables", "--no-progress", *network_options)
    assert "S000 CroW" not in rest
    assert "Table 10" in rest


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--paper", "S9"], "unknown papers"),
        (["--recipe", "magic"], "unknown recipes"),
        (["--folder", "nowhere"], "neither a folder nor"),
    ],
)
def test_mistakes_are_told_in_a_line(run, options, words):
    output = run("reproduce", *options, "--no-progress", fails=True)
    assert words in output
    assert "Traceback" not in output
