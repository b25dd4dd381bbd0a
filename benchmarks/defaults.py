"""Which defaults are best: mAP and photographs per second of {network x size x dtype x recipe}, and their Pareto front.

    python benchmarks/defaults.py --assets FOLDER [--networks NAME ...] [--sizes 224 320 ...] [--recipes spoc ...]

FOLDER holds `images/SET/LABEL/*` photographs and state dicts of torchvision networks as `weights/NAME.pth`. It can also
be given as SKRETRIEVAL_ASSETS. Two tasks on the same photographs, nothing whitened, nothing learned but the filters of
the kernel network:

- other photographs: every photograph queries all others; mAP over those of the same object;
- crops: a part of 40 % of each side of every photograph, anywhere in it, queries all photographs; mAP over those of the
  same object, the photograph itself among them.

The default of the command line lies on the front of the mean of both. A photograph is never scaled up. Photographs per
second: reading the file, network and pooling, on all cores. Networks, sizes and types take turns, and the least of the
rounds counts.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from skretrieval import recipes
from skretrieval.datasets import load_image_folder
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor, ImageCrop, read_image
from skretrieval.metrics import leave_one_out_map
from skretrieval.retrieval import NearestNeighborsRetriever

LITE = "timm:tf_efficientnet_lite0"
BEFORE = ("kernel", 224, "float32", "grmac")  # the defaults of the command line before these
SIZES = (224, 320, 384, 512, 640)
RECIPES = ("spoc", "gem", "crow", "rmac", "grmac", "sjw", "gsw", "adaptive_gaussian")
SHARE = 0.4  # of each side, in crops


class Point(NamedTuple):
    """One row of the table."""

    network: str
    size: int
    dtype: str
    recipe: str
    others: float
    crops: float
    per_second: float

    @property
    def both(self) -> float:
        """Mean mAP of the two tasks."""
        return (self.others + self.crops) / 2

    @property
    def setting(self) -> tuple:
        return self[:4]


def extractor_of(network: str, size: int, dtype: str, assets: Path):
    if network == "kernel":
        return ConvKernelExtractor(image_size=size, enlarge=False, random_state=0, device="cpu")
    weights = "DEFAULT" if network.startswith("timm:") else assets / "weights" / f"{network}.pth"
    return ConvFeatureExtractor(
        network, weights=weights, image_size=size, enlarge=False, dtype=dtype, device="cpu"
    )


def crops_of(images: list, random_state: int = 0) -> list[ImageCrop]:
    """Cut a box of SHARE of each side out of each photograph."""
    rng = np.random.RandomState(random_state)
    found = []
    for image in images:
        size = np.array(read_image(image).size)
        side = np.rint(SHARE * size).astype(int)
        left, top = (rng.uniform(size=2) * (size - side)).astype(int)
        found.append(ImageCrop(image, (left, top, left + side[0], top + side[1])))
    return found


def pipeline_of(recipe: str):
    """Return what follows the extractor."""
    pipeline = getattr(recipes, recipe)(extractor="passthrough", whitening=None)
    rectified = {name: "auto" for name in pipeline.get_params() if name.endswith("rectify")}
    return pipeline.set_params(**rectified)[1:-1]


def score(gallery: np.ndarray, queries: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    retriever = NearestNeighborsRetriever(n_neighbors=len(labels))
    others = leave_one_out_map(retriever, gallery, labels)
    return others, retriever.fit(gallery, labels).score(queries, labels)


def quality(extractor, images: list, crops: list, labels: np.ndarray, names: list[str]) -> dict:
    extractor.fit(images)
    maps, cropped = list(extractor.transform(images)), list(extractor.transform(crops))
    found = {}
    for name in names:
        pipeline = pipeline_of(name).fit(maps)
        start = time.perf_counter()
        gallery = pipeline.transform(maps)
        seconds = (time.perf_counter() - start) / len(maps)
        found[name] = (*score(gallery, pipeline.transform(cropped), labels), seconds)
    return found


def pass_time(extractor, images: list) -> float:
    start = time.perf_counter()
    for _ in extractor.transform(images).batches():
        pass
    return (time.perf_counter() - start) / len(images)


def front(points: list[Point], task: str) -> list[Point]:
    """Return the points that no other one beats in speed without losing mAP."""
    best, found = -1.0, []
    for point in sorted(points, key=lambda point: (-point.per_second, -getattr(point, task))):
        if getattr(point, task) > best:
            best = getattr(point, task)
            found.append(point)
    return found


def draw(points: list[Point], chosen: Point, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "skretrieval"
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.5), sharey=True, layout="constrained")
    titles = {
        "others": "Other photographs of the object",
        "crops": "Crops of 40 % of each side",
        "both": "Mean of both",
    }
    for panel, (task, title) in zip(axes, titles.items(), strict=True):
        for network in dict.fromkeys(point.network for point in points):
            own = [point for point in points if point.network == network]
            at = [point.per_second for point in own], [getattr(point, task) for point in own]
            panel.scatter(*at, s=14, alpha=0.6, label=network.removeprefix("timm:"))
        best = front(points, task)
        at = [point.per_second for point in best], [getattr(point, task) for point in best]
        panel.step(*at, where="post", color="black", linewidth=1, label="Pareto front")
        panel.scatter(
            chosen.per_second,
            getattr(chosen, task),
            s=120,
            marker="*",
            color="red",
            label="default",
            zorder=3,
        )
        panel.set(xscale="log", xlabel="photographs per second", title=title)
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("mAP")
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def rows(points: list[Point]) -> list[str]:
    return [
        f"| {point.network} | {point.size} | {point.dtype} | {point.recipe} | {point.others:.3f} | {point.crops:.3f} "
        f"| {point.per_second:.1f} |"
        for point in points
    ]


def report(points: list[Point], chosen: Point, before: Point | None, command: str, n: int) -> str:
    head = [
        "| network | size | dtype | recipe | others | crops | photographs / s |",
        "|---|" * 1 + "---|" * 6,
    ]
    lines = [
        "# Defaults by measurement",
        "",
        f"`{command}`",
        "",
        f"{n} photographs, at most 640 pixels long. mAP of *other photographs* of the object and of *crops* of 40 % of "
        f"each side. torch {torch.__version__}, {torch.get_num_threads()} threads. "
        "![The Pareto front](defaults.svg)",
        "",
        "The default of the command line:",
        "",
        *head,
        *rows([chosen]),
    ]
    if before is not None:
        lines += [
            "",
            f"Before: {chosen.per_second / before.per_second:.1f} times fewer photographs per second.",
            "",
            *head,
            *rows([before]),
        ]
    for task, title in (("both", "mean of both"), ("others", "other photographs"), ("crops", "crops")):
        lines += ["", f"## Pareto front, {title}", "", *head, *rows(front(points, task))]
    lines += ["", "## All", "", *head, *rows(points), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--networks", nargs="+", default=[LITE, "mobilenet_v2", "squeezenet1_0", "kernel"])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=2, help="of timing")
    parser.add_argument("--timed", type=int, default=48, help="photographs in a round")
    parser.add_argument("--chosen", nargs=4, default=[LITE, "384", "bfloat16", "grmac"], help="the default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    assets = Path(options.assets)
    folder = next(path for path in sorted((assets / "images").iterdir()) if path.is_dir())
    photographs = load_image_folder(folder)
    images, labels = photographs.images, np.asarray(photographs.labels)
    crops = crops_of(images)
    settings = [
        (network, size, dtype)
        for network, size, dtype in itertools.product(options.networks, options.sizes, options.dtypes)
        if network != "kernel" or (dtype == "float32" and size == 224)
    ]
    found, extractors = {}, {}
    for setting in settings:
        extractors[setting] = extractor_of(*setting, assets)
        found[setting] = quality(extractors[setting], images, crops, labels, options.recipes)
        print(
            *setting,
            {name: tuple(np.round(value[:2], 3)) for name, value in found[setting].items()},
            flush=True,
        )
    timed = images[:: max(1, len(images) // options.timed)]
    times: dict[tuple, list[float]] = {setting: [] for setting in settings}
    for _ in range(options.rounds):
        for setting in settings:
            times[setting].append(pass_time(extractors[setting], timed))
    points = [
        Point(*setting, name, others, crops_map, 1 / (min(times[setting]) + pooling))
        for setting, results in found.items()
        for name, (others, crops_map, pooling) in results.items()
    ]
    by_setting = {point.setting: point for point in points}
    network, size, dtype, recipe = options.chosen
    chosen = by_setting[network, int(size), dtype, recipe]
    command = "python benchmarks/defaults.py --assets FOLDER"
    options.out.mkdir(parents=True, exist_ok=True)
    draw(points, chosen, options.out / "defaults.svg")
    if chosen not in front(points, "both"):
        print("The default is not on the front of both tasks.")
    text = report(points, chosen, by_setting.get(BEFORE), command, len(images))
    (options.out / "defaults.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
