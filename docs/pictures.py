"""Make the pictures of the method cards: weights and regions of poolers over real photographs.

    python docs/pictures.py [--weights PATH --backbone squeezenet1_0] [--out docs/images] [--only NAME ...]

The photographs come inside scikit-image (the extra `photos`). Shown are `coffee` by Rachel Michetti and `chelsea` by
Stefan van der Walt, both CC0, and `rocket` by SpaceX, in the public domain. Codebooks and parts are learned from all of
scikit-image's photographs that `load_sample_photographs` names, which are CC0 or in the public domain, too. Without
`--weights` the network has torchvision's default weights, which are downloaded; `--weights none` makes random ones.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image
from sklearn.base import clone

from skretrieval.datasets import load_sample_photographs
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor, resize_longest
from skretrieval.extraction._patch_network import window_starts
from skretrieval.inspection import CellWeightsDisplay, CellWordsDisplay, RegionsDisplay
from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    BoWPooler,
    ClassActivationMask,
    CroWPooler,
    FisherVectorPooler,
    NetVLADPooler,
    PartWeightedPooler,
    RegionalSecondOrderPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    TEmbeddingPooler,
    VLADPooler,
    WeightedPooler,
)

DPI = 90
COLOURS = 112  # of a picture: with more it grows beyond 60 KB
SHOWN = ("coffee", "chelsea", "rocket")
SPATIAL_TERMS = (
    "center_prior",
    "response",
    "crow",
    "saliency",
    "adaptive_gaussian",
    "activation_norm",
    "scda",
)

PICTURES: dict[str, Callable[[Scene], Figure]] = {}


class Scene:
    """The photographs and their feature maps, which the pictures share.

    Parameters
    ----------
    extractor : ConvFeatureExtractor
        The network.
    """

    def __init__(self, extractor: ConvFeatureExtractor):
        paths = [Path(path) for path in load_sample_photographs().images if "skimage" in path]
        paths.sort(key=lambda path: SHOWN.index(path.stem) if path.stem in SHOWN else len(SHOWN))
        self.extractor = extractor
        self.maps = extractor.fit_transform([str(path) for path in paths])
        self.shown = range(len(SHOWN))

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """The maps of all photographs, for what is learned from them."""
        return list(self.maps)

    def photograph(self, index: int) -> np.ndarray:
        """Return the pixels of a photograph."""
        return np.asarray(Image.open(self.maps.images[index]).convert("RGB"))


def picture(make: Callable[[Scene], Figure]) -> Callable[[Scene], Figure]:
    """Register a function of the scene that draws the picture of its name."""
    PICTURES[make.__name__] = make
    return make


def panels(n_rows: int, n_columns: int, width: float = 2.4, title: float = 0.0):
    """Return a figure with a panel of `width` inches for each of so many 3:2 photographs, and the axes."""
    size = (width * n_columns, (width * 2 / 3 + 0.08 + title) * n_rows)
    return plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")


def weights(scene: Scene, pooler, **kwargs) -> Figure:
    """Draw the weights of a pooler over each photograph shown."""
    figure, axes = panels(1, len(scene.shown))
    for index in scene.shown:
        CellWeightsDisplay.from_estimator(pooler, scene.maps, index, ax=axes[0, index], **kwargs)
    return figure


def words(scene: Scene, pooler) -> Figure:
    """Draw the visual words of a codebook over each photograph shown."""
    figure, axes = panels(1, len(scene.shown))
    pooler.fit(scene.arrays)
    for index in scene.shown:
        CellWordsDisplay.from_estimator(pooler, scene.maps, index, ax=axes[0, index])
    return figure


def titled(ax, text: str) -> None:
    """Write what a panel shows above it."""
    ax.set_title(text, fontsize=9)


# ------------------------------------------------------------------ cells
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


# ------------------------------------------------------------------ visual words
@picture
def bow(scene: Scene) -> Figure:
    """Draw two hundred words, of cells at twice the resolution of the map."""
    return words(scene, BoWPooler(200, n_local=64, random_state=0))


@picture
def vlad(scene: Scene) -> Figure:
    """Draw the nearest of eight centres."""
    return words(scene, VLADPooler(8, random_state=0))


@picture
def netvlad(scene: Scene) -> Figure:
    """Draw the centre of largest weight; opacity is the weight."""
    return words(scene, NetVLADPooler(8, random_state=0))


@picture
def fisher(scene: Scene) -> Figure:
    """Draw the component of largest posterior; opacity is the posterior."""
    return words(scene, FisherVectorPooler(8, n_local=16, random_state=0))


@picture
def patch_ckn(scene: Scene) -> Figure:
    """Draw the patches at detected points, coloured by the nearest of 32 centres of kernel descriptors."""
    figure, axes = panels(1, len(scene.shown))
    maps = ConvKernelExtractor(random_state=0).fit_transform(scene.maps.images)
    pooler = VLADPooler(32, points="hessian", random_state=0).fit(maps)
    for index in scene.shown:
        CellWordsDisplay.from_estimator(pooler, maps, index, ax=axes[0, index])
    return figure


# ------------------------------------------------------------------ regions
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
    """Draw the strided windows of S003."""
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


@picture
def mop_cnn(scene: Scene) -> Figure:
    """Draw the windows of MOP-CNN."""
    figure, axes = panels(1, 3, title=0.2)
    photograph = resize_longest(Image.fromarray(scene.photograph(0)), 256)
    height, width = photograph.shape[:2]
    for ax, patch in zip(axes[0], (None, (128, 32), (64, 32)), strict=True):
        high, wide = (height, width) if patch is None else (patch[0], patch[0])
        stride = 1 if patch is None else patch[1]
        corners = [
            np.array([[left, top], [left + wide, top], [left + wide, top + high], [left, top + high]])
            for top in window_starts(height, high, stride)
            for left in window_starts(width, wide, stride)
        ]
        windows = RegionsDisplay([part / (width, height) for part in corners], (width, height), photograph)
        shrunk(windows).plot(ax, alpha=0.04, linewidth=1)
        titled(ax, f"{len(corners)} windows" if patch else "the photograph")
    return figure


# ------------------------------------------------------------------ several maps
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


# ------------------------------------------------------------------ files
def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    plt.close(figure)
    buffer.seek(0)
    with Image.open(buffer) as drawn:
        # coverage, not the median cut, which loses the few bright cells
        method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
        drawn.convert("RGB").quantize(COLOURS, method, kmeans=1, dither=dither).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Make the pictures asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="vgg16", help="a torchvision name")
    parser.add_argument("--weights", default="DEFAULT", help="a state dict, DEFAULT (torchvision's) or none")
    parser.add_argument("--size", type=int, default=512, help="longest side of the photographs in pixels")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--only", nargs="+", choices=sorted(PICTURES), help="names of pictures")
    chosen = parser.parse_args(arguments)
    extractor = ConvFeatureExtractor(
        chosen.backbone,
        weights=None if chosen.weights == "none" else chosen.weights,
        layers="last_conv" if chosen.backbone.startswith("vgg") else None,
        image_size=chosen.size,
        random_state=0,
    )
    scene = Scene(extractor)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.only or PICTURES:
        path = chosen.out / f"{name}.png"
        save(PICTURES[name](scene), path)
        print(f"{path} ({path.stat().st_size // 1024} KB)")


if __name__ == "__main__":
    main()
