"""Does `skretrieval tune` choose well? True mAP of the default, the chosen and the best setting on made collections.

    python benchmarks/tune.py [--assets FOLDER] [--work FOLDER] [--out benchmarks/results/tune.md] [--only NAME ...]

Collections: flat objects under five phones (flat_objects.py: three kinds), houses (made_buildings.py), and with
--assets, a folder with images/SET/LABEL/*, those photographs, the same beside changed copies of themselves (what a
burst or a zoom leaves), and them among flat objects. Pictures and tables of the flat objects are cut from the
photographs of --assets where it is given; the figures in the results are with it. It can also be given as
SKRETRIEVAL_ASSETS. The rule that the criterion has to meet: within 0.05 of the best of the grid on flat objects, and
nowhere more than 0.02 below the default. `--pairs` is simulated: 20 pairs of different objects, drawn by labels,
several times.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import flat_objects
import made_buildings
import numpy as np
from PIL import Image

from skretrieval.datasets import load_image_folder, make_photo_views
from skretrieval.evaluation import tune
from skretrieval.extraction import ConvFeatureExtractor

N_DRAWS, N_PAIRS = 5, 20
LAYERS = ("blocks.4", "blocks.6", "bn2")
PAIRS_TRIED = ("flat", "single objects", "houses")


def copies(source: Path, target: Path) -> None:
    """Write photographs, and of each a crop under another light."""
    found = load_image_folder(source)
    views = make_photo_views(
        list(found.images),
        1,
        kinds=("crop", "warp", "relight", "jpeg"),
        strength=0.6,
        image_size=640,
        random_state=0,
    ).images
    for number, (path, label, view) in enumerate(zip(found.images, found.labels, views)):
        (target / label).mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").save(target / label / f"{number}.jpg", quality=90)
        Image.fromarray(view).save(target / label / f"{number}_copy.jpg", quality=85)


def mixed(first: Path, second: Path, target: Path) -> None:
    """Link two collections into one folder."""
    for source in (first, second):
        for folder in filter(Path.is_dir, source.iterdir()):
            shutil.copytree(folder, target / f"{source.name} {folder.name}")


def collections(work: Path, assets: Path | None) -> dict[str, Path]:
    """Make the collections that are not there yet; returns their folders by name."""
    objects = (
        None
        if assets is None
        else next(folder for folder in (assets / "images").iterdir() if folder.is_dir())
    )
    made = {
        "flat": {"seed": 1},
        "flat, places that repeat": {"seed": 0, "fixed": True},
        "flat, filling the photograph": {"seed": 2, "near": 1.55, "difficulty": 0.8},
        "60 of flat": {"seed": 1, "n_objects": 12},
    }
    folders = {}
    for name, options in made.items():
        folders[name] = work / name
        if not folders[name].exists():
            flat_objects.write(folders[name], assets=objects, **options)
    folders["houses"] = work / "houses"
    if not folders["houses"].exists():
        made_buildings.write(folders["houses"], 11, 0)
    if objects is not None:
        folders["single objects"] = objects
        folders["single objects and copies"] = work / "copies"
        if not folders["single objects and copies"].exists():
            copies(objects, folders["single objects and copies"])
        folders["single objects among flat"] = work / "mixed"
        if not folders["single objects among flat"].exists():
            mixed(objects, folders["flat"], folders["single objects among flat"])
    return folders


def one_pair_each(labels: np.ndarray, seed: int) -> list[tuple[int, int]]:
    """Draw pairs as a person would give them: two photographs of each of some objects."""
    rng = np.random.RandomState(seed)
    several = [label for label in np.unique(labels) if np.count_nonzero(labels == label) > 1]
    chosen = rng.permutation(several)[:N_PAIRS]
    return [tuple(rng.permutation(np.flatnonzero(labels == label))[:2].tolist()) for label in chosen]


def network(memory: Path) -> ConvFeatureExtractor:
    """Return the default network, which keeps the descriptors of photographs for the draws of pairs."""
    return ConvFeatureExtractor(
        "timm:tf_efficientnet_lite0",
        enlarge=False,
        memory=str(memory),
        memory_keeps="descriptors",
        store_weights=False,
    )


def row(name: str, found, seconds: float) -> str:
    choice, true = found.choice, found.true_scores
    best = max(true, key=true.get)
    chosen = "default" if choice.chosen == choice.default else str(choice.chosen)
    return (
        f"| {name} | {found.n_images} | {true[choice.default]:.3f} | **{true[choice.chosen]:.3f}** | {true[best]:.3f} "
        f"({best}) | {choice.n_pairs} of {choice.n_groups}, {choice.coverage:.0%} | {choice.p_value:.4f} | {chosen} | "
        f"{seconds:.0f} |"
    )


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "skretrieval_tune")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tune.md")
    parser.add_argument("--only", nargs="*", help="Only these collections.")
    given = parser.parse_args()
    assets = None if given.assets is None else Path(given.assets)
    lines = [
        "# Tuning by verified pairs",
        "",
        "Made by `benchmarks/tune.py`: EfficientNet-Lite0, 72 settings, leave-one-out mAP. Evidence: verified pairs of",
        "how many objects, and the share of the photographs that have a mate.",
        "",
        "| collection | photographs | default | chosen | best | evidence | p | setting | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_hand = [
        "",
        f"With {N_PAIRS} pairs of different objects by hand and no others (`--pairs --no-verify`), {N_DRAWS} draws:",
        "",
        "| collection | default | chosen: mean | lowest | best | times that the default was left |",
        "|---|---|---|---|---|---|",
    ]
    for name, folder in collections(given.work, assets).items():
        if given.only and name not in given.only:
            continue
        bunch = load_image_folder(folder)
        began = time.perf_counter()
        extractor = network(given.work / "descriptors")
        found = tune(bunch.images, labels=bunch.labels, extractor=extractor, layers=LAYERS)
        lines.append(row(name, found, time.perf_counter() - began))
        print(lines[-1], flush=True)
        if name in PAIRS_TRIED:
            by_hand.append(hand_row(name, bunch, found, extractor))
            print(by_hand[-1], flush=True)
    given.out.write_text("\n".join([*lines, *by_hand, ""]), encoding="utf-8")


def hand_row(name: str, bunch, found, extractor) -> str:
    """Repeat the choice with pairs by hand, of the descriptors of one pass."""
    true = found.true_scores
    scores, left = [], 0
    for draw in range(N_DRAWS):
        pairs = one_pair_each(np.asarray(bunch.labels), draw)
        choice = tune(bunch.images, pairs=pairs, verify=False, extractor=extractor, layers=LAYERS).choice
        scores.append(true[choice.chosen])
        left += choice.chosen != choice.default
    return (
        f"| {name} | {true[found.choice.default]:.3f} | {np.mean(scores):.3f} | {min(scores):.3f} | "
        f"{max(true.values()):.3f} | {left} of {N_DRAWS} |"
    )


if __name__ == "__main__":
    main()
