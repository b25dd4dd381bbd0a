"""Triangulation embedding with democratic aggregation."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..._linalg import StreamedAxes, WhiteningAxes, l2, signed_power, tensor_of
from .._engine._batches import n_entries
from ._base import CodebookPooler
from ._centers import k_means, rounding
from ._local_descriptors import BLOCK_NUMBERS


class TEmbeddingPooler(CodebookPooler):
    """Sum of whitened directions from anchors to local descriptors, each weighing alike (T-embedding).

    ``R(x) = [(x - c_j) / |x - c_j|]_j``, one direction per anchor; ``phi(x)`` is R(x) PCA-whitened without its first
    `n_drop` components. The descriptor is ``sum_i lambda_i phi(x_i)``, signed power, l2. Democratic weights solve
    ``lambda_i sum_j lambda_j <phi_i, phi_j> = 1``, so that every cell contributes as much to the similarity of the
    image with itself, and repeated structures do not dominate. Local descriptors are the l2-normalised columns of the
    map; those without activation are left out.

    Parameters
    ----------
    n_clusters : int, default=16
        Anchors. The paper goes from 16 to 64, for ``n_clusters * D - n_drop`` dimensions of the result; the
        covariance of the embedding takes the square of ``n_clusters * D`` in memory.

    n_local : int, "all" or None, default=128
        Dimensions D of the PCA-whitened local descriptors (the paper's SIFT has 128); "all" for as many as there
        are, None for no PCA.

    aggregation : {"democratic", "sum"}, default="democratic"
        Weights of the cells. "sum" weighs all by one, which needs no Gram matrix and costs a fraction.

    n_drop : int or None, default=None
        Leading components of the embedding that are left out: they hold what all descriptors share. None for D, as
        in the paper.

    n_iter : int, default=10
        Iterations of the symmetric Sinkhorn algorithm, with exponent 1/2 and negative similarities set to zero.

    power : float, default=0.5
        Exponent of the signed power; 1 leaves the sum as it is.

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
        Local descriptors that anchors and whitening are learned from, drawn from all images alike.

    random_state : int, RandomState instance or None, default=None
        Draws the sample and starts k-means.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, D)
        The anchors.

    embedding_axes_ : WhiteningAxes
        Mean, whitened components (d, n_clusters * D) and eigenvalues of the embedding, without those dropped.

    local_axes_ : WhiteningAxes
        Mean, components and eigenvalues of the PCA-whitening, only with `n_local`.

    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    A descriptor that coincides with an anchor has no direction from it: that part of R(x) is zero. Components
    without variance are left out too, so few training descriptors give a shorter result.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Jegou, Zisserman, "Triangulation embedding and democratic aggregation for image search", CVPR 2014, sections 3
    and 4.

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.pooling import TEmbeddingPooler
    >>> maps, _ = make_feature_maps(6, 16, random_state=0)
    >>> TEmbeddingPooler(n_clusters=4, n_local=8, random_state=0).fit_transform(maps).shape
    (6, 24)
    """

    _parameter_constraints: dict = {
        **CodebookPooler._parameter_constraints,
        "aggregation": [StrOptions({"democratic", "sum"})],
        "n_drop": [Interval(Integral, 0, None, closed="left"), None],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "power": [Interval(Real, 0, 1, closed="right")],
    }

    def __init__(
        self,
        n_clusters=16,
        *,
        n_local=128,
        aggregation="democratic",
        n_drop=None,
        n_iter=10,
        power=0.5,
        points="all",
        n_points=4000,
        sample_size=100_000,
        random_state=None,
        rectify=True,
    ):
        self.n_clusters = n_clusters
        self.n_local = n_local
        self.aggregation = aggregation
        self.n_drop = n_drop
        self.n_iter = n_iter
        self.power = power
        self.points = points
        self.n_points = n_points
        self.sample_size = sample_size
        self.random_state = random_state
        self.rectify = rectify

    def _learn_codebook(self, sample: np.ndarray, rng: np.random.RandomState) -> None:
        self.cluster_centers_ = k_means(sample, self.n_clusters, rng)
        n_drop = sample.shape[1] if self.n_drop is None else self.n_drop
        self.embedding_axes_ = _embedding_axes(sample, self.cluster_centers_, n_drop)
        self._n_features_out = len(self.embedding_axes_.components)

    def _numbers(self, n_cells: int, n_local: int) -> int:
        democratic = self.aggregation == "democratic"
        return n_cells * (
            2 * self.n_clusters * n_local + n_cells if democratic else n_local + self.n_clusters
        )

    def _embedded(self, cells: torch.Tensor) -> torch.Tensor:
        """Return phi (N, n, d) of each local descriptor."""
        centers = tensor_of(self.cluster_centers_, cells)
        mean, components = (tensor_of(values, cells) for values in self.embedding_axes_[:2])
        return (directions(cells, centers, rounding(self.cluster_centers_)) - mean) @ components.T

    def cell_weights(self, X: Any) -> list[np.ndarray]:
        """Tell the democratic weight of each cell of the maps.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit.

        Returns
        -------
        weights : list of n ndarrays of shape (H_i, W_i)
            Zero for cells that are no local descriptor.

        Raises
        ------
        NotFittedError
            If the embedding is not known yet.

        ValueError
            If ``aggregation="sum"``: all cells weigh alike. Empty input, wrong rank, another channel count than in fit,
            NaN or infinity: the entry is named.

        Examples
        --------
        >>> from skretrieval.datasets import make_feature_maps
        >>> from skretrieval.pooling import TEmbeddingPooler
        >>> maps, _ = make_feature_maps(6, 16, random_state=0)
        >>> pooler = TEmbeddingPooler(n_clusters=4, n_local=8, random_state=0).fit(maps)
        >>> pooler.cell_weights(maps)[0].shape == maps[0].shape[1:]
        True
        """
        check_is_fitted(self)
        self._validate_params()
        if self.aggregation != "democratic":
            raise ValueError(f"{self!r} weighs all cells alike.")
        found: list[Any] = [None] * n_entries(X)
        with torch.inference_mode():
            for indices, local, shape in self._located(X):
                weights = democratic_weights(self._embedded(local.vectors), local.valid, self.n_iter)
                cells = local.over_cells(weights, shape, 0).cpu().numpy()
                for index, own in zip(indices, cells, strict=True):
                    found[index] = own
        return found

    def _aggregate(self, cells: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        if self.aggregation == "democratic":
            phi = self._embedded(cells)
            weights = democratic_weights(phi, valid, self.n_iter)
            return l2(signed_power((weights[:, None, :] @ phi)[:, 0], self.power))
        # the embedding is linear in the directions: they are summed first
        centers = tensor_of(self.cluster_centers_, cells)
        mean = tensor_of(self.embedding_axes_.mean, cells)
        components = tensor_of(self.embedding_axes_.components, cells)
        weights = valid.to(cells)
        summed = summed_directions(cells, centers, weights, rounding(self.cluster_centers_))
        total = (summed - weights.sum(dim=1, keepdim=True) * mean) @ components.T
        return l2(signed_power(total, self.power))


def _inverse_distances(cells: torch.Tensor, centers: torch.Tensor, floor: float) -> torch.Tensor:
    """Return ``1 / |x - c|`` (..., k), zero where x and c coincide."""
    # differences, not the expanded square, which cancels where they are small
    distances = torch.cdist(cells, centers, compute_mode="donot_use_mm_for_euclid_dist")
    far = distances > floor
    return torch.where(far, 1 / torch.where(far, distances, 1), 0)


def directions(cells: torch.Tensor, centers: torch.Tensor, floor: float) -> torch.Tensor:
    """Return the unit vectors from each anchor to each descriptor, R(x).

    Parameters
    ----------
    cells : tensor of shape (..., n, D)
        Local descriptors.
    centers : tensor of shape (k, D)
        Anchors.
    floor : float
        Distance up to which a descriptor coincides with an anchor.

    Returns
    -------
    directions : tensor of shape (..., n, k * D)
        Of length ``sqrt(k)``, less where it coincides with an anchor.
    """
    inverse = _inverse_distances(cells, centers, floor)[..., None]
    return ((cells[..., None, :] - centers) * inverse).flatten(-2)


def summed_directions(
    cells: torch.Tensor, centers: torch.Tensor, weights: torch.Tensor, floor: float
) -> torch.Tensor:
    """Return ``sum_i weights_i R(x_i)`` (N, k * D) without forming each R(x): one matrix product.

    Parameters
    ----------
    cells : tensor of shape (N, n, D)
        Local descriptors.
    centers : tensor of shape (k, D)
        Anchors.
    weights : tensor of shape (N, n)
        Their weights.
    floor : float
        Distance up to which a descriptor coincides with an anchor.
    """
    inverse = _inverse_distances(cells, centers, floor) * weights[:, :, None]
    return (inverse.transpose(1, 2) @ cells - inverse.sum(dim=1)[:, :, None] * centers).flatten(1)


def democratic_weights(phi: torch.Tensor, valid: torch.Tensor, n_iter: int) -> torch.Tensor:
    """Return the weights that make all embedded descriptors contribute alike (symmetric Sinkhorn).

    Repeats ``lambda_i <- lambda_i / sqrt(lambda_i sum_j lambda_j K_ij)`` with ``K = max(<phi_i, phi_j>, 0)``.

    Parameters
    ----------
    phi : tensor of shape (N, n, d)
        Embedded descriptors.
    valid : bool tensor of shape (N, n)
        Which of them are any; the others weigh nothing.
    n_iter : int
        Iterations.

    Returns
    -------
    weights : tensor of shape (N, n)
        Non-negative.
    """
    gram = (phi @ phi.transpose(1, 2)).clamp_min_(0)
    weights = valid.to(phi)
    for _ in range(n_iter):
        contributions = weights * (gram @ weights[:, :, None])[:, :, 0]
        weights = weights / torch.where(contributions > 0, contributions, 1).sqrt()
    return weights


def _embedding_axes(sample: np.ndarray, centers: np.ndarray, n_drop: int) -> WhiteningAxes:
    """Return the whitening of R(x) over the sample, without `n_drop` leading components and those of no variance."""
    anchors = torch.from_numpy(centers).double()
    rows = StreamedAxes(precision=sample.dtype, skip_zero=False)
    step = max(1, BLOCK_NUMBERS // (2 * centers.size))
    for start in range(0, len(sample), step):
        cells = torch.from_numpy(sample[start : start + step]).double()
        rows.update(directions(cells, anchors, rounding(centers)).numpy())
    axes = rows.finish()
    rank = len(axes.eigenvalues)
    if rank <= n_drop:
        raise ValueError(
            f"TEmbeddingPooler: the embedding of the local descriptors (n_samples={len(sample)}, "
            f"n_features={sample.shape[1]}) varies along {rank} axes only, and the first {n_drop} are dropped."
        )
    return axes.whitening(first=n_drop)
