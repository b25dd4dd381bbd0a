"""The pooling grammar: one sentence from spatial, channel, region and reduction words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ..._linalg import l2
from .._engine._base import BasePooler
from .._engine._batches import Batch, n_entries
from .._engine._threads import on_one_thread, one_thread
from ._channel import CHANNEL
from ._reductions import REDUCTIONS, power_mean_cells, regional_power_mean_cells
from ._region_whitening import RegionWhitening
from ._regions import REGIONS, check_boxes
from ._spatial import SPATIAL

# Words with logarithms of counts or square roots: negative activations have no meaning there.
_NONNEGATIVE_WORDS = {
    *(SPATIAL[name] for name in ("response", "crow", "saliency")),
    *(CHANNEL[name] for name in ("sparsity", "sparsity_deviation", "count_sparsity")),
}


@dataclass(frozen=True)
class Sentence:
    """The words of one method, resolved to functions.

    Attributes
    ----------
    weights : callable or None
        maps (N, K, H, W) -> (spatial (N or 1, H, W) or None, channel (N, K) or None).
    regions : callable
        (height, width) -> boxes (R, 4).
    reduce : callable
        (maps, boxes, spatial) -> (N, R, K).
    region_norm : {"l2", None}
        What happens to each region's vector.
    needs_nonnegative : bool
        Whether negative activations are an error when they are not rectified.
    """

    weights: Callable | None
    regions: Callable
    reduce: Callable
    region_norm: str | None = None
    needs_nonnegative: bool = False


def region_vectors(maps: torch.Tensor, sentence: Sentence) -> torch.Tensor:
    """Return the weighted, normalised vector of each region, before they are summed.

    ``normalise_r(channel_k * REDUCE over cells p in r of spatial_p * x_kp)``: the channel weight stands inside
    the region's normalisation, as S001 has it; without one the place makes no difference.

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    sentence : Sentence
        The method.

    Returns
    -------
    vectors : tensor of shape (N, R, K)
        A region without activation is zero.
    """
    spatial, channel = (None, None) if sentence.weights is None else sentence.weights(maps)
    vectors = sentence.reduce(maps, sentence.regions(*maps.shape[2:]), spatial)
    if channel is not None:
        vectors = vectors * channel[:, None, :].to(vectors.dtype)
    return l2(vectors) if sentence.region_norm == "l2" else vectors


class SentencePooler(BasePooler):
    """A pooler that is one sentence of the grammar; subclasses give ``_sentence()``."""

    _parameter_constraints: dict = {"rectify": ["boolean"]}
    # Presets without region whitening have no such parameters.
    whiten: Any = False
    n_components: Any = None

    def _sentence(self) -> Sentence:
        raise NotImplementedError

    @property
    def _learns(self) -> bool:
        return bool(self.whiten)

    def _begin(self, X: Any) -> RegionWhitening:
        return RegionWhitening()

    def _update(self, state: RegionWhitening, batches: tuple[Batch, ...]) -> None:
        with one_thread(batches[0].maps):
            vectors = region_vectors(self._maps(batches[0]), self._sentence())
        state.update(vectors)

    def _finish(self, state: RegionWhitening, X: Any) -> None:
        self.region_whitening_ = state.finish(self.n_components, n_entries(X), self.n_features_in_)
        self._n_features_out = len(self.region_whitening_.components)

    def _maps(self, batch: Batch) -> torch.Tensor:
        self._check_values(batch)
        return batch.rectified if self.rectify else batch.maps

    def _check_values(self, batch: Batch) -> None:
        if not self.rectify and not batch.nonnegative and self._sentence().needs_nonnegative:
            bad = int(torch.nonzero(batch.maps.flatten(1).amin(dim=1) < 0)[0])
            raise ValueError(
                f"Entry {batch.indices[bad]}: negative activations have no meaning for {type(self).__name__} with "
                "these parameters; use rectify=True"
            )

    @on_one_thread
    def _describe(self, batches: tuple[Batch, ...]) -> torch.Tensor:
        vectors = region_vectors(self._maps(batches[0]), self._sentence())
        if self.whiten:
            vectors = self.region_whitening_.apply(vectors)
        return vectors.sum(dim=1)


class WeightedPooler(SentencePooler):
    """Any sentence of the pooling grammar.

    ``descriptor_k = SUM over regions r of normalise_r( channel_k * REDUCE over cells p in r of spatial_p * x_kp )``

    The named poolers are sentences with a published name; this one says the others, and a grid search over
    its parameters searches the whole language.

    Parameters
    ----------
    spatial : str, callable or None, default=None
        Weight of each cell: "center_prior" (SPoC), "crow" (CroW, S001), "response" (S004), "saliency" (S000),
        "adaptive_gaussian" (S002), "activation_norm" (HOW), "scda" (mask of the main object), or a function of maps
        (N, K, H, W) that returns (N, H, W) or (1, H, W).

    channel : str, callable or None, default=None
        Weight of each channel: "sparsity" (CroW), "count_sparsity" (S001), "sparsity_deviation" (S000), "element"
        (S002), or a function of the maps and the spatial weights (or None) that returns (N, K).

    regions : str or callable, default="whole"
        "whole", "rmac" (grid of R-MAC), or a function of (height, width) in cells that returns boxes
        (row, column, height, width), an integer array (R, 4).

    reduce : str or callable, default="sum"
        "sum", "mean", "max", "power_mean" (``p``, default 3), "signed_power_mean" (``p``; for features of both signs,
        with ``rectify=False``), "regional_power_mean" (``p``, ``region_p``, ``window``; SuperGlobal), or a function
        of (maps, boxes, spatial) that returns (N, R, K).

    region_norm : {"l2", None}, default=None
        Normalisation of each region's vector before the sum.

    spatial_params, channel_params, region_params, reduce_params : dict, default=None
        Keyword arguments of the words, such as ``{"p": 5}`` or ``{"n_levels": 2, "include_global": True}``.

    whiten : bool, default=False
        PCA-whiten each region's vector, with axes learned in fit from all regions of all images, and l2-normalise
        it again (R-MAC, S001). Regions without activation are left out of both (A-13).

    n_components : int or None, default=None
        Dimensions kept by `whiten`; None keeps as many as the data has.

    rectify : bool, default=True
        Replace negative activations by zero first.

    Attributes
    ----------
    n_features_in_ : int
        Channels of the maps.

    region_whitening_ : WhiteningAxes
        Mean, components and eigenvalues, only with `whiten`.

    Examples
    --------
    CroW's weights over R-MAC's regions, which nobody has published:

    >>> import numpy as np
    >>> from skretrieval.pooling import WeightedPooler
    >>> maps = np.random.default_rng(0).random((2, 16, 9, 12))
    >>> pooler = WeightedPooler(spatial="crow", channel="sparsity", regions="rmac", region_norm="l2")
    >>> pooler.fit_transform(maps).shape
    (2, 16)
    """

    _parameter_constraints: dict = {
        **SentencePooler._parameter_constraints,
        "spatial": [StrOptions(set(SPATIAL)), callable, None],
        "channel": [StrOptions(set(CHANNEL)), callable, None],
        "regions": [StrOptions(set(REGIONS)), callable],
        "reduce": [StrOptions(set(REDUCTIONS)), callable],
        "region_norm": [StrOptions({"l2"}), None],
        "spatial_params": [dict, None],
        "channel_params": [dict, None],
        "region_params": [dict, None],
        "reduce_params": [dict, None],
        "whiten": ["boolean"],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        spatial=None,
        channel=None,
        regions="whole",
        reduce="sum",
        region_norm=None,
        *,
        spatial_params=None,
        channel_params=None,
        region_params=None,
        reduce_params=None,
        whiten=False,
        n_components=None,
        rectify=True,
    ):
        self.spatial = spatial
        self.channel = channel
        self.regions = regions
        self.reduce = reduce
        self.region_norm = region_norm
        self.spatial_params = spatial_params
        self.channel_params = channel_params
        self.region_params = region_params
        self.reduce_params = reduce_params
        self.whiten = whiten
        self.n_components = n_components
        self.rectify = rectify

    def _sentence(self) -> Sentence:
        spatial = _word(self.spatial, SPATIAL, self.spatial_params)
        channel = _word(self.channel, CHANNEL, self.channel_params)
        regions: Any = _word(self.regions, REGIONS, self.region_params)
        reduce: Any = _word(self.reduce, REDUCTIONS, self.reduce_params)

        def weights(maps):
            cells = None if spatial is None else _checked(spatial(maps), "spatial", maps, maps.shape[2:])
            channels = (
                None if channel is None else _checked(channel(maps, cells), "channel", maps, maps.shape[1:2])
            )
            return cells, channels

        powers = any(needs_nonnegative(p) for p in _exponents(reduce))
        return Sentence(
            weights=weights,
            regions=lambda height, width: check_boxes(regions(height, width), height, width),
            reduce=reduce,
            region_norm=self.region_norm,
            needs_nonnegative=powers
            or any(word.func is known for word in (spatial, channel) if word for known in _NONNEGATIVE_WORDS),
        )


def needs_nonnegative(p: float) -> bool:
    """Tell whether a power mean of exponent `p` is undefined for negative values."""
    return bool(np.isfinite(p)) and int(p) != p


def _exponents(reduce: partial) -> list[float]:
    """Return the exponents of a power mean that takes no roots of negative numbers."""
    defaults = {power_mean_cells: {"p": 3.0}, regional_power_mean_cells: {"p": 4.6, "region_p": 2.5}}
    return [reduce.keywords.get(name, p) for name, p in defaults.get(reduce.func, {}).items()]


def _word(word: Any, registry: dict, params: dict | None) -> partial | None:
    if word is None:
        if params:
            raise ValueError(f"parameters {sorted(params)} were given for a word that is None")
        return None
    return partial(registry[word] if isinstance(word, str) else word, **(params or {}))


def _checked(weights: torch.Tensor, kind: str, maps: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Check the weights that a function returned (a user's may return anything)."""
    if (
        not isinstance(weights, torch.Tensor)
        or weights.shape[1:] != shape
        or len(weights) not in (1, len(maps))
    ):
        got = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise ValueError(f"{kind} must return a tensor of shape {(len(maps), *shape)}, got {got}")
    return weights.to(maps.dtype)
