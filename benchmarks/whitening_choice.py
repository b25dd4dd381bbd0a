"""Which whitening n descriptors of d features bear: none, the mean alone, shrunk, full, or fewer axes.

    python benchmarks/whitening_choice.py --assets FOLDER [--size 320]

FOLDER is that of `quality.py`. Leave-one-out mAP of the 158 photographs (GR-MAC and SPoC of MobileNetV2, SqueezeNet
and EfficientNet-Lite0), whitened by what is searched, and by the other half of the objects. With d of the channels,
drawn at random, n / d runs from 0.06 to 20. Made descriptors go on to n = 5,000: objects differ along the same axes as
the photographs of an object ("shared") or along others ("apart").
Writes a table, and the figure docs/_static/whitening_choice.svg.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.base import clone
from whitening_data import NETWORKS, extractor_of, made_descriptors, photographs_of

from skretrieval import recipes
from skretrieval._linalg import l2_normalize
from skretrieval.metrics import leave_one_out_map
from skretrieval.postprocessing import PCAWhitening, WhiteningWarning
from skretrieval.retrieval import NearestNeighborsRetriever

matplotlib.use("Agg")
SETTINGS = {
    "none": None,
    "mean": PCAWhitening(shrinkage=1.0),
    "0.9": PCAWhitening(shrinkage=0.9),
    "0.5": PCAWhitening(shrinkage=0.5),
    "0.3": PCAWhitening(shrinkage=0.3),
    "0.1": PCAWhitening(shrinkage=0.1),
    "Ledoit-Wolf": PCAWhitening(shrinkage="auto"),
    "size": PCAWhitening(shrinkage="size"),
    "full": PCAWhitening(),
    "n/8 axes": PCAWhitening("auto"),
    "power 1/4": PCAWhitening(power=0.25),
}
CHANNELS = (8, 16, 32, 64, 128, 256, None)
MADE = (50, 100, 200, 500, 1000, 2000, 5000)
N_QUERIES = 200


def score(whitening, learned: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> float:
    if whitening is not None:
        rows = clone(whitening).fit(learned).transform(rows)
    return leave_one_out_map(NearestNeighborsRetriever(), rows, labels)


def both(rows: np.ndarray, labels: np.ndarray, whitening) -> tuple[float, float]:
    """Return the mAP with the whitening of the same photographs, and with that of other objects."""
    first = np.isin(labels, np.unique(labels)[::2])
    halves = [score(whitening, rows[~here], rows[here], labels[here]) for here in (first, ~first)]
    return score(whitening, rows, rows, labels), float(
        np.average(halves, weights=[first.sum(), (~first).sum()])
    )


def of_photographs(described: list[np.ndarray], labels: np.ndarray) -> tuple[list, list]:
    """Return rows (n / d, mAP of every setting), of the same photographs and of others."""
    same, other = [], []
    for n_channels in CHANNELS:
        found = []
        for seed, rows in enumerate(described):
            order = np.random.default_rng(seed).permutation(rows.shape[1])[:n_channels]
            part = l2_normalize(rows[:, order].astype(float)) if n_channels else rows
            found.append([both(part, labels, whitening) for whitening in SETTINGS.values()])
        mean = np.mean(found, axis=0)
        d = n_channels or np.mean([rows.shape[1] for rows in described])
        same.append((len(labels), d, mean[:, 0]))
        other.append((len(labels) // 2, d, mean[:, 1]))
        print(n_channels, mean.round(3).tolist(), flush=True)
    return same, other


def of_made(shared: bool) -> list:
    """Return rows (n, d, mAP) of made descriptors, whitened by other ones."""
    found = []
    for n in MADE:
        d = 256
        rows, labels = made_descriptors(
            n + N_QUERIES, d, decay=0.7, noise=0.6 if shared else 0.9, shared=shared
        )
        learned, asked = rows[:n], rows[n:]
        values = [score(whitening, learned, asked, labels[n:]) for whitening in SETTINGS.values()]
        found.append((n, d, np.array(values)))
        print("made", shared, n, np.round(values, 3), flush=True)
    return found


def table(title: str, rows: list) -> list[str]:
    lines = ["", f"## {title}", "", "| n | d | n / d | " + " | ".join(SETTINGS) + " |"]
    lines.append("|" + "---|" * (len(SETTINGS) + 3))
    for n, d, values in rows:
        lines.append(
            f"| {n} | {d:.0f} | {n / d:.2f} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
        )
    return lines


def draw(path: Path, panels: dict[str, list]) -> None:
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "whitening"
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 3.6), sharey=True, layout="constrained"
    )
    shown = ["mean", "size", "0.5", "Ledoit-Wolf", "full", "n/8 axes"]
    for panel, (title, rows) in zip(axes, panels.items(), strict=True):
        ratio = [n / d for n, d, _ in rows]
        order = np.argsort(ratio)
        for name in shown:
            place = list(SETTINGS).index(name)
            gain = np.array([values[place] - values[0] for *_, values in rows])
            width = 2.5 if name == "size" else 1.2
            panel.plot(np.array(ratio)[order], gain[order], label=name, linewidth=width, marker=".")
        panel.axhline(0, color="black", linewidth=0.8)
        panel.set(xscale="log", title=title, xlabel="photographs per feature, n / d", ylim=(-0.4, 0.35))
    axes[0].set_ylabel("mAP, difference to no whitening")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/whitening_choice.md"))
    parser.add_argument("--figure", type=Path, default=Path("docs/_static/whitening_choice.svg"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    warnings.simplefilter("ignore", WhiteningWarning)
    images, labels = photographs_of(options.assets)
    described = []
    for network in NETWORKS:
        extractor = extractor_of(network, options.assets, options.size, None)
        maps = list(extractor.fit(images).transform(images))
        for recipe in (recipes.grmac, recipes.spoc):
            described.append(recipe(extractor="passthrough", whitening=None)[:-1].fit_transform(maps))
    same, other = of_photographs(described, labels)
    panels = {
        "the photographs searched": same,
        "photographs of other objects": other,
        "made, shared axes": of_made(True),
        "made, axes apart": of_made(False),
    }
    lines = [
        "# Which whitening n descriptors bear",
        "",
        f"`python benchmarks/whitening_choice.py --assets FOLDER --size {options.size}`",
        "",
        f"mAP, each of {len(labels)} photographs querying the others; mean over GR-MAC and SPoC of "
        f"{', '.join(NETWORKS)}. Numbers are shrinkages; mean: only the mean is subtracted; size: 10 d / (10 d + n).",
    ]
    for title, rows in panels.items():
        lines += table(f"Whitened by {title}", rows)
    options.out.write_text("\n".join([*lines, ""]))
    draw(options.figure, panels)


if __name__ == "__main__":
    main()
