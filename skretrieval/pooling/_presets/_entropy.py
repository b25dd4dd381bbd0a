"""FDE: entropy of the distribution of each channel's activations, by region."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ..._linalg import l2
from .._engine._base import BasePooler
from .._engine._batches import Batch
from .._engine._signs import RECTIFY
from .._grammar._boxes import BoxesMixin
from .._grammar._regions import membership, rmac


class EntropyPooler(BoxesMixin, BasePooler):
    """Entropies of the histograms of activations in the regions of R-MAC, one number per channel (FDE).

    In region r, ``h_rk = -sum_b p_rkb log p_rkb`` with p the share of the region's cells whose activation of channel k
    falls into bin b. The vectors h_r are l2-normalised, summed over the regions, and the sum is l2-normalised. It is
    meant to be added to R-MAC, as in ``PoolerFusion([("rmac", RMACPooler()), ("fde", EntropyPooler())])``.

    Parameters
    ----------
    n_levels : int, default=3
        Scales of the region grid.

    n_bins : int, default=10
        Bins of the histograms.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    Attributes
    ----------
    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    Low confidence: this follows the abstract of the paper, which speaks of histograms of feature values, of the
    entropy of their distribution by region, of its normalisation, and of its fusion with R-MAC by a weighted sum.
    *Inferred* are:

    * the number of bins;
    * their range: of equal width, from the smallest to the largest activation of the channel in the whole
      map, so that regions are comparable and the scale of the activations does not matter; the largest
      activation belongs to the last bin;
    * the grid, taken to be the one of the R-MAC it is fused with, without the whole map;
    * how regions become one vector: l2 and sum, as in R-MAC (the abstract says that regional entropies are
      concatenated, but only K numbers can be added to R-MAC's K);
    * the natural logarithm (its base is divided out), and the weight of the fusion.

    A channel that is constant over the map has no entropy, and a single cell neither: such maps give zero.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Liu, Gou, Guo, Zhang, Zhao, Zhou, "Fusing feature distribution entropy with R-MAC features in image retrieval",
    Entropy 21(11):1037, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.pooling import EntropyPooler
    >>> maps = np.zeros((1, 2, 4, 4))
    >>> maps[0, 0] = np.arange(16).reshape(4, 4)  # all activations unlike, against a single one
    >>> maps[0, 1, 0, 0] = 1
    >>> EntropyPooler(n_levels=1).fit_transform(maps).round(3)
    array([[0.995, 0.103]])
    """

    _parameter_constraints: dict = {
        "n_levels": [Interval(Integral, 1, None, closed="left")],
        "n_bins": [Interval(Integral, 2, None, closed="left")],
        **RECTIFY,
    }

    def __init__(self, n_levels=3, *, n_bins=10, rectify=True):
        self.n_levels = n_levels
        self.n_bins = n_bins
        self.rectify = rectify

    def _region_boxes(self, height: int, width: int) -> np.ndarray:
        return rmac(height, width, self.n_levels)

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        maps = self._activations(batches[0])
        entropies = region_entropies(maps, self._region_boxes(*maps.shape[2:]), self.n_bins)
        return l2(l2(entropies).sum(dim=1)).to(maps.dtype)


def region_entropies(maps: torch.Tensor, boxes: np.ndarray, n_bins: int) -> torch.Tensor:
    """Return the entropy (N, R, K) of each channel's activations in each region, float64.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    boxes : int ndarray of shape (R, 4)
        Regions.
    n_bins : int
        Bins from the smallest to the largest activation of the channel in the map.
    """
    cells = maps.flatten(2).double()  # a bin's border must not depend on the dtype
    low = cells.amin(dim=2, keepdim=True)
    span = cells.amax(dim=2, keepdim=True) - low
    bins = ((cells - low) / torch.where(span > 0, span, 1) * n_bins).floor_().clamp_max_(n_bins - 1)
    member = membership(boxes, maps).T
    n_cells = member.sum(dim=0).double()
    entropies = cells.new_zeros(*cells.shape[:2], len(boxes))
    for index in range(n_bins):  # one product with the regions' membership matrix per bin
        share = ((bins == index).to(member) @ member).double() / n_cells
        entropies -= torch.special.xlogy(share, share)
    return entropies.transpose(1, 2)
