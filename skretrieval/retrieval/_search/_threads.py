"""Parts of a search shared out to threads."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any

from joblib import cpu_count
from threadpoolctl import ThreadpoolController


def in_threads(
    function: Callable[[Any], object], arguments: Sequence[Any], *, products: bool = False
) -> None:
    """Call a function, which lets other threads run, with each argument.

    Parameters
    ----------
    function : callable
        Of one argument.
    arguments : sequence
        What to call it with; in parallel on as many threads as numerical libraries are allowed, as OpenMP is told.
    products : bool, default=False
        Whether the function multiplies matrices: each thread then does so by itself. Threads of a product that is
        small wait for each other longer than they work.
    """
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    n_threads = int(allowed) if allowed.isdigit() and int(allowed) > 0 else cpu_count()
    if min(n_threads, len(arguments)) < 2:
        for argument in arguments:
            function(argument)
    else:
        alone = _products_alone() if products else nullcontext()
        with alone, ThreadPoolExecutor(n_threads, initializer=_multiply_alone if products else None) as pool:
            deque(pool.map(function, arguments), maxlen=0)


_lock = Lock()
_users: list[object] = []
_before: list[int] = []


@contextmanager
def _products_alone() -> Iterator[None]:
    """Let BLAS multiply in the calling thread, until the last one of those who asked for it at the same time ends.

    ``threadpool_limits`` would leave one thread for good where two searches overlap: the second one takes the limit
    of the first for what it is to put back.
    """
    user = object()
    with _lock:
        if not _users:
            _before[:] = [library.get_num_threads() for library in _blas()]
            _set_threads([1] * len(_before))
        _users.append(user)
    try:
        yield
    finally:
        with _lock:
            _users.remove(user)
            if not _users:
                _set_threads(_before)


def _set_threads(numbers: Sequence[int]) -> None:
    for library, number in zip(_blas(), numbers, strict=True):
        # By itself threadpoolctl lets nobody but the thread that came first set the number of a shared pool.
        release = getattr(library, "clear_controlling_thread", lambda **_: None)
        release(force=True)
        library.set_num_threads(number)
        release(force=True)


def _multiply_alone() -> None:
    """Let BLAS multiply in this thread alone, where each thread has a number of its own."""
    for library in _blas():
        if getattr(library, "threading_layer", None) == "openmp":
            library.set_num_threads(1)


@lru_cache(maxsize=1)
def _blas() -> list[Any]:
    return ThreadpoolController().select(user_api="blas").lib_controllers
