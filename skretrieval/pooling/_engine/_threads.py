"""One thread for pooling on a CPU, whatever the network before it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread(maps: torch.Tensor) -> Iterator[None]:
    """Run torch's operations on `maps` in the calling thread alone, if they are on the CPU.

    An operation of pooling takes fractions of a millisecond, and at its end the threads of a team wait for each
    other. By OpenMP's default they wait actively: where another process, or the limit of a container, keeps one of
    them from its core, each operation lasts until the scheduler's next turn. Two threads could at best halve what
    is some thousandths of the network's time; they have been seen to multiply it by thirty.

    Only the calling thread's setting is changed, not torch's for all threads (`torch.set_num_threads`).
    """
    if maps.device.type != "cpu":
        yield
        return
    torch.get_num_threads()  # torch sets the number when it is first called in a thread: before, not within
    libraries = _openmp()
    before = [library.get_num_threads() for library in libraries]
    try:
        for library in libraries:
            library.set_num_threads(1)
        yield
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)


@lru_cache(maxsize=1)
def _openmp() -> list:
    return ThreadpoolController().select(user_api="openmp").lib_controllers


def on_one_thread(describe):
    """Decorate ``_describe`` of a pooler whose operations are small."""

    @wraps(describe)
    def alone(self, batches):
        with one_thread(batches[0].maps):
            return describe(self, batches)

    return alone
