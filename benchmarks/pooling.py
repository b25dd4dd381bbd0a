"""Poolers in passes over the data, against plain slices and plain NumPy, as tables in Markdown.

    python benchmarks/pooling.py [--seconds 20] [--output benchmarks/results/pooling.md]

A pass is the time of ``torch.sum`` over the flat float32 batch: of reading it once. Every figure is a ratio to the
pass measured in the same rounds; both are the least of all rounds, in time of the processor, so that what other work
on the machine takes does not count (how it slows caches and memory down does, for both). Figures of a pooler:

* describe: ``_describe`` alone, on batches that are checked and stacked;
* tensor: ``transform`` of one 4-D tensor, the check for NaN, infinity and signs included;
* list: ``transform`` of a list of NumPy arrays, which are checked, sorted by shape and stacked as well;
* channels last: "tensor" in the memory format that networks on a CPU are run in.

The last table is in milliseconds of the clock: what two threads do with OpenMP's ways of waiting, as the package
uses them (one thread for pooling, whatever torch was given) and as torch would by itself.
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

from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    PoolerFusion,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    regions,
)
from skretrieval.pooling._batches import iter_batches

SHAPES = [(512, 37, 50), (512, 24, 32), (2048, 24, 32)]
RAGGED = [(512, 37, 50), (512, 24, 32), (512, 32, 24), (512, 28, 37)]
#: name -> pooler, and the passes it may take for eight maps of 512 x 37 x 50
POOLERS = {
    "sum": (SumPooler(), 3),
    "MAC": (MACPooler(), 3),
    "GeM": (GeMPooler(), 6),
    "SPoC": (SPoCPooler(), 6),
    "CroW": (CroWPooler(), 10),
    "adaptive Gaussian": (AdaptiveGaussianPooler(), 10),
    "R-MAC": (RMACPooler(), 20),
    "GR-MAC": (GRMACPooler(), 20),
    "square-sum R-MAC": (SquareSumRMACPooler(), 20),
    "region integration": (RegionIntegrationPooler(), 20),
    "SJW": (SJWPooler(), 25),
    "GSW": (PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4]), 35),
}
FORMS = ("describe", "tensor", "list", "channels last")
POLICIES = {"default": None, "active": "ACTIVE", "passive": "PASSIVE"}


def make_maps(n, n_channels, height, width, seed=0):
    """Rectified noise, about a third of it positive."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, n_channels, height, width, generator=generator) - 0.4).clamp_(min=0)


# ---------------------------------------------------------------------------------------------------------------------
# What one would write without the package


def numpy_sum(maps):
    return maps.sum(axis=(2, 3))


def numpy_mac(maps):
    return maps.max(axis=(2, 3))


def numpy_gem(maps):
    return np.cbrt((maps**3).mean(axis=(2, 3)))


def numpy_crow(maps):
    response = maps.sum(axis=1)
    spatial = np.sqrt(response / np.sqrt((response**2).sum(axis=(1, 2), keepdims=True)))
    filled = (maps > 0).mean(axis=(2, 3))
    channel = np.log(filled.sum(axis=1, keepdims=True) / (1e-6 + filled))
    return channel * (maps * spatial[:, None]).sum(axis=(2, 3))


def slices(maps):
    """The regions of R-MAC, one after another."""
    for row, col, high, wide in regions.rmac(*maps.shape[2:]).tolist():
        yield maps[:, :, row : row + high, col : col + wide]


def slices_rmac(maps):
    return sum(torch.nn.functional.normalize(cells.amax(dim=(2, 3))) for cells in slices(maps))


def slices_grmac(maps):
    return sum(cells.mean(dim=(2, 3)).pow(1 / 3) for cells in slices(maps.pow(3)))


def baselines(maps):
    """Name of the pooler -> (what it is compared with, function)."""
    array = maps.numpy()
    return {
        "sum": ("NumPy", lambda: numpy_sum(array)),
        "MAC": ("NumPy", lambda: numpy_mac(array)),
        "GeM": ("NumPy", lambda: numpy_gem(array)),
        "CroW": ("NumPy", lambda: numpy_crow(array)),
        "R-MAC": ("slices", lambda: slices_rmac(maps)),
        "GR-MAC": ("slices", lambda: slices_grmac(maps)),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def best_times(functions, seconds, clock=time.thread_time):
    """Shortest time of each function; rounds until the time is spent, at least five."""
    times = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < 5 or time.perf_counter() < end:
        for name, function in functions.items():
            start = clock()
            function()
            times[name].append(clock() - start)
    return {name: min(values) for name, values in times.items()}


def describe(pooler, batches):
    """What ``transform`` does between the check and the result."""

    def run():
        with torch.inference_mode():
            return [pooler._describe((batch,)) for batch in batches]

    return run


def checked(maps):
    """Checked batches as a pooler gets them."""
    try:
        from skretrieval.pooling._batches import BLOCK_BYTES
    except ImportError:  # of versions that pooled whole batches, to compare with
        return [batch for (batch,) in iter_batches(maps, None)]
    return [batch for (batch,) in iter_batches(maps, None, block_bytes=BLOCK_BYTES)]


def measure(maps, seconds, forms=FORMS[:3]):
    """Times of all poolers, and of one pass, for a 4-D tensor or a list of maps."""
    flat = [maps.flatten()] if isinstance(maps, torch.Tensor) else [one.flatten() for one in maps]
    arrays = [one.numpy() for one in maps]
    last = maps.contiguous(memory_format=torch.channels_last) if "channels last" in forms else None
    functions = {"pass": lambda: [one.sum() for one in flat]}
    with torch.inference_mode():
        batches = checked(list(maps)) if "describe" in forms else []
    for name, (pooler, _) in POOLERS.items():
        pooler.fit(arrays[:2] if len(arrays) > 1 else [arrays[0], arrays[0][:, ::-1]])
        options = {
            "describe": describe(pooler, batches),
            "tensor": lambda pooler=pooler: pooler.transform(maps),
            "list": lambda pooler=pooler: pooler.transform(arrays),
            "channels last": lambda pooler=pooler: pooler.transform(last),
        }
        functions.update({(name, form): options[form] for form in forms})
    if "tensor" in forms:
        for name, (kind, function) in baselines(maps).items():
            functions[name, kind] = function
            np.testing.assert_allclose(POOLERS[name][0].transform(maps), function(), rtol=2e-3)
    return best_times(functions, seconds)


def table(times, limits=False):
    """Rows of Markdown."""
    forms = [form for form in FORMS if any(form == key[1] for key in times)]
    plain = {key[0]: key[1] for key in times if key[1] in ("NumPy", "slices")}
    head = [*(["at most"] if limits else []), *forms, *(["without the package"] if plain else [])]
    lines = ["| pooler | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for name, (_, limit) in POOLERS.items():
        row = [str(limit)] if limits else []
        row += [f"{times[name, form] / times['pass']:.1f}" for form in forms]
        if plain:
            kind = plain.get(name)
            row.append(f"{times[name, kind] / times['pass']:.1f} ({kind})" if kind else "")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return lines


def measure_threads(seconds):
    """Run in a process of its own, whose environment says how OpenMP waits: median time of the clock, ms."""
    from skretrieval.pooling import _threads

    maps = make_maps(8, *SHAPES[0])
    found = {"threads": torch.get_num_threads()}
    limited = _threads._openmp
    for way, openmp in {"package": limited, "torch": list}.items():
        _threads._openmp = openmp  # without libraries to tell, torch keeps the threads it has
        functions = {"pass": maps.flatten().sum}
        for name in ("MAC", "GeM", "R-MAC", "GSW"):
            pooler = POOLERS[name][0].fit(maps[:2])
            functions[name] = lambda pooler=pooler: pooler.transform(maps)
        times = {name: [] for name in functions}
        end = time.perf_counter() + seconds / 2
        while not times["GSW"] or time.perf_counter() < end:
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
        found[way] = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    print(json.dumps(found))


def threads_table(seconds):
    """One process for each number of threads and way of waiting."""
    names = ("MAC", "GeM", "R-MAC", "GSW")
    head = ["threads", "waiting", "pass", *(title for name in names for title in (name, "torch alone"))]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for n_threads in (1, 2):
        for word, policy in POLICIES.items():
            environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
            environment["OMP_NUM_THREADS"] = str(n_threads)
            if policy:
                environment["OMP_WAIT_POLICY"] = policy
            command = [sys.executable, __file__, "--threads-only", "--seconds", str(seconds)]
            answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            found = json.loads(answer.stdout)
            row = [f"{found['package']['pass']:.1f}"]
            for name in names:
                row += [f"{found[way][name]:.0f}" for way in ("package", "torch")]
            lines.append(f"| {found['threads']} | {word} | " + " | ".join(row) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="for each table")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["shapes", "ragged", "threads"], nargs="+")
    arguments = parser.parse_args()
    if arguments.threads_only:
        measure_threads(arguments.seconds)
        return
    parts = arguments.only or ["shapes", "ragged", "threads"]
    lines = ["# Pooling", "", "`python benchmarks/pooling.py`", "", *__doc__.splitlines()[4:], ""]
    lines += [
        f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start.",
        "",
    ]
    torch.set_num_threads(1)
    if "shapes" in parts:
        for shape in SHAPES:
            for n in (8, 1):
                first = n == 8 and shape == SHAPES[0]
                times = measure(make_maps(n, *shape), arguments.seconds, FORMS if first else FORMS[:3])
                size = " x ".join(map(str, shape))
                lines += [f"## {n} of {size}: a pass is {1e3 * times['pass']:.2f} ms", ""]
                lines += [*table(times, limits=first), ""]
    if "ragged" in parts:
        ragged = [make_maps(1, *shape, seed=seed)[0] for seed, shape in enumerate(RAGGED * 3)]
        times = measure(ragged, arguments.seconds, ["describe", "list"])
        sizes = ", ".join(f"{h} x {w}" for _, h, w in RAGGED)
        lines += [
            f"## Ragged list, 12 maps of 512 channels, {sizes}: a pass is {1e3 * times['pass']:.2f} ms",
            "",
        ]
        lines += [*table(times), ""]
    if "threads" in parts:
        lines += ["## Threads: 8 of 512 x 37 x 50, median time of the clock, ms", ""]
        lines += [*threads_table(arguments.seconds), ""]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
