"""What the estimators that use principal axes share."""

import warnings

import numpy as np


def check_rank(n_wanted, rank, X, name="n_components"):
    """Decide how many principal axes to keep out of the `rank` along which the rows vary.

    Parameters
    ----------
    n_wanted : int or None
        What was asked for; None for all there are.
    rank : int
        Number of directions in which the rows vary.
    X : ndarray of shape (n_samples, n_features)
        The rows, for the message.
    name : str, default="n_components"
        Parameter that asked for them, for the message.

    Returns
    -------
    n_kept : int
        ``min(n_wanted, rank)``, with a UserWarning when it is less than asked for.

    Raises
    ------
    ValueError
        If the rows do not vary at all.
    """
    if rank == 0:
        raise ValueError(f"All {X.shape[0]} descriptors are equal: there is no direction in which they vary.")
    if n_wanted is None:
        return rank
    if n_wanted > rank:
        warnings.warn(
            f"{name}={n_wanted} is more than the rank of the data ({rank}, from {X.shape[0]} samples of "
            f"{X.shape[1]} features); {rank} are used.",
            UserWarning,
            stacklevel=3,
        )
    return min(n_wanted, rank)


def axes_for_share(axes, share):
    """Return the smallest number of axes that explain a share of the variance.

    Parameters
    ----------
    axes : PrincipalAxes
        All the axes there are, at least one.
    share : float
        Between 0 and 1.

    Returns
    -------
    n_axes : int
    """
    explained = np.cumsum(axes.eigenvalues / axes.total_variance)
    # The last sum may fall short of 1 by rounding; all the axes there are then have to do.
    return min(int(np.searchsorted(explained, share)) + 1, len(explained))
