"""Pictures of regions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from skretrieval.inspection import CellWeightsDisplay, RegionsDisplay
from skretrieval.pooling import (
    RegionalSecondOrderPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SquareSumRMACPooler,
)

from .scene import Scene, panels, picture, titled


def shrunk(display: RegionsDisplay) -> RegionsDisplay:
    """Draw overlapping outlines beside each other, not upon each other."""
    polygons = []
    for turn, corners in enumerate(display.polygons):
        centre = corners.mean(axis=0)
        polygons.append(centre + (corners - centre) * (1 - 0.012 * (turn % 4)))
    return RegionsDisplay(polygons, display.size, display.image, display.points)


def scales(scene: Scene, pooler, index: int = 0) -> Figure:
    """Draw the regions of a pooler, one scale after the other."""
    figure, axes = panels(1, 3, title=0.2)
    whole = panels(1, 1)
    display = RegionsDisplay.from_estimator(pooler, scene.maps, index, ax=whole[1][0, 0])
    plt.close(whole[0])
    sides = np.array([np.ptp(corners * display.size, axis=0).max().round() for corners in display.polygons])
    for ax, side in zip(axes[0], sorted(set(sides))[::-1], strict=True):
        chosen = np.flatnonzero(sides == side)
        part = RegionsDisplay([display.polygons[i] for i in chosen], display.size, display.image)
        shrunk(part).plot(ax, alpha=0.1)
        titled(ax, f"{len(chosen)} regions")
    return figure


@picture
def rmac(scene: Scene) -> Figure:
    """Draw R-MAC's grid."""
    return scales(scene, RMACPooler())


@picture
def square_sum_rmac(scene: Scene) -> Figure:
    """Draw the strided windows of square-sum R-MAC."""
    return scales(scene, SquareSumRMACPooler())


@picture
def region_integration(scene: Scene) -> Figure:
    """Draw regions of the second scale over the weighted cells."""
    figure, axes = panels(1, len(scene.shown))
    pooler = RegionIntegrationPooler()
    for ax, index in zip(axes[0], scene.shown, strict=True):
        CellWeightsDisplay.from_estimator(pooler, scene.maps, index, ax=ax)
        boxes = RegionsDisplay.from_estimator(pooler, scene.maps, index, ax=ax, regions=[])
        boxes = RegionsDisplay(boxes.polygons[2:8], boxes.size)
        ax.images[-1].remove()  # the photograph, drawn a second time over the weights
        shrunk(boxes).plot(ax, alpha=0, linewidth=1.2)
    return figure


@picture
def regional_second_order(scene: Scene) -> Figure:
    """Draw clusters of salient points, and the unions of clusters."""
    figure, axes = panels(2, 3, 2.1, title=0.2)
    for row, points in zip(axes, ("grid", "hessian"), strict=True):
        pooler = RegionalSecondOrderPooler(points=points)
        for ax, index, regions in zip(row, (0, 0, 1), ([0, 1, 3], [2, 4, 5], [0, 1, 3]), strict=True):
            display = RegionsDisplay.from_estimator(pooler, scene.maps, index, ax=ax, regions=regions)
            display.points_.set_markersize(1.5)
            titled(ax, f'points="{points}", {"clusters" if 0 in regions else "unions"}')
    return figure


def starts(side: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along a side: every `stride` pixels, the last one flush with the border."""
    return sorted({*range(0, side - window + 1, stride), side - window})


@picture
def mop_cnn(scene: Scene) -> Figure:
    """Draw the windows of MOP-CNN."""
    figure, axes = panels(1, 3, title=0.2)
    with Image.fromarray(scene.photograph(0)) as image:
        image.thumbnail((256, 256))
        photograph = np.asarray(image)
    height, width = photograph.shape[:2]
    for ax, patch in zip(axes[0], (None, (128, 32), (64, 32)), strict=True):
        high, wide = (height, width) if patch is None else (patch[0], patch[0])
        stride = 1 if patch is None else patch[1]
        corners = [
            np.array([[left, top], [left + wide, top], [left + wide, top + high], [left, top + high]])
            for top in starts(height, high, stride)
            for left in starts(width, wide, stride)
        ]
        windows = RegionsDisplay([part / (width, height) for part in corners], (width, height), photograph)
        shrunk(windows).plot(ax, alpha=0.04, linewidth=1)
        titled(ax, f"{len(corners)} windows" if patch else "the photograph")
    return figure
