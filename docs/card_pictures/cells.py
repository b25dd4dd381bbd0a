"""Pictures of what each cell weighs."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from sklearn.base import clone

from skretrieval.inspection import CellWeightsDisplay
from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    ClassActivationMask,
    CroWPooler,
    PartWeightedPooler,
    SJWPooler,
    SPoCPooler,
    SumPooler,
    TEmbeddingPooler,
    WeightedPooler,
)

from .scene import Scene, panels, picture, titled, weights

SPATIAL_TERMS = (
    "center_prior",
    "response",
    "crow",
    "saliency",
    "adaptive_gaussian",
    "activation_norm",
    "scda",
)


@picture
def spatial_terms(scene: Scene) -> Figure:
    """Draw every spatial term of the grammar over one photograph."""
    figure, axes = panels(2, 4, 1.9, title=0.2)
    axes = axes.ravel()
    axes[0].imshow(scene.photograph(0))
    axes[0].axis("off")
    titled(axes[0], "the photograph")
    for ax, term in zip(axes[1:], SPATIAL_TERMS, strict=True):
        CellWeightsDisplay.from_estimator(WeightedPooler(term), scene.maps, ax=ax)
        titled(ax, term)
    return figure


@picture
def power_means(scene: Scene) -> Figure:
    """Draw what each cell contributes to the sum, to GeM and to the maximum."""
    figure, axes = panels(2, 3, title=0.1)
    for row, index in zip(axes, (0, 2), strict=True):
        cells = np.maximum(scene.maps[index], 0).astype(np.float64)
        cells /= np.maximum(cells.max(axis=(1, 2), keepdims=True), 1e-12)
        for ax, (name, p) in zip(row, [("sum", 1), ("GeM, p = 3", 3), ("MAC", 300)], strict=True):
            powers = cells**p
            shares = powers / np.maximum(powers.sum(axis=(1, 2), keepdims=True), 1e-300)
            display = CellWeightsDisplay(shares.mean(axis=0), scene.photograph(index))
            display.plot(ax, norm=PowerNorm(0.5))
            if index == 0:
                titled(ax, name)
    return figure


@picture
def spoc(scene: Scene) -> Figure:
    """Draw the centre prior."""
    return weights(scene, SPoCPooler())


@picture
def crow(scene: Scene) -> Figure:
    """Draw CroW's spatial weights."""
    return weights(scene, CroWPooler())


@picture
def sjw(scene: Scene) -> Figure:
    """Draw SJW's weights without the global contrast, as published, and with more of it."""
    figure, axes = panels(2, 3, title=0.1)
    for row, index in zip(axes, (0, 1), strict=True):
        for ax, rho in zip(row, (0, 100, 500), strict=True):
            CellWeightsDisplay.from_estimator(SJWPooler(rho=rho), scene.maps, index, ax=ax)
            if index == 0:
                titled(ax, f"rho = {rho}")
    return figure


@picture
def adaptive_gaussian(scene: Scene) -> Figure:
    """Draw the Gaussian around the strongest cells."""
    return weights(scene, AdaptiveGaussianPooler())


@picture
def activation_norm(scene: Scene) -> Figure:
    """Draw HOW's attention."""
    return weights(scene, WeightedPooler("activation_norm"))


@picture
def scda(scene: Scene) -> Figure:
    """Draw the mask of the main object."""
    return weights(scene, WeightedPooler("scda"))


@picture
def class_activation(scene: Scene) -> Figure:
    """Draw the cells that speak for the most likely class."""
    extractor = scene.extractor
    mask = ClassActivationMask(
        SumPooler(),
        backbone=extractor.backbone,
        weights=extractor.weights,
        random_state=extractor.random_state,
    )
    return weights(scene, mask.fit(scene.maps), vmin=0, vmax=1)


@picture
def part_weighted(scene: Scene) -> Figure:
    """Draw the weights of the first three parts."""
    figure, axes = panels(3, 3, 1.9, title=0.05)
    pooler = PartWeightedPooler(3).fit(scene.arrays)
    for part, row in enumerate(axes):
        for index, ax in zip(scene.shown, row, strict=True):
            CellWeightsDisplay.from_estimator(pooler, scene.maps, index, part=part, ax=ax)
        titled(row[0], f"part {part + 1}: channel {pooler.parts_[part]}")
    return figure


@picture
def t_embedding(scene: Scene) -> Figure:
    """Draw democratic weights: cells that are like many others weigh less."""
    return weights(scene, TEmbeddingPooler(16, n_local=64, random_state=0).fit(scene.arrays))


@picture
def multi_resolution(scene: Scene) -> Figure:
    """Draw the response of the maps of three resolutions, and of their sum."""
    sizes = [1050, 800, 550]
    figure, axes = panels(1, 4, 1.9, title=0.2)
    stacked = clone(scene.extractor).set_params(image_size=sizes, multi_resolution="stack")
    added = clone(stacked).set_params(multi_resolution="sum")
    first = scene.maps.images[:1]
    maps = [*stacked.fit_transform(first)[0], added.fit_transform(first)[0]]
    for ax, one, name in zip(axes[0], maps, [*sizes, "sum"], strict=True):
        display = CellWeightsDisplay.from_estimator(
            WeightedPooler("response"), one[None], image=first[0], ax=ax
        )
        titled(ax, f"{name}: {display.weights.shape[0]} x {display.weights.shape[1]} cells")
    return figure
