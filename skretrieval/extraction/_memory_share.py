"""How much memory decoded photographs may take together."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PATIENCE = 2.0  # seconds without change, after which photographs of other threads count as kept for good
_held: Counter[int] = Counter()  # bytes of photographs that are decoded or being so, by thread
_decoding = 0  # how many are being so
_died: deque[tuple[int, int]] = (
    deque()
)  # thread and bytes of those dropped since: a finalizer must take no lock
_freed = threading.Condition()


@cache
def _machine_memory() -> int:
    """Return the bytes of memory of this machine or container."""
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # not on this system
        limits = [2**33]
    for name in _CGROUP_LIMITS:
        try:
            limits.append(int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(limits)


def memory_limit() -> int:
    """Return how many bytes one photograph may take: half of what this process can have."""
    limits = [_machine_memory()]
    if resource is not None:
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft = resource.getrlimit(kind)[0]
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
    return min(limits) // 2


def memory_budget() -> int:
    """Return how many bytes photographs of all threads may take together: a quarter of the memory."""
    return memory_limit() // 2


class Share:
    """A share of the budget: that of one photograph, from its decoding to its end."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.owner: Image.Image | None = None

    def pass_to(self, image: Image.Image) -> Image.Image:
        """Hold the share for as long as an image lives."""
        self.owner = image
        return image


@contextmanager
def share_of_memory(n_bytes: int) -> Iterator[Share]:
    """Wait until a photograph fits into the budget. One that is larger than the budget is decoded alone.

    Raises
    ------
    ValueError
        If it takes more than the limit.
    """
    global _decoding
    limit = memory_limit()
    if n_bytes > limit:
        raise ValueError(
            f"decoding it takes about {n_bytes / 2**20:,.0f} MiB, and half of the memory is "
            f"{limit / 2**20:,.0f} MiB."
        )
    own = threading.get_ident()
    with _freed:
        _wait_for(own, n_bytes)
        _held[own] += n_bytes
        _decoding += 1
    share = Share(n_bytes)
    try:
        yield share
    finally:
        owner, share.owner = share.owner, None
        if owner is not None:
            weakref.finalize(owner, _died.append, (own, n_bytes)).atexit = False
        with _freed:
            _decoding -= 1
            if owner is None:
                _held[own] -= n_bytes
            _freed.notify_all()


def _wait_for(own: int, n_bytes: int) -> None:
    """Wait until there is room; not for what this thread keeps itself, nor for ever for what others keep."""
    state, since = (0, 0), time.monotonic()
    while True:
        while _died:
            thread, freed = _died.popleft()
            _held[thread] -= freed
            if not _held[thread]:
                del _held[thread]
        held = _held.total()
        if held + n_bytes <= memory_budget() or (_decoding == 0 and held == _held[own]):
            return
        if state != (held, _decoding):
            state, since = (held, _decoding), time.monotonic()
        if _decoding == 0 and time.monotonic() - since > _PATIENCE:
            return
        _freed.wait(0.05)
