"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="How maps become descriptors: gsw, grmac, sjw, crow, rmac, spoc ...; `index` also takes auto, which "
        "runs `skretrieval tune` first. [default: grmac]"
    ),
]
ExtractorOption = Annotated[
    str | None,
    typer.Option(
        help="A network of torchvision (vgg16, resnet50 ...), timm (timm:NAME) or transformers "
        "(hf:NAME_OR_FOLDER); or 'kernel', which learns filters from your photographs. "
        "[default: timm:tf_efficientnet_lite0]"
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="For a network: 'default' (the library's), 'random', or a state-dict file. [default: default]"
    ),
]
SizeOption = Annotated[
    int | None, typer.Option(min=1, help="Longest side in pixels. [default: 384; 224 for 'kernel']")
]
EnlargeOption = Annotated[
    bool | None,
    typer.Option(
        "--enlarge/--no-enlarge", help="Scale smaller photographs up to that size. [default: no-enlarge]"
    ),
]
WhiteningOption = Annotated[
    str | None,
    typer.Option(
        help="none; auto, as far as the number of photographs bears; pca, or learned (needs sub-folders as labels), "
        "which want twenty photographs and more for each dimension. [default: auto]"
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        help="Of the network: auto (bfloat16 where the processor multiplies it natively), float32, bfloat16 or "
        "float16. [default: auto]"
    ),
]
ExpandOption = Annotated[
    int | None, typer.Option(min=0, help="Query expansion with that many neighbours. [default: 0]")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
HtmlOption = Annotated[Path | None, typer.Option(help="Write a page with the results.")]
TrustOption = Annotated[
    list[str] | None,
    typer.Option(help="A type of yours that the index may hold, by its full name; may stand several times."),
]


def given(
    recipe: str | None,
    extractor: str | None,
    weights: str | None,
    size: int | None,
    dtype: str | None,
    enlarge: bool | None,
    whitening: str | None,
    expand: int | None,
) -> dict[str, Any]:
    """Return the options that decide what an index holds, by name."""
    return {
        "recipe": recipe,
        "extractor": extractor,
        "weights": weights,
        "size": size,
        "dtype": dtype,
        "enlarge": enlarge,
        "whitening": whitening,
        "expand": expand,
    }
