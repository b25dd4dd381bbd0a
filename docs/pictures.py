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
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from card_pictures import PICTURES, Scene
from matplotlib.figure import Figure
from PIL import Image

from skretrieval.extraction import ConvFeatureExtractor

DPI = 90
COLOURS = 112  # of a picture: with more it grows beyond 60 KB


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
