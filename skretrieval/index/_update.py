"""Bringing an index up to date with its folder: only what changed is described, and every step is kept."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from .._io import hash_bytes
from .._terminal import printable
from ..extraction import read_facts, read_file
from ._encoder import describe
from ._rows import append, new_file, note_row_file, put_row_file, row_file
from ._table import IMAGES, given_path, put_settings, settings_of, stored_path, transaction
from ._walk import Entry, Walk

# What an interruption can cost at most: a batch of about so many seconds, within so many photographs and bytes.
_BATCH_SECONDS = 5.0
_BATCH_SIZES = (8, 256)
_BATCH_BYTES = 2**26  # two batches are in memory: one is read while the other is described
_SAMPLE_BYTES = 2**29  # of the photographs that an encoder learns from, which are in memory together


class TooManyRemovedError(ValueError):
    """More than half of an index would be removed, which nobody has confirmed."""


@dataclass
class UpdateReport:
    """What an update has done so far.

    Attributes
    ----------
    phase : {"looking", "describing", "removing", "whitening", "done"}
        What it is at.
    done, total : int
        Photographs described in this run, and to be described.
    n_images : int
        In the index.
    n_described, n_kept, n_moved, n_copied, n_removed : int
        Photographs described; unchanged; known under another name that is gone; known by the content of another that
        is still there; gone.
    n_blank : int
        Of those described: without any structure, so that they match nothing.
    skipped : dict of str to str
        Files that could not be read, and why.
    errors : dict of str to str
        Folders and files that could not be looked at, and why. What the index holds of them stays.
    odd : dict of str to str
        What has the name of a photograph and is no regular file.
    passed_over : Counter
        Files that are no photographs, by suffix.
    seconds : float
        Wall clock.

    Notes
    -----
    Threads: the one that updates changes it; others may read it meanwhile.
    """

    phase: str = "looking"
    done: int = 0
    total: int = 0
    n_images: int = 0
    n_described: int = 0
    n_kept: int = 0
    n_moved: int = 0
    n_copied: int = 0
    n_removed: int = 0
    n_blank: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class _Known(NamedTuple):
    """An image as the table has it."""

    id: int
    size: int
    mtime_ns: int
    readable: bool


class _Read(NamedTuple):
    """A file as it was read: what is hashed here is what is described."""

    entry: Entry
    data: bytes | None
    digest: bytes | None
    reason: str | None


class Update:
    """One update of an index; :meth:`run` yields the report as it grows.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of the index, for writing.
    folder : Path
        Where the index lies.
    root : Path
        The photographs.
    encoder : callable, or None where nothing is to be described
        Takes photographs to learn from, as a function that yields them; returns the fitted encoder.
    exclude : collection of str
        Patterns of what is left out.
    yes : bool
        Whether more than half may be removed.
    """

    def __init__(
        self,
        engine: sa.Engine,
        folder: Path,
        root: Path,
        encoder: Callable | None,
        exclude: Collection[str],
        yes: bool,
    ):
        self.engine, self.folder, self.root = engine, folder, root
        self.encoder, self.exclude, self.yes = encoder, exclude, yes
        self.report = UpdateReport()

    def plan(self) -> tuple[list[Entry], dict[str, _Known]]:
        """Walk through the folder and compare: what is to be read, and what is gone.

        Raises
        ------
        FileNotFoundError
            If the folder is not there or cannot be looked at. Nothing is removed then.
        ValueError
            If it holds no photograph.
        TooManyRemovedError
            If more than half of the index is gone from it.
        """
        report = self.report
        walk = Walk(self.root, self.exclude, avoid=self.folder)
        with transaction(self.engine, self.folder) as connection:
            columns = (IMAGES.c.path, IMAGES.c.id, IMAGES.c.size, IMAGES.c.mtime_ns, IMAGES.c.row)
            gone = {
                given_path(path): _Known(id_, size, mtime_ns, row is not None)
                for path, id_, size, mtime_ns, row in connection.execute(sa.select(*columns))
            }
        n_before = sum(known.readable for known in gone.values())
        todo, n_seen = [], 0
        for entry in walk:
            n_seen += 1
            known = gone.pop(entry.path, None)
            if (
                known is not None
                and (known.size, known.mtime_ns) == (entry.size, entry.mtime_ns)
                and known.readable
            ):
                report.n_kept += 1
            else:
                todo.append(entry)
        report.errors, report.odd, report.passed_over = walk.errors, walk.odd, walk.passed_over
        if "" in walk.errors:
            raise FileNotFoundError(
                f"{self.root} cannot be looked at: {walk.errors['']}. Nothing was changed."
            )
        if n_seen == 0:
            raise ValueError(f"{self.root} holds no photographs. Nothing was changed.")
        for path in list(gone):  # what lies below a folder that can't be read may be there all the same
            if _is_below(path, walk.errors):
                report.n_kept += gone.pop(path).readable
        n_gone = sum(known.readable for known in gone.values())
        if n_gone > n_before / 2 and not self.yes:
            # moved ones are told apart only when they are read: they count as gone here if nothing else could be them
            new_sizes = Counter(entry.size for entry in todo)
            n_moved = sum((new_sizes & Counter(known.size for known in gone.values())).values())
            if n_gone - n_moved > n_before / 2:
                raise TooManyRemovedError(
                    f"{n_gone} of {n_before} photographs of the index are gone from {self.root}. Is it all there? To "
                    "remove them all the same, say yes=True, or --yes. Nothing was changed."
                )
        return todo, gone

    def run(self) -> Generator[UpdateReport, None, None]:
        """Do all of it, batch by batch; what was yielded is kept, whatever happens next."""
        began, report = time.perf_counter(), self.report
        yield report
        todo, gone = self.plan()
        report.total, report.phase = len(todo), "describing"
        yield report
        if todo and self.encoder is not None:
            encoder = self.encoder(lambda: self._sample(todo))
            with closing(self._batches(todo)) as batches:
                for batch in batches:
                    self._describe(encoder, batch, gone)
                    report.done += len(batch)
                    report.seconds = time.perf_counter() - began
                    yield report
        report.phase = "removing"
        with transaction(self.engine, self.folder) as connection:
            for known in gone.values():
                connection.execute(sa.delete(IMAGES).where(IMAGES.c.id == known.id))
                report.n_removed += known.readable
            count = sa.select(sa.func.count()).select_from(IMAGES).where(IMAGES.c.row.is_not(None))
            report.n_images = connection.execute(count).scalar_one()
            for path, reason in connection.execute(
                sa.select(IMAGES.c.path, IMAGES.c.reason).where(IMAGES.c.reason.is_not(None))
            ):
                report.skipped[given_path(path)] = reason
            if report.n_removed:
                changed(connection)
        report.seconds = time.perf_counter() - began
        yield report

    # ------------------------------------------------------------------------------------------------ reading
    def _read(self, entry: Entry) -> _Read:
        # The table gets the time that the walk saw: a file that changed since then is looked at again next time.
        try:
            data = read_file(os.path.join(self.root, entry.path))
        except (OSError, ValueError) as error:
            return _Read(entry, None, None, getattr(error, "strerror", None) or str(error))
        return _Read(entry, data, bytes.fromhex(hash_bytes(data)), None)

    def _batches(self, todo: list[Entry]) -> Generator[list[_Read], None, None]:
        """Yield the files in batches of so many seconds of work; the next batch is read while one is described."""
        size, start = _BATCH_SIZES[0], 0
        pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
        try:
            waiting = [pool.submit(self._read, entry) for entry in _together(todo[:size])]
            while waiting:
                batch = [reading.result() for reading in waiting]
                start += len(batch)
                waiting = [pool.submit(self._read, entry) for entry in _together(todo[start : start + size])]
                began = time.perf_counter()
                yield batch
                seconds = max(time.perf_counter() - began, 1e-3)
                size = min(
                    max(round(len(batch) * _BATCH_SECONDS / seconds), _BATCH_SIZES[0]), _BATCH_SIZES[1]
                )
        finally:
            pool.shutdown(cancel_futures=True)

    def _sample(self, todo: list[Entry], n: int = 1000) -> Iterator[bytes]:
        """Yield the photographs that an encoder learns from: all, or as many as that, drawn alike each time."""
        drawn = np.random.RandomState(0).permutation(len(todo))[:n]
        n_bytes = np.cumsum([todo[place].size for place in drawn])
        for place in np.sort(drawn[: max(1, int(np.searchsorted(n_bytes, _SAMPLE_BYTES, side="right")))]):
            found = self._read(todo[place])
            if found.data is not None:
                yield found.data

    # ------------------------------------------------------------------------------------------------ describing
    def _describe(self, encoder: Any, batch: list[_Read], gone: dict[str, _Known]) -> None:
        """Describe a batch and commit it: rows first, then the table, which makes them count."""
        report = self.report
        with transaction(self.engine, self.folder) as connection:
            known = self._known_contents(
                connection, {found.digest for found in batch if found.digest is not None}
            )
            rows = row_file(connection, self.folder, "descriptors")
        fresh: dict[bytes, bytes] = {}
        for found in batch:
            if found.digest is not None and found.digest not in known and found.data is not None:
                fresh.setdefault(found.digest, found.data)
        reasons: dict[bytes, str] = {}
        if fresh:
            described = describe(encoder, list(fresh.values()))
            digests = list(fresh)
            reasons = {digests[place]: reason for place, reason in described.failed.items()}
            first = 0 if rows is None else rows.n_rows
            starts = np.cumsum([0, *described.counts])
            for place, digest in enumerate(digests):
                if described.counts[place]:
                    own = described.rows[starts[place] : starts[place + 1]]
                    facts = {"row": int(first + starts[place]), "n_rows": described.counts[place]}
                    facts |= {"blank": not own.any(), **read_facts(fresh[digest])._asdict()}
                    known[digest] = facts
                    report.n_blank += facts["blank"]
            if len(described.rows):
                if rows is None:
                    rows = new_file("descriptors", described.rows.dtype, described.rows.shape[1])
                    with transaction(self.engine, self.folder) as connection:
                        note_row_file(connection, rows)
                rows = append(self.folder, rows, [described.rows])
        with transaction(self.engine, self.folder) as connection:
            if rows is not None:
                put_row_file(connection, rows)
            for found in batch:
                self._put(connection, found, known, reasons, found.digest in fresh, gone)
            changed(connection)

    def _known_contents(self, connection: sa.Connection, digests: set[bytes]) -> dict[bytes, dict[str, Any]]:
        """Return what the table knows of contents: their rows, and what their files say."""
        names = ("digest", "row", "n_rows", "blank", "width", "height", "taken")
        columns = [IMAGES.c[name] for name in names]
        found: dict[bytes, dict[str, Any]] = {}
        for part in _parts(sorted(digests)):
            chosen = sa.select(*columns).where(IMAGES.c.digest.in_(part), IMAGES.c.row.is_not(None))
            for digest, *values in connection.execute(chosen):
                found[bytes(digest)] = dict(zip(names[1:], values, strict=True))
        return found

    def _put(
        self,
        connection: sa.Connection,
        found: _Read,
        known: dict[bytes, dict[str, Any]],
        reasons: dict[bytes, str],
        is_fresh: bool,
        gone: dict[str, _Known],
    ) -> None:
        """Write the line of one file."""
        report, entry = self.report, found.entry
        line: dict[str, Any] = {
            "path": stored_path(entry.path),
            "name": printable(entry.path),
            "size": entry.size,
            "mtime_ns": entry.mtime_ns,
            "digest": found.digest,
            "label": printable(entry.path.split("/", 1)[0]) if "/" in entry.path else "",
            **dict.fromkeys(("row", "n_rows", "width", "height", "taken", "reason")),
            "blank": False,
        }
        chosen = sa.select(IMAGES.c.id, IMAGES.c.digest, IMAGES.c.row).where(IMAGES.c.path == line["path"])
        own, before, row = connection.execute(chosen).one_or_none() or (None, None, None)
        if found.data is None and row is not None:  # out of reach for now: what is known of it stays
            report.errors[entry.path] = found.reason or "it cannot be read"
            report.n_kept += 1
            return
        facts = None if found.digest is None else known.get(found.digest)
        if facts is None:
            line["reason"] = found.reason or reasons.get(found.digest or b"", "it cannot be read")
            report.skipped[entry.path] = line["reason"]
        else:
            line |= facts
        moved_from = None
        if facts is not None and before is not None and bytes(before) == found.digest:
            report.n_kept += 1  # touched, and the same
        elif facts is not None and not is_fresh:
            moved_from = self._moved_from(connection, found.digest, gone)
            report.n_moved += moved_from is not None
            report.n_copied += moved_from is None
        elif facts is not None:
            report.n_described += 1
        if moved_from is not None and own is None:  # it keeps its number
            connection.execute(sa.update(IMAGES).where(IMAGES.c.id == gone.pop(moved_from).id).values(line))
        elif own is not None:
            connection.execute(sa.update(IMAGES).where(IMAGES.c.id == own).values(line))
        else:
            connection.execute(sa.insert(IMAGES).values(line))

    def _moved_from(
        self, connection: sa.Connection, digest: bytes | None, gone: dict[str, _Known]
    ) -> str | None:
        """Return the path, gone from the folder, under which a content was known."""
        for (path,) in connection.execute(sa.select(IMAGES.c.path).where(IMAGES.c.digest == digest)):
            if given_path(path) in gone:
                return given_path(path)
        return None


def _is_below(path: str, folders: Collection[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _together(entries: list[Entry]) -> list[Entry]:
    """Return the first entries whose files may be in memory together; at least one."""
    n_bytes = np.cumsum([entry.size for entry in entries])
    return entries[: max(1, int(np.searchsorted(n_bytes, _BATCH_BYTES, side="right")))]


def _parts(values: list[Any], n: int = 500) -> Iterator[list[Any]]:
    for start in range(0, len(values), n):
        yield values[start : start + n]


def changed(connection: sa.Connection) -> None:
    """Tell readers, in the transaction that changes them, that there are other photographs than before."""
    put_settings(connection, {"generation": settings_of(connection)["generation"] + 1, "stale": True})
