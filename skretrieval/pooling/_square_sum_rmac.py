"""R-MAC with strided windows and square-sum pooling."""

from __future__ import annotations

from numbers import Integral

import torch
from sklearn.utils._param_validation import Interval
from torch.nn import functional

from ._base import BasePooler
from ._batches import Batch
from ._normalise import l2


class SquareSumRMACPooler(BasePooler):
    """Root of the summed squares of window maxima, at several scales (RMAC-modified, S003 Algorithm 1).

    At scale l the windows have side ``k = max(1, ceil(2 min(H, W) / (l + 1)))`` and stride ``max(1, floor(0.4 k))``,
    without padding; ``u_lk = sqrt(sum over windows of max^2)``, and the descriptor is ``l2(sum_l u_l)``.

    Parameters
    ----------
    n_levels : int, default=3
        Number of scales.

    ceil_mode : bool, default=False
        Whether a last window may reach beyond the border, so that no cell is left out (A-17).

    rectify : bool, default=True
        Replace negative activations by zero first: squares lose their sign.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    References
    ----------
    S003, Algorithm 1 ("OSRMAC").

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
        "rectify": ["boolean"],
    }

    def __init__(self, n_levels=3, *, ceil_mode=False, rectify=True):
        self.n_levels = n_levels
        self.ceil_mode = ceil_mode
        self.rectify = rectify

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        maps = batches[0].rectified() if self.rectify else batches[0].maps
        short = min(maps.shape[2:])
        total = torch.zeros_like(maps[:, :, 0, 0])
        for level in range(1, self.n_levels + 1):
            side = max(1, -(-2 * short // (level + 1)))
            stride = max(1, 2 * side // 5)
            # a window's maximum is separable: down the rows, then along the columns
            rows = functional.max_pool2d(maps, (side, 1), (stride, 1), ceil_mode=self.ceil_mode)
            windows = functional.max_pool2d(rows, (1, side), (1, stride), ceil_mode=self.ceil_mode)
            total += torch.linalg.vector_norm(windows.flatten(2), dim=2)
        return l2(total)
