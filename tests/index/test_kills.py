"""Writers that are killed at random moments; the benchmark does it 200 times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_writers_leave_whole_indexes(tmp_path):
    command = [sys.executable, str(SCRIPT), "--kills", "8", "--photographs", "16", "--readers", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "kills.md")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert sum(found["kills"].values()) == 8
    assert found["searches"] > 0
