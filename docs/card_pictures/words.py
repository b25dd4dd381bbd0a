"""Pictures of visual words."""

from __future__ import annotations

from matplotlib.figure import Figure

from skretrieval.extraction import ConvKernelExtractor
from skretrieval.inspection import CellWordsDisplay
from skretrieval.pooling import BoWPooler, FisherVectorPooler, NetVLADPooler, VLADPooler

from .scene import Scene, panels, picture


def words(scene: Scene, pooler) -> Figure:
    """Draw the visual words of a codebook over each photograph shown."""
    figure, axes = panels(1, len(scene.shown))
    pooler.fit(scene.arrays)
    for index in scene.shown:
        CellWordsDisplay.from_estimator(pooler, scene.maps, index, ax=axes[0, index])
    return figure


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
