"""VLAD: vector of locally aggregated descriptors."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ..._linalg import l2, signed_power, tensor_of
from ._centers import aggregate_residuals, k_means, rounding
from ._visual_words import NearestWordPooler


class VLADPooler(NearestWordPooler):
    """Sum of the residuals of local descriptors to their nearest centre (VLAD).

    ``v_c = sum over x with nn(x) = c of (x - c)``, signed power, l2 per centre, l2. Local descriptors are the
    l2-normalised columns of the map; those without activation are left out, and of centres that are equally near the
    first is taken.

    Parameters
    ----------
    n_clusters : int, default=64
        Centres.

    n_local : int, "all" or None, default=None
        Dimensions of PCA-whitened local descriptors; "all" for as many as there are, None for no PCA.

    power : float, default=0.5
        Exponent of the signed power; 1 leaves the sums as they are.

    intra_norm : bool, default=True
        l2-normalise the part of each centre.

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
    Jegou, Douze, Schmid, Perez, "Aggregating local descriptors into a compact image representation", CVPR 2010.

    Arandjelovic, Zisserman, "All about VLAD", CVPR 2013 (intra-normalisation).

    Ng, Yang, Davis, "Exploiting local features from deep networks for image retrieval", CVPR Workshops 2015 (VLAD
    of convolutional maps, reduced to 128 dimensions by PCA).

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.pooling import VLADPooler
    >>> maps, _ = make_feature_maps(6, 16, random_state=0)
    >>> VLADPooler(n_clusters=4, random_state=0).fit_transform(maps).shape
    (6, 64)
    """

    _parameter_constraints: dict = {
        **NearestWordPooler._parameter_constraints,
        "power": [Interval(Real, 0, 1, closed="right")],
        "intra_norm": ["boolean"],
    }

    def __init__(
        self,
        n_clusters=64,
        *,
        n_local=None,
        power=0.5,
        intra_norm=True,
        points="all",
        n_points=4000,
        sample_size=100_000,
        random_state=None,
        rectify=True,
    ):
        self.n_clusters = n_clusters
        self.n_local = n_local
        self.power = power
        self.intra_norm = intra_norm
        self.points = points
        self.n_points = n_points
        self.sample_size = sample_size
        self.random_state = random_state
        self.rectify = rectify

    def _learn_codebook(self, sample: np.ndarray, rng: np.random.RandomState) -> None:
        self.cluster_centers_ = k_means(sample, self.n_clusters, rng)
        self._n_features_out = self.cluster_centers_.size

    def _aggregate(self, cells: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        centers = tensor_of(self.cluster_centers_, cells)
        assignment = (
            torch.nn.functional.one_hot(self._words(cells), self.n_clusters).to(cells) * valid[:, :, None]
        )
        floor = rounding(self.cluster_centers_)
        parts = signed_power(aggregate_residuals(cells, assignment, centers, floor), self.power)
        return l2((l2(parts) if self.intra_norm else parts).flatten(1))
