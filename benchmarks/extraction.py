"""How much of the time from photographs to descriptors the network's forward pass takes.

    python benchmarks/extraction.py [--size 1024] [--out benchmarks/results/extraction.md]

Photographs of a camera's size (JPEG, 3072 x 2304, made from one of scikit-image's) are decoded, resized, sent through
networks with random weights, and pooled by GR-MAC. `share` is the time of the bare network on the same batches, decoded
before, divided by the time of the whole chain: both run in turn, and the best of the rounds counts. `decode` and
`pooling` are timed by themselves, one thread and no overlap. On a GPU a matrix product of the same type gives the
ceiling.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from skretrieval.datasets import load_sample_photographs
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import GRMACPooler

NETWORKS = {"vgg16": 2, "resnet50": 6, "squeezenet1_0": 24}  # with how many photographs on a CPU


def photographs(folder: Path, n: int) -> list[str]:
    """Write n different large JPEGs."""
    source = np.asarray(Image.open(load_sample_photographs().images[0]).convert("RGB").resize((3072, 2304)))
    paths = []
    for index in range(n):
        path = folder / f"{index:03d}.jpg"
        Image.fromarray(np.roll(source, 37 * index, axis=1)).save(path, quality=90)
        paths.append(str(path))
    return paths


def seconds(function, device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ceiling(dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product."""
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    best = min(seconds(lambda: a @ a, "cuda") for _ in range(5))
    return 2 * 8192**3 / best


def measure(name: str, paths: list[str], size: int, device: str, dtype: str, rounds: int) -> dict[str, float]:
    extractor = ConvFeatureExtractor(
        name, weights=None, random_state=0, image_size=size, device=device, dtype=dtype
    ).fit(paths[:1])
    pooler = GRMACPooler().fit(extractor.transform(paths[:1]))
    read_ahead = extractor.transform(paths)
    net = extractor._network()
    arrays = [extractor._read(i, path, None).arrays for i, path in enumerate(paths)]
    batches = [arrays[i : i + extractor.batch_size] for i in range(0, len(arrays), extractor.batch_size)]
    mean = torch.tensor(net.mean, device=net.device).view(1, 3, 1, 1)
    inputs = [
        (
            (
                torch.from_numpy(np.stack([a[0] for a in batch])).to(net.device).permute(0, 3, 1, 2).float()
                / 255
            )
            - mean
        )
        .to(net.dtype)
        .contiguous(memory_format=torch.channels_last)
        for batch in batches
    ]

    def bare():
        with torch.inference_mode():
            for batch in inputs:
                net.module(batch)

    def chain():
        pooler.transform(read_ahead)

    bare(), chain()
    times = [(seconds(bare, device), seconds(chain, device)) for _ in range(rounds)]
    network, whole = (min(column) for column in zip(*times, strict=True))
    maps = list(read_ahead)
    return {
        "network": network / len(paths),
        "chain": whole / len(paths),
        "share": network / whole,
        "decode": seconds(lambda: [extractor._read(i, p, None) for i, p in enumerate(paths[:4])], "cpu") / 4,
        "pooling": seconds(lambda: pooler.transform(maps), "cpu") / len(paths),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/extraction.md"))
    options = parser.parse_args()
    where = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    )
    lines = [
        "# The whole chain",
        "",
        f"`python benchmarks/extraction.py --size {options.size}`",
        "",
        f"JPEGs of 3072 x 2304, longest side {options.size}, {where}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}. Milliseconds per photograph; share: bare network / whole chain.",
        "",
        "| network | type | bare network | whole chain | share | decode and resize | pooling |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            n = 64 if options.device == "cuda" else NETWORKS[name]
            paths = photographs(Path(folder), n)
            for dtype in options.dtype:
                found = measure(name, paths, options.size, options.device, dtype, options.rounds)
                ms = {key: f"{1000 * value:.1f}" for key, value in found.items()}
                lines.append(
                    f"| {name} | {dtype} | {ms['network']} | {ms['chain']} | {found['share']:.2f} | {ms['decode']} | "
                    f"{ms['pooling']} |"
                )
                print(lines[-1], flush=True)
    if options.device == "cuda":
        lines += [
            "",
            *(f"Matrix product, {d}: {ceiling(getattr(torch, d)) / 1e12:.0f} TFLOP/s" for d in options.dtype),
        ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
