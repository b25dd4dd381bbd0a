"""What the learned kernel network is worth, next to random networks: mAP and seconds, as a table in Markdown.

    python benchmarks/kernel_extractor.py [FOLDER] [--quick] [--out benchmarks/results/kernel_extractor.md]

FOLDER holds photographs in one sub-folder per object; the default is ``$SKRETRIEVAL_ASSETS/images/dreambooth``.
Every photograph queries all others (leave-one-out mAP, trapezoid; cosine of l2-normalised descriptors). The second
data set are views (crop, warp, relight, blur, JPEG) of the photographs that come with scikit-image and scikit-learn;
each view queries all others. Labels are used for scoring only.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from sklearn.preprocessing import FunctionTransformer, normalize

from skretrieval.datasets import load_image_folder, load_sample_photographs, make_photo_views
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
from skretrieval.metrics import leave_one_out_map
from skretrieval.pooling import GeMPooler, GRMACPooler, PoolerFusion, SJWPooler
from skretrieval.postprocessing import PCAWhitening

POOLERS = {
    "GeM": GeMPooler(),
    "GR-MAC": GRMACPooler(),
    "SJW": SJWPooler(),
    "GSW": PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4]),
}

ONE_LAYER = {"patch_size": 7, "subsampling": 4, "center": True, "n_components": 64}

# What differs from the defaults.
VARIANTS: list[dict] = [
    {"n_channels": (64, 512)},
    {"n_channels": (256, 256)},
    {"n_channels": (256, 1024)},
    {"patch_size": (5, 1)},
    {"patch_size": (7, 3)},
    {"beta": (8.0, 4.0)},
    {"center": False},
    {"image_size": 160},
    {"image_size": 320},
    {"n_channels": (256,), **ONE_LAYER},
    {"n_channels": (512,), **ONE_LAYER},
    {"n_channels": (1024,), **ONE_LAYER},
]


def describe(extractor, images):
    """Pool the maps of every image in several ways; also the seconds per image of the extraction."""
    start = time.process_time()
    maps = list(extractor.transform(images))
    seconds = (time.process_time() - start) / len(images)
    return {name: normalize(pooler.fit_transform(maps)) for name, pooler in POOLERS.items()}, seconds


def score(descriptors, labels):
    return leave_one_out_map(FunctionTransformer().fit(descriptors), descriptors, labels)


def whitened(descriptors, others):
    return normalize(PCAWhitening().fit(others).transform(descriptors))


def measure(extractor, sets):
    """Score a fitted extractor on both sets; returns the cells of its row and the seconds per photograph."""
    descriptors, seconds = {}, {}
    for name, (images, _) in sets.items():
        descriptors[name], seconds[name] = describe(extractor, images)
    cells = []
    for name, other in (("objects", "views"), ("views", "objects")):
        labels = sets[name][1]
        cells += [score(descriptors[name][pooler], labels) for pooler in POOLERS]
        cells.append(score(whitened(descriptors[name]["GR-MAC"], descriptors[other]["GR-MAC"]), labels))
    return [f"{cell:.3f}" for cell in cells], seconds["objects"]


def per_layer(value, n_layers):
    values = value if isinstance(value, tuple) else (value,) * n_layers
    return ", ".join("all" if v is None else f"{v:g}" for v in values)


def settings(extractor):
    n = len(extractor.n_channels)
    names = ("n_channels", "patch_size", "subsampling", "beta", "n_components")
    values = [per_layer(getattr(extractor, name), n) for name in names]
    centred = per_layer(extractor.center, n).split(", ")[0] == "1"
    return [*values, "gradients" if centred else "colours", str(extractor.image_size)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    assets = os.environ.get("SKRETRIEVAL_ASSETS")
    parser.add_argument(
        "folder", nargs="?", default=assets and Path(assets, "images", "dreambooth"), type=Path
    )
    parser.add_argument("--quick", action="store_true", help="the default and SqueezeNet only")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kernel_extractor.md")
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("give the folder of photographs, or set SKRETRIEVAL_ASSETS")

    objects = load_image_folder(arguments.folder)
    views = make_photo_views(load_sample_photographs().images, n_views=4, image_size=640, random_state=0)
    sets = {"objects": (objects.images, objects.labels), "views": (views.images, views.labels)}
    torch.set_num_threads(1)

    rows = []

    def add(name, source, words, extractor, fit_seconds):
        cells, seconds = measure(extractor, sets)
        rows.append([name, source, *words, *cells, fit_seconds, f"{seconds:.2f}"])
        print(" | ".join(rows[-1]), flush=True)

    def add_kernel(name, source, parameters):
        extractor = ConvKernelExtractor(random_state=0, **parameters)
        start = time.process_time()
        extractor.fit(sets[source][0])
        add(name, source, settings(extractor), extractor, f"{time.process_time() - start:.1f}")

    add_kernel("kernel, default", "objects", {})
    add_kernel("kernel, default", "views", {})
    for parameters in [] if arguments.quick else VARIANTS:
        add_kernel("kernel", "objects", parameters)
    for name in ("squeezenet1_0",) if arguments.quick else ("squeezenet1_0", "vgg16"):
        network = ConvFeatureExtractor(name, weights=None, image_size=320, random_state=0).fit(objects.images)
        channels = str(len(network.get_feature_names_out()))
        add(f"{name}, random", "", [channels, *[""] * 5, "320"], network, "")

    columns = ["network", "filters from", "channels", "patch", "subsampling", "beta", "components", "input"]
    columns.append("size")
    for name in sets:
        columns += [*(f"{name} {pooler}" for pooler in POOLERS), f"{name} GR-MAC whitened"]
    columns += ["fit s", "s / image"]
    lines = [
        "# Kernel network against random networks",
        "",
        "Written by `python benchmarks/kernel_extractor.py`.",
        "",
        f"Leave-one-out mAP. *objects*: {len(objects.images)} photographs of {len(objects.target_names)} objects; "
        f"*views*: {len(views.images)} views of {len(set(views.labels))} photographs. Filters are learned without "
        "labels. Where they come from the set that is scored, the score is transductive, as it is when an index "
        "is built; where they come from the other set, it is not. The variants were compared, and the defaults "
        "chosen, on these very sets: differences below about 0.02 mean nothing. *whitened*: PCA-whitening "
        "fitted on the descriptors of the other set. Poolers by their defaults.",
        "",
        f"torch {torch.__version__}, 1 thread; CPU seconds, reading the files included.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    arguments.out.write_text("\n".join(lines))
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
