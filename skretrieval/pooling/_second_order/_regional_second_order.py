"""Regional second-order pooling (S004)."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..._doc_link import DocLinkMixin
from ..._linalg._streamed_axes import StreamedAxes, check_rank
from .._engine._batches import Batch, iter_batches, n_entries
from .._engine._cached import RegionSets, collect
from .._grammar._region_whitening import RegionAxes
from .._grammar._salient_points import import_detector, photographs_of
from ._candidate_regions import ImageRegions
from ._moments import local_descriptors, region_sums, second_order
from ._region_pieces import (
    Piece,
    RegionSettings,
    cut,
    find_regions,
    in_order,
    pieces,
    response_of,
)


class RegionalSecondOrderPooler(  # type: ignore[call-arg]
    DocLinkMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Several descriptors per image: second-order pooling over candidate regions (S004).

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

    n_local : int or None, default=128
        Dimensions K' of the local descriptors; None keeps as many as the data has.

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
        1 pools the weighted sums of the local descriptors instead (S004 eq 9, the paper's ablation), with the same
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

    rectify : bool, default=True
        Replace negative activations by zero first. Otherwise the local descriptors keep them; the weights and the
        regions follow the positive activations all the same, for which they are defined.

    n_jobs : int, default=None
        Threads that detect points in photographs ("hessian").

    Attributes
    ----------
    local_axes_ : ndarray of shape (n_local_, K)
        Principal axes of the first-order region vectors, in rows (only for ``order=2``).

    region_whitening_ : RegionAxes
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
    as the data has, whitened vectors of the fit are all equally far from one another. A warning tells when
    `n_components` (or `n_local`) cannot be reached.

    References
    ----------
    S004: Jeong, Choo, Seo, Cho, "Regional deep feature aggregation for image retrieval", ICASSP 2017.

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
    _follows_from_parameters = True
    _parameter_constraints: dict = {
        "n_clusters": [Interval(Integral, 1, 8, closed="both")],
        "n_local": [Interval(Integral, 1, None, closed="left"), None],
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
        "rectify": ["boolean"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        n_clusters=3,
        n_local=128,
        n_components=512,
        points="grid",
        n_max=4000,
        n_min=300,
        reg=1e-3,
        regions="all",
        *,
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

    # ------------------------------------------------------------------ public
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the reduction of the local descriptors and the whitening of the region vectors.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps.
        y : ignored
            For the scikit-learn interface.

        Returns
        -------
        self : object
            The fitted pooler.

        Raises
        ------
        ValueError
            Empty input, wrong rank, differing channel counts, NaN or infinity (the entry is named); maps in which
            all regions are alike; maps in memory with ``points="hessian"``.
        ImportError
            If ``points="hessian"`` and scikit-image is not installed.
        """
        self._learn(X, {})
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None, **params):
        """Fit and describe, with one pass over the maps less than ``fit(X).transform(X)`` where that is possible.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps.
        y, **params : ignored
            For the scikit-learn interface.

        Returns
        -------
        region_sets : list of n ndarrays of shape (M_i, D)
            As `transform` returns them.
        """
        known: dict[int, np.ndarray] = {}
        kept = self._learn(X, known)
        if kept is None:
            return self._describe_all(X, known)
        return in_order(
            n_entries(X), ((indices, counts, self._whitened(rows)) for indices, counts, rows in kept)
        )

    def transform(self, X):
        """Describe the regions of each image.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit.

        Returns
        -------
        region_sets : list of n ndarrays of shape (M_i, D)
            Descriptors of unit length, of the whole image in the last row; float32, or float64 for float64 maps. A
            zero map has one row of zeros. The rows are those of :meth:`regions_of`.

        Raises
        ------
        ValueError
            Empty input, wrong rank, another channel count than in fit, NaN or infinity: the entry is named.
        """
        check_is_fitted(self)
        self._validate_params()
        return self._describe_all(X, None)

    def regions_of(self, X) -> list[ImageRegions]:
        """Find the candidate regions of each image, to be drawn: region r belongs to row r of the descriptors.

        With the pairs of :meth:`skretrieval.retrieval.NearestNeighborsRetriever.best_regions`, it shows which part of
        each result matched (figure 2 of S004). Needs no fit.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps.

        Returns
        -------
        regions : list of n ImageRegions
            Each with ``polygons``, a list of M_i arrays (V, 2) of corners (x, y) as fractions of the width and
            height of the image, and ``masks``, a boolean array (M_i, H_i, W_i) of the cells.

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
        self._validate_params()
        self._check_points(X)
        found: list[Any] = [None] * n_entries(X)
        for batch in self._batches(X):
            own = find_regions(X, batch, response_of(batch).cpu().numpy(), RegionSettings.of(self))
            for index, regions in zip(batch.indices, own, strict=True):
                found[index] = regions
        return found

    def set_output(self, *, transform=None):
        """Do nothing: region sets are no table. Present so that ``Pipeline.set_output`` reaches other steps.

        Parameters
        ----------
        transform : ignored
            For the scikit-learn interface.
        """
        return self

    # ------------------------------------------------------------------ learning
    def _learn(self, X: Any, known: dict[int, np.ndarray]) -> list | None:
        """Fit; return the (indices, counts, rows) of all region vectors if they are still there."""
        self._check_points(X)
        n_images = n_entries(X)
        for name in ("n_features_in_", "local_axes_", "n_local_"):
            self.__dict__.pop(name, None)
        if self.order == 2:
            first = StreamedAxes(self.center_local)
            for piece in self._pieces(X, known):
                first.update(self._first_order(piece).cpu().numpy())
            axes = first.finish(self.n_local)
            check_rank(axes, "n_local", self.n_local, n_images, self.n_features_in_)
            self.local_axes_ = axes.components
            self.n_local_ = len(axes.components)
        streamed = StreamedAxes()
        kept: list[tuple] = []
        for piece in self._pieces(X, known):
            rows = self._region_vectors(piece)
            streamed.update(rows.cpu().numpy())
            if streamed.kept is None:
                kept.clear()
            else:  # on a CPU torch shares the memory with the rows that are kept for the axes
                kept.append((piece.indices, piece.counts, rows))
        found = streamed.finish(self.n_components)
        check_rank(found, "n_components", self.n_components, n_images, self.n_features_in_)
        self.region_whitening_ = RegionAxes(
            found.mean, found.components / np.sqrt(found.eigenvalues)[:, None], found.eigenvalues
        )
        self.n_components_ = self._n_features_out = len(found.components)
        return kept or None

    def _check_points(self, X: Any) -> None:
        if self.points == "hessian" and self.regions != "whole":
            photographs_of(X)
            import_detector()

    # ------------------------------------------------------------------ describing
    def _describe_all(self, X: Any, known: dict[int, np.ndarray] | None) -> list[np.ndarray]:
        self._check_points(X)

        def parts(maps):
            for piece in self._pieces(maps, known):
                yield piece.indices, piece.counts, self._whitened(self._region_vectors(piece))

        sets = RegionSets(n_entries(X))
        collect(self, X, parts, sets, [self.n_features_in_])
        return sets.finish()

    @torch.inference_mode()
    def _first_order(self, piece: Piece) -> torch.Tensor:
        """Weighted sums (regions, K): eq 3 as the way to the local axes, eq 9 as the descriptor of order 1."""
        masks = piece.masks if self.order == 2 else piece.masks * piece.spatial[:, None]
        return piece.valid(region_sums(piece.maps, piece.channel, masks))

    @torch.inference_mode()
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

    @torch.inference_mode()
    def _whitened(self, rows: torch.Tensor) -> np.ndarray:
        """Whiten and l2-normalise; a zero row stays zero."""
        # torch does not wrap read-only memory, in which joblib hands large models to workers
        whitening = RegionAxes(*(np.require(part, requirements="W") for part in self.region_whitening_))
        return whitening.apply(rows.double()).to(rows.dtype).cpu().numpy()

    # ------------------------------------------------------------------ maps and regions
    def _batches(self, X: Any) -> Iterator[Batch]:
        """Batches cut to what the working memory allows."""
        channels = [self.n_features_in_] if hasattr(self, "n_features_in_") else None
        n_regions = RegionSettings.of(self).most
        for (batch,) in iter_batches(X, channels):
            n_channels, height, width = batch.maps.shape[1:]
            size = min(self.n_local or n_channels, n_channels)
            # a region's moment, eigenvectors, logarithm and triangle; its local descriptors
            each = size * (4 * size + 2 * height * width) if self.order == 2 else 2 * n_channels
            yield from cut(batch, n_regions * each)

    def _pieces(self, X: Any, known: dict[int, np.ndarray] | None) -> Iterator[Piece]:
        """Yield the images with weights and regions; `known` remembers the regions for a next pass over `X`."""
        for batch in self._batches(X):
            self.n_features_in_ = batch.maps.shape[1]
            yield from pieces(X, batch, RegionSettings.of(self), self.rectify, known)

    # ------------------------------------------------------------------ scikit-learn
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
