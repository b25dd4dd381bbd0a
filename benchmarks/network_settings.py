"""What the settings of torch make of a network's forward pass on a CPU: layout, precision, batches, environment.

    python benchmarks/network_settings.py [--json FILE] [--networks vgg16 resnet50 squeezenet1_0] [--rounds 1]

Photographs of 1024 x 768, random weights. Every environment has a process of its own, since torch reads it when it is
loaded; the processes take turns. The baseline is the network as torchvision builds it: float32, planes in memory one
after another, one photograph at a time, no variable set.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchvision
from torch.fx.experimental.optimization import fuse

TABLE = "Settings of the network, on a CPU at 1024 px"
ENVIRONMENTS = {
    "": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "THP_MEM_ALLOC_ENABLE=1": {"THP_MEM_ALLOC_ENABLE": "1"},
    "both": {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
PLAIN = "as built"
OURS = "channels last (what the extractor does)"


def trunk(name):
    network = getattr(torchvision.models, name)(weights=None).eval()
    if hasattr(network, "features"):
        return network.features
    return torch.nn.Sequential(*list(network.children())[:-2])


def settings(name):
    """Name of the setting -> (network, batch, photographs in it)."""
    one = torch.rand(1, 3, 768, 1024)
    last = torch.channels_last
    network, ours = trunk(name), trunk(name).to(memory_format=last)
    ours.load_state_dict(network.state_dict())
    found = {
        PLAIN: (network, one, 1),
        OURS: (ours, one.contiguous(memory_format=last), 1),
        "channels last, 4 together": (ours, one.repeat(4, 1, 1, 1).contiguous(memory_format=last), 4),
        "channels last, bfloat16": (
            trunk(name).to(torch.bfloat16, memory_format=last),
            one.to(torch.bfloat16, memory_format=last),
            1,
        ),
    }
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()):
        folded = fuse(network).to(memory_format=last)
        found["channels last, normalisation folded in"] = (folded, one.contiguous(memory_format=last), 1)
    return found


@torch.inference_mode()
def measure(name, seconds):
    """Least seconds per photograph of every setting, in turns."""
    found = settings(name)
    times = {setting: [] for setting in found}
    end = time.perf_counter() + seconds
    while len(times[PLAIN]) < 2 or time.perf_counter() < end:
        for setting, (network, batch, n) in found.items():
            start = time.perf_counter()
            network(batch)
            times[setting].append((time.perf_counter() - start) / n)
    return {setting: min(values[1:]) for setting, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the figures go; without, they are printed")
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50", "squeezenet1_0"])
    parser.add_argument("--rounds", type=int, default=1, help="processes of each environment")
    parser.add_argument("--seconds", type=float, default=8, help="for each network in each process")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps({name: measure(name, arguments.seconds) for name in arguments.networks}))
        return
    best = {}
    for _ in range(arguments.rounds):
        for title, variables in ENVIRONMENTS.items():
            names = {name for chosen in ENVIRONMENTS.values() for name in chosen}
            environment = {key: value for key, value in os.environ.items() if key not in names}
            command = [sys.executable, __file__, "--measure", "--seconds", str(arguments.seconds)]
            command += ["--networks", *arguments.networks]
            done = subprocess.run(
                command, env=environment | variables, stdout=subprocess.PIPE, check=True, text=True
            )
            for name, found in json.loads(done.stdout).items():
                for setting, seconds in found.items():
                    key = name, setting, title
                    best[key] = min(seconds, best.get(key, seconds))
    rows = [
        {
            "table": TABLE,
            "row": ", ".join(filter(None, (name, title))),
            "column": setting,
            "to": f"the network {PLAIN}, without variables",
            "limit": None,
            "note": "",
            "seconds": seconds,
            "baseline_seconds": best[name, PLAIN, ""],
            "ratio": seconds / best[name, PLAIN, ""],
        }
        for (name, setting, title), seconds in best.items()
    ]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))
    else:
        for row in rows:
            print(f"{row['row']}, {row['column']}: {row['ratio']:.2f} ({1e3 * row['seconds']:.0f} ms)")


if __name__ == "__main__":
    main()
