"""Descriptors in half precision: fast conversion to float32, and a fast check that they are finite."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Halves checked at a time: they stay in the processor's cache.
_CHECKED = 2**17
# Halves converted at a time: as many as torch converts in the calling thread alone, for threads that wait for each
# other after every part take longer than they save.
_CONVERTED = 2**15


def half_to_single(rows: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """Convert float16 to float32, exactly: by torch, which has the processor's instruction for it.

    NumPy's ``astype`` takes eight times as long.

    Parameters
    ----------
    rows : ndarray of float16
        Numbers, which may be mapped from a file.
    out : ndarray of float32, default=None
        Where to write them, of the same shape.

    Returns
    -------
    ndarray of float32
    """
    single = np.empty(rows.shape, dtype=np.float32) if out is None else out
    step = max(1, _CONVERTED // max(1, rows[:1].size))
    for start in range(0, len(rows), step):
        # A copy, which is in the cache: torch warns of arrays that it may not write to.
        part = torch.from_numpy(rows[start : start + step].copy())
        torch.from_numpy(single[start : start + step]).copy_(part)
    return single


def halves_are_finite(rows: NDArray[Any]) -> bool:
    """Whether no exponent is that of infinity and NaN; several times faster than ``isfinite``."""
    step = max(1, _CHECKED // max(1, rows[:1].size))
    bits = rows.view(np.uint16)
    return all(
        (bits[start : start + step] & 0x7FFF).max(initial=0) < 0x7C00 for start in range(0, len(rows), step)
    )
