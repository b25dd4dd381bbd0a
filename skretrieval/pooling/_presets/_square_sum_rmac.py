"""R-MAC with strided windows and square-sum pooling."""

from __future__ import annotations

from functools import lru_cache
from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ..._linalg import l2, lengths
from .._engine._base import BasePooler
from .._engine._batches import Batch
from .._engine._signs import RECTIFY
from .._grammar._boxes import BoxesMixin
from .._grammar._reductions import max_cells


class SquareSumRMACPooler(BoxesMixin, BasePooler):
    """Root of the summed squares of window maxima, at several scales (RMAC-modified).

    At scale l the windows have side ``k = max(1, ceil(2 min(H, W) / (l + 1)))`` and stride ``max(1, floor(0.4 k))``,
    without padding; ``u_lk = sqrt(sum over windows of max^2)``, and the descriptor is ``l2(sum_l u_l)``.

    Parameters
    ----------
    n_levels : int, default=3
        Number of scales.

    ceil_mode : bool, default=False
        Whether a last window may reach beyond the border, so that no cell is left out. The
        default is that of the max-pooling in the authors' framework.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first: squares lose their sign.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Seddati, Dupont, Mahmoudi, Parian, "Towards good practices for image retrieval based on CNN features", ICCV
    Workshops 2017, section 3.4, Algorithm 1 ("OSRMAC").

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import SquareSumRMACPooler
    >>> SquareSumRMACPooler().fit_transform(np.ones((1, 4, 6, 8)))
    array([[0.5, 0.5, 0.5, 0.5]])
    """

    _parameter_constraints: dict = {
        "n_levels": [Interval(Integral, 1, None, closed="left")],
        "ceil_mode": ["boolean"],
        **RECTIFY,
    }

    def __init__(self, n_levels=3, *, ceil_mode=False, rectify=True):
        self.n_levels = n_levels
        self.ceil_mode = ceil_mode
        self.rectify = rectify

    def _region_boxes(self, height: int, width: int) -> np.ndarray:
        return np.concatenate(windows(height, width, self.n_levels, self.ceil_mode))

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        maps = self._activations(batches[0])
        scales = windows(*maps.shape[2:], self.n_levels, self.ceil_mode)
        maxima = max_cells(maps, np.concatenate(scales)).split([len(boxes) for boxes in scales], dim=1)
        return l2(torch.stack([lengths(scale, dim=1) for scale in maxima]).sum(dim=0))


@lru_cache(maxsize=1024)
def windows(height: int, width: int, n_levels: int, ceil_mode: bool) -> tuple[np.ndarray, ...]:
    """Return the boxes (row, column, height, width) of each scale; those that reach beyond the border are cut."""
    scales = []
    for level in range(1, n_levels + 1):
        side = max(1, -(-2 * min(height, width) // (level + 1)))
        stride = max(1, 2 * side // 5)
        beyond = stride if ceil_mode else 1
        row, col = np.mgrid[0 : height - side + beyond : stride, 0 : width - side + beyond : stride]
        high, wide = np.minimum(side, height - row), np.minimum(side, width - col)
        scales.append(np.stack([row, col, high, wide], axis=-1).reshape(-1, 4))
    return tuple(scales)
