"""Writing an index: each file under a temporary name, the manifest last (see `_image_index.py` for the layout)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.pipeline import Pipeline

from .._io import HASH, atomic_write, hash_file
from ._image_index import (
    ENCODER,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    IndexedImage,
    package_versions,
)

_GENERATION = re.compile(r"-(\d+)\.(?:json|npy|joblib)$")


def write_index(
    path: Path,
    *,
    folder: Path,
    settings: dict,
    images: list[IndexedImage],
    skipped: dict[str, str],
    arrays: dict[str, dict],
    dimension: int,
    encoder: Pipeline | dict,
    search: Pipeline,
) -> dict:
    """Complete a new generation and make it the valid one.

    Parameters
    ----------
    path : Path
        The folder of the index.
    folder : Path
        The folder that was indexed.
    settings : dict
        How the descriptors were made.
    images : list of IndexedImage
        In the order of the rows.
    skipped : dict
        Relative path of each file that could not be read, and why.
    arrays : dict
        The records of the files of this generation that are written already: "descriptors", as pooled, and
        "gallery", after post-processing.
    dimension : int
        Columns of the gallery.
    encoder : Pipeline or dict
        The fitted extractor and pooler, or the record of the file that holds them already.
    search : Pipeline
        The fitted post-processing, and the retriever.

    Returns
    -------
    manifest : dict
        What ``index.json`` now holds.
    """
    generation = generation_of(path / arrays["gallery"]["name"])
    table = {"images": images, "skipped": skipped}
    files = {
        "images": write_json(path / f"images-{generation}.json", table),
        **arrays,
        ENCODER: encoder
        if isinstance(encoder, dict)
        else write_model(path / f"{ENCODER}-{generation}.joblib", encoder),
        "search": write_model(path / f"search-{generation}.joblib", search),
    }
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generation": generation,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": str(folder),
        "n_images": len(images),
        "n_labels": len({image.label for image in images} - {""}),
        "n_skipped": len(skipped),
        "dimension": dimension,
        "settings": settings,
        "versions": package_versions(),
        "files": files,
    }
    write_json(path / MANIFEST, manifest)
    return manifest


def next_generation(path: Path) -> int:
    """Return the number of the generation that comes after all that left files in the folder."""
    return 1 + max((generation_of(file) for file in path.iterdir()), default=0)


def write_json(file: Path, content: Any) -> dict:
    """Write JSON that a person can read; returns the file's record for the manifest."""
    # ASCII, so that even a file name that is no valid UTF-8 survives. Part by part: the table of a million images is
    # several times larger as Python objects and text than as a file.
    parts = json.JSONEncoder(indent=1, default=asdict).iterencode(content)

    def write(stream):
        while text := "".join(islice(parts, 4096)):
            stream.write(text.encode("ascii"))

    return write_file(file, write)


def write_array(file: Path, array: np.ndarray) -> dict:
    """Write an array as .npy; returns the file's record for the manifest."""
    return write_file(
        file, lambda stream: np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
    )


def write_model(file: Path, model: Any) -> dict:
    """Pickle a fitted model with joblib; returns the file's record for the manifest."""
    return write_file(file, lambda stream: joblib.dump(model, stream))


def write_file(file: Path, writer: Callable) -> dict:
    """Write a file that is never seen in part; returns its record."""
    with atomic_write(file) as stream:
        writer(stream)
    return {"name": file.name, "bytes": file.stat().st_size, HASH: hash_file(file)}


def generation_of(file: Path) -> int:
    """Return the number of the generation that a file belongs to; 0 where its name has none."""
    match = _GENERATION.search(file.name)
    return int(match.group(1)) if match else 0
