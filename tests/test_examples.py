"""The examples run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command):
    # the package may be run from its sources, without having been installed
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_search_photographs(tmp_path):
    printed = run(EXAMPLES / "search_photographs.py", tmp_path / "page.html")
    assert float(printed.split("mAP ")[1].split()[0]) > 0.8
    assert "<html" in (tmp_path / "page.html").read_text()


def test_compare_poolers():
    scores = [float(line.split()[0]) for line in run(EXAMPLES / "compare_poolers.py").splitlines()]
    assert len(scores) == 15
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.6


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_has_a_test(path):
    assert path.stem in Path(__file__).read_text()
