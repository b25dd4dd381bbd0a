"""Pooling and OpenMP's ways of waiting.

    python benchmarks/threads.py [--seconds 60] [--json FILE]

Eight maps of 512 x 37 x 50: the package, which pools on one thread whatever torch was given, against torch's own
threads; median times of the clock. The environment is read when torch is loaded, so that every row has a process of
its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bench_pooling import SHAPES, fitted, make_maps

from skretrieval.pooling._engine import _batches

NAMES = ("MAC", "GeM", "R-MAC", "GSW")
POLICIES = {"default": None, "active": "ACTIVE", "passive": "PASSIVE"}


def measure(waiting, seconds):
    """Figures of one process, whose environment says how OpenMP waits."""
    maps = make_maps(8, *SHAPES[0])
    array, flat = maps.numpy(), maps.flatten()
    limited = _batches._openmp
    functions = {("one pass", "ours"): flat.sum, ("one pass", "baseline"): array.sum}
    for name in NAMES:
        pooler = fitted(name, maps.shape[1])
        functions[name, "ours"] = functions[name, "baseline"] = lambda pooler=pooler: pooler.transform(maps)
    times = {key: [] for key in functions}
    end = time.perf_counter() + seconds
    rng = np.random.default_rng(0)
    while len(times["GSW", "baseline"]) < 3 or time.perf_counter() < end:
        for place in rng.permutation(len(functions)):  # no function always after the same one
            (name, which), function = list(functions.items())[place]
            # without libraries to tell, torch keeps the threads it has
            _batches._openmp = limited if which == "ours" else list
            start = time.perf_counter()
            function()
            times[name, which].append(time.perf_counter() - start)
    n_threads = torch.get_num_threads()
    for name in ("one pass", *NAMES):
        ours, baseline = (float(np.median(times[name, which][1:])) for which in ("ours", "baseline"))
        yield {
            "table": "Pooling and OpenMP's ways of waiting",
            "row": f"{n_threads} thread{'s' * (n_threads > 1)}, {waiting} waiting",
            "column": name,
            "to": "NumPy's sum" if name == "one pass" else "torch's own threads",
            "limit": None,
            "note": "medians of the clock",
            "seconds": ours,
            "baseline_seconds": baseline,
            "ratio": ours / baseline,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for all of it")
    parser.add_argument("--json", type=Path, help="where the figures go; without, they are printed")
    parser.add_argument("--waiting", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.waiting:
        print(json.dumps(list(measure(arguments.waiting, arguments.seconds))))
        return
    rows = []
    for n_threads in (1, 2):
        for waiting, policy in POLICIES.items():
            environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
            environment["OMP_NUM_THREADS"] = str(n_threads)
            if policy:
                environment["OMP_WAIT_POLICY"] = policy
            command = [
                sys.executable,
                __file__,
                "--waiting",
                waiting,
                "--seconds",
                str(arguments.seconds / 6),
            ]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            rows += json.loads(done.stdout)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))
    else:
        for row in rows:
            times = f"{1e3 * row['seconds']:.1f} / {1e3 * row['baseline_seconds']:.1f} ms"
            print(f"{row['row']}, {row['column']}: {row['ratio']:.2f} of {row['to']} ({times})")


if __name__ == "__main__":
    main()
