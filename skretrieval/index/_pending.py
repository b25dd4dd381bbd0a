"""Work in progress of an index: what is finished is kept, whatever interrupts it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import joblib
import numpy as np
from sklearn.pipeline import Pipeline

from ._blocks import Block, write_blocks
from ._image_index import MANIFEST, IndexedImage, read_manifest
from ._writing import generation_of, write_array, write_json, write_model

_PLAN = "plan.json"
_ENCODER = "front.joblib"


class Pending:
    """The folder ``pending/`` of an index.

    It holds ``plan.json`` (the settings), ``front.joblib`` (the fitted extractor and pooler, once they are
    fitted for a new index) and shards: ``<n>.npy`` with descriptors and ``<n>.json`` with the images they belong
    to. A shard counts when its ``.json`` is there, which is written last.

    Parameters
    ----------
    index : Path
        The folder of the index.
    """

    def __init__(self, index: Path):
        self.path = index / "pending"
        self._last_shard: int | None = None

    def plan(self) -> dict | None:
        """Return what was begun: ``{"settings": ..., "fresh": bool}``, or None if nothing was."""
        try:
            return json.loads((self.path / _PLAN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.path / _PLAN} is damaged: {error}. Delete the folder {self.path}; the index itself is "
                "not touched by that."
            ) from error

    def begin(self, settings: dict, fresh: bool) -> None:
        """Start work; `fresh` work ignores the index that is there."""
        self.clear()
        self.path.mkdir(parents=True)
        write_json(self.path / _PLAN, {"settings": settings, "fresh": fresh})

    def clear(self) -> None:
        """Forget everything."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self._last_shard = None

    def encoder(self) -> Pipeline | None:
        """Load the fitted extractor and pooler, or return None if they aren't there yet."""
        file = self.path / _ENCODER
        return joblib.load(file) if file.is_file() else None

    def keep_encoder(self, encoder: Pipeline) -> None:
        """Keep the fitted extractor and pooler, so that all shards come from the same one."""
        write_model(self.path / _ENCODER, encoder)

    def add(self, images: list[IndexedImage], descriptors: np.ndarray, skipped: dict[str, str]) -> None:
        """Keep the descriptors of some images, and which files could not be read."""
        if self._last_shard is None:
            self._last_shard = max((_number(file) for file in self._shards()), default=0)
        self._last_shard += 1
        name = f"{self._last_shard:06d}"
        if images:
            write_array(self.path / f"{name}.npy", descriptors)
        write_json(
            self.path / f"{name}.json", {"images": [asdict(image) for image in images], "skipped": skipped}
        )

    def shards(self) -> Iterator[tuple[list[IndexedImage], Path | None]]:
        """Yield the images of each finished shard, and the file with their descriptors."""
        for file in self._shards():
            rows = file.with_suffix(".npy")
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                images = [IndexedImage(**row) for row in content["images"]]
                if images:
                    np.load(rows, mmap_mode="r", allow_pickle=False)  # whole? It is read when all are merged.
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{file} or its .npy is damaged: {error!r}. Delete both; their images are described again."
                ) from error
            yield images, rows if images else None

    def keep_rows(self, n_rows: int, blocks: Iterable[Block]) -> np.ndarray:
        """Write rows that post-processing is fitted on, and map them."""
        file = self.path / "rows.npy"
        write_blocks(file, n_rows, blocks)
        return np.load(file, mmap_mode="r", allow_pickle=False)

    def has_shards(self) -> bool:
        """Tell whether anything was described."""
        return bool(self._shards())

    def _shards(self) -> list[Path]:
        return sorted((file for file in self.path.glob("*.json") if file.stem.isdigit()), key=_number)


def _number(file: Path) -> int:
    return int(file.stem)


def remove_leftovers(index: Path) -> None:
    """Delete old generations, and what attempts to write left: on a disk that is nearly full it would pile up."""
    try:
        files = read_manifest(index)["files"] if (index / MANIFEST).exists() else {}
    except ValueError:  # which files are whole cannot be told: they stay until there is a new index
        return
    valid = {record["name"] for record in files.values()}
    for file in index.iterdir():
        # Of other generations, or of a killed process that had not finished a file.
        if (generation_of(file) and file.name not in valid) or file.suffix == ".tmp":
            file.unlink()
