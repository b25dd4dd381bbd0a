"""Three hundred damaged photographs; benchmarks/mutated_photographs.py reads ten thousand."""

import importlib.util
import subprocess
import sys
from pathlib import Path

PATH = Path(__file__).parents[2] / "benchmarks" / "mutated_photographs.py"
spec = importlib.util.spec_from_file_location("mutated_photographs", PATH)
mutated_photographs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutated_photographs)


def test_damaged_photographs_are_read_or_refused_by_name(tmp_path):
    out = tmp_path / "figures.md"
    options = ["--count", "300", "--seed", "1", "--workers", "1", "--out", str(out)]
    done = subprocess.run([sys.executable, str(PATH), *options], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 photographs, seed 1" in out.read_text(encoding="utf-8")


def test_the_same_seed_damages_the_same_way():
    seeds = mutated_photographs.photographs()
    assert {"JPEG", "PNG", "WEBP", "TIFF", "GIF"} <= seeds.keys()
    first = [mutated_photographs.mutated(seeds, 0, number) for number in range(20)]
    assert first == [mutated_photographs.mutated(seeds, 0, number) for number in range(20)]
    assert first != [mutated_photographs.mutated(seeds, 1, number) for number in range(20)]


def test_what_goes_wrong_is_told_apart(monkeypatch):
    data = mutated_photographs.photographs()["PNG"][0]
    assert mutated_photographs.outcome(data) == ("read", "")
    assert mutated_photographs.outcome(b"nothing") == ("refused", "")

    def fail(*_, **__):
        raise KeyError("odd")

    monkeypatch.setattr(mutated_photographs, "read_facts", fail)
    assert mutated_photographs.outcome(data) == ("unnamed", "KeyError('odd')")
