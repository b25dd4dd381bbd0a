"""What every pooler shares: checks, batches, one pass over the maps, the scikit-learn contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils.validation import check_is_fitted

from ..._doc_link import DocLinkMixin
from ...extraction import FeatureMaps
from ._batches import BLOCK_BYTES, Batch, iter_batches, n_entries
from ._cached import Described, RegionSets, Rows, collect


class BasePooler(DocLinkMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Feature maps to one descriptor per image.

    A subclass implements ``_describe(batches) -> tensor (N, d)`` for a tuple with one checked
    :class:`~skretrieval.pooling._engine._batches.Batch` per layer (one layer unless ``_layers``). One that learns from
    the maps, in one pass over them, sets ``_learns`` and implements ``_begin``, ``_update`` and ``_finish``: so
    several poolers can learn from the same pass.
    """

    _layers = False  # whether entries are tuples of maps
    _learning_bytes = BLOCK_BYTES  # of maps taken together in fit
    # whether class, parameters and what was learned tell what it makes of a map, so that it can be kept on disk
    _follows_from_parameters = True

    @property
    def _learns(self) -> bool:
        """Whether fit needs passes over all the maps."""
        return False

    def _check_parameters(self) -> None:
        """Check what the parameter constraints cannot say."""

    def _start(self, channels: list[int]) -> None:
        """Take note of the channel counts; called before any batch is described."""
        self._channels = channels
        self.n_features_in_ = sum(channels)

    def _begin(self, X: Any) -> Any:
        """Return what the maps are gathered in, of any type; called after `_start` when `_learns`."""

    def _update(self, state: Any, batches: tuple[Batch, ...]) -> None:
        """Gather the next maps in what `_begin` returned."""

    def _finish(self, state: Any, X: Any) -> None:
        """Learn from what was gathered: set the fitted attributes and `_n_features_out`."""

    def _check_values(self, batch: Batch) -> None:
        """Raise if the method has no meaning for these values; called for every batch of a single layer."""

    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        raise NotImplementedError

    # ------------------------------------------------------------------ public
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Check the maps and learn what the method learns (most learn nothing).

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps. Where nothing is learned, a lazy `FeatureMaps` is asked for its first map only.
        y : ignored
            For the scikit-learn interface.

        Returns
        -------
        self : object
            The fitted pooler.

        Raises
        ------
        ValueError
            Empty input, wrong rank, differing channel counts, NaN or infinity: the entry is named.
        """
        self._check_parameters()
        n_entries(X)
        first = True
        head = X.head() if isinstance(X, FeatureMaps) else X
        for batches in iter_batches(head, None, self._layers, BLOCK_BYTES):
            if not self._layers:
                self._check_values(batches[0])
            if first:
                self._start([batch.maps.shape[1] for batch in batches])
                if not self._learns:
                    self._n_features_out = self._describe(head_of(batches)).shape[1]
                first = False
        if self._learns:
            state = self._begin(X)
            with torch.inference_mode():
                for batches in iter_batches(X, self._channels, self._layers, self._learning_bytes):
                    self._update(state, batches)
            self._finish(state, X)
        return self

    def fit_transform(self, X, y=None, **params):
        """Fit and describe; one pass over the maps where nothing is learned.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps.
        y : ignored
            For the scikit-learn interface.
        **params : ignored
            For the scikit-learn interface.

        Returns
        -------
        descriptors : ndarray of shape (n, d)
            One row per image, float32, or float64 for float64 maps.
        """
        if not isinstance(X, FeatureMaps):
            return self.fit(X, y).transform(X)
        self._validate_params()
        self._check_parameters()
        if self._learns:
            return self.fit(X, y).transform(X)
        self.__dict__.pop("_channels", None)
        return self._describe_all(X)

    def transform(self, X):
        """Describe each image.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit.

        Returns
        -------
        descriptors : ndarray of shape (n, d)
            One row per image, float32, or float64 for float64 maps.

        Raises
        ------
        ValueError
            Empty input, wrong rank, another channel count than in fit, NaN or infinity: the entry is named.
        """
        check_is_fitted(self)
        return self._describe_all(X)

    # ------------------------------------------------------------------ one pass
    def _describe_all(self, X: Any) -> Any:
        found = Rows(n_entries(X))
        self._collect(X, found)
        return found.array

    def _collect(self, X: Any, into: Rows | RegionSets) -> None:
        channels = collect(self, X, self._described, into, self.__dict__.get("_channels"))
        if channels is not None and "_channels" not in self.__dict__:
            # All was known. A zero map, as an unreadable photograph has, fits what a first map would have.
            self._start(channels)
            with torch.inference_mode():
                zeros = (torch.zeros(1, count, 1, 1) for count in channels)
                rows = self._describe(tuple(Batch(np.zeros(1, dtype=int), zero, True) for zero in zeros))
            self._n_features_out = rows.shape[1]

    @torch.inference_mode()
    def _described(self, X: Any) -> Iterator[Described]:
        """Yield the descriptors of each batch, with their places."""
        for batches in iter_batches(X, self.__dict__.get("_channels"), self._layers, BLOCK_BYTES):
            if "_channels" not in self.__dict__:
                self._start([batch.maps.shape[1] for batch in batches])
            rows = self._describe(batches).cpu().numpy()
            self._n_features_out = rows.shape[1]
            indices = batches[0].indices
            yield indices, np.full(len(indices), len(rows) // len(indices)), rows

    # ------------------------------------------------------------------ scikit-learn
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def head_of(batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """Return the batches cut to their first map."""
    return tuple(
        replace(
            batch,
            indices=batch.indices[:1],
            maps=batch.maps[:1],
            nonnegative=batch.nonnegative or bool((batch.maps[:1] >= 0).all()),
        )
        for batch in batches
    )
