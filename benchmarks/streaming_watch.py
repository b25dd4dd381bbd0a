"""What streaming.py sees of a process that it runs, and how it tells it: memory, stages, rates."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20


@dataclass
class Watched:
    """A process that ran: when and how it ended, and samples (seconds, done, anonymous, mapped, stage)."""

    seconds: float = 0.0
    killed: bool = False
    output: str = ""
    samples: list[tuple[float, int, int, int, str]] = field(default_factory=list)

    def peak(self, stage: str | None = None) -> tuple[float, float]:
        """Largest anonymous and largest whole resident memory, MiB."""
        rows = [row for row in self.samples if stage in (None, row[4])]
        if not rows:
            return float("nan"), float("nan")
        return max(row[2] for row in rows) / MIB, max(row[2] + row[3] for row in rows) / MIB


def resident(pid: int) -> tuple[int, int]:
    """Anonymous and mapped resident memory of a process, bytes (Linux)."""
    text = Path(f"/proc/{pid}/status").read_text()
    numbers = {
        line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines() if line[:3] == "Rss"
    }
    return numbers["RssAnon"], numbers["RssFile"] + numbers["RssShmem"]


def watch(command: list[str], progress, kill=None, every: float = 0.1) -> Watched:
    """Run a command; `progress()` gives (done, stage), `kill(done, stage)` says whether to end it now."""
    result, began = Watched(), time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None:
        done, stage = progress()
        try:
            result.samples.append((time.perf_counter() - began, done, *resident(process.pid), stage))
        except (FileNotFoundError, KeyError, ProcessLookupError):  # it has just ended
            break
        if kill is not None and kill(done, stage):
            os.kill(process.pid, signal.SIGKILL)
            result.killed = True
            break
        time.sleep(every)
    result.output = process.communicate()[0]
    result.seconds = time.perf_counter() - began
    if result.killed and process.returncode == 0:  # it ended by itself before the signal came
        result.killed = False
    if process.returncode != (-signal.SIGKILL if result.killed else 0):
        raise SystemExit(f"{command} ended with {process.returncode}:\n{result.output}")
    return result


def table(head: list[str], rows: list[list]) -> list[str]:
    lines = [head, ["--:"] * len(head), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def curve(runs: list[Watched], total: int) -> list[list]:
    """Memory when each tenth was done, in the process that did it."""
    samples = [
        (number, row) for number, run in enumerate(runs, 1) for row in run.samples if row[4] != "start"
    ]
    rows = []
    for tenth in range(1, 11):
        reached = [(number, row) for number, row in samples if row[1] >= total * tenth / 10]
        if reached:
            number, (_, _, anonymous, mapped, _) = reached[0]
            rows.append(
                [f"{tenth * 10} %", number, f"{anonymous / MIB:.0f}", f"{(anonymous + mapped) / MIB:.0f}"]
            )
    return rows


def steady(runs: list[Watched], stage: str) -> tuple[float, int, int]:
    """Growth of anonymous memory, MiB, in the longest process, from its first tenth on; and from where to where."""
    samples = max(([row for row in run.samples if row[4] == stage] for run in runs), key=len)
    if not samples:  # over between two looks at it
        return 0.0, 0, 0
    settled = samples[len(samples) // 10 :]
    third = max(1, len(settled) // 3)
    growth = np.median([row[2] for row in settled[-third:]]) - np.median([row[2] for row in settled[:third]])
    return float(growth) / MIB, settled[0][1], settled[-1][1]


def rate(runs: list[Watched]) -> float:
    """Images a second between the first and the last shard of the longest process."""
    samples = max(([row for row in run.samples if row[4] == "describe"] for run in runs), key=len)
    if not samples:
        return float("nan")
    return (samples[-1][1] - samples[0][1]) / max(1e-9, samples[-1][0] - samples[0][0])


def stage_seconds(runs: list[Watched]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for run in runs:
        ends = [row[0] for row in run.samples[1:]] + [run.seconds]
        for row, end in zip(run.samples, ends, strict=True):
            seconds[row[4]] = seconds.get(row[4], 0.0) + end - row[0]
    return seconds
