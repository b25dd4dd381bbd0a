"""What speed.md says of figures; none is measured here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "speed.py"
spec = importlib.util.spec_from_file_location("speed", PATH)
speed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(speed)


def row(ratio, *, table="Pooling", row="GSW", column="list", to="one pass", limit=None, note=""):
    return {
        "table": table, "row": row, "column": column, "to": to, "limit": limit, "note": note,
        "ratio": ratio, "seconds": 0.002 * ratio, "baseline_seconds": 0.002,
    }  # fmt: skip


def part(*rows, failed=(), skipped=(), machine="2 cores (here)", passes=1):
    return {
        "machine": machine, "command": "python benchmarks/speed.py", "passes": passes, "load": 0.25,
        "rows": list(rows), "failed": list(failed), "skipped": list(skipped),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (34.9, "met"),
        (35, "met"),
        (35.01, "missed by < 0.1 %"),
        (38.5, "missed by 10.0 %"),
        (105, "missed by 200.0 %"),
    ],
)
def test_verdict(ratio, said):
    assert speed.verdict(ratio, 35) == said


def test_limits_name_the_columns_that_miss():
    lines = speed.limits(
        [
            row(20.04, column="tensor", limit=35),
            row(42, limit=35, note="busy"),
            row(1, row="sum", limit=3),
            row(9, row="free"),
        ]
    )
    assert lines[2:] == [
        "| Pooling: GSW | 35 × one pass | tensor 20, list 42 | **missed by 20.0 %** (list) | busy |",
        "| Pooling: sum | 3 × one pass | list 1 | met |  |",
    ]


def test_table_of_one_baseline():
    lines = speed.table([row(20.06), row(123.4, column="tensor"), row(0.5, row="sum", note="cached")])
    assert lines == [
        "Ratio to one pass (milliseconds / milliseconds of one pass).",
        "",
        "|  | list | tensor |",
        "| --- | --- | --- |",
        "| GSW | 20.1 (40.1 / 2) | 123 (247 / 2) |",
        "| sum | 0.5 (1 / 2) |  |",
        "",
        "* cached: sum list",
    ]


def test_table_of_several_baselines_names_them():
    lines = speed.table(
        [
            row(2),
            row(3, column="tensor", to="NumPy", note="busy"),
            row(4, row="sum", to="slices", note="busy"),
        ]
    )
    assert lines[2:] == [
        "|  | list | tensor, × NumPy |",
        "| --- | --- | --- |",
        "| GSW | 2 × one pass (4 / 2) | 3 (6 / 2) |",
        "| sum | 4 × slices (8 / 2) |  |",
        "",
        "* busy: GSW tensor, sum list",
    ]
    assert speed.table([row(3, note="busy"), row(1, row="sum", note="busy")])[-1] == "* busy"


def test_median_of_passes_keeps_the_times_of_its_pass():
    passes = [[row(ratio), row(1, column="tensor")] for ratio in (5, 3, 4)]
    assert speed.medians(passes) == [row(4), row(1, column="tensor")]
    assert speed.medians(passes[:2])[0] == row(5)


def test_merging():
    old = {
        "pooling": part(row(1)),
        "search": part(row(2, table="Search")),
        "gpu": part(row(3), machine="GPU"),
    }
    new = {
        "pooling": part(row(4)),
        "search": part(failed=["boom"]),
        "gpu": part(skipped=["no GPU"]),
        "new": part(skipped=["no faiss"]),
    }
    parts = speed.merged(old, new)
    assert list(parts) == ["pooling", "search", "gpu", "new"]
    assert parts["pooling"]["rows"] == [row(4)]
    assert parts["search"]["rows"] == []  # what failed has no figures of another day
    assert parts["gpu"] is old["gpu"]
    assert parts["new"] is new["new"]


def test_page():
    parts = {
        "pooling": part(row(4, limit=3)),
        "threads": part(row(1, table="Threads"), passes=3),
        "extraction": part(
            row(2, table="On a GPU"), machine="16 cores, GPU", skipped=["test_cpu: no network"]
        ),
        "search": part(failed=["test_flat: no memory"]),
    }
    text = speed.render(parts)
    head, page = text.split("## Limits")
    assert "on 2 cores (here)." in head
    assert "## Failed\n\n* search: test_flat: no memory\n" in head
    assert "missed by 33.3 %" in page
    assert "`python benchmarks/speed.py`, 3 passes, load 0.2 at the start." in page
    assert page.count("On 16 cores, GPU. ") == 1
    assert "Not measured:\n\n* test_cpu: no network" in page
    assert [line[4:] for line in page.splitlines() if line.startswith("### ")] == [
        "Pooling",
        "Threads",
        "On a GPU",
    ]


def test_outcomes_of_a_real_run(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError('no disk')\n"
        "def test_unready(broken): pass\n"
        "def test_left_out(): pytest.skip('no GPU')\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tmp_path, f"--junitxml={report}"]
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    failed, skipped = speed.outcomes(report.read_text())
    assert failed == ["test_bad: assert 1 == 2", 'test_unready: failed on setup with "OSError: no disk"']
    assert skipped == ["test_left_out: no GPU"]


def test_command_fails_loudly_and_keeps_the_other_tables(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "speed.json").write_text(json.dumps({"pooling": part(row(4))}))
    (tmp_path / "bench_broken.py").write_text("raise RuntimeError('no such network')\n")
    (tmp_path / "bench_pooling.py").touch()
    assert speed.main(["--only", "broken"], folder=tmp_path) == 1
    text = (results / "speed.md").read_text()
    assert "## Failed\n\n* broken: " in text
    assert "| GSW | 4 (8 / 2) |" in text
    parts = json.loads((results / "speed.json").read_text())
    assert parts["pooling"] == part(row(4))
    assert parts["broken"]["failed"]
    # the next command has not forgotten
    assert speed.main(["--only", "none"], folder=tmp_path) == 1


def test_command_merges_another_machine(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"extraction": part(row(4), machine="GPU")}))
    assert speed.main(["--only", "none", "--merge", str(tmp_path / "other.json")], folder=tmp_path) == 0
    assert "on GPU." in (tmp_path / "results" / "speed.md").read_text()
