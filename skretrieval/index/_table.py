"""The table of an index: which images it holds, how they were described, and where their rows lie.

SQLAlchemy Core, so that the same statements run on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from .._terminal import printable

DATABASE = "index.sqlite"
FORMAT_VERSION = 2  # 1 was a folder of JSON, .npy and .joblib
APPLICATION_ID = 0x736B7231  # "skr1": how SQLite's header tells our files from others'

#: What the files beside the database are called.
OUR_NAME = re.compile(
    r"(descriptors|gallery|model|encoder|search|weights)-[0-9a-f]{32,40}\.(rows|skops|safetensors)"
)

_LARGEST_SETTINGS = 2**24  # bytes of all of them

_META = sa.MetaData()


class IndexDamagedError(ValueError):
    """The index holds what no release writes, or lacks what it needs."""


def _checked(kind: type) -> Any:
    """Return a function that passes values of one type: a database of SQLite holds any type in any column."""

    def check(value: Any) -> Any:
        if value is None or type(value) is kind:
            return value
        raise IndexDamagedError(
            f"The table of the index is damaged: it has {printable(str(value)[:60])!r} in place of {kind.__name__}."
        )

    return check


class _Integer(sa.Integer):
    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return _checked(int)


class _BigInteger(sa.BigInteger):
    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return _checked(int)


class _Text(sa.Text):
    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return _checked(str)


class _Bytes(sa.LargeBinary):
    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return _checked(bytes)


_BIG = _BigInteger().with_variant(_Integer(), "sqlite")  # SQLite counts a key up only where it is INTEGER

#: One line for each thing that is true of the whole index; values are JSON.
SETTINGS = sa.Table(
    "settings",
    _META,
    sa.Column("key", _Text(40), primary_key=True),
    sa.Column("value", _Text, nullable=False),
)

#: One line for each file of the folder that was looked at.
IMAGES = sa.Table(
    "images",
    _META,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("path", _Bytes, nullable=False, unique=True),  # relative, bytes: names need not be text
    sa.Column("name", _Text, nullable=False),  # the path as it is printed
    sa.Column("size", _BIG, nullable=False),
    sa.Column("mtime_ns", _BIG, nullable=False),
    sa.Column("digest", _Bytes(20)),  # of the bytes that were described
    sa.Column("width", _Integer),
    sa.Column("height", _Integer),
    sa.Column("taken", _Text(19)),  # YYYY-MM-DD HH:MM:SS
    sa.Column("label", _Text, nullable=False, default=""),
    sa.Column("metadata", _Text, nullable=False, default="{}"),
    sa.Column("row", _BIG),  # first row of the descriptors; NULL where the file could not be read
    sa.Column("n_rows", _Integer),
    sa.Column("blank", sa.Boolean, nullable=False, default=False),  # its descriptor is zero
    sa.Column("reason", _Text),  # why it could not be read
    sa.Index("ix_images_digest", "digest"),
    sa.Index("ix_images_row", "row"),
    sa.Index("ix_images_label", "label"),
)

#: One line for each file beside the database, noted before it is made: only files that stand here are ever deleted.
FILES = sa.Table(
    "files",
    _META,
    sa.Column("file", _Text(120), primary_key=True),
    sa.Column("kind", _Text(20), nullable=False),  # of what OUR_NAME says
    sa.Column("in_use", sa.Boolean, nullable=False),
    sa.Column("dtype", _Text(10)),
    sa.Column("n_columns", _Integer),
    sa.Column("n_rows", _BIG),
    sa.Column("checksum", _BIG),  # CRC-32 of the rows that count
)


def open_engine(folder: Path, *, write: bool = False, create: bool = False) -> sa.Engine:
    """Return an engine for the database of an index on a folder.

    Parameters
    ----------
    folder : Path
        The folder of the index.
    write : bool, default=False
        Whether statements may change it. Reading also works for another user, or on a file system mounted read-only.
    create : bool, default=False
        Make the database, marked as ours.

    Returns
    -------
    engine : sqlalchemy.Engine
        Every connection is its own; statements of one ``begin`` block see one state of the index.

    Raises
    ------
    FileNotFoundError
        If there is no database.
    ValueError
        If the file is another program's.
    """
    file = folder / DATABASE
    if not create:
        check_is_ours(file)

    def connect() -> sqlite3.Connection:
        mode = "rwc" if create else "rw" if write else "ro"
        if not write and _is_shut(folder):
            mode = "ro&immutable=1"  # SQLite could not make the file by which it shares memory with a writer
        uri = f"{file.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None, check_same_thread=False)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # one state of the index for all statements, also where nothing is written
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    @event.listens_for(engine, "connect")
    def settle(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        if create:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        if write:
            connection.execute("PRAGMA synchronous = FULL")  # what was committed outlasts a power cut

    return engine


def _is_shut(folder: Path) -> bool:
    """Tell whether nothing can be written beside a database that nobody has open."""
    effective = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    return not os.access(folder, os.W_OK, **effective) and not (folder / f"{DATABASE}-wal").exists()


def stamp(folder: Path) -> tuple[int, ...] | None:
    """Return what tells whether a database has changed while it was read where nothing can be written beside it.

    Elsewhere SQLite itself sees to it, and there is nothing to compare.
    """
    if not _is_shut(folder):
        return None
    try:
        status = os.stat(folder / DATABASE)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def make_tables(connection: sa.Connection) -> None:
    """Make the tables of an index, in the transaction that is to fill them."""
    _META.create_all(connection)
    put_settings(connection, {"id": uuid.uuid4().hex, "format_version": FORMAT_VERSION})


def check_is_regular(file: Path) -> int:
    """Return the size of a file that is no link and no pipe: none is followed or waited for.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    IndexDamagedError
        If it is anything else.
    """
    status = os.lstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise IndexDamagedError(f"{file} is no regular file, which no release makes.")
    return status.st_size


def check_is_ours(file: Path) -> None:
    """Raise unless a file is the database of an index, by its header; no name says so."""
    try:
        check_is_regular(file)
        with open(file, "rb") as stream:
            header = stream.read(100)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{file.parent} holds no index ({DATABASE} is missing).") from None
    if not header.startswith(b"SQLite format 3\0") or header[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise IndexDamagedError(f"{file} is not the database of an index of skretrieval, or is damaged.")
    for end in ("-wal", "-shm", "-journal"):
        try:
            check_is_regular(file.with_name(file.name + end))
        except FileNotFoundError:
            continue


@contextmanager
def transaction(engine: sa.Engine, where: Any) -> Iterator[sa.Connection]:
    """Open a transaction, whose statements see one state of the index.

    Raises
    ------
    IndexDamagedError
        If the database itself finds something wrong.
    OSError
        If the disk is full or cannot be written, or another process holds the database for a minute.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _OS_ERRORS:
            number, words = _OS_ERRORS[code]
            raise OSError(number, f"{words} ({error.orig})", str(where)) from error
        raise IndexDamagedError(f"{where} is damaged: {error.orig}.") from error


#: What is the fault of the system and not of the database.
_OS_ERRORS = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "The disk is full"),
    sqlite3.SQLITE_BUSY: (errno.EBUSY, "Another process holds the database"),
    sqlite3.SQLITE_LOCKED: (errno.EBUSY, "Another process holds the database"),
    sqlite3.SQLITE_READONLY: (errno.EACCES, "The database cannot be written"),
    sqlite3.SQLITE_PERM: (errno.EACCES, "The database cannot be opened"),
    sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "The database cannot be opened"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "The disk cannot be read or written"),
    sqlite3.SQLITE_NOMEM: (errno.ENOMEM, "There is not enough memory"),
}


# ---------------------------------------------------------------------------------------------------- settings
def settings_of(connection: sa.Connection) -> dict[str, Any]:
    """Return the settings, parsed.

    Raises
    ------
    IndexDamagedError
        If one is no JSON.
    """
    length = sa.func.sum(sa.func.length(sa.cast(SETTINGS.c.value, sa.LargeBinary)))
    n_bytes = connection.execute(sa.select(length)).scalar_one() or 0
    if n_bytes > _LARGEST_SETTINGS:
        raise IndexDamagedError(f"The settings have {n_bytes} bytes, more than {_LARGEST_SETTINGS}.")
    found = {}
    for key, value in connection.execute(sa.select(SETTINGS.c.key, SETTINGS.c.value)):
        try:
            found[key] = json.loads(value, parse_constant=_no_number)
        except (ValueError, TypeError, RecursionError) as error:
            raise IndexDamagedError(f"The setting {key!r} is damaged: {error}.") from error
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number.")


def put_settings(connection: sa.Connection, values: dict[str, Any]) -> None:
    """Write settings; those that are there already are replaced."""
    for key, value in values.items():
        connection.execute(sa.delete(SETTINGS).where(SETTINGS.c.key == key))
        connection.execute(sa.insert(SETTINGS).values(key=key, value=json.dumps(value, allow_nan=False)))


# ---------------------------------------------------------------------------------------------------- names
def stored_path(path: str) -> bytes:
    """Return the bytes under which a relative path is stored."""
    return os.fsencode(path)


def given_path(stored: bytes) -> str:
    """Return the relative path of stored bytes, as Python's functions take it.

    Raises
    ------
    IndexDamagedError
        If it would lead out of the folder, which no release writes.
    """
    path = os.fsdecode(stored)
    if (
        not path
        or "\0" in path
        or os.path.isabs(path)
        or os.path.splitdrive(path)[0]
        or ".." in path.split("/")
    ):
        raise IndexDamagedError(
            f"The table of the index is damaged: it names a photograph {printable(path)!r}."
        )
    return path
