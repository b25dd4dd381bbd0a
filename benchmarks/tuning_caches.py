"""The part of tuning.py on what `memory` saves: reads of each map, and maps in float16."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from tuning_settings import POOLERS, grid_scores

from skretrieval.datasets import make_photo_views
from skretrieval.extraction import FeatureMaps
from skretrieval.model_selection import GalleryQuerySplit, PseudoQueryScorer, WholeGallerySplit
from skretrieval.pooling import GeMPooler, SumPooler
from skretrieval.retrieval import NearestNeighborsRetriever


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
