"""Resident memory while thousands of photographs are extracted and pooled.

    python benchmarks/memory.py [--images 2000] [--size 224] [--out benchmarks/results/memory.md]

Writes photographs of three shapes to a temporary folder, sends them through SqueezeNet (random weights: memory and
time do not depend on their values) and GSW pooling in one pass, and notes the resident memory of the process after
every tenth of them. Holding all the maps instead would take the amount in the last line.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps
from skretrieval.pooling import GRMACPooler, PoolerFusion, SJWPooler


def resident_megabytes() -> float:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def write_photographs(folder: Path, n: int) -> list[str]:
    rng = np.random.default_rng(0)
    shapes = [(480, 640), (640, 480), (512, 512)]
    noise = [rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(50)]
    paths = []
    for index in range(n):
        height, width = shapes[index % 3]
        picture = Image.fromarray(np.roll(noise[index % 50], index, axis=(0, 1))).resize((width, height))
        paths.append(str(folder / f"{index:06d}.jpg"))
        picture.save(paths[-1], quality=85)
    return paths


class Watched(FeatureMaps):
    """FeatureMaps that notes memory as the images pass."""

    def batches(self):
        seen, self.curve = 0, [(0, resident_megabytes())]
        step = max(1, len(self) // 10)
        for indices, maps in super().batches():
            seen += len(indices)
            self.map_bytes = getattr(self, "map_bytes", 0) + maps.numel() * maps.element_size()
            if seen // step > self.curve[-1][0] // step:
                self.curve.append((seen, resident_megabytes()))
            yield indices, maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), options.images)
        extractor = ConvFeatureExtractor(
            "squeezenet1_1", weights=None, random_state=0, image_size=options.size, device="cpu"
        )
        lazy = extractor.fit_transform(paths)
        maps = Watched(lazy.extractor, lazy.images)
        pooler = PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4])
        start = time.perf_counter()
        descriptors = pooler.fit_transform(maps)
        seconds = time.perf_counter() - start
    assert descriptors.shape == (options.images, 512)
    settled = [megabytes for seen, megabytes in maps.curve if seen >= options.images * 0.2]
    lines = [
        "# Memory while extracting and pooling",
        "",
        f"`python benchmarks/memory.py --images {options.images} --size {options.size}`",
        "",
        f"SqueezeNet 1.1, longest side {options.size}, GSW pooling, {options.images} photographs of three shapes, "
        f"{seconds:.0f} s ({options.images / seconds:.0f} images/s).",
        "",
        "| images done | resident memory, MiB |",
        "|---|---|",
        *(f"| {seen} | {megabytes:.0f} |" for seen, megabytes in maps.curve),
        "",
        f"From 20 % on the memory moves by {max(settled) - min(settled):.0f} MiB. "
        f"The maps of all images together are {maps.map_bytes / 2**20:.0f} MiB.",
        "",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
