"""`skretrieval search` and `info`."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

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
    found = ImageIndex(shared_index).search(query, 20, box=(10, 5, 60, 55))
    assert [row[3] for row in rows(output)] == found.paths
    assert [row[1] for row in rows(output)] == [f"{similarity:.4f}" for similarity in found.similarities]
    assert output != run("search", shared_index, query, "--html", tmp_path / "whole.html")
    html = page.read_text(encoding="utf-8")
    assert 'class="box" style="left:12.5%;top:8.333%;width:62.5%;height:83.333%"' in html


def test_folder_names_are_not_taken_for_truth(shared_index, shared_photographs, run, tmp_path):
    page = tmp_path / "page.html"
    output = run("search", shared_index, shared_photographs / "b" / "04.png", "--top", 5, "--html", page)
    assert f"Page: {page}" in output
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") == 6
    assert html.count('class="hit"') == 5
    assert 'class="hit right"' not in html
    assert 'class="hit wrong"' not in html


def test_several_queries_as_json(shared_index, shared_photographs, run):
    queries = [shared_photographs / "b" / "04.png", shared_photographs / "c" / "05.png"]
    found = [
        json.loads(line) for line in run("search", shared_index, *queries, "--top", 2, "--json").splitlines()
    ]
    assert [one["query"] for one in found] == [str(query) for query in queries]
    assert [one["results"][0]["name"] for one in found] == ["b/04.png", "c/05.png"]
    first = found[0]["results"][0]
    assert (first["rank"], first["label"], first["width"], first["height"]) == (1, "b", 80, 60)
    assert first["similarity"] == pytest.approx(1, abs=1e-5)


def test_results_as_csv_and_as_paths(shared_index, shared_photographs, run):
    query = shared_photographs / "b" / "04.png"
    table = list(csv.DictReader(io.StringIO(run("search", shared_index, query, "--top", 3, "--csv"))))
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    paths = run("search", shared_index, query, "--top", 3, "-0").split("\0")
    assert paths == [*(row["path"] for row in table), ""]


def test_only_what_a_condition_holds_for(shared_index, shared_photographs, run):
    query = shared_photographs / "b" / "04.png"
    assert {row[2] for row in rows(run("search", shared_index, query, "--label", "a", "--label", "c"))} == {
        "a",
        "c",
    }
    upright = rows(run("search", shared_index, query, "--where", "height > 60 and label != 'a'"))
    names = {os.path.relpath(row[3], shared_photographs) for row in upright}
    assert names == {"b/01.png", "b/07.png", "c/05.png", "c/11.png"}
    assert "where one of path, label" in run(
        "search", shared_index, query, "--where", "colour = 'red'", fails=True
    )


def test_nothing_found_is_no_error_and_no_success(shared_index, shared_photographs, run):
    query = shared_photographs / "b" / "04.png"
    command = [sys.executable, "-m", "skretrieval.cli", "search", str(shared_index), str(query)]
    nothing = subprocess.run([*command, "--label", "z"], capture_output=True, text=True, timeout=120)
    assert (nothing.returncode, nothing.stderr) == (3, "")
    assert rows(run("search", shared_index, query, "--min-similarity", 0.99999))[0][3] == str(query)
    assert "Give one of" in run("search", shared_index, query, "--json", "--csv", fails=True)


@pytest.mark.parametrize(
    "box", [(0, 0, 81, 60), (-1, 0, 20, 20), (30, 0, 30, 20), (0, 40, 20, 20), (0, 0, 10, 1000)]
)
def test_a_box_outside_the_image_says_the_limit(shared_index, shared_photographs, run, box):
    output = run("search", shared_index, shared_photographs / "a" / "00.png", "--box", *box, fails=True)
    assert "80x60 pixels" in output or "smaller than 2x2 pixels" in output


def test_bad_queries_are_named(shared_index, shared_photographs, run, tmp_path):
    assert "No such file" in run("search", shared_index, tmp_path / "gone.png", fails=True)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    output = run("search", shared_index, broken, fails=True)
    assert str(broken) in output
    assert "not an image" in output


def test_info(shared_index, shared_photographs, run):
    output = run("info", shared_index, "--verify")
    for words in [
        "version 2, generation ",
        ", whole",
        str(shared_photographs),
        "12 (0 files skipped, 0 blank)",
        "Labels      3",
        "Dimension   512",
        "recipe=grmac, extractor=squeezenet1_1, weights=random, size=64",
        "@eaDir",
        "torch ",
        "the same versions are installed",
        "every file was read and is whole",
    ]:
        assert words in output
    assert json.loads(run("info", shared_index, "--json"))["n_images"] == 12


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
def test_torch_is_loaded_with_the_settings_measured_best(given):
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


def test_names_steer_no_terminal_and_show_on_every_one(tmp_path, draw_photograph, run, network_options):
    """Escapes in names are shown as such, and what an encoding lacks is escaped."""
    folder = tmp_path / "photographs"
    draw_photograph(folder / "\x1b[31mred" / "猫.png", 1)
    draw_photograph(folder / "b" / "2.png", 2)
    run("index", folder, "--out", tmp_path / "index", "--no-progress", *network_options)
    command = [sys.executable, "-m", "skretrieval.cli", "search", str(tmp_path / "index")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for options in ([], ["--csv"], ["--json"]):
        done = subprocess.run(
            [*command, str(folder / "b" / "2.png"), *options],
            capture_output=True,
            env=environment,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout
        assert b"\\u732b" in done.stdout
    missing = subprocess.run([*command, "no\x1b[31mX"], capture_output=True, env=environment, timeout=120)
    assert missing.returncode == 1
    assert b"\x1b" not in missing.stderr


def test_whitening_by_the_number_of_photographs_is_indexed(photographs, tmp_path, network_options, run):
    out = tmp_path / "index"
    asked = ["--out", out, "--whitening", "auto", "--no-progress", *network_options]
    assert "wants" not in run("index", photographs, *asked), "it never warns"
    query = sorted(photographs.rglob("*.png"))[3]
    assert query.name in run("search", out, query).splitlines()[1]


def test_an_index_of_regions_says_where(tmp_path, shared_photographs, run, network_options):
    index, query = tmp_path / "regions", shared_photographs / "b" / "04.png"
    run("index", shared_photographs, "--out", index, "--regions", *network_options)
    (found,) = rows(run("search", index, query, "--top", 1))
    assert found[-5:] == ["at", "0", "0", "80", "60"]
    (record,) = json.loads(run("search", index, query, "--top", 1, "--json"))["results"]
    assert record["box"] == [0, 0, 80, 60]
    table = list(csv.DictReader(io.StringIO(run("search", index, query, "--top", 1, "--csv"))))
    assert table[0]["box"] == "0 0 80 60"
    assert "KiB an image" in run("info", index)
    refused = run("index", shared_photographs, "--out", index, "--regions", "--recipe", "gem", fails=True)
    assert "--regions is --recipe patchify" in refused
