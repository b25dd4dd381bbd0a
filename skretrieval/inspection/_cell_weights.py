"""Spatial weights of poolers, over the photograph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ..pooling import ClassActivationMask, PartWeightedPooler, TEmbeddingPooler
from ..pooling._codebooks._t_embedding import democratic_weights
from ..pooling._engine._batches import Batch, iter_batches
from ..pooling._grammar._spec import SpecPooler
from ..pooling._presets._part_weighted import part_weights
from ._photographs import (
    check_pooler,
    draw_photograph,
    import_pyplot,
    one_entry,
    over_cells,
    photograph_of,
)


class CellWeightsDisplay:
    """How much each cell of a feature map weighs in a descriptor, drawn over the photograph.

    Use :meth:`from_estimator` to make one. Cell (i, j) of a map of H x W cells is drawn over the part
    ``[j / W, (j + 1) / W] x [i / H, (i + 1) / H]`` of the photograph: what a cell sees reaches beyond it.

    Parameters
    ----------
    weights : ndarray of shape (H, W)
        One weight per cell.

    image : uint8 ndarray of shape (height, width, 3), default=None
        The photograph; without one the cells alone are drawn.

    Attributes
    ----------
    cells_ : matplotlib AxesImage
        The weights, after `plot`.

    photograph_ : matplotlib AxesImage or None
        The photograph.

    ax_ : matplotlib Axes
        Where they were drawn.

    figure_ : matplotlib Figure
        Its figure.

    See Also
    --------
    RegionsDisplay : The regions of a pooler.
    CellWordsDisplay : The visual word of each cell.

    Examples
    --------
    Any spatial term of the grammar, here S000's saliency:

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.inspection import CellWeightsDisplay
    >>> from skretrieval.pooling import WeightedPooler
    >>> maps, _ = make_feature_maps(3, random_state=0)
    >>> display = CellWeightsDisplay.from_estimator(WeightedPooler(spatial="saliency"), maps, index=1)
    >>> display.weights.shape == maps[1].shape[1:]
    True
    >>> matplotlib.pyplot.close(display.figure_)
    """

    def __init__(self, weights, image=None):
        self.weights = weights
        self.image = image

    def plot(self, ax=None, *, gray=True, cmap="viridis", alpha=0.6, **kwargs):
        """Draw the weights over the photograph.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        gray : bool, default=True
            Show the photograph without its colours.

        cmap : str or Colormap, default="viridis"
            Colours of the weights, from their smallest to their largest unless `kwargs` say otherwise.

        alpha : float, default=0.6
            Opacity of the weights where there is a photograph below.

        **kwargs
            For ``ax.imshow`` of the weights, such as ``vmin=0``.

        Returns
        -------
        display : CellWeightsDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message names the extra `plot`.
        """
        plt = import_pyplot(self)
        if ax is None:
            ax = plt.subplots()[1]
        height, width = np.shape(self.weights) if self.image is None else self.image.shape[:2]
        self.photograph_ = draw_photograph(ax, self.image, (width, height), gray)
        settings = {"interpolation": "nearest", "alpha": None if self.image is None else alpha, **kwargs}
        self.cells_ = ax.imshow(self.weights, cmap=cmap, extent=(0, width, height, 0), **settings)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator, X, index=0, *, image=None, part=0, ax=None, **kwargs):
        """Draw the weights that a pooler gives to the cells of one map.

        Parameters
        ----------
        estimator : pooler
            One with spatial weights: `WeightedPooler` with a term or function of yours, `SPoCPooler`, `CroWPooler`,
            `SJWPooler`, `AdaptiveGaussianPooler`, `RegionIntegrationPooler`; fitted ones are `ClassActivationMask`
            (its mask), `PartWeightedPooler` (one part) and `TEmbeddingPooler` (democratic weights).

        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps; `FeatureMaps` know their photographs.

        index : int, default=0
            Which map.

        image : path, PIL.Image.Image, uint8 ndarray or ImageCrop, default=None
            The photograph, if `X` doesn't know it.

        part : int, default=0
            Which part of a `PartWeightedPooler`, as it stands in ``parts_``.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **kwargs
            For :meth:`plot`.

        Returns
        -------
        display : CellWeightsDisplay
            Drawn.

        Raises
        ------
        TypeError
            If the estimator has no spatial weights by its nature.

        ValueError
            If its parameters leave them out, or the map is not valid.

        IndexError
            If there is no such map or part.
        """
        check_pooler(estimator)
        entry = one_entry(X, index)
        with torch.inference_mode():
            weights = _weights(estimator, entry, part)
        weights = weights[0].cpu().numpy()
        return cls(weights, photograph_of(entry, image)).plot(ax, **kwargs)


def _weights(estimator: Any, entry: Any, part: int) -> torch.Tensor:
    """Return the weights (1, H, W) of the cells of a sequence of one map."""
    found = [of for kind, of in _WEIGHTS.items() if isinstance(estimator, kind)]
    if not found:
        raise TypeError(
            f"{type(estimator).__name__} has no weights of cells. Those that have: "
            + ", ".join(["the specs of the grammar", *(kind.__name__ for kind in list(_WEIGHTS)[1:])])
        )
    if not isinstance(estimator, SpecPooler):
        check_is_fitted(estimator)
    batch = next(iter_batches(entry, estimator.__dict__.get("_channels"), estimator._layers))[0]
    return found[0](estimator, batch, part)


def _of_spec(pooler: Any, batch: Batch, part: int) -> torch.Tensor:
    weigh = pooler._spec().weights
    spatial = None if weigh is None else weigh(pooler._maps(batch))[0]
    if spatial is None:
        raise ValueError(f"{pooler!r} weighs all cells alike")
    return spatial


def _of_mask(pooler: Any, batch: Batch, part: int) -> torch.Tensor:
    return pooler._mask(batch).to(batch.maps.dtype)


def _of_part(pooler: Any, batch: Batch, part: int) -> torch.Tensor:
    if not 0 <= part < len(pooler.parts_):
        raise IndexError(f"part {part} is out of range for {len(pooler.parts_)} parts")
    detectors = torch.tensor(pooler.parts_[part : part + 1])
    return part_weights(pooler._maps(batch), detectors, float(pooler.alpha), float(pooler.beta))[:, 0]


def _of_democracy(pooler: Any, batch: Batch, part: int) -> torch.Tensor:
    if pooler.aggregation != "democratic":
        raise ValueError(f"{pooler!r} weighs all cells alike")
    block = next(pooler._blocks(batch))
    cells, valid = pooler._local(block)
    weights = democratic_weights(pooler._embedded(cells), valid, pooler.n_iter)[0]
    return torch.from_numpy(over_cells(pooler, block, valid, weights, 0))[None]


_WEIGHTS: dict[type, Callable[[Any, Batch, int], torch.Tensor]] = {
    SpecPooler: _of_spec,
    ClassActivationMask: _of_mask,
    PartWeightedPooler: _of_part,
    TEmbeddingPooler: _of_democracy,
}
