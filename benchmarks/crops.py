"""Crops find the whole photograph: one descriptor per photograph against one for each of its parts.

    python benchmarks/crops.py --assets FOLDER [--size 384]

FOLDER as for `defaults.py`. A part of 40 % of each side of every photograph, anywhere in it, queries all photographs;
right is the photograph that it is a part of. R@k: the share of the crops whose photograph is among the first k. IoU:
overlap of the region that matched with the part that was cut out, of the crops whose photograph comes first. Whitening
is fitted on the gallery. A photograph is never scaled up.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from defaults import LITE, crops_of, extractor_of
from sklearn.pipeline import Pipeline

from skretrieval import recipes
from skretrieval.datasets import load_image_folder
from skretrieval.extraction import read_image

METHODS = {
    "grmac": ("grmac", {"whitening": None}),
    "grmac, whitening auto": ("grmac", {"whitening": "auto"}),
    "patchify": ("patchify", {"whitening": None}),
    "patchify, whitening auto": ("patchify", {"whitening": "auto"}),
    "patchify, 256 dimensions": ("patchify", {"whitening": "pca", "n_components": 256}),
    "patchify, 128 dimensions": ("patchify", {"whitening": "pca", "n_components": 128}),
}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return intersection over union of two boxes (left, top, right, bottom)."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    inside = float(np.prod(np.clip(sides, 0, None)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return inside / (sum(areas) - inside)


def measure(pipeline: Pipeline, maps: list, cropped: list, crops: list, sizes: list) -> list[float]:
    model = pipeline.fit(maps)
    queries, search = model[:-1].transform(cropped), model[-1]
    ranking = search.predict(queries)
    own = np.arange(len(crops))
    found = [float(np.mean((ranking[:, :k] == own[:, None]).any(axis=1))) for k in (1, 5)]
    if not isinstance(queries, list):
        return [*found, float("nan")]
    first = np.flatnonzero(ranking[:, 0] == own)
    regions = search.matched_regions(queries, ranking[:, :1])[first, 0, 1]
    pooler = model.named_steps["pooler"]
    overlaps = [
        overlap(pooler.boxes(maps[at].shape[1:], sizes[at])[region], np.array(crops[at].box, float))
        for at, region in zip(first, regions, strict=True)
    ]
    return [*found, float(np.mean(overlaps))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--networks", nargs="+", default=[LITE, "mobilenet_v2"])
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/crops.md"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    assets = Path(options.assets)
    folder = next(path for path in sorted((assets / "images").iterdir()) if path.is_dir())
    images = load_image_folder(folder).images
    sizes, crops = [read_image(image).size for image in images], crops_of(images)
    lines = [
        "# Crops find the whole photograph",
        "",
        f"`python benchmarks/crops.py --assets FOLDER --size {options.size}`",
        "",
        f"{len(images)} photographs, crops of 40 % of each side; right is the photograph that a crop is a part of.",
        "",
        "| network | method | R@1 | R@5 | IoU |",
        "|---|---|---|---|---|",
    ]
    for network in options.networks:
        extractor = extractor_of(network, options.size, "float32", assets).fit(images)
        maps, cropped = list(extractor.transform(images)), list(extractor.transform(crops))
        for name, (recipe, settings) in METHODS.items():
            pipeline = getattr(recipes, recipe)(extractor="passthrough", **settings)[1:]
            figures = measure(pipeline, maps, cropped, crops, sizes)
            words = " | ".join("-" if np.isnan(value) else f"{value:.3f}" for value in figures)
            lines.append(f"| {network} | {name} | {words} |")
            print(lines[-1], flush=True)
    options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
