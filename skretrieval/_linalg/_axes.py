"""Fitted principal axes: their rank and signs, and PCA-whitening along them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from ._tensors import l2, tensor_of


class WhiteningAxes(NamedTuple):
    """Fitted PCA-whitening: principal axes divided by the standard deviation along them.

    Attributes
    ----------
    mean : ndarray of shape (D,)
        Mean of the rows.
    components : ndarray of shape (d, D)
        Axes divided by the root of the variance, one per row.
    eigenvalues : ndarray of shape (d,)
        Variance along each axis, descending.
    """

    mean: np.ndarray
    components: np.ndarray
    eigenvalues: np.ndarray

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """Whiten and l2-normalise vectors; a zero vector, which says nothing, stays zero.

        Parameters
        ----------
        vectors : tensor of shape (..., D)
            On any device.

        Returns
        -------
        whitened : tensor of shape (..., d)
            Unit vectors, or zero.
        """
        empty = (vectors == 0).all(dim=-1, keepdim=True)
        centred = vectors - tensor_of(self.mean, vectors)
        return torch.where(empty, 0, l2(centred @ tensor_of(self.components, vectors).T))


class PrincipalAxes(NamedTuple):
    """Principal axes of rows, without those along which they do not vary.

    Attributes
    ----------
    mean : ndarray of shape (D,)
        The point about which the scatter was taken.
    components : ndarray of shape (d, D)
        Orthonormal axes, one per row; the entry of largest magnitude of each is positive.
    eigenvalues : ndarray of shape (d,)
        Variances along the axes (divisor n - 1), descending.
    total_variance : float
        Sum of the variances of all D features about `mean` (divisor n - 1).
    """

    mean: np.ndarray
    components: np.ndarray
    eigenvalues: np.ndarray
    total_variance: float

    def whitening(self, first: int = 0) -> WhiteningAxes:
        """Return the axes divided by the root of the variance along them, from the `first` one on."""
        values = self.eigenvalues[first:]
        return WhiteningAxes(self.mean, self.components[first:] / np.sqrt(values)[:, None], values)

    def n_for_share(self, share: float) -> int:
        """Return the smallest number of axes that explain a share, between 0 and 1, of the variance."""
        explained = np.cumsum(self.eigenvalues / self.total_variance)
        # The last sum may fall short of 1 by rounding; all the axes there are then have to do.
        return min(int(np.searchsorted(explained, share)) + 1, len(explained))


def check_rank(
    axes: PrincipalAxes,
    name: str,
    wanted: int | None,
    n_samples: int,
    n_features: int,
    rows: str | None = None,
) -> int:
    """Decide how many axes to keep out of those along which the rows vary.

    Parameters
    ----------
    axes : PrincipalAxes
        What was found.
    name : str
        Parameter that asks for `wanted` axes.
    wanted : int or None
        None for as many as there are.
    n_samples, n_features : int
        Images or descriptors, and channels or features, for the messages.
    rows : str, default=None
        What the rows are, for the messages; None for region vectors of `n_samples` images.

    Returns
    -------
    n_kept : int
        `wanted` or the number of axes, whichever is less, with a UserWarning where that is less than asked for.

    Raises
    ------
    ValueError
        If there is no axis.
    """
    rank = len(axes.eigenvalues)
    rows = f"region vectors of {n_samples} image(s)" if rows is None else rows
    if rank == 0:
        raise ValueError(
            f"{name}={wanted}: all {rows} are equal or zero, there is nothing to learn from (n_samples={n_samples}, "
            f"n_features={n_features})."
        )
    if wanted is None:
        return rank
    if wanted > rank:
        warnings.warn(
            f"{name}={wanted} exceeds the rank {rank} of the {rows}; {rank} are kept. Fit on more of them, or ask for "
            "fewer.",
            UserWarning,
            stacklevel=4,
        )
    return min(wanted, rank)


def flip_signs(components: np.ndarray) -> np.ndarray:
    """Give every row the sign that makes its entry of largest magnitude positive.

    Parameters
    ----------
    components : ndarray of shape (d, D)
        Axes in rows; their sign is arbitrary.

    Returns
    -------
    components : ndarray of shape (d, D)
        The same axes with a sign that does not depend on the solver.
    """
    largest = np.argmax(np.abs(components), axis=1)[:, None]
    return components * np.where(np.take_along_axis(components, largest, axis=1) < 0, -1.0, 1.0)
