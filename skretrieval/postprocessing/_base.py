"""What the whitening estimators share."""

import warnings


def check_rank(n_components, rank, X):
    """Decide how many components to keep out of the `rank` that the rows support.

    Parameters
    ----------
    n_components : int or None
        What was asked for; None for all there are.
    rank : int
        Number of directions in which the rows vary.
    X : ndarray of shape (n_samples, n_features)
        The rows, for the message.

    Returns
    -------
    n_kept : int
        ``min(n_components, rank)``, with a UserWarning when it is less than asked for.

    Raises
    ------
    ValueError
        If the rows do not vary at all.
    """
    if rank == 0:
        raise ValueError(
            f"All {X.shape[0]} descriptors are equal: they vary in no direction and "
            "cannot be whitened."
        )
    if n_components is None:
        return rank
    if n_components > rank:
        warnings.warn(
            f"n_components={n_components} is more than the rank of the data ({rank}, from {X.shape[0]} "
            f"samples of {X.shape[1]} features); {rank} components are kept.",
            UserWarning,
            stacklevel=3,
        )
    return min(n_components, rank)
