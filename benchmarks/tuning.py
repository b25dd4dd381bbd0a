"""How well does tuning without labels choose? Pseudo-queries against true labels over a grid of settings.

    python benchmarks/tuning.py --assets FOLDER [--size 512] [--cache FOLDER] [--out benchmarks/results/tuning.md]
                                [--only reads]

FOLDER holds `images/SET/LABEL/*` and state dicts of torchvision networks as `weights/NAME.pth` (see quality.py). It can
also be given as SKRETRIEVAL_ASSETS. With --cache, maps and pooled descriptors are kept between runs.

Each setting (a pooler, its parameters, power normalisation, whitening) gets its true mAP by labels
(GalleryQuerySplit) and its score by pseudo-queries (PseudoQueryScorer), for several kinds of views. Reported: the rank
correlation of the two over all settings, and the true mAP of the setting that the pseudo-queries choose.

Then, and with ``--only reads`` nothing else: how often searches read each map, with and without the descriptors being
kept, and what keeping maps in float16 saves and does to the mAP of every setting. That part uses a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline
from tuning_caches import caches
from tuning_settings import AFTER_POOLING, POOLERS, grid_scores

from skretrieval.datasets import load_image_folder, make_photo_views
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.metrics import leave_one_out_map
from skretrieval.model_selection import GalleryQuerySplit, PseudoQueryScorer, WholeGallerySplit
from skretrieval.postprocessing import LearnedWhitening, PCAWhitening

FIVE = ("crop", "warp", "relight", "blur", "jpeg")
# The number is the seed of the views.
VIEWS = {
    "backdrop, 1.0": (("backdrop",), 1.0, 3),
    "backdrop and five, 0.7": (("backdrop", *FIVE), 0.7, 2),
    "five kinds, 0.7": (FIVE, 0.7, 0),
    "five kinds, 1.0": (FIVE, 1.0, 1),
    "backdrop, 0.5": (("backdrop",), 0.5, 8),
    "five kinds, 0.3": (FIVE, 0.3, 6),
    "crop, 1.0": (("crop",), 1.0, 4),
    "backdrop and five, 1.0": (("backdrop", *FIVE), 1.0, 5),
}
N_RELEVANT = (1, 3, 5, 10)
DEFAULT = "backdrop, 0.5"  # what make_pseudo_queries does; chosen on the table of squeezenet1_0
SOME = 50


def half(labels: np.ndarray, which: int) -> np.ndarray:
    """Return the photographs of every second object."""
    return np.flatnonzero(np.isin(labels, np.unique(labels)[which::2]))


class Descriptors:
    """Pooled descriptors of one network, kept in a folder."""

    def __init__(self, extractor, folder: Path):
        self.extractor, self.folder = extractor, folder

    def __call__(self, name: str, make_images) -> list[np.ndarray]:
        files = []
        for pooler in POOLERS:
            setting = (
                f"{self.extractor.image_size} {type(pooler).__name__} {sorted(pooler.get_params().items())}"
            )
            key = hashlib.blake2b(setting.encode(), digest_size=8).hexdigest()
            files.append(self.folder / f"{self.extractor.backbone}-{name}-{key}.npy")
        missing = [i for i, file in enumerate(files) if not file.exists()]
        if missing:
            maps = list(self.extractor.transform(make_images()))
            for i in missing:
                np.save(files[i], POOLERS[i].fit_transform(maps))
        return [np.load(file) for file in files]


def correlations(scores: np.ndarray, true: np.ndarray) -> str:
    """Return Spearman / Kendall / true mAP of the chosen setting."""
    chosen = true[np.argmax(scores)]
    return f"{spearmanr(scores, true)[0]:.2f} / {kendalltau(scores, true)[0]:.2f} / {chosen:.3f}"


def study(extractor, photographs, labels, folder: Path) -> list[str]:
    """Compare the choices of pseudo-queries with those of labels, for one network."""
    describe = Descriptors(extractor, folder)
    gallery = describe("gallery", lambda: photographs)
    splitter = GalleryQuerySplit(4, random_state=0)
    true = np.concatenate([grid_scores(rows, labels, cv=splitter) for rows in gallery])
    halves = [
        np.concatenate(
            [
                grid_scores(rows[part], labels[part], cv=WholeGallerySplit(), scoring=leave_one_out_map)
                for rows in gallery
            ]
        )
        for part in (half(labels, 0), half(labels, 1))
    ]
    n_after = len(true) // len(POOLERS)
    name = POOLERS[np.argmax(true) // n_after]
    lines = [
        f"{len(true)} settings ({len(POOLERS)} poolers, {n_after} settings after each).",
        f"True mAP: best {true.max():.3f} ({' '.join(str(name).split())}), median {np.median(true):.3f}, "
        f"mean (a random choice) {true.mean():.3f}, worst {true.min():.3f}.",
        "Labels of one half of the objects choose for the other half with Spearman "
        f"{spearmanr(*halves)[0]:.2f}: what labels of other objects would do.",
        "",
        "| views | " + " | ".join(f"n_relevant={k}" for k in N_RELEVANT) + " | poolers only, n_relevant=5 |",
        "|---|" + "---|" * (len(N_RELEVANT) + 1),
    ]
    for title, (kinds, strength, seed) in VIEWS.items():

        def make(kinds=kinds, strength=strength, seed=seed):
            return make_photo_views(photographs, 1, kinds=kinds, strength=strength, random_state=seed).images

        views = describe(f"{'-'.join(kinds)}-{strength}-{seed}", make)
        everyone = np.arange(len(photographs))
        scorers = {k: (k, everyone) for k in N_RELEVANT}
        if title == DEFAULT:
            rng = np.random.RandomState(0)
            some = {f"some {draw}": (5, rng.choice(everyone, SOME, replace=False)) for draw in range(5)}
            scorers |= some
        scores = [
            grid_scores(
                base,
                cv=WholeGallerySplit(),
                scoring={
                    str(name): PseudoQueryScorer(queries[chosen], chosen, n_relevant=k)
                    for name, (k, chosen) in scorers.items()
                },
            )
            for base, queries in zip(gallery, views)
        ]
        scores = {name: np.concatenate([part[str(name)] for part in scores]) for name in scorers}
        rows = [correlations(scores[k], true) for k in N_RELEVANT]
        if title == DEFAULT:
            few = [scores[name] for name in some]
        plain = correlations(scores[5][::n_after], true[::n_after])
        lines.append(f"| {title} | " + " | ".join([*rows, plain]) + " |")
        print(extractor.backbone, lines[-1], flush=True)
    found = "; ".join(correlations(chosen, true) for chosen in few)
    return [
        *lines,
        "",
        f"{DEFAULT}, n_relevant=5, with {SOME} of the photographs as queries, five draws: {found}.",
    ]


def optimism(gallery: np.ndarray, labels: np.ndarray) -> list[str]:
    """Score whitenings on objects that they know, and on objects that they don't."""
    lines = ["| whitening | gallery and queries of the same objects | objects apart |", "|---|---|---|"]
    for title, step in {
        "none": "passthrough",
        "PCA, 64 axes": PCAWhitening(64),
        "PCA, 64 axes, power 0.25": PCAWhitening(64, power=0.25),
        "learned from labels": LearnedWhitening(),
    }.items():
        model = Pipeline(AFTER_POOLING.steps).set_params(power__exponent=1.0, whitening=step)
        same = cross_val_score(model, gallery, labels, cv=GalleryQuerySplit(4, random_state=0))
        apart = cross_val_score(
            model, gallery, labels, groups=labels, cv=GroupKFold(2), scoring=leave_one_out_map
        )
        lines.append(f"| {title} | {same.mean():.3f} | {apart.mean():.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--networks", nargs="+", default=None, help="only these of the folder")
    parser.add_argument("--cache", default=None, help="keep maps and descriptors here between runs")
    parser.add_argument(
        "--only", choices=["reads"], help="measure the caches only; replaces that part of --out"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tuning.md"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    # few photographs: whitenings say that they keep fewer axes than asked for, or need a ridge
    warnings.simplefilter("ignore", UserWarning)
    assets = Path(options.assets)
    folder = next(path for path in sorted((assets / "images").iterdir()) if path.is_dir())
    photographs = load_image_folder(folder)
    labels = np.asarray(photographs.labels)
    lines = [
        "# Tuning without labels",
        "",
        f"`python benchmarks/tuning.py --assets FOLDER --size {options.size}`",
        "",
        f"{len(labels)} photographs of {len(np.unique(labels))} objects ({folder.name}), longest side {options.size}. "
        "One view of each photograph is its pseudo-query. Per cell: Spearman / Kendall rank correlation between the "
        "pseudo-queries' score and the true mAP over all settings / true mAP of the setting with the best score.",
    ]
    found = sorted((assets / "weights").glob("*.pth"))
    found = [path for path in found if path.stem in (options.networks or [path.stem])]
    extractors = [
        ConvFeatureExtractor(path.stem, weights=str(path), image_size=options.size, device="cpu")
        for path in found
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.only == "reads":
        text = options.out.read_text() if options.out.exists() else "\n".join(lines)
        lines = [text.partition("## Reads")[0].rstrip(), "", *caches(extractors, photographs.images, labels)]
        options.out.write_text("\n".join([*lines, ""]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(options.cache or scratch)
        (cache / "descriptors").mkdir(parents=True, exist_ok=True)
        for extractor in extractors:
            extractor = clone(extractor).set_params(memory=str(cache)).fit(photographs.images)
            lines += [
                "",
                f"## {extractor.backbone}",
                "",
                *study(extractor, photographs.images, labels, cache / "descriptors"),
            ]
            gallery = Descriptors(extractor, cache / "descriptors")("gallery", lambda: photographs.images)
            lines += ["", "Whitening, after SPoC:", ""]
            lines += optimism(gallery[1], labels)
    lines += ["", *caches(extractors, photographs.images, labels)]
    options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
