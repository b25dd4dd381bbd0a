"""Making an index: beside its place first, so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from .._io import move_into_place
from . import _models
from ._encoder import halves_of
from ._info import now, package_versions
from ._rows import sync_folder
from ._table import DATABASE, OUR_NAME, make_tables, open_engine, put_settings, transaction
from ._walk import EXCLUDED

_HALF_MADE = re.compile(r"\.creating-[0-9a-f]{32}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def folder_of(where: str | os.PathLike) -> Path:
    """Return the folder that `where` names.

    Raises
    ------
    ValueError
        If it is the address of a database.
    """
    text = os.fspath(where)
    if isinstance(text, str) and _URL.match(text):
        raise ValueError(
            f"where must be a folder, got {text.split('://')[0]}://...: indexes on a database server do not exist yet."
        )
    return Path(where)


def is_free(folder: Path) -> bool:
    """Tell whether an index may be made in a folder: it holds nothing, or what a killed process left of making one."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        _HALF_MADE.fullmatch(file.name) or OUR_NAME.fullmatch(file.name) for file in folder.iterdir()
    )


def first_model(pipeline: Pipeline, settings: dict[str, Any]) -> bytes:
    """Write the unfitted Pipeline of an index.

    Raises
    ------
    ValueError
        If the Pipeline does not begin with an extractor or cannot be written, or the settings are nothing that JSON
        holds.
    """
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings must be of values that JSON holds: {error}.") from error
    halves_of(pipeline)
    return _models.model_bytes(clone(pipeline))[0]


def begin(connection: sa.Connection, model: str, settings: dict[str, Any], generation: int) -> None:
    """Say in the table how photographs will be described, and that there are none yet."""
    values = {
        "model": model,
        **dict.fromkeys(("encoder", "search", "folder")),
        "stale": False,
        "generation": generation,
        "exclude": list(EXCLUDED),
        "settings": settings,
        "versions": package_versions(),
        "created": now(),
    }
    _models.use_model(connection, model)
    put_settings(connection, values)


def make_index(
    folder: Path,
    pipeline: Pipeline,
    settings: dict[str, Any],
    fill: Callable[[sa.Engine, Path], None] | None = None,
) -> None:
    """Make an index in a folder that has none.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    pipeline : Pipeline
        How photographs are described and searched.
    settings : dict
        What :meth:`ImageIndex.info` is to say of how it was made.
    fill : callable, optional
        Takes the engine and the folder where the index lies until it is whole, and writes what it is to hold.

    Raises
    ------
    FileExistsError
        If another process has made an index there meanwhile.
    """
    licence = _weights_licence(pipeline)
    if licence is not None:
        settings = {**settings, "weights_licence": licence}
    content = first_model(pipeline, settings)
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f".creating-{uuid.uuid4().hex}"
    half.mkdir()
    try:
        engine = open_engine(half, write=True, create=True)
        with transaction(engine, half) as connection:
            make_tables(connection)
        model = _models.write_model(engine, half, "model", content)
        with transaction(engine, half) as connection:
            begin(connection, model, settings, 0)
        if fill is not None:
            fill(engine, half)
        engine.dispose()
        made = [half / file for file in os.listdir(half) if OUR_NAME.fullmatch(file)]
        for file in made:
            move_into_place(file, folder / file.name)
        _put_into_place(half / DATABASE, folder / DATABASE)  # last: now it is an index
        sync_folder(folder)
    finally:
        for name in os.listdir(half):
            (half / name).unlink()
        with contextlib.suppress(OSError):
            half.rmdir()


def _weights_licence(pipeline: Pipeline) -> str | None:
    """Return the licence of the network's weights, where it is known before any photograph is described."""
    extractor: Any = pipeline.steps[0][1] if pipeline.steps else None
    if not hasattr(extractor, "weights_licence"):
        return None
    try:
        return extractor.weights_licence()
    except (OSError, ValueError, ImportError):  # the first update says what is wrong with the network
        return None


def _put_into_place(finished: Path, path: Path) -> None:
    """Give a database its place, and replace none that another process has made."""
    try:
        os.link(finished, path)
    except FileExistsError:
        raise FileExistsError(f"{path.parent} holds an index already, which was made just now.") from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(f"{path.parent} holds an index already, which was made just now.") from None
        move_into_place(finished, path)
