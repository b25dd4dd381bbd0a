"""How far a spectrum is shrunk towards its mean, and a warning where too few rows are whitened too far."""

from __future__ import annotations

import warnings

import numpy as np

from ._axes import PrincipalAxes
from ._rows import row_blocks

#: Rows of an even spectrum that ``shrinkage_for_size`` adds for each feature (benchmarks/whitening_choice.py).
_PRIOR_ROWS = 10
#: Rows that full whitening wants for each axis, to lose no more than 0.02 mAP where it gains nothing (the same).
ROWS_PER_AXIS = 20
_ENOUGH = 0.9


class WhiteningWarning(UserWarning):
    """Whitening was learned from so few rows that it may ruin a search.

    With n rows of d > n features, full whitening brings all rows to the same distance from one another.
    """


def mean_for_size(n_samples: int) -> float:
    """Return the share of their mean that n rows bear to lose: ``n / (n + 10)``.

    As if ten rows more had been seen whose mean is zero: without the mean of the two, one descriptor would be the
    opposite of the other.

    Parameters
    ----------
    n_samples : int
        Rows.

    Returns
    -------
    share : float
        In (0, 1).
    """
    return n_samples / (n_samples + _PRIOR_ROWS)


def shrinkage_for_size(n_samples: int, n_features: int) -> float:
    """Return the share of an even spectrum that n rows of d features ask for: ``10 d / (10 d + n)``.

    The rows count as much as if ten rows per feature had been seen along which all directions vary alike. The number
    was measured: see benchmarks/whitening_choice.py.

    Parameters
    ----------
    n_samples, n_features : int
        Rows learned from, and their length.

    Returns
    -------
    shrinkage : float
        Near 1 (only the mean is subtracted) for a few rows, near 0 (full whitening) for very many.
    """
    return _PRIOR_ROWS * n_features / (_PRIOR_ROWS * n_features + n_samples)


def ledoit_wolf(X: np.ndarray, axes: PrincipalAxes) -> float:
    """Return the shrinkage of Ledoit and Wolf (2004) from all principal axes of the rows.

    The value of :func:`sklearn.covariance.ledoit_wolf_shrinkage` without a (d, d) matrix: sums over the covariance
    are sums over its eigenvalues, and those over squares are the fourth powers of the lengths of the rows.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        The rows.
    axes : PrincipalAxes
        All of their axes.

    Returns
    -------
    shrinkage : float
        In [0, 1].

    References
    ----------
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate
    Analysis 88(2):365-411, 2004.
    """
    n, size = X.shape
    if size == 1:
        return 0.0
    variances = axes.eigenvalues * ((n - 1) / n)
    fourth = 0.0
    for block in row_blocks(X):
        centred = X[block] - axes.mean
        fourth += float(np.sum(np.einsum("ij,ij->i", centred, centred) ** 2))
    squares, mean = float(variances @ variances), float(variances.sum()) / size
    delta = squares - size * mean**2
    beta = min((fourth / n - squares) / n, delta)
    return 0.0 if beta <= 0 else beta / delta


def warn_if_thin(
    what: str,
    n_rows: int,
    n_axes: int,
    n_features: int,
    share: float,
    *,
    explained: float = 1.0,
    rows: str = "rows",
) -> None:
    """Warn where whitening `n_axes` axes wants more rows than there are.

    Parameters
    ----------
    what : str
        Who whitens, for the message.
    n_rows : int
        Rows learned from.
    n_axes, n_features : int
        Axes that are whitened, and features.
    share : float
        How far: 1 for full whitening, less where the spectrum is shrunk or the power is below 0.5.
    explained : float
        Share of the variance that the axes keep. Below 0.9 they want rows for every feature: what a few rows do not
        vary along is what tells other photographs apart.
    rows : str
        What they are, for the message.
    """
    needy = n_axes if explained >= _ENOUGH else n_features
    wanted = int(np.ceil(ROWS_PER_AXIS * needy * share**2))
    if n_rows >= wanted:
        return
    kept = "" if explained >= _ENOUGH else f" ({explained:.0%} of the variance)"
    together = " All rows learned from end up equally far from one another." if n_axes >= n_rows - 1 else ""
    warnings.warn(
        f"{what} was learned from {n_rows} {rows}, and whitens {n_axes} axes of {n_features} features{kept}: it wants "
        f"{wanted} or more, and with fewer a search may become much worse than without.{together} "
        "PCAWhitening(shrinkage='size') or whitening='auto' whitens as far as the rows bear; whitening=None "
        "leaves it out.",
        WhiteningWarning,
        stacklevel=4,
    )
