"""A lock that a forked process does not inherit in the hands of a thread that it lacks."""

import os
import threading
import weakref
from typing import Any

_ALL: "weakref.WeakSet[ProcessLock]" = weakref.WeakSet()


class ProcessLock:
    """A reentrant lock, and a new one after a fork: a context manager."""

    def __init__(self) -> None:
        self.renew()
        _ALL.add(self)

    def renew(self) -> None:
        """Take a lock that nobody holds."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: Any) -> None:
        self._lock.release()


def _renew_all() -> None:
    for lock in _ALL:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
