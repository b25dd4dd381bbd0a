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
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from skretrieval.datasets import load_image_folder, make_photo_views
from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps
from skretrieval.metrics import leave_one_out_map
from skretrieval.model_selection import GalleryQuerySplit, PseudoQueryScorer, WholeGallerySplit
from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    WeightedPooler,
)
from skretrieval.postprocessing import LearnedWhitening, PCAWhitening, PowerNormalizer
from skretrieval.retrieval import NearestNeighborsRetriever

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
POOLERS = [
    SumPooler(),
    SPoCPooler(),
    MACPooler(),
    CroWPooler(),
    *(GeMPooler(p=p) for p in (1.5, 2.0, 3.0, 5.0, 8.0)),
    *(AdaptiveGaussianPooler(alpha=alpha) for alpha in (0.05, 0.1, 0.3)),
    AdaptiveGaussianPooler(channel=None),
    SJWPooler(),
    SJWPooler(rho=1.0),
    SJWPooler(n_channels=0.1),
    *(RMACPooler(n_levels=n_levels) for n_levels in (1, 2, 3, 4)),
    *(
        GRMACPooler(p=p, n_levels=n_levels, region_norm=norm)
        for p in (2.0, 3.0, 5.0)
        for n_levels in (2, 3)
        for norm in (None, "l2")
    ),
    *(RegionIntegrationPooler(n_levels=n_levels, whiten=False) for n_levels in (2, 3)),
    SquareSumRMACPooler(),
    WeightedPooler("center_prior", None, "whole", "power_mean"),
    WeightedPooler("center_prior", None, "rmac", "sum", "l2"),
    WeightedPooler("center_prior", "sparsity", "whole", "sum"),
    WeightedPooler("crow", "sparsity", "rmac", "sum", "l2"),
    WeightedPooler("saliency", None, "rmac", "power_mean", "l2"),
    WeightedPooler(None, "sparsity", "whole", "sum"),
    WeightedPooler(None, "sparsity_deviation", "whole", "power_mean"),
]
AFTER_POOLING = Pipeline(
    [
        ("power", PowerNormalizer()),
        ("unit", Normalizer()),
        ("whitening", PCAWhitening()),
        ("unit again", Normalizer()),
        ("retriever", NearestNeighborsRetriever()),
    ]
)
GRID = {
    "power__exponent": [1.0, 0.5],
    "whitening": ["passthrough", PCAWhitening(64, power=0.25), PCAWhitening(64, power=0.5)],
}
N_RELEVANT = (1, 3, 5, 10)
DEFAULT = "backdrop, 0.5"  # what make_pseudo_queries does; chosen on the table of squeezenet1_0
SOME = 50


def grid_scores(descriptors, y=None, **search):
    """Score every setting after pooling; with several scorers, return their scores by name."""
    results = GridSearchCV(AFTER_POOLING, GRID, refit=False, error_score="raise", **search).fit(
        descriptors, y
    )
    names = search["scoring"] if isinstance(search.get("scoring"), dict) else ["score"]
    scores = {name: results.cv_results_[f"mean_test_{name}"] for name in names}
    return scores if len(scores) > 1 else scores["score"]


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


def counted(read: list):
    """Return all passes with every map that they hand out counted in `read`."""
    batches = FeatureMaps.batches_beside

    def count(self, *args):
        for batch in batches(self, *args):
            if batch.maps is not None:
                read.append(len(batch.indices))
            yield batch

    return count


def reads(extractor, photographs, labels, folder: Path) -> list[str]:
    """Count how often a grid search over a pooler's parameter reads each map."""
    views = make_photo_views(photographs, 1, random_state=0).images
    maps, view_maps = extractor.transform(photographs), extractor.transform(views)
    for _ in (*maps.batches(), *view_maps.batches()):
        pass  # the network has run: what follows reads
    model = Pipeline([("pooler", GeMPooler()), ("retriever", NearestNeighborsRetriever())])
    cases = {
        "pseudo-queries": {
            "cv": WholeGallerySplit(),
            "scoring": PseudoQueryScorer(view_maps, np.arange(len(views))),
        },
        "GalleryQuerySplit(1, n_queries_per_label=1)": {"cv": GalleryQuerySplit(1, n_queries_per_label=1)},
        "GalleryQuerySplit(4)": {"cv": GalleryQuerySplit(4, random_state=0)},
        "GalleryQuerySplit(10)": {"cv": GalleryQuerySplit(10, random_state=0)},
    }
    lines = [
        "| search | maps | `memory_keeps` | reads of a map per candidate | s per candidate |",
        "|---|---|---|---|---|",
    ]
    exponents = [1.0, 2.0, 3.0, 5.0]
    read: list[int] = []
    whole = FeatureMaps.batches_beside
    FeatureMaps.batches_beside = counted(read)
    try:
        for title, search in cases.items():
            for keeps in ("maps", "both", "both, once more"):
                if keeps == "both":
                    shutil.rmtree(folder / "joblib" / "descriptors", ignore_errors=True)
                extractor.set_params(memory_keeps=keeps.partition(",")[0])
                read.clear()
                start = time.perf_counter()
                GridSearchCV(model, {"pooler__p": exponents}, refit=False, **search).fit(maps, labels)
                seconds = (time.perf_counter() - start) / len(exponents)
                n = len(photographs) + (len(views) if title == "pseudo-queries" else 0)
                share = sum(read) / n / len(exponents)
                lines.append(f"| {title} | {n} | {keeps} | {share:.3f} | {seconds:.2f} |")
                print(lines[-1], flush=True)
    finally:
        FeatureMaps.batches_beside = whole
    return lines


def kept_maps(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "_stored" in path.parts]


def read_seconds(maps, folder: Path, cold: bool) -> float:
    """Return the seconds to read and sum all maps, from the disk or from what the system keeps of it in memory."""
    if cold:
        os.sync()
        for path in kept_maps(folder):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    SumPooler().fit_transform(maps)
    return time.perf_counter() - start


def read_milliseconds(maps: dict, folder: Path, cold: bool) -> list[float]:
    """Return the ms to read a map for each precision, measured in turns, best of five."""
    seconds = [[read_seconds(own, folder / dtype, cold) for dtype, own in maps.items()] for _ in range(5)]
    return [1e3 * best / len(own) for best, own in zip(np.min(seconds, axis=0), maps.values())]


def half_precision(extractor, photographs, labels, folder: Path) -> str:
    """Compare maps kept in float32 and float16: bytes, seconds, and the true mAP of every setting."""
    true, sizes, maps = {}, {}, {}
    splitter = GalleryQuerySplit(4, random_state=0)
    for dtype in ("float32", "float16"):
        place = folder / dtype
        own = clone(extractor).set_params(memory=str(place), memory_keeps="maps", memory_dtype=dtype)
        maps[dtype] = own.fit(photographs).transform(photographs)
        arrays = list(maps[dtype])
        files = [path for path in kept_maps(place) if path.name == "output.pkl"]
        assert len(files) == len(photographs)
        sizes[dtype] = sum(path.stat().st_size for path in files) / len(files) / 1e6
        rows = [clone(pooler).fit_transform(arrays) for pooler in POOLERS]
        true[dtype] = np.concatenate([grid_scores(each, labels, cv=splitter) for each in rows])
    cold, warm = (read_milliseconds(maps, folder, cold) for cold in (True, False))
    change = np.abs(true["float16"] - true["float32"])
    best = [true["float32"][np.argmax(true[dtype])] for dtype in true]
    return (
        f"| {extractor.backbone} | {sizes['float32']:.2f} / {sizes['float16']:.2f} | {cold[0]:.1f} / {cold[1]:.1f} | "
        f"{warm[0]:.1f} / {warm[1]:.1f} | {change.max():.5f} | {change.mean():.5f} | "
        f"{np.count_nonzero(change)} of {len(change)} | {best[0]:.4f} / {best[1]:.4f} |"
    )


def caches(extractors, photographs, labels) -> list[str]:
    """Measure what `memory` saves."""
    lines = [
        "## Reads",
        "",
        f"Of maps that are on the disk ({extractors[-1].backbone}), over four exponents of GeM. With "
        '`memory_keeps="maps"` every fold reads the maps; with "both" the descriptors of each candidate are kept '
        "beside them, so that one fold reads a map and the others find what it became; once more, all is known.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        extractor = clone(extractors[-1]).set_params(memory=folder).fit(photographs)
        lines += reads(extractor, photographs, labels, Path(folder))
    lines += [
        "",
        "## Maps in float16",
        "",
        'float32 / float16 (`memory_dtype="float16"`): MB per map on disk, ms to read and sum a map, from the disk and '
        "from what the system keeps of it in memory, best of five passes in turns. True mAP of all settings from "
        "either: largest and mean difference, how many differ at all, and what the best setting of either has in "
        "float32.",
        "",
        "| network | MB per map | ms from disk | ms from memory | largest difference of mAP | mean | settings that "
        "differ | chosen by float32 / float16 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for extractor in extractors:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(half_precision(extractor, photographs, labels, Path(folder)))
        print(lines[-1], flush=True)
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
