"""Retrieval quality of every recipe on labelled photographs with real weights.

    python benchmarks/quality.py --assets FOLDER [--size 512] [--out benchmarks/results/quality.md]

FOLDER holds `images/dreambooth/SUBJECT/*.jpg` (or any other `images/SET/LABEL/*`) and state dicts of torchvision
networks as `weights/NAME.pth`, NAME being torchvision's name. It can also be given as SKRETRIEVAL_ASSETS.

Every photograph queries all others (mAP, trapezoid rule). Whitening must not be fitted on what it is scored on, so the
labels are split in two halves: axes learned on one half whiten the other, each half is scored by itself, and the
column before gives the same halves without whitening. Query expansion averages the query and its 3 nearest neighbours.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
import torchvision
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from skretrieval import recipes
from skretrieval.datasets import load_image_folder
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.metrics import leave_one_out_map
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion

SEVERAL_MAPS = {"ms_rmac", "late_fusion_rmac"}  # want several layers or resolutions
N_EXPAND = 3  # the photographs show each object 4 to 6 times


def halves(labels: np.ndarray) -> list[np.ndarray]:
    """Split the photographs in two by label."""
    names = np.unique(labels)
    first = np.isin(labels, names[::2])
    return [np.flatnonzero(first), np.flatnonzero(~first)]


def score(descriptors, labels, retriever) -> float:
    return leave_one_out_map(
        make_pipeline(Normalizer(), retriever).fit(descriptors, labels), descriptors, labels
    )


def measure(name: str, maps: list, labels: np.ndarray) -> list[float]:
    """Pool with one recipe; return mAP all / expanded / halves / halves whitened, and ms per image."""
    plain, expanded = (
        NearestNeighborsRetriever(),
        QueryExpansion(NearestNeighborsRetriever(), N_EXPAND, exclude_self=True),
    )
    pooler = getattr(recipes, name)(extractor="passthrough", whitening=None).named_steps["pooler"]
    start = time.perf_counter()
    descriptors = pooler.fit_transform(maps)
    milliseconds = 1000 * (time.perf_counter() - start) / len(maps)
    split = halves(labels)
    by_half = [score(descriptors[half], labels[half], plain) for half in split]
    whitened = []
    for this, other in (split, split[::-1]):
        steps = getattr(recipes, name)(extractor="passthrough", whitening="pca")[:-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # 256 components asked of 79 photographs
            steps.fit([maps[i] for i in other])
        whitened.append(score(steps.transform([maps[i] for i in this]), labels[this], clone(plain)))
    weights = [len(half) for half in split]
    return [
        score(descriptors, labels, plain),
        score(descriptors, labels, expanded),
        np.average(by_half, weights=weights),
        np.average(whitened, weights=weights),
        milliseconds,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--cache", default=None, help="keep the maps here between runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality.md"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    assets = Path(options.assets)
    folder = next(path for path in sorted((assets / "images").iterdir()) if path.is_dir())
    photographs = load_image_folder(folder)
    labels = np.asarray(photographs.labels)
    lines = [
        "# Retrieval quality",
        "",
        f"`python benchmarks/quality.py --assets FOLDER --size {options.size}`",
        "",
        f"{len(labels)} photographs of {len(np.unique(labels))} objects ({folder.name}), longest side {options.size}. "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, scikit-learn {sklearn.__version__}, "
        f"{torch.get_num_threads()} threads.",
        "",
        f"mAP: each photograph queries all others. QE: average of the query and {N_EXPAND} neighbours. Halves: scored "
        "within two halves of the objects, without whitening and with PCA-whitening learned on the other half "
        "(per region for rmac).",
    ]
    for path in sorted((assets / "weights").glob("*.pth")):
        extractor = ConvFeatureExtractor(
            path.stem, weights=str(path), image_size=options.size, device="cpu", memory=options.cache
        ).fit(photographs.images)
        start = time.perf_counter()
        maps = list(extractor.transform(photographs.images))
        forward = 1000 * (time.perf_counter() - start) / len(maps)
        lines += [
            "",
            f"## {path.stem}",
            "",
            f"Extraction: {forward:.0f} ms per image{' (from the cache)' if options.cache else ''}.",
            "",
            "| recipe | mAP | mAP, QE | halves | halves, whitened | pooling, ms per image |",
            "|---|---|---|---|---|---|",
        ]
        for name in sorted(set(recipes.__all__) - SEVERAL_MAPS):
            figures = measure(name, maps, labels)
            lines.append(
                f"| {name} | " + " | ".join(f"{x:.3f}" for x in figures[:-1]) + f" | {figures[-1]:.1f} |"
            )
            print(path.stem, lines[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
