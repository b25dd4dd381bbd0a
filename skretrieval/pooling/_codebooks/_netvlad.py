"""NetVLAD without its training: soft assignment to k-means centres."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..._linalg import l2, tensor_of
from ._centers import aggregate_residuals, k_means, rounding
from ._local_descriptors import BLOCK_NUMBERS
from ._visual_words import VisualWordPooler


class NetVLADPooler(VisualWordPooler):
    """VLAD with soft assignment, initialised as NetVLAD is and not trained.

    ``V_c = sum_x softmax_c(w_c . x + b_c) (x - c)`` with ``w_c = 2 alpha c``, ``b_c = -alpha |c|^2``, so that weights
    fall off with the squared distance; l2 per centre, l2. `alpha` makes the second nearest centre weigh a hundredth of
    the nearest at the mean gap of their squared distances. The numbers of the papers use trained weights: this
    is the untrained baseline.

    Parameters
    ----------
    n_clusters : int, default=64
        Centres.

    n_local : int, "all" or None, default=None
        Dimensions of PCA-whitened local descriptors; "all" for as many as there are, None for no PCA.

    points : {"all", "grid", "hessian"}, default="all"
        Which cells are local descriptors: all; those of largest response (sum over channels); or those in which the
        photograph has a blob or corner (determinant of the Hessian; needs `X` to be
        :class:`~skretrieval.extraction.FeatureMaps`, whose photographs are read again in every pass, and the extra
        ``photos``).

    n_points : int, default=4000
        Cells taken ("grid"), what ties with the last of them included; or detections that count, those of largest
        response ("hessian"). A cell is one descriptor, however many detections lie in it. A photograph without
        a detection in a cell with a response is described as by "grid".

    sample_size : int, default=100000
        Local descriptors that the centres are learned from, drawn from all images alike.

    random_state : int, RandomState instance or None, default=None
        Draws the sample and starts k-means.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, D)
        The centres.

    alpha_ : float
        ``-ln(0.01) / mean(d2_second - d2_first)`` over the sampled descriptors; 0 where no gap tells centres apart.

    local_axes_ : WhiteningAxes
        Mean, components and eigenvalues of the PCA-whitening, only with `n_local`.

    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Arandjelovic, Gronat, Torii, Pajdla, Sivic, "NetVLAD: CNN architecture for weakly supervised place recognition",
    CVPR 2016, eqs 2-4 and the initialisation of its appendix.

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.pooling import NetVLADPooler
    >>> maps, _ = make_feature_maps(6, 16, random_state=0)
    >>> NetVLADPooler(n_clusters=4, random_state=0).fit_transform(maps).shape
    (6, 64)
    """

    def __init__(
        self,
        n_clusters=64,
        *,
        n_local=None,
        points="all",
        n_points=4000,
        sample_size=100_000,
        random_state=None,
        rectify=True,
    ):
        self.n_clusters = n_clusters
        self.n_local = n_local
        self.points = points
        self.n_points = n_points
        self.sample_size = sample_size
        self.random_state = random_state
        self.rectify = rectify

    def _learn_codebook(self, sample: np.ndarray, rng: np.random.RandomState) -> None:
        self.cluster_centers_ = k_means(sample, self.n_clusters, rng)
        gap = _mean_gap(sample, self.cluster_centers_) if self.n_clusters > 1 else 0.0
        self.alpha_ = -math.log(0.01) / gap if gap > rounding(self.cluster_centers_) else 0.0
        self._n_features_out = self.cluster_centers_.size

    def _shares(self, cells: torch.Tensor) -> torch.Tensor:
        centers = tensor_of(self.cluster_centers_, cells)
        logits = 2 * self.alpha_ * (cells @ centers.T) - self.alpha_ * (centers * centers).sum(dim=1)
        return logits.softmax(dim=2)

    def _aggregate(self, cells: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        centers = tensor_of(self.cluster_centers_, cells)
        assignment = self._shares(cells) * valid[:, :, None]
        floor = rounding(self.cluster_centers_)
        return l2(l2(aggregate_residuals(cells, assignment, centers, floor)).flatten(1))


def _mean_gap(sample: np.ndarray, centers: np.ndarray) -> float:
    """Mean difference of the squared distances to the second nearest and to the nearest centre."""
    words = torch.from_numpy(centers).double()
    size = max(1, BLOCK_NUMBERS // max(words.shape))
    total = 0.0
    for start in range(0, len(sample), size):
        rows = torch.from_numpy(sample[start : start + size]).double()
        two = torch.cdist(rows, words, compute_mode="donot_use_mm_for_euclid_dist").topk(2, largest=False)
        squares = two.values.square()
        total += float((squares[:, 1] - squares[:, 0]).sum())
    return total / len(sample)
