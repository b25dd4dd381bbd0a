"""The threads of numerical libraries in a forked process."""

from __future__ import annotations

import os
import threading

import torch

_FORKED = threading.Event()
_LIMITED = threading.local()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FORKED.set)


def is_forked() -> bool:
    """Tell whether this process was forked from one that had imported this package."""
    return _FORKED.is_set()


def limit_forked_threads() -> None:
    """Let torch compute in one thread for good, if this process was forked.

    A fork copies the calling thread alone. The other threads of an OpenMP team that the parent has used are missing in
    the child, where GNU's library waits for them without end.
    """
    if is_forked() and not getattr(_LIMITED, "done", False):
        torch.set_num_threads(1)
        _LIMITED.done = True
