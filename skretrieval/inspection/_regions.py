"""Regions of poolers, over the photograph."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pooling import SumPooler
from ._photographs import check_pooler, draw_photograph, import_pyplot, one_entry, photograph_of


class RegionsDisplay:
    """The regions of a feature map that a pooler describes one by one, drawn over the photograph.

    Use :meth:`from_estimator` to make one. A box of cells is drawn over the same share of the photograph, as cells are
    in :class:`CellWeightsDisplay`.

    Parameters
    ----------
    polygons : list of ndarray of shape (V, 2)
        Corners (x, y) of each region as fractions of the width and height of the photograph.

    size : (width, height)
        Of the photograph in pixels, or of the map in cells: the coordinates that are drawn.

    image : uint8 ndarray of shape (height, width, 3), default=None
        The photograph.

    points : ndarray of shape (n, 2), default=None
        Salient points (x, y) as fractions of the width and height.

    Attributes
    ----------
    regions_ : list of matplotlib Polygon
        The regions drawn, after `plot`.

    points_ : matplotlib Line2D or None
        The points.

    photograph_ : matplotlib AxesImage or None
        The photograph.

    ax_ : matplotlib Axes
        Where they were drawn.

    figure_ : matplotlib Figure
        Its figure.

    See Also
    --------
    CellWeightsDisplay : The spatial weights of a pooler.

    Notes
    -----
    Threads: one at a time, as matplotlib wants it.

    Examples
    --------
    Any region term of the grammar:

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.inspection import RegionsDisplay
    >>> from skretrieval.pooling import WeightedPooler
    >>> maps, _ = make_feature_maps(3, random_state=0)
    >>> display = RegionsDisplay.from_estimator(WeightedPooler(regions="rmac"), maps, index=1)
    >>> len(display.polygons)
    20
    >>> matplotlib.pyplot.close(display.figure_)
    """

    def __init__(self, polygons, size, image=None, points=None):
        self.polygons = polygons
        self.size = size
        self.image = image
        self.points = points

    def plot(self, ax=None, *, regions=None, gray=True, alpha=0.12, **kwargs):
        """Draw the regions over the photograph.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        regions : int, slice or array of int, default=None
            Which regions to draw; None for all. Many overlap: the scales of a grid are best drawn one at a time.

        gray : bool, default=True
            Show the photograph without its colours.

        alpha : float, default=0.12
            Opacity of the inside of a region.

        **kwargs
            For the ``matplotlib.patches.Polygon`` of each region, such as ``linewidth`` or ``color``.

        Returns
        -------
        display : RegionsDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message names the extra `plot`.

        IndexError
            If there is no such region.
        """
        plt = import_pyplot(self)
        from matplotlib.patches import Polygon

        chosen = np.arange(len(self.polygons))
        chosen = chosen if regions is None else np.atleast_1d(chosen[regions])
        if ax is None:
            ax = plt.subplots()[1]
        self.photograph_ = draw_photograph(ax, self.image, self.size, gray)
        self.regions_ = []
        for turn, region in enumerate(chosen):
            colour = kwargs.get("color", f"C{turn % 10}")
            settings = {"linewidth": 1.5, "clip_on": False, **kwargs, "color": colour}
            corners = np.asarray(self.polygons[region]) * self.size
            outline = Polygon(corners, closed=True, fill=False, **settings)
            self.regions_.append(ax.add_patch(outline))
            if alpha:
                ax.add_patch(Polygon(corners, closed=True, linewidth=0, facecolor=colour, alpha=alpha))
        self.points_ = None
        if self.points is not None:
            x, y = (np.asarray(self.points) * self.size).T
            (self.points_,) = ax.plot(x, y, linestyle="none", marker=".", markersize=3, color="yellow")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator, X, index=0, *, image=None, ax=None, **kwargs):
        """Draw the regions into which a pooler cuts one map.

        Parameters
        ----------
        estimator : pooler
            One with regions: `WeightedPooler` with a term or function of yours, `RMACPooler`, `GRMACPooler`,
            `RegionIntegrationPooler`, `EntropyPooler`, `SquareSumRMACPooler` (its windows), `RegionalSecondOrderPooler`
            (its candidate regions, with the salient points they come from), or another with a method ``boxes``. It
            needs no fit.

        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps; `FeatureMaps` know their photographs.

        index : int, default=0
            Which map.

        image : path, PIL.Image.Image, uint8 ndarray or ImageCrop, default=None
            The photograph, if `X` doesn't know it.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **kwargs
            For :meth:`plot`.

        Returns
        -------
        display : RegionsDisplay
            Drawn.

        Raises
        ------
        TypeError
            If the estimator has no regions.

        ValueError
            If the map is not valid.

        IndexError
            If there is no such map or region.
        """
        check_pooler(estimator)
        entry = one_entry(X, index)
        photograph = photograph_of(entry, image)
        points = None
        if hasattr(estimator, "boxes"):
            cells = _cells(entry)
            polygons = _polygons(estimator.boxes(cells, (1, 1)))
        elif hasattr(estimator, "regions_of"):
            (regions,) = estimator.regions_of(entry)
            cells = regions.masks.shape[1:]
            polygons, points = regions.polygons, regions.points
        else:
            raise TypeError(f"{type(estimator).__name__} has no regions that can be drawn.")
        size = cells[::-1] if photograph is None else photograph.shape[1::-1]
        return cls(polygons, tuple(size), photograph, points).plot(ax, **kwargs)


def _polygons(boxes: np.ndarray) -> list[np.ndarray]:
    """Corners (4, 2) of boxes (left, top, right, bottom), clockwise."""
    return list(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))


def _cells(entry: Any) -> tuple[int, int]:
    """Return height and width of the only map of a sequence, checked as every pooler does."""
    feature_map = entry[0]
    SumPooler(rectify=False).fit([feature_map])
    return feature_map.shape[1:]
