"""Spatial weights of poolers, over the photograph."""

from __future__ import annotations

import numpy as np

from ..pooling import PartWeightedPooler
from ._photographs import check_pooler, draw_photograph, import_pyplot, one_entry, photograph_of


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

    Notes
    -----
    Threads: one at a time, as matplotlib wants it.

    Examples
    --------
    Any spatial term of the grammar, here the saliency of SJW (Zhao et al. 2021):

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
            (its mask), `PartWeightedPooler` (one part) and `TEmbeddingPooler` (democratic weights); or another with a
            method ``cell_weights``.

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
        if not hasattr(estimator, "cell_weights"):
            raise TypeError(
                f"{type(estimator).__name__} has no weights of cells. Those that have, by a method `cell_weights`: the "
                "specs of the grammar, ClassActivationMask, PartWeightedPooler, TEmbeddingPooler."
            )
        entry = one_entry(X, index)
        which = {"part": part} if isinstance(estimator, PartWeightedPooler) else {}
        (weights,) = estimator.cell_weights(entry, **which)
        return cls(weights, photograph_of(entry, image)).plot(ax, **kwargs)
