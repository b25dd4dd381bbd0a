"""Files of rows: descriptors one after another, only ever added to, mapped into memory to be read.

A file holds the plain numbers, row after row. How many of its rows count is said by the table of the index, which is
written after them: what a killed writer left behind the last of them is overwritten by the next one.
"""

from __future__ import annotations

import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from ._table import FILES, IndexDamagedError, check_is_regular

BLOCK_NUMBERS = 2**20  # taken together when rows are copied or transformed: 4 MiB of float32
_NAME = re.compile(r"(descriptors|gallery)-[0-9a-f]{32}\.rows")
_DTYPES = ("<f2", "<f4", "<f8")


class RowFile(NamedTuple):
    """What the table says of a file of rows.

    Attributes
    ----------
    kind : {"descriptors", "gallery"}
        As described, or as searched.
    file : str
        Its name in the folder of the index.
    dtype : str
        Of the numbers, as NumPy writes it.
    n_columns, n_rows : int
        Numbers of a row; rows that count.
    checksum : int
        CRC-32 of the rows that count.
    """

    kind: str
    file: str
    dtype: str
    n_columns: int
    n_rows: int
    checksum: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes of the rows that count."""
        return self.n_rows * self.n_columns * np.dtype(self.dtype).itemsize


def new_file(kind: str, dtype: np.dtype, n_columns: int) -> RowFile:
    """Return an empty file of rows under a name of its own; it is made when it is written."""
    return RowFile(
        kind, f"{kind}-{uuid.uuid4().hex}.rows", np.dtype(dtype).newbyteorder("<").str, n_columns, 0
    )


def row_file(connection: sa.Connection, folder: Path, kind: str) -> RowFile | None:
    """Return what the table says of a kind of rows, checked against the file; None where there are none.

    Raises
    ------
    IndexDamagedError
        If the table holds what no release writes, or the file is missing or too short.
    """
    columns = [FILES.c[name] for name in RowFile._fields]
    found = connection.execute(sa.select(*columns).where(FILES.c.kind == kind, FILES.c.in_use)).all()
    if not found:
        return None
    rows = RowFile(*found[0])
    sound = (
        len(found) == 1
        and isinstance(rows.file, str)
        and _NAME.fullmatch(rows.file) is not None
        and rows.file.startswith(kind)
        and rows.dtype in _DTYPES
        and isinstance(rows.n_columns, int)
        and isinstance(rows.n_rows, int)
        and 0 < rows.n_columns < 2**31
        and 0 <= rows.n_rows < 2**48
        and isinstance(rows.checksum, int)
    )
    if not sound:
        raise IndexDamagedError(
            f"{folder} is damaged: its table describes {kind} as {[tuple(row) for row in found]}."
        )
    try:
        size = check_is_regular(folder / rows.file)
    except FileNotFoundError:
        raise IndexDamagedError(f"{folder / rows.file} is missing.") from None
    if size < rows.n_bytes:
        raise IndexDamagedError(f"{folder / rows.file} has {size} bytes instead of at least {rows.n_bytes}.")
    return rows


def note_row_file(connection: sa.Connection, rows: RowFile) -> None:
    """Note a file of rows that is about to be made."""
    connection.execute(sa.insert(FILES).values(**rows._asdict(), in_use=False))


def put_row_file(connection: sa.Connection, rows: RowFile) -> None:
    """Say that a file that was noted is the one of its kind, with so many rows; another one no longer is."""
    others = sa.update(FILES).where(FILES.c.kind == rows.kind, FILES.c.file != rows.file)
    connection.execute(others.values(in_use=False))
    own = sa.update(FILES).where(FILES.c.file == rows.file)
    connection.execute(own.values(in_use=True, n_rows=rows.n_rows, checksum=rows.checksum))


def mapped(folder: Path, rows: RowFile) -> np.ndarray:
    """Map the rows that count into memory, read-only: (n_rows, n_columns)."""
    shape = (rows.n_rows, rows.n_columns)
    if rows.n_rows == 0:  # nothing can't be mapped
        return np.empty(shape, dtype=rows.dtype)
    try:
        return np.memmap(folder / rows.file, dtype=rows.dtype, mode="r", shape=shape)
    except (OSError, ValueError) as error:  # gone or shorter since it was looked at
        raise IndexDamagedError(f"{folder / rows.file} cannot be read: {error}.") from error


def append(folder: Path, rows: RowFile, blocks: Iterable[np.ndarray]) -> RowFile:
    """Write rows behind those that count, and wait until the disk has them.

    Parameters
    ----------
    folder : Path
        The folder of the index.
    rows : RowFile
        As the table has it.
    blocks : iterable of ndarray of shape (m, n_columns)
        The new rows.

    Returns
    -------
    rows : RowFile
        As the table should have it now.
    """
    n_new, checksum, file = 0, rows.checksum, folder / rows.file
    is_new = not os.path.lexists(file)
    if not is_new:
        check_is_regular(file)  # a link would lead into a file that is not ours
    # written, not mapped: a full disk is then an error, where writing to a mapped file would end the process
    with open(file, "xb" if is_new else "r+b") as stream:
        stream.seek(rows.n_bytes)
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != rows.n_columns:
                raise ValueError(f"Rows of shape {block.shape} do not fit {rows.n_columns} columns.")
            content = np.ascontiguousarray(block, dtype=rows.dtype).data
            stream.write(content)
            checksum = zlib.crc32(content, checksum)
            n_new += len(block)
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        sync_folder(folder)
    return rows._replace(n_rows=rows.n_rows + n_new, checksum=checksum)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of new files, where the system can say so."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def in_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of an array in blocks of some MB."""
    step = max(1, BLOCK_NUMBERS // max(1, array.shape[1]))
    for start in range(0, len(array), step):
        yield array[start : start + step]
