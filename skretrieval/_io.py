"""Files that are there whole or not at all, and hashes of what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

#: What contents are hashed by, under the name that manifests have for it.
HASH = "blake2b"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Write a file that readers see as it was or as it will be, never in part.

    What is written goes into a file beside, under a name of its own that ends in ``.tmp``. At the end of the ``with``
    block it is flushed to the disk and takes the name `path`; after an exception it is removed. Only a process that
    is killed leaves it. Of several that write one file at once, the last one to finish wins.

    Parameters
    ----------
    path : str or path
        The file, in a folder that is there. Of a symbolic link, what it leads to. What is there and is no regular
        file (a pipe, ``/dev/stdout``) is written to as it stands.

    Yields
    ------
    stream : binary file object
        Open for writing; may be sought in.

    Raises
    ------
    OSError
        If it cannot be written; a file that was there is as before then.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as stream:
            yield stream
        return
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        move_into_place(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk stays full by what is left on it
            os.unlink(temporary)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8, with the line ends of this system, by :func:`atomic_write`."""
    with atomic_write(path) as stream:
        stream.write(text.replace("\n", os.linesep).encode())


def move_into_place(finished: str | os.PathLike, path: str | os.PathLike) -> None:
    """Rename a finished file or folder to its final name in one step; a folder must not be there yet.

    Parameters
    ----------
    finished : str or path
        On the same file system as `path`.
    path : str or path
        A file of this name is replaced.
    """
    os.replace(finished, path)


def new_hash(size: int = 20) -> Any:
    """Return an object with ``update``, ``digest`` and ``hexdigest`` that gives `size` bytes."""
    return hashlib.new(HASH, digest_size=size)  # type: ignore[call-arg]


def hash_bytes(*parts: bytes, size: int = 20) -> str:
    """Hash bytes, one part after the other as if they were one.

    Parameters
    ----------
    *parts : bytes
        What is hashed.
    size : int, default=20
        Bytes of the hash.

    Returns
    -------
    digest : str
        Twice as many hexadecimal digits.

    Examples
    --------
    >>> from skretrieval._io import hash_bytes
    >>> hash_bytes(b"re", b"trieval", size=8) == hash_bytes(b"retrieval", size=8)
    True
    """
    digest = new_hash(size)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def hash_array(values: np.ndarray) -> str:
    """Hash the shape and the values of an array to 20 bytes, in hexadecimal digits; the dtype does not count."""
    return hash_bytes(f"{values.shape}".encode(), values.tobytes())


def hash_file(path: str | os.PathLike, size: int = 20) -> str:
    """Hash the content of a file of any length, as :func:`hash_bytes` does its bytes.

    Parameters
    ----------
    path : str or path
        The file.
    size : int, default=20
        Bytes of the hash.

    Returns
    -------
    digest : str
        Twice as many hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: new_hash(size)).hexdigest()
