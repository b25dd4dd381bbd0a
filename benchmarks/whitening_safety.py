"""Does any whitening of any recipe ruin a search of 30 to 300 photographs without saying so?

    python benchmarks/whitening_safety.py --assets FOLDER [--size 320] [--recipes NAME ...]

FOLDER is that of `quality.py`. Every recipe that takes one map per photograph is run with `whitening=None` and with
"auto", "pca" and "learned" (those that take it) on all photographs, on those of 6, 12 and 20 objects, and on 300: the
158 and 142 mirrored ones. What is learned is learned on the photographs that are searched, as an index does it;
"learned", which sees labels, on other objects (the other half). A loss counts from 0.02 mAP.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
from sklearn.base import clone
from whitening_data import extractor_of, photographs_of

from skretrieval import recipes
from skretrieval.metrics import leave_one_out_map
from skretrieval.postprocessing import WhiteningWarning

LIMIT = 0.02
NETWORKS = ["mobilenet_v2", "squeezenet1_0"]
SEVERAL = {
    "late_fusion_rmac",
    "mfc",
    "ms_rmac",
    "multi_resolution_pfa",
    "super_global",
}  # maps per photograph
PATCHES = {"mop_cnn", "neural_codes", "patch_ckn"}  # have networks of their own
SMALL = {
    "bow_cnn": {"n_clusters": 256},
    "fisher": {"n_clusters": 8, "n_local": 32},
    "netvlad": {"n_clusters": 8},
    "t_embedding": {"n_clusters": 8, "n_local": 32},
    "vlad": {"n_clusters": 8},
}


def run(recipe: str, whitening: str | None, maps: list, labels: np.ndarray) -> tuple[float, bool]:
    """Return the mAP of a recipe, and whether it warned of its whitening."""
    extra = {"random_state": 0} if recipe in SMALL else {}
    pipeline = getattr(recipes, recipe)(
        extractor="passthrough", whitening=whitening, **SMALL.get(recipe, {}), **extra
    )
    names = np.unique(labels)
    half = np.isin(labels, names[::2])
    parts = [(half, ~half), (~half, half)] if whitening == "learned" else [(labels >= 0, labels >= 0)]
    scores, sizes, told = [], [], False
    for there, here in parts:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = clone(pipeline)[:-1].fit([maps[i] for i in np.flatnonzero(there)], labels[there])
        told |= any(issubclass(warning.category, WhiteningWarning) for warning in caught)
        rows = fitted.transform([maps[i] for i in np.flatnonzero(here)])
        scores.append(leave_one_out_map(pipeline[-1], rows, labels[here]))
        sizes.append(int(here.sum()))
    return float(np.average(scores, weights=sizes)), told


def baseline(recipe: str, maps: list, labels: np.ndarray, halved: bool) -> float:
    """Return the mAP without whitening, of the whole or of the halves."""
    if not halved:
        return run(recipe, None, maps, labels)[0]
    first = np.isin(labels, np.unique(labels)[::2])
    scores = [
        run(recipe, None, [maps[i] for i in np.flatnonzero(half)], labels[half])[0]
        for half in (first, ~first)
    ]
    return float(np.average(scores, weights=[first.sum(), (~first).sum()]))


def collections(maps: list, labels: np.ndarray):
    """Yield the number, maps and labels of the collections."""
    order = np.random.default_rng(0).permutation(labels.max() + 1)
    for n_objects in (6, 12, 20):
        chosen = np.flatnonzero(np.isin(labels, order[:n_objects]))
        yield len(chosen), [maps[i] for i in chosen], labels[chosen]
    yield len(labels), maps, labels
    more = 300 - len(labels)
    # a mirrored photograph with a little noise is a further one of the same object
    rng = np.random.default_rng(1)
    mirrored = [
        np.ascontiguousarray(one[:, :, ::-1] * rng.uniform(0.7, 1.3, (len(one), 1, 1)).astype(one.dtype))
        for one in maps[:more]
    ]
    yield 300, [*maps, *mirrored], np.concatenate([labels, labels[:more]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKRETRIEVAL_ASSETS"))
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--recipes", nargs="*")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/whitening_safety.md"))
    options = parser.parse_args()
    if options.assets is None:
        parser.error("give --assets or set SKRETRIEVAL_ASSETS")
    chosen = options.recipes or sorted(set(recipes.__all__) - SEVERAL - PATCHES - {"regional_second_order"})
    images, labels = photographs_of(options.assets)
    command = f"python benchmarks/whitening_safety.py --assets FOLDER --size {options.size}"
    command += f" --recipes {' '.join(options.recipes)}" if options.recipes else ""
    command += f" --networks {' '.join(options.networks)}" if options.networks != NETWORKS else ""
    rows, tried, silent = [], 0, 0
    for network in options.networks:
        extractor = extractor_of(network, options.assets, options.size, None)
        maps = [np.asarray(one) for one in extractor.fit(images).transform(images)]
        for n, some, names in collections(maps, labels):
            for recipe in chosen:
                plain = {halved: baseline(recipe, some, names, halved) for halved in (False, True)}
                for whitening in ("auto", "pca", "learned"):
                    try:
                        found, told = run(recipe, whitening, some, names)
                    except (TypeError, ValueError) as error:  # region sets have no learned whitening
                        print(network, n, recipe, whitening, f"refused: {str(error)[:90]}", flush=True)
                        continue
                    tried += 1
                    loss = plain[whitening == "learned"] - found
                    if loss > LIMIT:
                        silent += not told
                        rows.append(
                            f"| {network} | {n} | {recipe} | {whitening} | {plain[whitening == 'learned']:.3f} | "
                            f"{found:.3f} | {loss:.3f} | {'yes' if told else '**no**'} |"
                        )
                        if not told or whitening == "auto":
                            print(rows[-1], flush=True)
            print(network, n, "done", flush=True)
            write(options.out, command, rows, tried, silent, chosen)


def write(out: Path, command: str, rows: list[str], tried: int, silent: int, chosen: list[str]) -> None:
    """Write the table of losses."""
    lost = [row.split("|")[4].strip() for row in rows]
    counts = ", ".join(f'"{name}" {lost.count(name)}' for name in ("auto", "pca", "learned"))
    lines = [
        "# Whitening of 30 to 300 photographs",
        "",
        f"`{command}`",
        "",
        f"{tried} runs of {len(chosen)} recipes; {len(rows)} lose more than {LIMIT} mAP against no whitening "
        f"({counts}); {silent} of them without a `WhiteningWarning`.",
        "",
        "| network | photographs | recipe | whitening | without | with | loss | warned |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
