"""`skretrieval search` and `info`."""

import os
import subprocess
import sys

import pytest

from skretrieval.extraction import ImageCrop
from skretrieval.index import ImageIndex


def rows(output):
    """The ranked table: (rank, score, label, file)."""
    return [line.split() for line in output.splitlines() if line.strip()[:1].isdigit()]


def test_search_prints_the_ranking(shared_index, shared_photographs, run):
    query = shared_photographs / "b" / "04.png"
    table = rows(run("search", shared_index, query))
    assert [int(row[0]) for row in table] == list(range(1, 13))
    assert table[0][1:] == ["1.0000", "b", str(query)]
    scores = [float(row[1]) for row in table]
    assert scores == sorted(scores, reverse=True)
    assert len(rows(run("search", shared_index, query, "--top", 3))) == 3


def test_search_in_a_new_process_prints_the_same(shared_index, shared_photographs, run):
    query = str(shared_photographs / "c" / "05.png")
    command = [sys.executable, "-m", "skretrieval.cli", "search", str(shared_index), query]
    fresh = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert fresh.stdout == run("search", shared_index, query)


def test_box_is_an_image_crop(shared_index, shared_photographs, run, tmp_path):
    query, page = shared_photographs / "b" / "04.png", tmp_path / "page.html"
    output = run("search", shared_index, query, "--box", 10, 5, 60, 55, "--html", page)
    loaded = ImageIndex(shared_index)
    distances, indices = loaded.search([ImageCrop(query, (10, 5, 60, 55))], 20)
    assert [row[3] for row in rows(output)] == [loaded.files[position] for position in indices[0]]
    assert [row[1] for row in rows(output)] == [f"{1 - distance:.4f}" for distance in distances[0]]
    assert output != run("search", shared_index, query, "--html", tmp_path / "whole.html")
    html = page.read_text(encoding="utf-8")
    assert 'class="box" style="left:12.5%;top:8.333%;width:62.5%;height:83.333%"' in html


def test_page_shows_the_results_with_verdicts(shared_index, shared_photographs, run, tmp_path):
    page = tmp_path / "page.html"
    output = run("search", shared_index, shared_photographs / "b" / "04.png", "--top", 5, "--html", page)
    assert f"Page: {page}" in output
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") == 6
    n_right = sum(row[2] == "b" for row in rows(output))
    assert html.count('class="hit right"') == n_right
    assert html.count('class="hit wrong"') == 5 - n_right
    assert "squeezenet1_1" in html


def test_a_photograph_from_elsewhere_has_no_verdicts(shared_index, run, draw_photograph, tmp_path):
    query, page = draw_photograph(tmp_path / "query.png", 4), tmp_path / "page.html"
    run("search", shared_index, query, "--html", page)
    html = page.read_text(encoding="utf-8")
    assert html.count('class="hit"') == 12


@pytest.mark.parametrize(
    "box", [(0, 0, 81, 60), (-1, 0, 20, 20), (30, 0, 30, 20), (0, 40, 20, 20), (0, 0, 10, 1000)]
)
def test_a_box_outside_the_image_says_the_limit(shared_index, shared_photographs, run, box):
    output = run("search", shared_index, shared_photographs / "a" / "00.png", "--box", *box, fails=True)
    assert "80x60 pixels" in output


def test_bad_queries_are_named(shared_index, shared_photographs, run, tmp_path):
    assert "no such file" in run("search", shared_index, tmp_path / "gone.png", fails=True)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    output = run("search", shared_index, broken, fails=True)
    assert str(broken) in output
    assert "not an image" in output


def test_info(shared_index, shared_photographs, run):
    output = run("info", shared_index)
    for words in [
        "version 1, generation 1, whole",
        str(shared_photographs),
        "12 (0 files skipped)",
        "Labels      3",
        "Dimension   512",
        "recipe=grmac, extractor=squeezenet1_1, weights=random, size=64",
        "torch ",
        "the same versions are installed",
        "can run code",
    ]:
        assert words in output


def test_traceback_on_demand(tmp_path, run):
    assert "Traceback" not in run("info", tmp_path, fails=True)
    with pytest.raises(FileNotFoundError, match="holds no index"):
        run("--traceback", "info", tmp_path, fails=True)


def test_help_and_version_answer_without_torch(run):
    assert "skretrieval 0." in run("--version")
    for command in ("demo", "index", "search", "info"):
        assert command in run("--help")
        run(command, "--help")
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from skretrieval.cli import app\n"
        "assert CliRunner().invoke(app, ['index', '--help']).exit_code == 0\n"
        "assert not {'torch', 'sklearn', 'PIL'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("given", ["", "ACTIVE"])
def test_torch_is_loaded_with_the_settings_that_were_measured_to_be_best(given):
    """And with the user's own where there are any."""
    code = (
        "import os, sys\n"
        "from skretrieval.cli import main\n"
        "sys.argv = ['skretrieval', '--version']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['THP_MEM_ALLOC_ENABLE'])\n"
    )
    names = ("OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == f"{given or 'PASSIVE'} 1"
