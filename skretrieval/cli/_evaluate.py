"""`skretrieval evaluate`: recipes on a collection of photographs, under the collection's protocol."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

Told = Callable[[], AbstractContextManager[None]]
PAPER = "paper"  # the network of the paper, with its layer and size


def add_command(app: typer.Typer, told: Told) -> None:
    """Add the command to an application.

    Parameters
    ----------
    app : typer.Typer
        The application.
    told : callable
        Gives the context that turns errors into lines.
    """

    @app.command()
    def evaluate(
        dataset: Annotated[
            str | None,
            typer.Option(
                "--dataset",
                "-d",
                help="oxford5k, paris6k, roxford5k, rparis6k, holidays, ukbench, oxford105k, paris106k; or a folder "
                "whose sub-folders are labels, or a table (.csv) of path, label, role, box.",
            ),
        ] = None,
        recipe: Annotated[
            list[str] | None,
            typer.Option(
                "--recipe", "-r", help="gsw, grmac, rmac ...; several are compared. [default: grmac]"
            ),
        ] = None,
        extractor: Annotated[
            str | None,
            typer.Option(
                help="A network (NAME of torchvision, timm:NAME, hf:NAME_OR_FOLDER), 'kernel', or 'paper' for that of "
                "the paper, with its layer and size. [default: timm:tf_efficientnet_lite0]"
            ),
        ] = None,
        weights: Annotated[
            str | None, typer.Option(help="'default' (the library's), 'random', or a state-dict file.")
        ] = None,
        size: Annotated[
            int | None, typer.Option(min=1, help="Longest side in pixels. [default: 384, or the paper's]")
        ] = None,
        whitening: Annotated[
            str | None,
            typer.Option(
                help="none, auto, pca or learned. [default: the recipe's with --whitening-set, else none]"
            ),
        ] = None,
        whitening_set: Annotated[
            str | None,
            typer.Option(
                help="Where everything is learned: 'sibling' (Paris6k for Oxford5k ...), a name, or a folder. "
                "[default: see --fit-on]"
            ),
        ] = None,
        fit_on: Annotated[
            str | None,
            typer.Option(
                help="Without --whitening-set: halves (learn on one half of the labels, score the other, both ways) or "
                "gallery (learn on what is scored, which flatters). [default: halves of labelled photographs where "
                "whitening or codebooks learn]"
            ),
        ] = None,
        n_components: Annotated[
            int | None, typer.Option(min=1, help="Dimensions that whitening keeps.")
        ] = None,
        expand: Annotated[int, typer.Option(min=0, help="Query expansion with that many results.")] = 0,
        distractors: Annotated[
            list[str] | None, typer.Option(help="Photographs to add to the gallery: flickr100k, or a folder.")
        ] = None,
        setting: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the Pipeline: pooler__p=4."),
        ] = None,
        query_setting: Annotated[
            list[str] | None,
            typer.Option(
                "--query-set", metavar="NAME=VALUE", help="One for queries only: pooler__regions=whole."
            ),
        ] = None,
        option: Annotated[
            list[str] | None,
            typer.Option(
                metavar="NAME=VALUE", help="An option of the collection: upright=true, database=non_queries."
            ),
        ] = None,
        kappa: Annotated[
            list[int] | None,
            typer.Option(
                min=1, metavar="K", help="Show the precision at K; several may be given. [default: 1 5 10]"
            ),
        ] = None,
        precision: Annotated[
            str | None,
            typer.Option(
                help="Rule of the precision at k: standard, or revisitop (k at most the number of results up to the "
                "last positive). [default: the protocol's]"
            ),
        ] = None,
        ap: Annotated[
            str | None,
            typer.Option(
                "--ap",
                help="Rule of the average precision: trapezoid, finite or printed. [default: trapezoid]",
            ),
        ] = None,
        whole_queries: Annotated[
            bool, typer.Option("--whole-queries", help="Whole photographs where queries have boxes.")
        ] = False,
        data_home: Annotated[Path | None, typer.Option(help="Where published collections lie.")] = None,
        download: Annotated[
            bool, typer.Option("--download", help="Download what is missing of collections.")
        ] = False,
        cache: Annotated[
            Path | None, typer.Option(help="Keep the maps of the photographs here, for other runs.")
        ] = None,
        on_error: Annotated[
            str, typer.Option(help="raise, or warn: photographs that cannot be read get an empty map.")
        ] = "raise",
        device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
        batch_size: Annotated[
            int | None, typer.Option(min=1, help="Photographs that go through the network together.")
        ] = None,
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="Write figures and every setting as JSON.")
        ] = None,
        source: Annotated[
            Path | None,
            typer.Option("--from", metavar="RESULT", help="Run again what such a file describes."),
        ] = None,
        progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    ) -> None:
        """Evaluate recipes under the protocol of a collection, and write a result that can be rerun.

        Prints mAP (N-S for UKB) with its standard error over queries. With --from the settings come from a result:
        the command then tells whether its figures come out again, to the digit, and fails if they do not.
        """
        with told():
            if source is None and dataset is None:
                raise ValueError("give --dataset, or --from with a result.")
            if source is not None:
                if kappa or precision or ap or fit_on:
                    raise ValueError(
                        "--kappa, --precision, --ap and --fit-on are those of the result that is run again."
                    )
                places = {"dataset": dataset, "whitening_set": whitening_set, "distractors": distractors}
                found, differing = run_again(
                    source,
                    places,
                    weights=weights,
                    data_home=data_home,
                    download=download,
                    cache=cache,
                    verbose=progress,
                )
            else:
                pipelines = {
                    name: make_pipeline(
                        name,
                        {"backbone": extractor, "weights": weights, "image_size": size},
                        {"device": device, "batch_size": batch_size, "on_error": on_error},
                        whitening=whitening,
                        learns_elsewhere=whitening_set is not None,
                        n_components=n_components,
                        expand=expand,
                        params=parse(setting, "--set"),
                    )
                    for name in recipe or ["grmac"]
                }
                found = run(
                    pipelines,
                    dataset,
                    whitening_set=whitening_set,
                    fit_on=fit_on,
                    distractors=distractors,
                    query_params=parse(query_setting, "--query-set"),
                    protocol_params=protocol_options(dataset, kappa, precision, ap),
                    options=parse(option, "--option") or None,
                    crop_queries=not whole_queries,
                    data_home=data_home,
                    download=download,
                    memory=cache,
                    verbose=progress,
                )
                differing = []
            typer.echo(str(found))
            for line in unreadable(found):
                typer.echo(line, err=True)
            if out is not None:
                found.to_json(out)
                typer.echo(f"Result: {out}")
            if source is not None and not differing:
                typer.echo(f"The figures are those of {source}, to the digit.")
            for line in differing:
                typer.echo(f"Differs from {source}: {line}", err=True)
            if differing:
                raise typer.Exit(1)


def parse(pairs: list[str] | None, name: str) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values are JSON, and text where they are not.

    Raises
    ------
    ValueError
        If there is no "=".
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"{name} takes NAME=VALUE, got {pair!r}.")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def protocol_options(
    dataset: str | None, kappas: list[int] | None, precision: str | None, ap: str | None
) -> dict[str, Any]:
    """Collect the options of a protocol; those that are not given are the protocol's.

    Raises
    ------
    ValueError
        If a rule is unknown, or the collection is scored without these figures. Found out now, not after all
        photographs went through a network.
    """
    from ..metrics import METHODS, PRECISION_MODES

    given: dict[str, Any] = {"kappas": kappas or None, "precision": precision, "method": ap}
    given = {name: value for name, value in given.items() if value is not None}
    if given and dataset == "ukbench":
        raise ValueError("ukbench is scored by N-S: --kappa, --precision and --ap are not for it.")
    for name, option, rules in (("precision", "--precision", PRECISION_MODES), ("method", "--ap", METHODS)):
        if name in given and given[name] not in rules:
            raise ValueError(f"{option} takes {', '.join(rules)}; got {given[name]!r}.")
    return given


def make_pipeline(
    recipe: str,
    network: dict[str, Any],
    extractor_params: dict[str, Any],
    *,
    whitening: str | None,
    learns_elsewhere: bool,
    n_components: int | None,
    expand: int,
    params: dict[str, Any],
) -> Any:
    """Make the Pipeline of a recipe as the options ask.

    Raises
    ------
    ValueError
        If the recipe or an option is unknown, or they do not go together.
    """
    from .. import recipes
    from ..evaluation import stand_in
    from ..pooling import keep_signs
    from ._settings import DEFAULTS

    if recipe not in recipes.__all__:
        raise ValueError(f"unknown recipe {recipe!r}; there are {', '.join(sorted(recipes.__all__))}.")
    if whitening not in (None, "none", "auto", "pca", "learned"):
        raise ValueError(f"whitening must be none, pca or learned, or auto, got {whitening!r}.")
    function = getattr(recipes, recipe)
    arguments: dict[str, Any] = {}
    if whitening is not None:
        arguments["whitening"] = None if whitening == "none" else whitening
    elif not learns_elsewhere and recipe != "regional_second_order":  # which is nothing without its own
        arguments["whitening"] = None
    if n_components is not None:
        arguments["n_components"] = n_components
    if expand:
        arguments["expand"] = expand
    weights = network["weights"]
    if weights not in (None, "default", "random"):
        weights = os.path.abspath(weights)  # so that the result can be rerun from anywhere
    named = {**network, "weights": "DEFAULT" if weights == "default" else weights}
    as_published = network["backbone"] == PAPER
    if as_published:
        named["backbone"] = None
    else:
        extractor_params = {**extractor_params, "enlarge": False}
        named["backbone"] = network["backbone"] or DEFAULTS["extractor"]
        if network["image_size"] is None and named["backbone"] != "kernel":
            named["image_size"] = DEFAULTS["size"]
    other = stand_in(function().named_steps["extractor"], **named, **extractor_params)
    pipeline = function(extractor=other, **arguments)
    return (pipeline if as_published else keep_signs(pipeline)).set_params(**params)


def run(pipelines: dict[str, Any], dataset: Any, **options: Any) -> Any:
    """Evaluate one Pipeline, or compare several."""
    from ..evaluation import compare, evaluate
    from ..extraction import UnreadableImageWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadableImageWarning)  # the command lists them
        if len(pipelines) > 1:
            return compare(pipelines, dataset, **options)
        ((name, pipeline),) = pipelines.items()
        return evaluate(pipeline, dataset, name=name, **options)


def run_again(
    source: Path,
    places: dict[str, Any],
    *,
    weights: str | None,
    data_home: Path | None,
    download: bool,
    cache: Path | None,
    verbose: bool,
) -> tuple[Any, list[str]]:
    """Rerun a result; return what was found, and where it differs from the file."""
    from ..evaluation import Comparison, Evaluation, read_records, rerun

    found = rerun(
        source,
        **places,
        weights=weights,
        data_home=data_home,
        download=download,
        memory=cache,
        verbose=verbose,
    )
    evaluations = list(found) if isinstance(found, Comparison) else [found]
    differing = [
        f"{new.name}: {line}"
        for new, old in zip(evaluations, read_records(source), strict=True)
        for line in new.differences(Evaluation(old))
    ]
    return found, differing


def unreadable(found: Any) -> list[str]:
    """List the photographs that got an empty map."""
    from ..evaluation import Comparison

    first = next(iter(found)) if isinstance(found, Comparison) else found
    failed = first.record["failed"]
    return [
        f"Could not be read, {part}: {why}" for part, reasons in failed.items() for why in reasons.values()
    ]
