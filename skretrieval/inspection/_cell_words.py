"""Visual words of the cells, over the photograph."""

from __future__ import annotations

import numpy as np

from ._photographs import check_pooler, draw_photograph, import_pyplot, one_entry, photograph_of

_HUE_STEP = 0.618034  # the golden ratio: hues of any number of words keep apart


class CellWordsDisplay:
    """To which visual word each cell of a feature map belongs, drawn over the photograph.

    Use :meth:`from_estimator` to make one. Words have a colour each, the same one in every photograph; the colour is
    the fainter, the less of the cell's weight goes to its word. Cells without activation belong to none and stay bare.

    Parameters
    ----------
    words : int ndarray of shape (H, W)
        The word of largest weight of each cell, -1 for none.

    strengths : ndarray of shape (H, W), default=None
        That weight, in [0, 1]; None for 1.

    image : uint8 ndarray of shape (height, width, 3), default=None
        The photograph; without one the cells alone are drawn.

    Attributes
    ----------
    cells_ : matplotlib AxesImage
        The coloured cells, after `plot`.

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
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.inspection import CellWordsDisplay
    >>> from skretrieval.pooling import VLADPooler
    >>> maps, _ = make_feature_maps(6, 16, random_state=0)
    >>> vlad = VLADPooler(n_clusters=4, random_state=0).fit(maps)
    >>> display = CellWordsDisplay.from_estimator(vlad, maps)
    >>> display.words.shape == maps[0].shape[1:], int(display.words.max()) < 4
    (True, True)
    >>> matplotlib.pyplot.close(display.figure_)
    """

    def __init__(self, words, strengths=None, image=None):
        self.words = words
        self.strengths = strengths
        self.image = image

    def plot(self, ax=None, *, gray=True, alpha=0.7, **kwargs):
        """Draw the words over the photograph.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        gray : bool, default=True
            Show the photograph without its colours.

        alpha : float, default=0.7
            Opacity of a cell that belongs to its word wholly, where there is a photograph below.

        **kwargs
            For ``ax.imshow`` of the cells.

        Returns
        -------
        display : CellWordsDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message names the extra `plot`.
        """
        plt = import_pyplot(self)
        from matplotlib.colors import hsv_to_rgb

        if ax is None:
            ax = plt.subplots()[1]
        words = np.asarray(self.words)
        height, width = words.shape if self.image is None else self.image.shape[:2]
        # hue, and brightness in three steps, so that neighbours in hue differ in something else
        hsv = np.stack([words * _HUE_STEP % 1, np.full(words.shape, 0.8), 1 - 0.2 * (words % 3)], axis=2)
        strengths = np.ones(words.shape) if self.strengths is None else np.asarray(self.strengths)
        opacity = np.where(words < 0, 0, strengths * (1 if self.image is None else alpha))
        colours = np.concatenate([hsv_to_rgb(hsv), opacity[:, :, None]], axis=2)
        self.photograph_ = draw_photograph(ax, self.image, (width, height), gray)
        self.cells_ = ax.imshow(
            colours, extent=(0, width, height, 0), **{"interpolation": "nearest", **kwargs}
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator, X, index=0, *, image=None, ax=None, **kwargs):
        """Draw the words that a codebook gives to the cells of one map.

        Parameters
        ----------
        estimator : pooler
            A fitted one with a method ``assign``: `BoWPooler` or `VLADPooler` (nearest word), `NetVLADPooler` or
            `FisherVectorPooler` (word of largest weight).

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
        display : CellWordsDisplay
            Drawn.

        Raises
        ------
        TypeError
            If the estimator has no words.

        NotFittedError
            If it has none yet.

        IndexError
            If there is no such map.
        """
        check_pooler(estimator)
        if not hasattr(estimator, "assign"):
            raise TypeError(
                f"{type(estimator).__name__} has no visual words. Those that have, by a method `assign`: BoWPooler, "
                "VLADPooler, NetVLADPooler, FisherVectorPooler."
            )
        entry = one_entry(X, index)
        words, strengths = estimator.assign(entry, return_shares=True)
        return cls(words[0], strengths[0], photograph_of(entry, image)).plot(ax, **kwargs)
