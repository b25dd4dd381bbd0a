"""Every benchmark of speed, and benchmarks/results/speed.md.

    python benchmarks/speed.py                                 # all of them: half an hour
    python benchmarks/speed.py --only pooling threads          # these anew, the tables of the others stay
    python benchmarks/speed.py --passes 3                      # of each figure the median of three runs
    python benchmarks/speed.py --only none --merge gpu.json    # also what another machine has measured
    python benchmarks/speed.py --quick                         # does everything run? Prints, writes nothing

Every ``bench_*.py`` runs in a pytest of its own, and after them the scripts that measure environments. The figures are
kept in speed.json, beside speed.md, which is made from it. A benchmark that fails is listed at the top of speed.md, and
the command then ends with status 1.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
# Scripts that start processes with environments of their own, and what makes them quick.
SCRIPTS = {
    "threads": ["--seconds", "6"],
    "network_settings": ["--seconds", "1", "--rounds", "1", "--networks", "squeezenet1_0"],
}
MODULES = ("torch", "numpy", "scipy", "scikit-learn", "faiss-cpu")


# ---------------------------------------------------------------------------------------------------------------------
# Running


def names(folder):
    """What can be run."""
    found = sorted(path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py"))
    return found + [name for name in SCRIPTS if (folder / f"{name}.py").exists()]


def run(name, folder, quick):
    """Run one file; return its figures, what failed, and what was left out and why."""
    with tempfile.TemporaryDirectory() as scratch:
        figures, report = Path(scratch, "figures.json"), Path(scratch, "report.xml")
        if name in SCRIPTS:
            command = [folder / f"{name}.py", "--json", figures, *(SCRIPTS[name] if quick else [])]
        else:
            command = ["-m", "pytest", "-q", folder / f"bench_{name}.py", f"--junitxml={report}"]
            command += [f"--benchmark-json={figures}", "--benchmark-quiet", *["--quick"] * quick]
        path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        print(f"--- {name}", flush=True)
        status = subprocess.run([sys.executable, *command], env={**os.environ, "PYTHONPATH": path}).returncode
        failed, skipped = outcomes(report.read_text()) if report.exists() else ([], [])
        if status and not failed:
            failed = [f"ended with status {status}"]
        rows = json.loads(figures.read_text() or "[]") if figures.exists() else []
        if isinstance(rows, dict):  # pytest-benchmark's
            rows = [one["extra_info"] for one in rows["benchmarks"] if "ratio" in one["extra_info"]]
        if not (rows or failed or skipped):
            failed = ["gave no figure"]
        return rows, failed, skipped


def outcomes(report):
    """Read from a JUnit report what failed and what was skipped, each as "test: message"."""
    failed, skipped = [], []
    for case in ElementTree.fromstring(report).iter("testcase"):
        for kind, found in (("failure", failed), ("error", failed), ("skipped", skipped)):
            if (one := case.find(kind)) is not None:
                message = (one.get("message") or kind).strip().splitlines()[0][:200]
                found.append(f"{case.get('name')}: {message}")
    return failed, skipped


def medians(passes):
    """Of every figure the run with the median ratio; of an even number the larger one of the two in the middle."""
    same: dict[tuple, list] = {}
    for row in (row for rows in passes for row in rows):
        same.setdefault((row["table"], row["row"], row["column"]), []).append(row)
    return [sorted(rows, key=lambda row: row["ratio"])[len(rows) // 2] for rows in same.values()]


def machine():
    """What figures depend on, in one line."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    installed = {one.name.lower(): one.version for one in metadata.distributions()}
    modules = [f"{name} {installed[name]}" for name in MODULES if name in installed]
    waiting = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("OMP_")]
    return ", ".join([f"{os.cpu_count()} cores ({cpu})", *gpu, *modules, *waiting])


def merged(old, new):
    """Parts of speed.json, those of `new` in place of the old ones, except for those all of which was skipped."""
    return old | {
        name: part for name, part in new.items() if part["rows"] or part["failed"] or name not in old
    }


# ---------------------------------------------------------------------------------------------------------------------
# Rendering


def number(x):
    """Three digits."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def verdict(ratio, limit):
    """Whether a limit is met, or by how much not."""
    excess = 100 * (ratio / limit - 1)
    if excess <= 0:
        return "met"
    return f"missed by {excess:.1f} %" if excess >= 0.1 else "missed by < 0.1 %"


def grid(head, lines):
    """Return a table in Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)]


def grouped(rows, *keys):
    """Rows of equal values of `keys`, in order of appearance."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def limits(rows):
    """Lines of the table of limits: one for each row of a table and baseline, which names the columns that miss."""
    groups = grouped([row for row in rows if row["limit"] is not None], "table", "row", "limit", "to")
    lines = []
    for (table, name, limit, to), members in groups.items():
        measured = ", ".join(f"{one['column']} {number(one['ratio'])}" for one in members)
        notes = "; ".join(dict.fromkeys(one["note"] for one in members if one["note"]))
        missed = [one for one in members if one["ratio"] > limit]
        said = ", ".join(f"**{verdict(one['ratio'], limit)}** ({one['column']})" for one in missed) or "met"
        lines.append([f"{table}: {name}", f"{number(limit)} × {to}", measured, said, notes])
    return grid(["what", "at most", "measured", "", "note"], lines) if lines else ["None on these."]


def table(rows):
    """Lines of one table: rows by columns, the ratio and both times, then the notes."""
    baselines = {column: [*grouped(members, "to")] for (column,), members in grouped(rows, "column").items()}
    shared = len(grouped(rows, "to")) == 1
    # named above where there is one, otherwise in the head of a column that has one, otherwise in the cells
    above = [column + f", × {of[0][0]}" * (not shared and len(of) == 1) for column, of in baselines.items()]
    lines = []
    for (name,), members in grouped(rows, "row").items():
        cells = dict.fromkeys(baselines, "")
        for one in members:
            unit = f" × {one['to']}" if len(baselines[one["column"]]) > 1 else ""
            times = f"{number(1e3 * one['seconds'])} / {number(1e3 * one['baseline_seconds'])}"
            cells[one["column"]] = f"{number(one['ratio'])}{unit} ({times})"
        lines.append([name, *cells.values()])
    of = rows[0]["to"] if shared else "the baseline named"
    said = [f"Ratio to {of} (milliseconds / milliseconds of {of}).", ""]
    notes = []
    for (note,), members in grouped([row for row in rows if row["note"]], "note").items():
        places = ", ".join(f"{one['row']} {one['column']}" for one in members)
        notes.append(f"* {note}" if len(members) == len(rows) else f"* {note}: {places}")
    return said + grid(["", *above], lines) + [""] * bool(notes) + notes


def render(parts):
    """Return speed.md."""
    rows = [row for part in parts.values() for row in part["rows"]]
    usual = Counter(part["machine"] for part in parts.values()).most_common(1)[0][0]
    lines = ["# Speed", "", "`python benchmarks/speed.py` on " + usual + ".", ""]
    lines += [
        "Every figure is a ratio to a named baseline, measured in turns with it in the same run; the best of all"
    ]
    lines += ["rounds of each. Where there were several passes, it is their median.", ""]
    failed = [f"* {name}: {one}" for name, part in parts.items() for one in part["failed"]]
    if failed:
        lines += ["## Failed", "", *failed, ""]
    lines += ["## Limits", "", *limits(rows), ""]
    for name, part in parts.items():
        lines += [f"## {name}", ""]
        passes = f"{part['passes']} pass" + "es" * (part["passes"] > 1)
        where = "" if part["machine"] == usual else f"On {part['machine']}. "
        lines += [f"{where}`{part['command']}`, {passes}, load {part['load']:.1f} at the start.", ""]
        for (heading,), members in grouped(part["rows"], "table").items():
            lines += [f"### {heading}", "", *table(members), ""]
        if part["skipped"]:
            lines += ["Not measured:", "", *(f"* {one}" for one in part["skipped"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def main(argv=None, folder=HERE):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=[*names(folder), "none"], metavar="NAME", help="files to run"
    )
    parser.add_argument(
        "--passes", type=int, default=1, help="runs, of which the median of each ratio is taken"
    )
    parser.add_argument("--output", type=Path, default=folder / "results" / "speed.md")
    parser.add_argument(
        "--merge", type=Path, nargs="+", default=[], help="speed.json files of other machines"
    )
    parser.add_argument("--quick", action="store_true", help="one round of each, printed only")
    arguments = parser.parse_args(argv)
    chosen = [name for name in names(folder) if arguments.only is None or name in arguments.only]
    stored = arguments.output.with_suffix(".json")
    here, load = machine(), os.getloadavg()[0]
    command = "python benchmarks/speed.py " + " ".join(sys.argv[1:] if argv is None else argv)
    runs = [{name: run(name, folder, arguments.quick) for name in chosen} for _ in range(arguments.passes)]
    new = {
        name: {
            "machine": here,
            "command": command.strip(),
            "passes": arguments.passes,
            "load": load,
            "rows": medians([one[name][0] for one in runs]),
            "failed": list(dict.fromkeys(message for one in runs for message in one[name][1])),
            "skipped": runs[0][name][2],
        }
        for name in chosen
    }
    parts = {} if arguments.quick or not stored.exists() else json.loads(stored.read_text())
    for path in arguments.merge:
        parts = merged(parts, json.loads(path.read_text()))
    parts = merged(parts, new)
    if not parts:
        parser.error("there is nothing to write")
    text = render(parts)
    if arguments.quick:
        print(text)
    else:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(parts, indent=1) + "\n")
        arguments.output.write_text(text)
    return int(any(part["failed"] for part in parts.values()))


if __name__ == "__main__":
    sys.exit(main())
