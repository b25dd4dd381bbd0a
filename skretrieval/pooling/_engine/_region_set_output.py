"""Output that is no table."""

from __future__ import annotations

from typing import Any


class RegionSetOutput:
    """Keep the containers of ``set_output`` away from region sets, which are no table.

    To be named before the transformer it is mixed into. scikit-learn wraps the ``transform`` and ``fit_transform``
    that a transformer class defines itself; those of this class stay plain, and call what is behind the wrapper
    where region sets come out.
    """

    @property
    def _gives_region_sets(self) -> bool:
        """Whether `transform` gives region sets."""
        raise NotImplementedError

    def transform(self, X):
        """Describe each image.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit, or tuples of them.

        Returns
        -------
        descriptors : ndarray of shape (n, d), or list of n ndarrays of shape (M_i, d)
            One row per image, or region sets, for which the containers of ``set_output`` are no use; float32, or
            float64 for float64 maps.

        Raises
        ------
        ValueError
            Empty input, wrong rank, another channel count than in fit, NaN or infinity: the entry is named.
        """
        method = super().transform  # type: ignore[misc]
        return (_plain(method) if self._gives_region_sets else method)(X)

    def fit_transform(self, X, y=None, **params):
        """Fit and describe; one pass over the maps where nothing is learned.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps, or tuples of them.
        y : ignored
            For the scikit-learn interface.
        **params : ignored
            For the scikit-learn interface.

        Returns
        -------
        descriptors : ndarray of shape (n, d), or list of n ndarrays of shape (M_i, d)
            As from :meth:`transform`.
        """
        method = super().fit_transform  # type: ignore[misc]
        return (_plain(method) if self._gives_region_sets else method)(X, y, **params)


def _plain(method: Any) -> Any:
    """Return a bound method without the wrapper that puts its result into a container."""
    return method.__func__.__wrapped__.__get__(method.__self__)
