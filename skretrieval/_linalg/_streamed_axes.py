"""Principal axes of rows that come in batches, in memory that does not grow with their number."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import linalg

from . import PrincipalAxes, flip_signs, principal_axes, row_blocks


class StreamedAxes:
    """Collect rows batch by batch, then find their principal axes.

    As long as there are fewer rows than features, the rows themselves are kept, in their own precision, and the axes
    come from their Gram matrix. From then on only sums and products are: with the 8256 features of K' = 128 that is
    270 MB of float32 rows at most, and 550 MB of products after.

    Parameters
    ----------
    center : bool, default=True
        Whether the scatter is taken about the mean of the rows, or about the origin.

    Attributes
    ----------
    n_rows : int
        Rows seen, without those that are zero: an empty region says nothing about the others (A-13).
    kept : list of ndarray or None
        The non-zero rows of each batch; None once they were folded into products.
    """

    def __init__(self, center: bool = True) -> None:
        self.center = center
        self.n_rows = 0
        self.kept: list[np.ndarray] | None = []

    def update(self, rows: np.ndarray) -> None:
        """Add a batch of rows (m, D), float32 or float64."""
        filled = rows.any(axis=1)
        if not filled.all():
            rows = rows[filled]
        if len(rows) == 0:
            return
        self.n_rows += len(rows)
        if self.kept is None:
            self._fold(rows)
            return
        self.kept.append(rows)
        if self.n_rows >= rows.shape[1]:
            self._start_folding()

    def _start_folding(self) -> None:
        kept, self.kept = self.kept or [], None
        size = kept[0].shape[1]
        # moments about a point amid the rows: the products then keep their digits
        self._origin = np.sum([rows.sum(axis=0, dtype=np.float64) for rows in kept], axis=0) / self.n_rows
        self._total = np.zeros(size)
        self._scatter = np.zeros((size, size), order="F")
        self._precision = 0.0
        while kept:
            self._fold(kept.pop(0))

    def _fold(self, rows: np.ndarray) -> None:
        self._precision = max(self._precision, float(np.finfo(rows.dtype).eps))
        for block in row_blocks(rows):
            centred = rows[block] - self._origin
            self._total += centred.sum(axis=0)
            # upper triangle only, added to in place: a second matrix of this size would double the memory
            self._scatter = linalg.blas.dsyrk(1.0, centred.T, beta=1.0, c=self._scatter, overwrite_c=True)

    def finish(self, n_components: int | None = None) -> PrincipalAxes:
        """Return mean, axes and variances of the rows seen, without axes of no variance.

        As :func:`skretrieval._linalg.principal_axes` of all rows together. Call it once, at the end.

        Parameters
        ----------
        n_components : int or None, default=None
            The largest number of axes wanted; None for all there are.

        Returns
        -------
        axes : PrincipalAxes
            Float64; none at all where fewer than two rows came, or equal ones.
        """
        if self.kept is not None:
            if not self.kept:
                return PrincipalAxes(np.zeros(0), np.zeros((0, 0)), np.zeros(0), 0.0)
            return principal_axes(np.concatenate(self.kept), n_components, center=self.center)
        size, n = len(self._origin), self.n_rows
        shift = self._total / n
        mean = self._origin + shift
        scatter = self._scatter
        diagonal = scatter.diagonal() + 2 * self._origin * self._total + n * self._origin**2
        energy = float(diagonal.sum()) / n  # mean square length, about zero
        if self.center:
            scatter = linalg.blas.dsyr(-float(n), shift, a=scatter, overwrite_a=True)
        else:
            # about zero: sum (c + o)(c + o)' = scatter + t o' + o t' + n o o', one triangle of it
            scatter = linalg.blas.dsyr2(1.0, self._total, self._origin, a=scatter, overwrite_a=True)
            scatter = linalg.blas.dsyr(float(n), self._origin, a=scatter, overwrite_a=True)
            mean = np.zeros(size)
        scatter /= max(1, n - 1)
        total = float(scatter.diagonal().sum())
        wanted = size if n_components is None else min(n_components, size)
        subset = None if wanted == size else (size - wanted, size - 1)
        values, vectors = linalg.eigh(scatter, lower=False, subset_by_index=subset, overwrite_a=True)
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1].T
        del self._scatter
        floor = max(values[0] * max(n, size) * np.finfo(np.float64).eps, (2 * self._precision) ** 2 * energy)
        rank = int(np.count_nonzero(values > floor))
        return PrincipalAxes(mean, flip_signs(vectors[:rank]), values[:rank], total)


def check_rank(axes: PrincipalAxes, name: str, wanted: int | None, n_images: int, n_channels: int) -> None:
    """Raise if region vectors have no axes at all; warn if they have fewer than `wanted`.

    Parameters
    ----------
    axes : PrincipalAxes
        What was found.
    name : str
        Parameter that asks for `wanted` axes.
    wanted : int or None
        None for as many as there are.
    n_images, n_channels : int
        Of the maps the vectors come from, for the messages.
    """
    rank = len(axes.components)
    if rank == 0:
        raise ValueError(
            "The regions of all maps are alike or without activations: there is nothing to learn from "
            f"(n_samples={n_images} image(s), n_features={n_channels} channel(s))"
        )
    if wanted is not None and wanted > rank:
        warnings.warn(
            f"{name}={wanted} exceeds the rank {rank} of the region vectors of {n_images} image(s); {rank} are kept. "
            "Whitened to their full rank, descriptors have little left in common: fit on more images, or ask for "
            "fewer dimensions",
            UserWarning,
            stacklevel=5,
        )
