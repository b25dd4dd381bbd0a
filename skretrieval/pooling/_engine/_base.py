"""What every pooler shares: checks, batches, passes over the maps, the scikit-learn contract."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, _fit_context
from sklearn.utils.validation import check_is_fitted

from ..._doc_link import DocLinkMixin
from ..._region_sets import OutputMixin
from ...extraction import FeatureMaps
from ._batches import (
    BLOCK_BYTES,
    Batch,
    Found,
    RegionRows,
    iter_batches,
    n_entries,
    one_thread,
)
from ._cached import descriptor_cache
from ._collected import RegionSets, Rows
from ._numbers import check_descriptors, learned_from
from ._signs import SignsMixin, signs_of


class BasePooler(  # type: ignore[call-arg]
    SignsMixin,
    DocLinkMixin,
    OutputMixin,
    ClassNamePrefixFeaturesOutMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,
):
    """Base class of all poolers, also of your own: implement :meth:`pool_maps`, and the rest is there.

    `fit`, `transform` and `fit_transform` take maps in every accepted form, check them (the entry with a NaN or
    another number of channels is named), hand them to :meth:`pool_maps` in batches of equal shape on the device that
    they are on, and put the descriptors in order. The pooler works in a ``Pipeline``, in
    :class:`~skretrieval.pooling.PoolerFusion` and :class:`~skretrieval.pooling.LayerwisePooler`, and under
    ``GridSearchCV``. Its parameters are the arguments of its constructor, which only assigns them;
    ``_parameter_constraints`` says what they may be, as in scikit-learn.

    Attributes
    ----------
    n_features_in_ : int
        Channels of the maps.

    See Also
    --------
    WeightedPooler : Combine spatial weights, channel weights, regions and reductions, functions of yours among them.

    Notes
    -----
    Descriptors of classes outside this package are never cached on disk: a function has the same name after its body
    was changed.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    Examples
    --------
    The standard deviation of each channel, to a power:

    >>> import numpy as np
    >>> from skretrieval.pooling import BasePooler
    >>> class DeviationPooler(BasePooler):
    ...     def __init__(self, power=1.0):
    ...         self.power = power
    ...
    ...     def pool_maps(self, maps):
    ...         return maps.std(dim=(2, 3), correction=0) ** self.power
    >>> maps = [np.random.default_rng(0).random((16, 5 + i, 7)) for i in range(3)]
    >>> DeviationPooler(power=0.5).fit_transform(maps).shape
    (3, 16)
    """

    # Inside this package a pooler may implement `_describe(batches)` instead: one checked `Batch` per layer to a tensor
    # (N, d) or `RegionRows`. One that learns implements `_begin`, `_update` and `_finish`, so that passes are shared.
    _parameter_constraints: dict = {}
    _layers = False  # whether entries are tuples of maps
    _gives_region_sets = False
    _learning_bytes = BLOCK_BYTES  # of maps taken together in fit
    _describing_bytes = BLOCK_BYTES  # and in transform
    _several_threads = False  # whether its operations on a CPU are large enough for more than one
    _follows_from_parameters = (
        True  # whether class, parameters and what was learned tell what it makes of a map
    )

    @property
    def takes_tuples(self) -> bool:
        """Whether entries are tuples of maps, of several layers or resolutions."""
        return self._layers

    def pool_maps(self, maps: torch.Tensor) -> torch.Tensor:
        """Describe maps: what a pooler of your own implements.

        Parameters
        ----------
        maps : tensor of shape (N, C, H, W)
            Feature maps of equal shape, float32 or float64, finite, perhaps negative. Not to be written into.

        Returns
        -------
        descriptors : tensor of shape (N, d)
            One row per map, in which no other map has a part.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement pool_maps(maps).")

    @property
    def _learns(self) -> bool:
        """Whether fit needs passes over all the maps."""
        return False

    def _check_parameters(self) -> None:
        """Check what the parameter constraints cannot say."""

    def _check_input(self, X: Any) -> None:
        """Raise if `X` is not what the parameters need; called before a map is looked at."""

    def _start(self, channels: list[int]) -> None:
        """Take note of the channel counts; called before any batch is described or learned from."""
        self._channels = channels
        self.n_features_in_ = sum(channels)

    def _begin(self, X: Any) -> Any:
        """Return what the first pass gathers the maps in, not None; called after `_start` when `_learns`."""

    def _update(self, state: Any, batches: tuple[Batch, ...]) -> None:
        """Gather the next maps in what `_begin` returned."""

    def _finish(self, state: Any, X: Any) -> Any:
        """Learn from what was gathered; return None, or what another pass over the maps gathers them in.

        After the last pass the fitted attributes and `_n_features_out` are there.
        """

    def _check_values(self, batch: Batch) -> None:
        """Raise if the method has no meaning for these values; called for every batch of a single layer."""

    def _describe(self, batches: tuple[Batch, ...]) -> Any:
        rows = self.pool_maps(batches[0].maps)
        n = len(batches[0].indices)
        if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or len(rows) != n:
            got = f"shape {tuple(rows.shape)}" if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise ValueError(
                f"{type(self).__name__}.pool_maps must return a tensor of shape ({n}, d), got {got}."
            )
        return rows

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
        self._learn(X)
        return self

    @_fit_context(prefer_skip_nested_validation=False)
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
        descriptors : ndarray of shape (n, d), or list of n ndarrays of shape (M_i, d)
            As from :meth:`transform`.
        """
        if self._learns:
            self._check_parameters()
            return self._output(X, self._describe_learned(X, self._learn(X)))
        if not isinstance(X, FeatureMaps):
            return self.fit(X, y).transform(X)
        self._check_parameters()
        self.__dict__.pop("_channels", None)
        return self._output(X, self._describe_all(X))

    def transform(self, X):
        """Describe each image.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit.

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
        check_is_fitted(self)
        return self._output(X, self._describe_all(X))

    # ------------------------------------------------------------------ passes over the maps
    def _learn(self, X: Any) -> Any:
        """Fit, in as many passes as it takes; return what the last one gathered."""
        n_entries(X)
        self._check_input(X)
        self._settle(signs_of(X, self._layers) if self._asks_signs else None)
        if not self._learns:
            self._look(X)
            return None
        state, channels, more = None, None, True
        extreme: tuple[Batch, ...] = ()
        while more:
            with torch.inference_mode():
                for batches in iter_batches(X, channels, self._layers, self._learning_bytes):
                    if channels is None:
                        channels = [batch.maps.shape[1] for batch in batches]
                        self._start(channels)
                        state = self._begin(X)
                    if not self._layers:
                        self._check_values(batches[0])
                    with one_thread(batches[0].maps, unless=self._several_threads):
                        self._update(state, batches)
                    extreme = max(
                        extreme, batches, key=lambda some: max((one.largest for one in some), default=-1)
                    )
            with learned_from(extreme):
                following = self._finish(state, X)
            more = following is not None
            state = following if more else state
        return state

    @torch.inference_mode()
    def _look(self, X: Any) -> None:
        """Fit where nothing is learned: check what is in memory, and describe one map."""
        head = X.head() if isinstance(X, FeatureMaps) else X
        for number, batches in enumerate(iter_batches(head, None, self._layers, BLOCK_BYTES)):
            if number == 0:
                self._start([batch.maps.shape[1] for batch in batches])
            if not self._layers:
                self._check_values(batches[0])
            if number == 0:
                with one_thread(batches[0].maps, unless=self._several_threads):
                    self._n_features_out = n_columns(self._describe(head_of(batches)))

    @torch.inference_mode()
    def _describe_all(self, X: Any, describe: Callable[[tuple[Batch, ...]], Any] | None = None) -> Any:
        """Describe all entries: take what is cached, describe what is missing, write it.

        Parameters
        ----------
        X : FeatureMaps or sequence of maps
            Where the extractor has a `memory` that caches descriptors, it is looked at and added to.
        describe : callable, default=None
            Takes the place of `_describe`, and gives `RegionRows`.

        Returns
        -------
        descriptors : ndarray of shape (n, d), or list of n ndarrays of shape (M_i, d)
            In the order of the entries.
        """
        sets = self._gives_region_sets or describe is not None
        describe = self._describe if describe is None else describe
        results = RegionSets(n_entries(X)) if sets else Rows(n_entries(X))
        self._check_input(X)
        channels = self.__dict__.get("_channels")
        if channels is None:
            self._settle(signs_of(X, self._layers) if self._asks_signs else None)
        cached = getattr(getattr(X, "extractor", None), "memory", None) is not None
        cache = descriptor_cache(self, X, channels) if cached else None
        with nullcontext() if cache is None else cache:
            for batches in iter_batches(X, channels, self._layers, self._describing_bytes, cache):
                if isinstance(batches, Found):
                    results.add(batches.indices, np.array([len(batches.rows)]), batches.rows)
                    continue
                if "_channels" not in self.__dict__:
                    self._start([batch.maps.shape[1] for batch in batches])
                with one_thread(batches[0].maps, unless=self._several_threads):
                    described = describe(batches)
                if not self._learns:
                    self._n_features_out = n_columns(described)
                rows, counts = described if sets else (described, np.ones(len(described), dtype=int))
                rows = rows.cpu().numpy()
                check_descriptors(rows, counts, batches)
                results.add(batches[0].indices, counts, rows)
                if cache is not None:
                    cache.add(batches[0].digests, counts, rows, self._channels)
        if cache is not None and "_channels" not in self.__dict__:
            self._start_by_zeros(cache.channels)
        return results.finish()

    def _start_by_zeros(self, channels: list[int]) -> None:
        """Fit where all was cached: a zero map, as of an unreadable photograph, stands in for the first map."""
        self._start(channels)
        zeros = (torch.zeros(1, count, 1, 1) for count in channels)
        batches = tuple(Batch(np.zeros(1, dtype=int), zero, True) for zero in zeros)
        self._n_features_out = n_columns(self._describe(batches))

    def cache_state(self) -> dict[str, Any] | None:
        """Tell what the descriptors depend on beside class, parameters and maps, for their name in a cache.

        Returns
        -------
        state : dict or None
            What was learned, by attribute; nothing for a pooler that learns nothing. None if descriptors cannot be
            cached: what else they depend on may be another thing tomorrow.
        """
        if not self._follows_from_parameters:
            return None
        if not self._learns:
            return self._settled()
        # These say nothing of how maps are described: they follow from the maps, or concern containers.
        others = {"_channels", "n_features_in_", "_n_features_out", "_sklearn_output_config"}
        others.update(self.get_params(deep=False))
        return {name: value for name, value in vars(self).items() if name not in others}

    def _describe_learned(self, X: Any, state: Any) -> Any:
        """Describe the maps that were just learned from; `state` is what the last pass gathered."""
        return self._describe_all(X)

    # ------------------------------------------------------------------ scikit-learn
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def n_columns(described: Any) -> int:
    """Return the length of the descriptors that `_describe` gave."""
    return (described.rows if isinstance(described, RegionRows) else described).shape[1]


def head_of(batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """Return the batches cut to their first map."""
    first = [batch[:1] for batch in batches]
    return tuple(replace(one, nonnegative=one.nonnegative or bool((one.maps >= 0).all())) for one in first)
