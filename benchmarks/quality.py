"""Retrieval quality of every recipe on labelled photographs with real weights.

    python benchmarks/quality.py --assets FOLDER [--size 512] [--only RECIPE ...] [--networks NAME ...]

FOLDER holds `images/SET/LABEL/*` photographs and state dicts of torchvision networks as `weights/NAME.pth`, NAME being
torchvision's name. It can also be given as SKRETRIEVAL_ASSETS. Besides these networks there are EfficientNet-Lite0,
whose weights come with the package, and the kernel network, which learns from the photographs.

Every photograph queries all others (mAP, trapezoid rule). What is learned must not be learned on what it is scored
on, so the labels are split in two halves: axes and codebooks learned on one half describe the other, and each half is
scored by itself. The networks stand in for those of the papers, layer for layer (see LAYERS), and sizes shrink in
proportion.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import sklearn
import torch
import torchvision
from sklearn.base import clone

from skretrieval import recipes
from skretrieval.datasets import load_image_folder
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor, PatchNetwork
from skretrieval.metrics import leave_one_out_map
from skretrieval.retrieval import QueryExpansion

N_EXPAND = 3  # the photographs show each object 4 to 6 times
NOISE = 0.01  # mAP
N_WORDS = 4096  # of bow_cnn: the paper's 25,000 are for thousands of photographs

LITE = "timm:tf_efficientnet_lite0"
KERNEL = "kernel"
# Recipes that a network has no part for: tokens, several layers, a vector.
UNFIT = {
    LITE: {"cls_gem", "neural_codes", "mop_cnn", "multi_resolution_pfa+local"},
    KERNEL: {
        "cls_gem",
        "neural_codes",
        "mop_cnn",
        "ms_rmac",
        "multi_resolution_pfa",
        "multi_resolution_pfa+local",
    },
}
# Per network: the last layer of each spatial resolution, and the vector that stands in for a fully connected layer.
LAYERS = {
    "squeezenet1_0": (["features.1", "features.5", "features.10", "features.12"], "flatten"),
    "mobilenet_v2": (["features.1", "features.3", "features.6", "features.13", "features.18"], "flatten"),
}
# What the papers claim, as a comparison of two recipes in one column of the table.
CLAIMS = [
    ("Zhao et al. (2021)", "GR-MAC is better than R-MAC", "grmac", "rmac", "mAP"),
    ("Zhao et al. (2021)", "SJW is better than CroW", "sjw", "crow", "mAP"),
    ("Zhao et al. (2021)", "the fusion GSW is better than GR-MAC", "gsw", "grmac", "mAP"),
    ("Zhao et al. (2021)", "the fusion GSW is better than SJW", "gsw", "sjw", "mAP"),
    ("Liao et al. (2022)", "region integration is better than CroW", "region_integration", "crow", "mAP"),
    (
        "Liao et al. (2022)",
        "region integration, whitened, is better than R-MAC, whitened",
        "region_integration",
        "rmac",
        "whitened",
    ),
    ("Wang et al. (2018)", "adaptive Gaussian is better than CroW", "adaptive_gaussian", "crow", "mAP"),
    ("Wang et al. (2018)", "adaptive Gaussian is better than SPoC", "adaptive_gaussian", "spoc", "mAP"),
    (
        "Seddati et al. (2017)",
        "early fusion of resolutions and layers, selected, beats late fusion",
        "multi_resolution_pfa",
        "late_fusion_rmac",
        "mAP",
    ),
    ("Seddati et al. (2017)", "several resolutions beat one (R-MAC)", "late_fusion_rmac", "rmac", "mAP"),
    (
        "Seddati et al. (2017)",
        "local descriptors do not help",
        "multi_resolution_pfa",
        "multi_resolution_pfa+local",
        "mAP",
    ),
    (
        "Jeong et al. (2017)",
        "regional second order is better than R-MAC, whitened",
        "regional_second_order",
        "rmac",
        "whitened",
    ),
    (
        "Jeong et al. (2017)",
        "regional second order is better than CroW, whitened",
        "regional_second_order",
        "crow",
        "whitened",
    ),
    ("FDE", "entropies improve R-MAC", "fde", "rmac", "mAP"),
    ("SBA", "parts are better than plain sums with weights (CroW)", "sba", "crow", "mAP"),
    ("all", "query expansion helps GSW", "gsw", "gsw", "QE"),
]
COLUMNS = {"mAP": 0, "QE": 1, "halves": 2, "auto": 3, "whitened": 4}
SEEDED = {"anyloc", "bow_cnn", "fisher", "mop_cnn", "netvlad", "patch_ckn", "t_embedding", "vlad"}


def network_of(
    name: str, network: str, weights: str, size: int, **params
) -> ConvFeatureExtractor | ConvKernelExtractor:
    """Return the extractor of a recipe, with one of our networks in the place of the paper's."""
    kernel_params = {key: value for key, value in params.items() if key != "dtype"}
    sizes = [round(size * factor / 800) for factor in (1050, 800, 550)]
    if network == KERNEL or name == "patch_ckn":
        several = name in ("late_fusion_rmac", "mfc", "super_global")
        longest = [round(224 * factor / 800) for factor in (1050, 800, 550)] if several else 224
        return ConvKernelExtractor(image_size=longest, random_state=0, device="cpu", **kernel_params)
    blocks = LAYERS[network][0] if network in LAYERS else ConvFeatureExtractor(network).block_ends()
    conv = partial(ConvFeatureExtractor, network, weights=weights, device="cpu", **params)
    if name == "ms_rmac":
        return conv(layers=blocks, image_size=size)
    if name.startswith("multi_resolution_pfa"):
        return conv(layers=[blocks[-1], blocks[-2]], image_size=sizes, multi_resolution="sum")
    if name in ("late_fusion_rmac", "mfc", "super_global"):
        return conv(image_size=sizes)
    if name == "bow_cnn":
        return conv(image_size=336)
    if name in ("neural_codes", "mop_cnn"):
        vector = LAYERS[network][1]
        patches = (None,) if name == "neural_codes" else (None, (128, 32), (64, 32))
        net = partial(PatchNetwork, network, layer=vector, patches=patches)
        return ConvFeatureExtractor(net, weights=weights, image_size=256, device="cpu", **params)
    return conv(image_size=size)


def build(name: str, extractor, **settings):
    """Return a recipe's Pipeline without its extractor; a suffix "+local" asks for that option."""
    recipe, _, option = name.partition("+")
    if option:
        settings[option] = True
    if recipe in SEEDED | {"multi_resolution_pfa"}:
        settings["random_state"] = 0
    if recipe == "bow_cnn":
        settings["n_clusters"] = N_WORDS
    return getattr(recipes, recipe)(extractor=extractor, **settings)[1:]


def halves(labels: np.ndarray) -> list[np.ndarray]:
    """Split the photographs in two by label."""
    names = np.unique(labels)
    first = np.isin(labels, names[::2])
    return [np.flatnonzero(first), np.flatnonzero(~first)]


def score(descriptors, labels, retriever) -> float:
    return leave_one_out_map(retriever, descriptors, labels)


def score_halves(pipeline, maps, labels) -> float:
    """Fit on one half, score within the other, and the reverse."""
    split = halves(labels)
    scores = []
    for this, other in (split, split[::-1]):
        model = clone(pipeline).fit(maps[other])
        scores.append(score(model[:-1].transform(maps[this]), labels[this], model[-1]))
    return float(np.average(scores, weights=[len(half) for half in split]))


def measure(name: str, extractor, images, labels: np.ndarray) -> list[float]:
    """Return ms per image of the network and of the rest, then mAP: plain, expanded, halves, then "auto" and "pca"."""
    some = images[:: max(1, len(images) // 12)]
    uncached = clone(extractor).set_params(memory=None)
    uncached.fit(images if isinstance(extractor, ConvKernelExtractor) else some)
    start = time.perf_counter()
    for _ in uncached.transform(some).batches():
        pass
    forward = 1000 * (time.perf_counter() - start) / len(some)

    maps = extractor.fit_transform(images)
    whitens_anyway, selects = name == "regional_second_order", name.startswith("multi_resolution_pfa")
    plain = build(name, extractor) if whitens_anyway or selects else build(name, extractor, whitening=None)
    plain.fit(maps)
    held = maps if name == "patch_ckn" or plain[0].get_params().get("points") == "hessian" else list(maps)
    start = time.perf_counter()
    descriptors = plain[:-1].transform(held)
    pooling = 1000 * (time.perf_counter() - start) / len(maps)
    auto = (
        float("nan")
        if selects or whitens_anyway
        else score_halves(build(name, extractor, whitening="auto"), maps, labels)
    )
    expanded = QueryExpansion(plain[-1], N_EXPAND, include_query=not whitens_anyway, exclude_self=True)
    whitened = (
        float("nan") if selects else score_halves(build(name, extractor, whitening="pca"), maps, labels)
    )
    return [
        forward,
        pooling,
        score(descriptors, labels, plain[-1]),
        score(descriptors, labels, expanded),
        float("nan") if whitens_anyway else score_halves(plain, maps, labels),
        auto,
        whitened,
    ]


def claims(results: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return the table of the papers' claims: the difference in mAP per network."""
    lines = [
        "",
        "## What the papers claim, and what is seen here",
        "",
        "Differences in mAP of the two sides of each claim, from the tables above (whitened: halves, whitened). Papers "
        "measure buildings and scenes with VGG16 or ResNet50; these are single objects, small collections and small "
        "networks, so a claim that fails here is not refuted, only not confirmed. The standard error of a figure "
        f"over queries is 0.01 to 0.02: differences up to {NOISE} count as none.",
        "",
        "| paper | claim | " + " | ".join(results) + " | confirmed |",
        "|---|---|" + "---|" * len(results) + "---|",
    ]
    for paper, text, better, worse, column in CLAIMS:
        at = COLUMNS[column]
        base = COLUMNS["mAP"] if better == worse else at
        if not all({better, worse} <= found.keys() for found in results.values()):
            continue
        gains = [found[better][at] - found[worse][base] for found in results.values()]
        if max(map(abs, gains)) <= NOISE:
            verdict = "no difference seen"
        else:
            verdict = "yes" if min(gains) > NOISE else "no" if max(gains) <= NOISE else "in part"
        lines.append(
            f"| {paper} | {text} | " + " | ".join(f"{gain:+.3f}" for gain in gains) + f" | {verdict} |"
        )
    return lines


def measured_before(rows: Path | None, network: str, name: str) -> list[float] | None:
    """Return the figures of a row that an earlier run, or another process, has written down."""
    if rows is None or not rows.is_file():
        return None
    lines = (json.loads(line) for line in rows.read_text().splitlines())
    return {(where, what): found for where, what, found in lines}.get((network, name))


def table(
    network: str, weights: str, images, labels: np.ndarray, options
) -> tuple[list[str], dict[str, list[float]]]:
    results = {}
    lines = [
        "",
        f"## {network}",
        "",
        "| recipe | mAP | mAP, QE | halves | halves, auto | halves, whitened | forward, ms | aggregation, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = sorted([*recipes.__all__, "multi_resolution_pfa+local"])
    for name in options.only or names:
        if name in UNFIT.get(network, ()):
            continue
        found = measured_before(options.rows, network, name)
        if found is None:
            extractor = network_of(
                name, network, weights, options.size, memory=options.cache, dtype=options.dtype
            )
            with warnings.catch_warnings():
                # more components asked for, as published, than 79 photographs have; k-means that stops early
                warnings.simplefilter("ignore", UserWarning)
                found = measure(name, extractor, images, labels)
            if options.rows is not None:
                with options.rows.open("a") as file:
                    file.write(json.dumps([network, name, found]) + "\n")
        forward, pooling, *scores = found
        results[name] = scores
        words = ["-" if np.isnan(value) else f"{value:.3f}" for value in scores]
        lines.append(f"| {name} | {' | '.join(words)} | {forward:.0f} | {pooling:.1f} |")
        print(network, lines[-1], flush=True)
    return lines, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", nargs="*", help="recipes to measure; all")
    parser.add_argument("--networks", nargs="*", help="names of the weight files to measure; all")
    parser.add_argument("--dtype", default="float32", help="of the networks: float32, bfloat16, float16")
    parser.add_argument("--cache", default=None, help="keep the maps here between runs")
    parser.add_argument(
        "--rows", type=Path, default=None, help="keep what is measured here, and go on from it"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality.md"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    assets = Path(options.assets)
    folder = next(path for path in sorted((assets / "images").iterdir()) if path.is_dir())
    photographs = load_image_folder(folder)
    labels = np.asarray(photographs.labels)
    other = "" if options.dtype == "float32" else f" --dtype {options.dtype}"
    other += f" --networks {' '.join(options.networks)}" if options.networks else ""
    other += f" --only {' '.join(options.only)}" if options.only else ""
    lines = [
        "# Retrieval quality",
        "",
        f"`python benchmarks/quality.py --assets FOLDER --size {options.size}{other}`",
        "",
        f"{len(labels)} photographs of {len(np.unique(labels))} objects ({folder.name}), longest side {options.size} "
        "where the method has no size of its own, three resolutions in the proportions of Seddati et al. (2017). "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, scikit-learn {sklearn.__version__}, "
        f"{torch.get_num_threads()} threads.",
        "",
        "mAP: each photograph queries all others, nothing whitened; codebooks, parts and selected features are "
        f"learned on the same photographs. QE: average of the query and {N_EXPAND} neighbours "
        "(of the neighbours alone for regional_second_order, as published). Halves: learned on one half of "
        'the objects, scored within the other, first without whitening, then with whitening="auto", then with '
        "PCA-whitening in full (to the "
        "recipe's number of dimensions, or the rank of 79 photographs). regional_second_order always whitens, "
        f"multi_resolution_pfa never does. bow_cnn has {N_WORDS} words. Times per photograph: the network "
        "(12 photographs, uncached), and everything from maps to descriptors. Where halves are far better than the "
        "first column, what was learned (whitened local descriptors above all) has adapted to the photographs scored.",
    ]
    results = {}
    weights = {LITE: "DEFAULT"}
    weights |= {path.stem: str(path) for path in sorted((assets / "weights").glob("*.pth"))}
    weights[KERNEL] = None
    for network, where in weights.items():
        if options.networks and network not in options.networks:
            continue
        added, results[network] = table(network, where, photographs.images, labels, options)
        lines += added
    lines += claims(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
