"""Which negative values a pooler cuts off: what ``rectify`` may be, and what "auto" goes by."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import StrOptions

from ...extraction import FeatureMaps
from ._batches import BLOCK_BYTES, Batch, iter_batches
from ._deprecations import warn_caller

#: The constraint of the parameter `rectify`.
RECTIFY: dict[str, list] = {"rectify": ["boolean", StrOptions({"auto"})]}


def signs_of(X: Any, layers: bool) -> list[bool] | None:
    """Tell which maps have negative values.

    Parameters
    ----------
    X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
        Of `FeatureMaps` the network is asked, of maps in memory all are looked at.
    layers : bool
        Whether entries are tuples of maps.

    Returns
    -------
    signed : list of bool or None
        One for each map of an entry. None for `FeatureMaps` of an extractor that doesn't tell.
    """
    if isinstance(X, FeatureMaps):
        signed = X.signed
        return None if signed is None else list(signed) if isinstance(signed, tuple) else [signed]
    found: list[bool] = []
    for batches in iter_batches(X, None, layers, BLOCK_BYTES):
        own = [not batch.nonnegative for batch in batches]
        found = [a or b for a, b in zip(found, own, strict=True)] if found else own
    return found


def keep_signs(model: BaseEstimator) -> Any:
    """Let the poolers of a Pipeline cut off negative values only where the network means to have none.

    Sets each of its parameters `rectify` that is True to "auto".

    Parameters
    ----------
    model : Pipeline or pooler
        Changed.

    Returns
    -------
    model : Pipeline or pooler
        The same.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skretrieval.pooling import GeMPooler, keep_signs
    >>> keep_signs(make_pipeline(GeMPooler()))[0]
    GeMPooler(rectify='auto')
    """
    params = model.get_params().items()
    cut = [name for name, value in params if name.rpartition("__")[2] == "rectify" and value is True]
    return model.set_params(**dict.fromkeys(cut, "auto"))


class SignsMixin:
    """What a pooler with the parameter `rectify` does with negative values; decided in fit where that is "auto"."""

    rectify: Any
    rectify_: bool

    @property
    def _asks_signs(self) -> bool:
        """Whether it matters which maps have negative values."""
        return getattr(self, "rectify", False) == "auto"

    def _settle(self, signed: list[bool] | None) -> None:
        """Take note of which maps of an entry have negative values, None if nobody tells; called before `_start`."""
        self.__dict__.pop("rectify_", None)
        if self._asks_signs:
            self.rectify_ = signed is not None and not any(signed)

    def _settled(self) -> dict[str, Any]:
        """Return what `_settle` has set, by attribute."""
        return {"rectify_": self.rectify_} if self._asks_signs and "rectify_" in self.__dict__ else {}

    def _rectifies(self) -> bool:
        """Tell whether negative values are cut off."""
        rectify: Any = self.rectify
        if rectify != "auto":
            return bool(rectify)
        if "rectify_" not in self.__dict__:
            raise NotFittedError(
                f'{type(self).__name__}: rectify="auto" is decided in fit, which did not run with it.'
            )
        return self.rectify_

    def _activations(self, batch: Batch) -> torch.Tensor:
        """Return the maps of a batch, negative values cut off where `rectify` says so."""
        if not self._rectifies():
            return batch.maps
        source = batch.source
        if not batch.nonnegative and source is not None and source.tell_once("rectified"):
            warn_caller(
                f"{type(self).__name__} cuts off the negative values of maps of both signs, about half of what the "
                'network says: rectify="auto" keeps them, rectify=False takes the maps as they are.',
                UserWarning,
            )
        return batch.rectified
