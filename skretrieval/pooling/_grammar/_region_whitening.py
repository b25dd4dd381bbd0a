"""PCA-whitening of region vectors, learned in one pass in memory that does not grow with the images."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from scipy import linalg

from ..._linalg import flip_signs
from ..._linalg._tensors import l2


class RegionAxes(NamedTuple):
    """Fitted whitening of region vectors.

    Attributes
    ----------
    mean : ndarray of shape (K,)
        Mean region vector.
    components : ndarray of shape (d, K)
        Principal axes divided by the standard deviation along them.
    eigenvalues : ndarray of shape (d,)
        Variance along each axis, descending.
    """

    mean: np.ndarray
    components: np.ndarray
    eigenvalues: np.ndarray

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """Whiten and l2-normalise (N, R, K) region vectors; a zero region stays zero (A-13)."""
        # copies: a model that joblib has mapped from disk is read-only, which torch cannot wrap
        mean = torch.tensor(self.mean).to(vectors)
        components = torch.tensor(self.components).to(vectors)
        empty = (vectors == 0).all(dim=-1, keepdim=True)
        return torch.where(empty, 0, l2((vectors - mean) @ components.T))


class RegionWhitening:
    """Accumulates mean and scatter of region vectors batch by batch.

    Vectors wait until there are as many as dimensions: a matrix product for every image would add to the whole
    scatter matrix each time.
    """

    def __init__(self) -> None:
        self.n = 0
        self._waiting: list[np.ndarray] = []

    def update(self, vectors: torch.Tensor) -> None:
        """Add the non-zero regions of a batch, (N, R, K)."""
        flat = vectors.flatten(0, 1)
        self._waiting.append(flat[(flat != 0).any(dim=1)].double().cpu().numpy())
        if sum(map(len, self._waiting)) >= flat.shape[1]:
            self._fold()

    def _fold(self) -> None:
        rows = np.concatenate(self._waiting) if self._waiting else np.zeros((0, 0))
        self._waiting = []
        if self.n == 0 and len(rows):
            # moments about a point amid the data: the products then keep their digits
            self.origin = rows.mean(axis=0)
            self.total = np.zeros(rows.shape[1])
            self.scatter = np.zeros((rows.shape[1], rows.shape[1]))
        if len(rows):
            rows -= self.origin
            self.n += len(rows)
            self.total += rows.sum(axis=0)
            self.scatter += rows.T @ rows

    def finish(self, n_components: int | None, n_samples: int, n_features: int) -> RegionAxes:
        """Return the axes of the regions seen (divisor n - 1, rank-safe).

        Parameters
        ----------
        n_components : int or None
            Axes kept at most.
        n_samples, n_features : int
            Images seen and channels, for messages.

        Raises
        ------
        ValueError
            If fewer than two regions had any activation, or all were equal.
        """
        self._fold()
        if self.n < 2:
            raise ValueError(
                f"whiten=True needs at least 2 regions with activations to learn from, found {self.n} "
                f"(n_samples = {n_samples}, n_features = {n_features})"
            )
        shift = self.total / self.n
        covariance = (self.scatter - self.n * np.outer(shift, shift)) / (self.n - 1)
        size = len(covariance)
        values, vectors = linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1].T
        # also below the rounding of float32 maps there is no variance, only noise
        energy = float(np.trace(self.scatter) / self.n + self.origin @ self.origin)
        floor = max(
            values[0] * max(self.n, size) * np.finfo(np.float64).eps,
            energy * (2 * np.finfo(np.float32).eps) ** 2,
        )
        rank = int(np.count_nonzero(values > floor))
        if rank == 0:
            raise ValueError(
                "whiten=True: all regions are equal, there is nothing to whiten "
                f"(n_samples = {n_samples}, n_features = {n_features})"
            )
        if n_components is not None and n_components > rank:
            warnings.warn(
                f"n_components={n_components} exceeds the rank {rank} of the {self.n} region vectors; "
                f"{rank} components are kept",
                UserWarning,
                stacklevel=5,
            )
        kept = rank if n_components is None else min(n_components, rank)
        values, vectors = values[:kept], flip_signs(vectors[:kept])
        return RegionAxes(self.origin + shift, vectors / np.sqrt(values)[:, None], values)
