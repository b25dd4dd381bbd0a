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
from ._table import (
    DATABASE,
    FILES,
    OUR_NAME,
    IndexDamagedError,
    check_is_ours,
    check_is_regular,
    make_tables,
    open_engine,
    put_settings,
    transaction,
)
from ._walk import EXCLUDED
from ._writer import writer

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
    replaces: bool = False,
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
    replaces : bool, default=False
        Whether it takes the place of the database that lies there.

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
        # last: now it is an index
        if replaces:
            for end in ("-wal", "-shm", "-journal"):  # of the old one, which would be taken for the new one's
                (folder / f"{DATABASE}{end}").unlink(missing_ok=True)
            move_into_place(half / DATABASE, folder / DATABASE)
        else:
            _put_into_place(half / DATABASE, folder / DATABASE)
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


def replace_index(folder: Path, pipeline: Pipeline, settings: dict[str, Any]) -> None:
    """Make an empty index in place of one that is there, damaged or not.

    Files that the old one says it made are deleted; whatever its table no longer tells of stays.

    Raises
    ------
    FileNotFoundError
        If there is none.
    IndexDamagedError
        If the database does not have our mark.
    """
    check_is_ours(folder / DATABASE)
    with writer(folder):
        before = _files_of(folder)
        _checkpoint(folder)
        make_index(folder, pipeline, settings, replaces=True)
        for name in before - _files_of(folder):
            with contextlib.suppress(OSError, IndexDamagedError):  # gone, or of somebody else
                check_is_regular(folder / name)
                (folder / name).unlink()


def _files_of(folder: Path) -> set[str]:
    """Return the names of files that the table of an index has, as far as it can be read."""
    names: set[str] = set()
    with (
        contextlib.suppress(OSError, IndexDamagedError),
        transaction(open_engine(folder), folder) as connection,
    ):
        for (name,) in connection.execute(sa.select(FILES.c.file)):
            if isinstance(name, str) and OUR_NAME.fullmatch(name):
                names.add(name)
    return names


def _checkpoint(folder: Path) -> None:
    """Write all into the database file itself, so that whoever opens it before it is replaced finds it whole."""
    with (
        contextlib.suppress(OSError, IndexDamagedError, sa.exc.DBAPIError),  # it may be damaged
        open_engine(folder, write=True).connect() as connection,
    ):
        connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
