"""One process writes an index at a time; and an update, which is work only while it is iterated over."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from .._terminal import printable
from ._info import now
from ._table import check_is_regular
from ._update import UpdateReport

_LOCK, _HOLDER = "writer.lock", "writer.txt"


@contextmanager
def writer(where: Path) -> Iterator[None]:
    """Let one process write at a time; a killed one leaves no trace of it.

    Raises
    ------
    ValueError
        If another one writes; the message says which.
    IndexDamagedError
        If the files for it are links or no regular files: what they lead to is not ours.
    """
    for name in (_LOCK, _HOLDER):
        if os.path.lexists(where / name):
            check_is_regular(where / name)
    # a generator may be closed by another thread than the one that began it: the lock must not belong to the thread
    lock = filelock.FileLock(where / _LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(f"Another process is updating {where}: {_holder(where)}.") from None
    try:
        with open(where / _HOLDER, "wb") as stream:  # whole or not: it is only read to be printed
            stream.write(f"process {os.getpid()} on {platform.node()} since {now()}".encode())
        yield
    finally:
        lock.release()


def _holder(where: Path) -> str:
    try:
        with open(where / _HOLDER, "rb") as stream:
            return printable(stream.read(200).decode("utf-8", "replace"))
    except OSError:
        return "unknown"


class Updates(Generator[UpdateReport, None, None]):
    """The reports of an update; taking the next one is what does the work.

    Closing it, or leaving the loop over it, ends the update: what was reported is kept.

    Parameters
    ----------
    steps : generator
        Which does it.
    """

    def __init__(self, steps: Generator[UpdateReport, None, None]):
        self._steps = steps
        self._is_begun = False

    def send(self, value: None) -> UpdateReport:
        """Go on to the next report."""
        self._is_begun = True
        return self._steps.send(value)

    def throw(self, *error: Any) -> UpdateReport:
        """Raise an error where the update stands."""
        self._is_begun = True
        return self._steps.throw(*error)

    def close(self) -> None:
        """End the update where it stands."""
        self._is_begun = True
        self._steps.close()

    def __del__(self) -> None:
        """Warn of an update that nobody has begun, for it has done nothing."""
        if not self._is_begun:
            warnings.warn(
                "ImageIndex.update was not iterated over, so nothing was done. Write: for report in "
                "index.update(...): pass.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._steps.close()
