"""Fisher vector of a diagonal Gaussian mixture."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch
from sklearn import config_context
from sklearn.mixture import GaussianMixture
from sklearn.utils._param_validation import Interval

from ..._linalg import l2, signed_power, tensor_of
from ._visual_words import VisualWordPooler


class FisherVectorPooler(VisualWordPooler):
    """Gradient of a diagonal Gaussian mixture's likelihood with respect to its means and deviations.

    With posteriors g of the n local descriptors x of an image and the mixture's weights w, means mu and standard
    deviations s,

    ``u_k = 1 / (n sqrt(w_k)) sum g_k (x - mu_k) / s_k``,
    ``v_k = 1 / (n sqrt(2 w_k)) sum g_k (((x - mu_k) / s_k)^2 - 1)``,

    all u, then all v; signed power, l2. Local descriptors are the l2-normalised columns of the map; those without
    activation are left out.

    Parameters
    ----------
    n_clusters : int, default=64
        Components of the mixture.

    n_local : int, "all" or None, default=64
        Dimensions of PCA-whitened local descriptors (a diagonal mixture wants them uncorrelated); "all" for as many
        as there are, None for no PCA.

    power : float, default=0.5
        Exponent of the signed power; 1 leaves the gradient as it is.

    reg_covar : float, default=1e-6
        Added to the variances of the mixture.

    max_iter : int, default=100
        Iterations of expectation-maximisation.

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
        Local descriptors that the mixture is learned from, drawn from all images alike.

    random_state : int, RandomState instance or None, default=None
        Draws the sample and starts the mixture.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    Attributes
    ----------
    weights_ : ndarray of shape (n_clusters,)
        Weights of the mixture.

    means_, variances_ : ndarray of shape (n_clusters, D)
        Its means and variances.

    local_axes_ : WhiteningAxes
        Mean, components and eigenvalues of the PCA-whitening, only with `n_local`.

    n_iter_ : int
        Iterations of expectation-maximisation that were run.

    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Perronnin, Sanchez, Mensink, "Improving the Fisher kernel for large-scale image classification", ECCV 2010,
    section 2 (gradients) and sections 3.1-3.2 (l2 and power normalisation).

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.pooling import FisherVectorPooler
    >>> maps, _ = make_feature_maps(6, 16, random_state=0)
    >>> FisherVectorPooler(n_clusters=2, n_local=8, random_state=0).fit_transform(maps).shape
    (6, 32)
    """

    _parameter_constraints: dict = {
        **VisualWordPooler._parameter_constraints,
        "power": [Interval(Real, 0, 1, closed="right")],
        "reg_covar": [Interval(Real, 0, None, closed="neither")],
        "max_iter": VisualWordPooler._parameter_constraints["n_clusters"],
    }

    def __init__(
        self,
        n_clusters=64,
        *,
        n_local=64,
        power=0.5,
        reg_covar=1e-6,
        max_iter=100,
        points="all",
        n_points=4000,
        sample_size=100_000,
        random_state=None,
        rectify=True,
    ):
        self.n_clusters = n_clusters
        self.n_local = n_local
        self.power = power
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.points = points
        self.n_points = n_points
        self.sample_size = sample_size
        self.random_state = random_state
        self.rectify = rectify

    def _learn_codebook(self, sample: np.ndarray, rng: np.random.RandomState) -> None:
        mixture = GaussianMixture(
            self.n_clusters,
            covariance_type="diag",
            reg_covar=self.reg_covar,
            max_iter=self.max_iter,
            random_state=rng.randint(np.iinfo(np.int32).max),
        )
        # Small variances lose their digits in float32. The mixture refuses to start by k-means where scikit-learn's
        # array API dispatch is on, although these are numpy arrays.
        with config_context(array_api_dispatch=False):
            mixture.fit(sample.astype(np.float64))
        self.n_iter_ = mixture.n_iter_
        self.weights_, self.means_, self.variances_ = mixture.weights_, mixture.means_, mixture.covariances_
        self._n_features_out = 2 * self.means_.size

    def _shares(self, cells: torch.Tensor) -> torch.Tensor:
        return posteriors(cells, *self._mixture(cells))

    def _mixture(self, cells: torch.Tensor) -> list[torch.Tensor]:
        return [tensor_of(values, cells) for values in (self.weights_, self.means_, self.variances_)]

    def _aggregate(self, cells: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        gradient = fisher_gradient(cells, valid, *self._mixture(cells))
        return l2(signed_power(gradient, self.power).flatten(1))


def posteriors(
    cells: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, variances: torch.Tensor
) -> torch.Tensor:
    """Return the posterior (N, n, k) of each component; arguments as for :func:`fisher_gradient`."""
    precisions = 1 / variances
    exponents = (
        (cells * cells) @ precisions.T
        - 2 * (cells @ (means * precisions).T)
        + (means * means * precisions).sum(dim=1)
        + variances.log().sum(dim=1)
        + means.shape[1] * math.log(2 * math.pi)
    )
    return (weights.log() - exponents / 2).softmax(dim=2)


def fisher_gradient(
    cells: torch.Tensor,
    valid: torch.Tensor,
    weights: torch.Tensor,
    means: torch.Tensor,
    variances: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient (N, 2, k, D) by means and by deviations, divided by the number of descriptors.

    Parameters
    ----------
    cells : float64 tensor of shape (N, n, D)
        Local descriptors.
    valid : bool tensor of shape (N, n)
        Which of them are any.
    weights : tensor of shape (k,)
        Weights of the mixture.
    means, variances : tensor of shape (k, D)
        Its means and variances.
    """
    shares = posteriors(cells, weights, means, variances) * valid[:, :, None]
    # moments about the means, each from one matrix product over the cells
    zeroth = shares.sum(dim=1)[:, :, None]
    first = shares.transpose(1, 2) @ cells
    second = shares.transpose(1, 2) @ (cells * cells)
    by_mean = (first - zeroth * means) / variances.sqrt()
    by_deviation = (second - 2 * first * means + zeroth * means * means) / variances - zeroth
    count = valid.sum(dim=1).clamp_min(1)[:, None, None]
    root = weights.sqrt()[:, None]
    return torch.stack([by_mean / (count * root), by_deviation / (count * root * math.sqrt(2))], dim=1)
