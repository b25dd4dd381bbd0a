"""Principal axes of rows, at once or in batches, in memory that does not grow with their number.

All is accumulated in float64 whatever the input, because whitening divides by the square root of the smallest
eigenvalues.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from ._axes import PrincipalAxes, flip_signs
from ._rows import row_blocks

# Below this ratio of smallest to largest eigenvalue the axes of the Gram route are made orthonormal again.
_GRAM_RATIO = 1e-6

# Rows that wait, at most, to be added to the products together: each addition goes through the whole matrix.
_WAITING = 512


def principal_axes(
    X: np.ndarray, n_components: int | None = None, *, center: bool | np.ndarray = True
) -> PrincipalAxes:
    """Principal axes of the rows of `X` and the variances along them, without axes of no variance.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        Rows, float32 or float64; not written to.
    n_components : int or None, default=None
        The largest number of axes wanted. None for all there are.
    center : bool or ndarray of shape (D,), default=True
        The point about which the scatter is taken: True for the mean of the rows, False for the origin, or a
        point.

    Returns
    -------
    axes : PrincipalAxes
        All float64. There can be fewer axes than `n_components`, and none for constant rows: see
        :class:`StreamedAxes`, which finds them.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval._linalg import principal_axes
    >>> axes = principal_axes(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    >>> axes.mean, axes.components, axes.eigenvalues
    (array([2., 1.]), array([[1., 0.]]), array([4.]))
    """
    rows = StreamedAxes(center, skip_zero=False)
    rows.update(np.asarray(X))
    return rows.finish(n_components)


class StreamedAxes:
    """Collect rows batch by batch, then find their principal axes.

    As long as there are fewer rows than features, the rows themselves wait, in their own precision, and the axes come
    from their Gram matrix (n, n). From then on only sums and products do (D, D), and the axes come from the
    covariance: with the 8256 features of K' = 128 that is 270 MB of float32 rows at most, and 550 MB of products after.

    Parameters
    ----------
    center : bool or ndarray of shape (D,), default=True
        The point about which the scatter is taken: True for the mean of the rows, False for the origin, or a
        point.
    precision : dtype, default=None
        Of the numbers that the rows were computed from; None for the rows' own.
    skip_zero : bool, default=True
        Whether rows of zeros are left out: an empty region says nothing about the others.

    Attributes
    ----------
    n_rows : int
        Rows seen, without those left out.
    kept : list of ndarray or None
        The rows of each batch; None once they were folded into products.

    Notes
    -----
    Only axes with ``eigenvalue > eigenvalues[0] * max(n, D) * eps`` are returned, where also the rounding of the
    numbers themselves (in `precision`, per unit of energy about the origin) counts as no variance: whitening divides
    by the root of the eigenvalue, and a direction in which the rows do not vary would receive all the energy of a new
    vector.
    """

    def __init__(
        self, center: bool | np.ndarray = True, *, precision: Any = None, skip_zero: bool = True
    ) -> None:
        self.center = center
        self.skip_zero = skip_zero
        self.n_rows = 0
        self.kept: list[np.ndarray] | None = []
        self._precision = precision
        self._eps = 0.0
        self._waiting: list[np.ndarray] = []

    def update(self, rows: np.ndarray) -> None:
        """Add a batch of rows (m, D), float32 or float64, which must not change until they are folded."""
        if self.skip_zero and not (filled := rows.any(axis=1)).all():
            rows = rows[filled]
        if len(rows) == 0:
            return
        self.n_rows += len(rows)
        given = rows.dtype if self._precision is None else np.dtype(self._precision)
        self._eps = max(self._eps, float(np.finfo(given if given.kind == "f" else np.float64).eps))
        if self.kept is not None:
            self.kept.append(rows)
            if self.n_rows >= rows.shape[1]:
                self._start_folding()
            return
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= min(_WAITING, rows.shape[1]):
            self._fold_waiting()

    def finish(self, n_components: int | None = None) -> PrincipalAxes:
        """Return mean, axes and variances of the rows seen, without axes of no variance. Call it once, at the end.

        Parameters
        ----------
        n_components : int or None, default=None
            The largest number of axes wanted; None for all there are.

        Returns
        -------
        axes : PrincipalAxes
            Float64; none at all where fewer than two rows came, or equal ones.
        """
        n = self.n_rows
        if n == 0:
            return PrincipalAxes(np.zeros(0), np.zeros((0, 0)), np.zeros(0), 0.0)
        mean, matrix, centred, energy = self._folded() if self.kept is None else self._waited()
        matrix /= max(1, n - 1)
        total = float(matrix.diagonal().sum())
        size = len(mean)
        wanted = min(n, size) if n_components is None else min(n_components, n, size)
        eigenvalues, components = _leading(matrix, wanted)
        if centred is not None:
            # Axes of no variance have no direction in this route: leave them out before dividing by their length.
            rank = _rank(eigenvalues, n, size)
            eigenvalues, components = _axes_of_rows(centred, eigenvalues[:rank], components[:rank])
        rank = _rank(eigenvalues, n, size, noise=(2 * self._eps) ** 2 * energy)
        return PrincipalAxes(mean, flip_signs(components[:rank]), eigenvalues[:rank], total)

    # ------------------------------------------------------------------ fewer rows than features
    def _waited(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return the mean, the Gram matrix of the centred rows, those, and the mean square length of the rows."""
        kept = self.kept or []
        rows = kept[0] if len(kept) == 1 else np.concatenate(kept)
        mean = self._point([rows])
        centred = rows - mean
        energy = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64)) / len(rows)
        return mean, centred @ centred.T, centred, energy

    # ------------------------------------------------------------------ as many, or more
    def _start_folding(self) -> None:
        kept, self.kept = self.kept or [], None
        size = kept[0].shape[1]
        # moments about a point amid the rows: the products then keep their digits
        self._origin = self._point(kept)
        self._n_origin = self.n_rows
        self._total = np.zeros(size)
        self._scatter = np.zeros((size, size), order="F")
        while kept:
            self._fold(kept.pop(0))

    def _fold_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._fold(waiting[0] if len(waiting) == 1 else np.concatenate(waiting))

    def _fold(self, rows: np.ndarray) -> None:
        for block in row_blocks(rows):
            centred = rows[block] - self._origin
            self._total += centred.sum(axis=0)
            # lower triangle only, added to in place: a second matrix of this size would double the memory
            self._scatter = linalg.blas.dsyrk(
                1.0, centred.T, beta=1.0, c=self._scatter, lower=1, overwrite_c=True
            )

    def _folded(self) -> tuple[np.ndarray, np.ndarray, None, float]:
        """Return the mean, the lower triangle of the scatter about it, None, and the mean square length of the rows."""
        self._fold_waiting()
        n, origin, total, scatter = self.n_rows, self._origin, self._total, self._scatter
        del self._scatter  # it is overwritten
        energy = float(scatter.diagonal().sum() + 2 * origin @ total + n * origin @ origin) / n
        if self.center is True and n > self._n_origin:  # rows came after the point was chosen
            shift = total / n
            scatter = linalg.blas.dsyr(-float(n), shift, a=scatter, lower=1, overwrite_a=True)
            origin = origin + shift
        return origin, scatter, None, energy

    def _point(self, parts: list[np.ndarray]) -> np.ndarray:
        """Return the point about which the scatter is taken, or the mean of the rows of `parts`."""
        if not isinstance(self.center, bool | np.bool_):
            return np.asarray(self.center, dtype=np.float64)
        size = parts[0].shape[1]
        total = np.zeros(size)
        if not self.center:
            return total
        # Differences to one of the rows are exactly zero where the rows agree, so that constant features have an
        # exact mean; a plain running sum would leave them a variance made of rounding errors.
        first = parts[0][0].astype(np.float64)
        for rows in parts:
            for block in row_blocks(rows):
                total += np.sum(rows[block] - first, axis=0)
        return first + total / sum(map(len, parts))


def _leading(matrix: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `wanted` largest eigenvalues, descending and clipped at 0, and their vectors in rows.

    The lower triangle of `matrix` is read, and all of it overwritten.
    """
    size = len(matrix)
    # Divide and conquer is the fastest driver when most of the spectrum is wanted, but has no subsets.
    subset = None if wanted > size // 2 else (size - wanted, size - 1)
    driver = "evd" if subset is None else "evr"
    values, vectors = linalg.eigh(matrix, driver=driver, subset_by_index=subset, overwrite_a=True)
    return np.maximum(values[::-1][:wanted], 0.0), vectors[:, ::-1][:, :wanted].T


def _rank(eigenvalues: np.ndarray, n: int, size: int, noise: float = 0.0) -> int:
    """Return how many of the descending variances of n rows are more than rounding, and more than `noise`."""
    if len(eigenvalues) == 0:
        return 0
    floor = max(eigenvalues[0] * max(n, size) * np.finfo(np.float64).eps, noise)
    return int(np.count_nonzero(eigenvalues > floor))


def _axes_of_rows(
    centred: np.ndarray, eigenvalues: np.ndarray, vectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return principal axes (d, D) and variances from eigenvectors (d, n) of the Gram matrix of centred rows."""
    divisor = max(1, len(centred) - 1)
    components = (vectors @ centred) / np.sqrt(eigenvalues * divisor)[:, None]
    if len(eigenvalues) and eigenvalues[-1] < _GRAM_RATIO * eigenvalues[0]:
        # Squaring the rows costs half the digits of the smallest axes. Gram-Schmidt from the largest axis
        # down restores their right angles, and the variances are then measured along the axes themselves.
        components = linalg.qr(components.T, mode="economic", overwrite_a=True)[0].T
        projected = centred @ components.T
        eigenvalues = np.einsum("ij,ij->j", projected, projected) / divisor
        order = np.argsort(-eigenvalues, kind="stable")
        components, eigenvalues = components[order], eigenvalues[order]
    return eigenvalues, components
