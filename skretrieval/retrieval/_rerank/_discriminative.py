"""Discriminative query expansion: a linear classifier of the first results against the last ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC


def svm_direction(positives: NDArray[Any], negatives: NDArray[Any], C: float) -> NDArray[np.float64]:
    """Find the unit normal of the linear SVM of two sets (Arandjelovic and Zisserman 2012, section 3.2).

    Parameters
    ----------
    positives, negatives : ndarray of shape (n, d)
        Rows, at least one of each.
    C : float
        Weight of the errors.

    Returns
    -------
    ndarray of shape (d,)
        w, of unit length; 0 where the sets can't be told apart.
    """
    X = np.concatenate([positives, negatives]).astype(np.float64)
    y = np.repeat([1, 0], [len(positives), len(negatives)])
    # The primal problem: no random order, and so the same direction every time.
    normal = LinearSVC(C=C, dual=False, tol=1e-8, max_iter=10_000).fit(X, y).coef_[0]
    length = np.linalg.norm(normal)
    return normal / length if length > 1e-12 else np.zeros_like(normal)
