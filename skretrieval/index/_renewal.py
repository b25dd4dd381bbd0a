"""What is done when an index has changed: whitening anew, giving back space, deleting files of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from . import _models
from ._encoder import halves_of
from ._gallery import Load, live_rows
from ._rows import RowFile, append, in_blocks, mapped, new_file, note_row_file, put_row_file, row_file
from ._table import (
    FILES,
    IMAGES,
    OUR_NAME,
    IndexDamagedError,
    check_is_regular,
    put_settings,
    settings_of,
    transaction,
)


def refresh(engine: sa.Engine, folder: Path, load: Load, compact: bool = False) -> None:
    """Fit what is fitted on the whole index and write the rows that it makes, if anything has changed.

    Readers see the rows of before, with the steps of before, until all is written and put into place in one step.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of the index, for writing.
    folder : Path
        Where it lies.
    load : callable
        Gives a model by its file.
    compact : bool, default=False
        Leave out the rows that no photograph has any more, also where nothing else is to be done.
    """
    with transaction(engine, folder) as connection:
        settings = settings_of(connection)
        descriptors = row_file(connection, folder, "descriptors")
        starts, counts = live_rows(connection)
    if settings["encoder"] is None or descriptors is None:
        return
    search = halves_of(load(settings["model"])).search
    whitens = len(search) > 1
    n_dead = descriptors.n_rows - int(counts.sum())
    stale = whitens and (settings["stale"] or settings["search"] is None)
    if not n_dead and not stale:
        return
    if not (stale or compact or n_dead > descriptors.n_rows // 4):
        return
    moves: list[dict[str, int]] = []
    if n_dead:
        descriptors, moves = _compacted(engine, folder, descriptors, starts, counts)
    values: dict[str, Any] = {"generation": settings["generation"] + 1}
    model = None
    gallery = None
    if whitens:
        places = np.cumsum(counts) - counts
        with transaction(engine, folder) as connection:
            labels = _labels(connection)
        sets = None if (counts == 1).all() else (places, counts)
        steps = clone(search[:-1])
        gallery = _written(
            engine, folder, _fit(steps, mapped(folder, descriptors), sets, labels, engine, folder)
        )
        content, _ = _models.model_bytes(Pipeline([*steps.steps, search.steps[-1]]))
        model = _models.write_model(engine, folder, "search", content)
        values |= {"stale": False, "search": model}
    with transaction(engine, folder) as connection:
        if n_dead:
            put_row_file(connection, descriptors)
        if moves:
            # Rows only move down in the file, and in this order none takes the number of one that is still to move.
            statement = (
                sa.update(IMAGES).where(IMAGES.c.row == sa.bindparam("old")).values(row=sa.bindparam("new"))
            )
            connection.execute(statement, moves)
        if gallery is not None and model is not None:
            put_row_file(connection, gallery)
            _models.use_model(connection, model)
        put_settings(connection, values)


def _fit(
    steps: Pipeline,
    rows: np.ndarray,
    sets: tuple[np.ndarray, np.ndarray] | None,
    labels: np.ndarray | None,
    engine: sa.Engine,
    folder: Path,
) -> Iterator[np.ndarray]:
    """Fit steps one after the other, and yield the final rows in blocks; rows are never in memory, whole."""
    if sets is not None:
        items = [rows[start : start + count] for start, count in zip(*sets, strict=True)]
        yield from map(np.asarray, steps.fit_transform(items, labels))
        return
    waiting: list[Any] = []
    for _, step in steps.steps:
        if labels is None and get_tags(step).target_tags.required:
            raise ValueError(
                f"{type(step).__name__} learns from labels, and not every photograph has one: put them into "
                "sub-folders, one for each object."
            )
        if get_tags(step).requires_fit:
            if waiting:
                rows, waiting = mapped(folder, _written(engine, folder, _through(rows, waiting))), []
            step.fit(rows, labels)
        else:  # what it makes of a row does not depend on the others
            step.fit(next(_through(rows[:1], waiting)))
        waiting.append(step)
    yield from _through(rows, waiting)


def _through(rows: np.ndarray, steps: list[Any]) -> Iterator[np.ndarray]:
    for block in in_blocks(rows):
        part: Any = block
        for step in steps:
            part = step.transform(part)
        yield np.asarray(part)


def _written(engine: sa.Engine, folder: Path, blocks: Iterator[np.ndarray]) -> RowFile:
    """Write rows to a new file, which nobody uses yet."""
    first = next(blocks)
    rows = new_file("gallery", first.dtype, first.shape[1])
    with transaction(engine, folder) as connection:
        note_row_file(connection, rows)
    return append(folder, rows, chain([first], blocks))


def _labels(connection: sa.Connection) -> np.ndarray | None:
    """Return the label of each content, if all have one."""
    chosen = sa.select(IMAGES.c.row, sa.func.min(IMAGES.c.label)).where(IMAGES.c.row.is_not(None))
    labels = [label for _, label in connection.execute(chosen.group_by(IMAGES.c.row).order_by(IMAGES.c.row))]
    return np.array(labels) if labels and all(labels) else None


# ---------------------------------------------------------------------------------------------------- space
def _compacted(
    engine: sa.Engine, folder: Path, old: RowFile, starts: np.ndarray, counts: np.ndarray
) -> tuple[RowFile, list[dict[str, int]]]:
    """Write the rows that photographs have into a new file; return it, and where each went."""
    new = new_file("descriptors", np.dtype(old.dtype), old.n_columns)
    with transaction(engine, folder) as connection:
        note_row_file(connection, new)
    new = append(folder, new, _runs(mapped(folder, old), starts, counts))
    places = np.cumsum(counts) - counts
    return new, [
        {"old": before, "new": now} for before, now in zip(starts.tolist(), places.tolist(), strict=True)
    ]


def _runs(rows: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the chosen rows, those that lie side by side together."""
    ends = starts + counts
    breaks = np.flatnonzero(starts[1:] != ends[:-1]) + 1
    for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(starts)], strict=True):
        if first < last:
            yield from in_blocks(rows[starts[first] : ends[last - 1]])


def remove_unused(engine: sa.Engine, folder: Path) -> None:
    """Delete the files that this index made and uses no more; no other file is touched."""
    with transaction(engine, folder) as connection:
        settings = settings_of(connection)
        unused = connection.execute(sa.select(FILES.c.file).where(sa.not_(FILES.c.in_use))).scalars().all()
    names = set(unused) - {settings.get(kind) for kind in ("model", "encoder", "search")}
    for name in sorted(names):
        if OUR_NAME.fullmatch(name) is None:  # a table that somebody tampered with deletes nothing elsewhere
            raise IndexDamagedError(f"{folder} is damaged: its table names a file {name!r}.")
        with contextlib.suppress(FileNotFoundError):
            try:
                check_is_regular(folder / name)
                (folder / name).unlink()
            except IndexDamagedError:  # somebody else's link or folder, which took the name since
                pass
            except PermissionError:  # mapped by a reader, on a system that keeps it: next time
                continue
        with transaction(engine, folder) as connection:
            connection.execute(sa.delete(FILES).where(FILES.c.file == name))
