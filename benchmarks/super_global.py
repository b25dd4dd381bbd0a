"""What SuperGlobal's parts bring, and what its figure depends on.

    python benchmarks/super_global.py --assets FOLDER [--networks NAME ...] [--size 512] [--out FILE]

FOLDER as for benchmarks/quality.py, whose sizes and score these are: every photograph queries all others, nothing is
whitened. Each line changes one thing about `recipes.super_global`, or pools one resolution with another reduction;
the last columns cut the outermost cells off all maps.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from sklearn.preprocessing import normalize

from skretrieval.datasets import load_image_folder
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.metrics import leave_one_out_map
from skretrieval.pooling import GeMPooler, LayerwisePooler, SPoCPooler, SumPooler, WeightedPooler
from skretrieval.retrieval import NearestNeighborsRetriever

CUT = (0, 1, 2)  # cells


def regional(spatial=None, **params):
    return WeightedPooler(spatial, reduce="regional_power_mean", reduce_params=params)


# name: (pooler of one map, how resolutions are combined or None for the middle one alone)
LINES = {
    "super_global": (regional(), "max"),
    "one resolution": (regional(), None),
    "mean over resolutions": (regional(), "mean"),
    "without neighbourhoods (GeM, p = 4.6)": (GeMPooler(4.6), "max"),
    "p = 3": (regional(p=3.0), "max"),
    "p = 8": (regional(p=8.0), "max"),
    "ReLUP, 0.014": (regional(alpha=0.014), "max"),
    "ReLUP, 1": (regional(alpha=1.0), "max"),
    "centre prior": (regional("center_prior"), "max"),
    "GeM, p = 3, one resolution": (GeMPooler(), None),
    "sum pooling, one resolution": (SumPooler(), None),
    "SPoC, one resolution": (SPoCPooler(), None),
}


def cut_off(maps: np.ndarray, cells: int) -> np.ndarray:
    """Cut cells off every side, as far as there remain some."""
    rows, cols = (min(cells, (side - 1) // 2) for side in maps.shape[1:])
    return maps[:, rows : maps.shape[1] - rows, cols : maps.shape[2] - cols]


def score(pooler, how: str | None, maps: list[tuple], labels: np.ndarray, cells: int) -> float:
    entries = [tuple(cut_off(one, cells) for one in entry) for entry in maps]
    if how is None:
        rows = pooler.fit_transform([entry[1] for entry in entries])
    else:
        rows = LayerwisePooler(pooler, combine=how).fit_transform(entries)
    return leave_one_out_map(NearestNeighborsRetriever(), normalize(rows), labels)


def rings(maps: list[tuple]) -> list[float]:
    """Return the mean response of the outermost cells, of the second ring, and of all others."""
    sums = np.zeros((3, 2))
    for entry in maps:
        response = entry[1].sum(axis=0)
        row, col = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in response.shape)
        ring = np.minimum(np.minimum.outer(row, col), 2)
        for place in range(3):
            sums[place] += response[ring == place].sum(), (ring == place).sum()
    return (sums[:, 0] / sums[:, 1]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--networks", nargs="*", help="names of the weight files to measure; all")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/super_global.md"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    assets = Path(options.assets)
    folder = next(path for path in sorted((assets / "images").iterdir()) if path.is_dir())
    photographs = load_image_folder(folder)
    labels = np.asarray(photographs.labels)
    sizes = [round(options.size * factor / 800) for factor in (1050, 800, 550)]
    asked = f" --networks {' '.join(options.networks)}" if options.networks else ""
    lines = [
        "# SuperGlobal, part by part",
        "",
        f"`python benchmarks/super_global.py --assets FOLDER{asked} --size {options.size}`",
        "",
        f"{len(labels)} photographs of {len(np.unique(labels))} objects ({folder.name}), longest sides "
        f"{', '.join(map(str, sizes))}; one resolution is {sizes[1]}. mAP: each photograph queries all others, nothing "
        "whitened. Columns: the maps as they are, and without their 1 or 2 outermost cells on every side.",
    ]
    for path in sorted((assets / "weights").glob("*.pth")):
        if options.networks and path.stem not in options.networks:
            continue
        extractor = ConvFeatureExtractor(path.stem, weights=path, image_size=sizes, device="cpu")
        maps = list(extractor.fit_transform(photographs.images))
        first, second, inner = rings(maps)
        lines += [
            "",
            f"## {path.stem}",
            "",
            f"Mean response (sum over channels) of the outermost cells {first:.0f}, of the second ring {second:.0f}, "
            f"of all others {inner:.0f}.",
            "",
            "| | as it is | without 1 | without 2 |",
            "|---|---|---|---|",
        ]
        for name, (pooler, how) in LINES.items():
            figures = [f"{score(pooler, how, maps, labels, cells):.3f}" for cells in CUT]
            lines.append(f"| {name} | {' | '.join(figures)} |")
            print(path.stem, lines[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
