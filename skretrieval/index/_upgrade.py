"""Indexes of the first format (JSON, .npy and pickles) to the present one."""

from __future__ import annotations

import json
import os
import sys
import warnings
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import joblib
import numpy as np
import sqlalchemy as sa
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline

from .._io import HASH, hash_file
from .._linalg import WhiteningAxes
from .._terminal import printable
from . import _info, _models
from ._creation import make_index
from ._encoder import halves_of
from ._image_index import ImageIndex
from ._rows import append, in_blocks, new_file, note_row_file, put_row_file
from ._table import (
    DATABASE,
    IMAGES,
    IndexDamagedError,
    check_is_regular,
    given_path,
    put_settings,
    stored_path,
    transaction,
)

MANIFEST = "index.json"
_FORMAT = "skretrieval index"


def upgrade_index(where: str | os.PathLike) -> ImageIndex:
    """Turn an index of the first format into one of the present format, in its place.

    What was described is taken over, nothing is described again; the pixels and dates of the photographs, which the
    first format did not hold, stay unknown. The old files are deleted at the end, when the new index is whole: those
    that the old manifest names and whose content is still the one that it notes.

    Parameters
    ----------
    where : path
        The folder of the index.

    Returns
    -------
    index : ImageIndex
        The same index.

    Raises
    ------
    FileNotFoundError
        If there is no old index.
    FileExistsError
        If there is one of the present format already.
    IndexDamagedError
        If the old one is damaged; nothing was changed then.

    Warnings
    --------
    An old index holds pickles, and **loading them runs code that the files hold**. Upgrade only an index from a source
    that you trust.
    """
    folder = Path(where)
    if (folder / DATABASE).exists():
        raise FileExistsError(f"{folder} holds an index of the present format already.")
    old = _read(folder)
    encoder = halves_of(old.pipeline).encoder

    def fill(engine: sa.Engine, half: Path) -> None:
        behind = encoder[old.n_front :]  # steps that were not applied to the rows of the first format
        for _, step in behind.steps:
            step.fit(old.descriptors[:1])
        blocks = in_blocks(old.descriptors)
        if len(behind):
            blocks = map(behind.transform, blocks)
        content, weights = _models.model_bytes(encoder)
        files = [_models.write_weights(engine, half, *item) for item in weights.items()]
        model = _models.write_model(engine, half, "encoder", content)
        rows = new_file("descriptors", old.descriptors.dtype, old.descriptors.shape[1])
        with transaction(engine, half) as connection:
            note_row_file(connection, rows)
        rows = append(half, rows, blocks)
        with transaction(engine, half) as connection:
            put_row_file(connection, rows)
            _models.use_weights(connection, files)
            _models.use_model(connection, model)
            values = {"encoder": model, "folder": old.manifest["folder"], "created": old.manifest["written"]}
            values |= {"versions": old.manifest["versions"], "generation": 1, "stale": True}
            put_settings(connection, values)
            connection.execute(sa.insert(IMAGES), old.lines)
            _info.check_settings(connection, folder)

    make_index(folder, old.pipeline, old.manifest["settings"], fill)
    for kind, record in old.manifest["files"].items():
        if hash_file(old.files[kind]) == record[HASH]:
            old.files[kind].unlink()
    (folder / MANIFEST).unlink()
    index = ImageIndex(folder)
    index.vacuum()  # whitens, where the Pipeline does
    return index


class _Old(NamedTuple):
    """An index of the first format."""

    manifest: dict[str, Any]
    files: dict[str, Path]
    descriptors: np.ndarray
    pipeline: Pipeline
    n_front: int
    lines: list[dict[str, Any]]


def _read(folder: Path) -> _Old:
    """Read an index of the first format, and change nothing.

    Raises
    ------
    FileNotFoundError
        If there is none.
    IndexDamagedError
        If it is not as it was written.
    """
    try:
        check_is_regular(folder / MANIFEST)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT or manifest["format_version"] != 1:
            raise ValueError("it is of another format.")
        files = {kind: folder / _checked(record["name"]) for kind, record in manifest["files"].items()}
        for kind, record in manifest["files"].items():
            check_is_regular(files[kind])
            if hash_file(files[kind]) != record[HASH]:
                raise ValueError(f"{files[kind].name} has changed since it was written.")
        images = json.loads(files["images"].read_text(encoding="utf-8"))["images"]
        descriptors = np.load(files["descriptors"], mmap_mode="r", allow_pickle=False)
        if descriptors.ndim != 2 or descriptors.dtype not in (np.float32, np.float64) or not len(descriptors):
            raise ValueError(
                f"its descriptors are of shape {descriptors.shape} and type {descriptors.dtype}."
            )
        first, lines = 0, []
        for image in images:
            lines.append(_line(image, first))
            first += lines[-1]["n_rows"]
        if first != len(descriptors) or len({line["path"] for line in lines}) != len(lines):
            raise ValueError(f"it has {len(descriptors)} descriptors for {len(lines)} photographs.")
        for key, kind in (("folder", str), ("written", str), ("versions", dict), ("settings", dict)):
            if not isinstance(manifest[key], kind):
                raise ValueError(f"its {key} is {manifest[key]!r}.")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} holds no index of the first format: {error.filename} is missing."
        ) from error
    except IndexDamagedError:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        EOFError,
        RecursionError,
        MemoryError,
    ) as error:
        raise IndexDamagedError(f"{folder / MANIFEST} is damaged: {error!r}.") from error
    front, search = (_unpickled(files[kind]) for kind in ("front", "search"))
    pipeline = Pipeline([*front.steps, *clone(search).steps])
    return _Old(manifest, files, descriptors, pipeline, len(front.steps), lines)


def _checked(name: Any) -> str:
    if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
        raise ValueError(f"it names a file {name!r}.")
    return name


def _unpickled(file: Path) -> Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        sys.meta_path.append(_Moved)
        try:
            model = joblib.load(file)
        except Exception as error:  # a pickle can raise anything
            raise IndexDamagedError(f"{file} cannot be loaded: {error!r}.") from error
        finally:
            sys.meta_path.remove(_Moved)
            for name in [name for name, module in sys.modules.items() if isinstance(module, _Stand)]:
                del sys.modules[name]
    if not isinstance(model, Pipeline) or not model.steps:
        raise IndexDamagedError(f"{file} is damaged: it holds a {type(model).__name__}.")
    return model


class _Stand(ModuleType):
    """In place of a module that is no more: has the classes of this package by their names, wherever they are now."""

    def __getattr__(self, name: str) -> Any:
        classes: dict[str, type] = {
            **_models.own_estimators(),
            "RegionAxes": WhiteningAxes,
            "LocalAxes": WhiteningAxes,
        }
        if name not in classes:
            raise AttributeError(name)
        return classes[name]


class _Moved(Loader):
    """Finds private modules that earlier releases had, while one of their models is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find what nothing else has found."""
        return ModuleSpec(name, _Moved(), is_package=True) if name.startswith("skretrieval.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the stand-in."""
        return _Stand(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it has no code."""


def _line(image: dict[str, Any], row: int) -> dict[str, Any]:
    path = image["path"]
    stored = stored_path(path)
    given_path(stored)
    n_rows = 1 if image.get("n_regions") is None else image["n_regions"]
    digest = bytes.fromhex(image["digest"])
    numbers = (image["size"], image["mtime_ns"], n_rows)
    if any(type(number) is not int or not -(2**63) <= number < 2**63 for number in numbers) or n_rows < 1:
        raise ValueError(f"it says of {path!r} that it has {numbers}.")
    return {
        "path": stored,
        "name": printable(path),
        "size": image["size"],
        "mtime_ns": image["mtime_ns"],
        "digest": digest or None,
        "label": printable(image["label"]),
        "row": row,
        "n_rows": n_rows,
        "blank": False,
    }
