"""Regional second-order pooling (Jeong et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if

from ..._linalg import StreamedAxes, check_rank, warn_if_thin
from .._engine._base import BasePooler
from .._engine._batches import BATCH_BYTES, Batch, RegionRows, iter_batches, n_entries
from .._engine._collected import RegionSets
from .._engine._deprecations import deprecate_positional, warn_caller
from .._engine._signs import RECTIFY
from .._grammar._boxes import BoxesMixin
from .._grammar._salient_points import import_detector, photographs_of
from ._candidate_regions import ImageRegions
from ._moments import local_descriptors, region_sums, second_order
from ._region_pieces import Gathered, Piece, RegionSettings, cut, find_regions, piece_of, response_of


def regions_are_boxes(pooler: Any) -> bool:
    """Tell whether the shape of a map tells its regions, or raise an AttributeError that says what to use."""
    if pooler.regions != "whole":
        raise AttributeError(
            f"regions={pooler.regions!r}: the regions depend on the map; regions_of(X) finds them and their boxes."
        )
    return True


class RegionalSecondOrderPooler(BoxesMixin, BasePooler):
    """Several descriptors per image: second-order pooling over candidate regions.

    Salient points are clustered, and the convex hulls of all unions of clusters, with the whole image as the last,
    are the regions of an image. In each, the local descriptors, weighted by channel sparsity and reduced to `n_local`
    dimensions, are pooled to their response-weighted second moment; the upper triangle of its matrix logarithm is
    l2-normalised, PCA-whitened and l2-normalised again. Two images are as similar as their most similar pair of
    regions: give the output to :class:`~skretrieval.retrieval.NearestNeighborsRetriever`, which compares region
    sets that way, inside ``QueryExpansion(retriever, include_query=False)`` for the paper's query expansion.

    Parameters
    ----------
    n_clusters : int, default=3
        Clusters L of salient points; an image has up to ``2 ** n_clusters`` regions.

    n_local : int or "all", default=128
        Dimensions K' of the local descriptors; "all" for as many as the data has. None, which means that, too, is
        deprecated: from version 0.2 on it will mean no reduction, as in the codebooks.

    n_components : int or None, default=512
        Dimensions D of a region's descriptor; None keeps as many as the data has.

    points : {"grid", "hessian"}, default="grid"
        Salient points: the cells of largest response, or blobs and corners detected in the photographs themselves
        (determinant of the Hessian; needs `X` to be :class:`~skretrieval.extraction.FeatureMaps`, whose photographs
        are read again, and the extra ``photos``). The paper uses a detector; the cells are its way out for images
        with few detections.

    n_max : int, default=4000
        Detections kept, those of largest response ("hessian").

    n_min : int, default=300
        Cells taken ("grid"); also the number of detections below which cells are taken instead ("hessian").

    reg : float, default=1e-3
        ``reg * trace / n_local`` is added to the diagonal of a second moment before its logarithm.

    regions : {"all", "whole"}, default="all"
        Whether to describe all regions or only the whole image. May be changed after fit: in the paper queries,
        which show nothing but the object, are described as a whole.

    order : {2, 1}, default=2
        1 pools the weighted sums of the local descriptors instead (eq 9, the paper's ablation), with the same
        whitening.

    min_cells : int, default=2
        A region with fewer cells of the map is left out, and so is one without response; the whole image never is.

    center_local : bool, default=True
        Whether the principal axes for the reduction to `n_local` are those about the mean of the region vectors, or
        about the origin. The local descriptors themselves are never centred.

    offdiag_scale : float, default=1.0
        Factor of the entries off the diagonal in the vector; ``sqrt(2)`` makes dot products of vectors those of the
        matrices.

    trace_normalize : bool, default=False
        Divide second moments by their trace, so that the scale of the activations does not matter. Without it, the
        maps must be of the same scale in fit and transform: doubling them changes the descriptor completely.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first. Otherwise the local descriptors keep them; the weights and the
        regions follow the positive activations all the same, for which they are defined.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    n_jobs : int, default=None
        Threads that detect points in photographs ("hessian").

    Attributes
    ----------
    local_axes_ : ndarray of shape (n_local_, K)
        Principal axes of the first-order region vectors, in rows (only for ``order=2``).

    region_whitening_ : WhiteningAxes
        Mean, components and eigenvalues of the whitening of region vectors.

    n_local_ : int
        Dimensions of the local descriptors; fewer than `n_local` where the data has no more.

    n_components_ : int
        Dimensions of a descriptor; fewer than `n_components` where the data has no more.

    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    `fit` walks over the maps twice (once for ``order=1``), and transform once more; `fit_transform` saves the last
    pass while the collection has fewer regions than a region vector has entries, ``n_local * (n_local + 1) / 2``. Give
    the extractor a ``memory`` to run the network once. Candidate regions are found on the host, in about 2 ms per
    image ("grid"; 0.2 s for a photograph of 640 x 640 pixels with "hessian"). The fit needs at most about 2.5 GB with
    ``n_local=128``, whatever the number of images. Region vectors are kept in the precision of the maps; second
    moments and whitening are computed in float64.

    Whitening wants many more images than `n_components`: the paper's 512 are for thousands. With as many dimensions
    as the data has, whitened vectors of the fit are all equally far from one another: a ``WhiteningWarning`` tells of
    fewer than 20 regions for each component, and another warning when
    `n_components` (or `n_local`) cannot be reached.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Jeong, Choo, Seo, Cho, "Regional deep feature aggregation for image retrieval", ICASSP 2017, eqs 1-6 and 9.

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.pooling import RegionalSecondOrderPooler
    >>> maps, labels = make_feature_maps(20, n_channels=16, random_state=0)
    >>> pooler = RegionalSecondOrderPooler(n_local=8, n_components=32)
    >>> sets = pooler.fit_transform(maps)
    >>> len(sets), sets[0].shape
    (20, (8, 32))
    >>> [len(regions) for regions in pooler.set_params(regions="whole").transform(maps[:3])]
    [1, 1, 1]
    """

    _learns = True
    _gives_region_sets = True
    _several_threads = True
    _learning_bytes = BATCH_BYTES  # detections run in threads over the photographs of a batch
    _describing_bytes = BATCH_BYTES
    _parameter_constraints: dict = {
        "n_clusters": [Interval(Integral, 1, 8, closed="both")],
        "n_local": [Interval(Integral, 1, None, closed="left"), StrOptions({"all"}), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "points": [StrOptions({"grid", "hessian"})],
        "n_max": [Interval(Integral, 1, None, closed="left")],
        "n_min": [Interval(Integral, 1, None, closed="left")],
        "reg": [Interval(Real, 0, None, closed="neither")],
        "regions": [StrOptions({"all", "whole"})],
        "order": [Interval(Integral, 1, 2, closed="both")],
        "min_cells": [Interval(Integral, 1, None, closed="left")],
        "center_local": ["boolean"],
        "offdiag_scale": [Interval(Real, 0, None, closed="left")],
        "trace_normalize": ["boolean"],
        **RECTIFY,
        "n_jobs": [Integral, None],
    }

    @deprecate_positional("n_local", "n_components", "points", "n_max", "n_min", "reg", "regions")
    def __init__(
        self,
        n_clusters=3,
        *,
        n_local=128,
        n_components=512,
        points="grid",
        n_max=4000,
        n_min=300,
        reg=1e-3,
        regions="all",
        order=2,
        min_cells=2,
        center_local=True,
        offdiag_scale=1.0,
        trace_normalize=False,
        rectify=True,
        n_jobs=None,
    ):
        self.n_clusters = n_clusters
        self.n_local = n_local
        self.n_components = n_components
        self.points = points
        self.n_max = n_max
        self.n_min = n_min
        self.reg = reg
        self.regions = regions
        self.order = order
        self.min_cells = min_cells
        self.center_local = center_local
        self.offdiag_scale = offdiag_scale
        self.trace_normalize = trace_normalize
        self.rectify = rectify
        self.n_jobs = n_jobs

    # ------------------------------------------------------------------ regions
    def _region_boxes(self, height: int, width: int) -> np.ndarray:
        return np.array([[0, 0, height, width]])

    @available_if(regions_are_boxes)
    def boxes(self, shape, image_size):
        """Tell where the only region lies, with ``regions="whole"``.

        Candidate regions depend on the map, and no shape tells them: without ``regions="whole"`` there is no such
        method, and :meth:`regions_of` finds the hulls of each image and their boxes.

        Parameters
        ----------
        shape : tuple of int
            Height and width of a feature map in cells.
        image_size : tuple of float
            Width and height of its photograph in pixels.

        Returns
        -------
        boxes : ndarray of shape (1, 4)
            Left, top, right and bottom of the photograph.

        Raises
        ------
        AttributeError
            Unless ``regions="whole"``.
        ValueError
            If a size is not positive.

        Examples
        --------
        >>> from skretrieval.pooling import RegionalSecondOrderPooler
        >>> RegionalSecondOrderPooler(regions="whole").boxes((6, 8), (640, 480))
        array([[  0.,   0., 640., 480.]])
        """
        return super().boxes(shape, image_size)

    def regions_of(self, X) -> list[ImageRegions]:
        """Find the candidate regions of each image, to be drawn: region r belongs to row r of the descriptors.

        With the pairs of :meth:`skretrieval.retrieval.NearestNeighborsRetriever.matched_regions`, it shows which part
        of each result matched (figure 2 of the paper). Needs no fit.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps.

        Returns
        -------
        regions : list of n ImageRegions
            Each with ``polygons``, a list of M_i arrays (V, 2) of corners (x, y) as fractions of the width and
            height of the image, ``masks``, a boolean array (M_i, H_i, W_i) of the cells, and ``points``, the salient
            points (n, 2) as such fractions, or None with ``regions="whole"``.

        Examples
        --------
        >>> from skretrieval.datasets import make_feature_maps
        >>> from skretrieval.pooling import RegionalSecondOrderPooler
        >>> maps, labels = make_feature_maps(1, n_channels=16, random_state=0)
        >>> (regions,) = RegionalSecondOrderPooler().regions_of(maps)
        >>> len(regions.polygons), regions.masks.shape == (8, *maps[0].shape[1:])
        (8, True)
        >>> regions.polygons[-1]
        array([[0., 0.],
               [1., 0.],
               [1., 1.],
               [0., 1.]])
        """
        self._check_input(X)
        settings = RegionSettings.of(self)
        found: list[Any] = [None] * n_entries(X)
        with torch.inference_mode():
            for (batch,) in iter_batches(X, self.__dict__.get("_channels")):
                own = find_regions(batch, response_of(batch).cpu().numpy(), settings)
                for index, regions in zip(batch.indices, own, strict=True):
                    found[index] = regions
        return found

    def _check_input(self, X: Any) -> None:
        self._validate_params()  # `regions` may have been changed since fit
        if self.points == "hessian" and self.regions != "whole":
            photographs_of(X)
            import_detector()

    def _check_parameters(self) -> None:
        if self.n_local is None:
            warn_caller(
                "RegionalSecondOrderPooler: n_local=None will mean no reduction of the local descriptors from version "
                '0.2 on, as in the codebooks; write n_local="all" to keep as many dimensions as the data has.'
            )

    @property
    def _n_local(self) -> int | None:
        return None if self.n_local == "all" else self.n_local

    # ------------------------------------------------------------------ learning
    def _begin(self, X: Any) -> Gathered:
        for name in ("local_axes_", "n_local_"):
            self.__dict__.pop(name, None)
        if self.order == 2:
            return Gathered(StreamedAxes(self.center_local), local=True)
        return Gathered(StreamedAxes(), local=False)

    def _update(self, state: Gathered, batches: tuple[Batch, ...]) -> None:
        for piece in self._pieces(batches[0], state.masks):
            if state.local:
                state.axes.update(self._first_order(piece).cpu().numpy())
                continue
            rows = self._region_vectors(piece)
            state.axes.update(rows.cpu().numpy())
            if state.axes.kept is None:
                state.kept.clear()
            else:  # on a CPU torch shares the memory with the rows that are kept for the axes
                state.kept.append((piece.indices, piece.counts, rows))

    def _finish(self, state: Gathered, X: Any) -> Gathered | None:
        name = "n_local" if state.local else "n_components"
        wanted = self._n_local if state.local else self.n_components
        n_rows = state.axes.n_rows
        found = state.axes.finish(wanted)
        n_kept = check_rank(found, name, wanted, n_entries(X), self.n_features_in_)
        if state.local:
            self.local_axes_ = found.components
            self.n_local_ = len(found.components)
            return Gathered(StreamedAxes(), local=False, masks=state.masks)
        rows = f"regions of {n_entries(X)} image(s)"
        warn_if_thin("RegionalSecondOrderPooler", n_rows, n_kept, len(found.mean), 1.0, rows=rows)
        self.region_whitening_ = found.whitening()
        self.n_components_ = self._n_features_out = len(found.components)
        return None

    # ------------------------------------------------------------------ describing
    def _describe_learned(self, X: Any, state: Gathered) -> list[np.ndarray]:
        """Save a pass over the maps where all region vectors are still there."""
        if not state.kept:
            return self._describe_all(X, partial(self._describe, masks=state.masks))
        sets = RegionSets(n_entries(X))
        for indices, counts, rows in state.kept:
            sets.add(indices, counts, self._whitened(rows).cpu().numpy())
        return sets.finish()

    def _describe(self, batches: tuple[Batch, ...], masks: dict[int, np.ndarray] | None = None) -> RegionRows:
        rows, counts = [], []
        for piece in self._pieces(batches[0], masks):
            rows.append(self._whitened(self._region_vectors(piece)))
            counts.append(piece.counts)
        return RegionRows(torch.cat(rows), np.concatenate(counts))

    def _first_order(self, piece: Piece) -> torch.Tensor:
        """Weighted sums (regions, K): eq 3 as the way to the local axes, eq 9 as the descriptor of order 1."""
        masks = piece.masks if self.order == 2 else piece.masks * piece.spatial[:, None]
        return piece.valid(region_sums(piece.maps, piece.channel, masks))

    def _region_vectors(self, piece: Piece) -> torch.Tensor:
        """Vectors before whitening, (regions, d), in the precision of the maps."""
        if self.order == 1:
            return self._first_order(piece)
        axes = torch.tensor(self.local_axes_, device=piece.maps.device)
        local = local_descriptors(piece.maps, piece.channel, axes)
        vectors = second_order(
            local, piece.spatial, piece.masks, self.reg, self.offdiag_scale, self.trace_normalize
        )
        return piece.valid(vectors).to(piece.maps.dtype)

    def _whitened(self, rows: torch.Tensor) -> torch.Tensor:
        """Whiten and l2-normalise; a zero row stays zero."""
        return self.region_whitening_.apply(rows.double()).to(rows.dtype)

    def _pieces(self, batch: Batch, masks: dict[int, np.ndarray] | None) -> Iterator[Piece]:
        """Yield images with weights and regions, as many together as the working memory allows.

        `masks` remembers the regions for a next pass over the maps.
        """
        settings = RegionSettings.of(self)
        n_channels, height, width = batch.maps.shape[1:]
        size = min(self._n_local or n_channels, n_channels)
        # a region's moment, eigenvectors, logarithm and triangle; its local descriptors
        each = size * (4 * size + 2 * height * width) if self.order == 2 else 2 * n_channels
        for part in cut(batch, settings.most * each):
            yield piece_of(part, settings, self._activations(part), masks)
