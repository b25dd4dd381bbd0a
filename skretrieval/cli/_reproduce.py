"""`skretrieval reproduce`: the papers' tables, printed and run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

Told = Callable[[], AbstractContextManager[None]]


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
    def reproduce(
        paper: Annotated[
            list[str] | None, typer.Option("--paper", "-p", help="S000 ... S004. [default: all]")
        ] = None,
        recipe: Annotated[
            list[str] | None, typer.Option("--recipe", "-r", help="Only these methods. [default: all]")
        ] = None,
        folder: Annotated[
            Path | None,
            typer.Option(
                "--folder",
                "--assets-folder",
                help="Labelled photographs in the place of the papers' collections: do their trends hold there?",
            ),
        ] = None,
        data_home: Annotated[Path | None, typer.Option(help="Where published collections lie.")] = None,
        download: Annotated[
            bool, typer.Option("--download", help="Download collections and weights that are missing.")
        ] = False,
        extractor: Annotated[
            str | None,
            typer.Option(help="A torchvision network in the place of the papers'. [default: theirs]"),
        ] = None,
        weights: Annotated[
            str | None,
            typer.Option(
                help="'default' (torchvision's), 'random', a state-dict file, or a folder of NAME.pth files."
            ),
        ] = None,
        size: Annotated[
            int | None, typer.Option(min=1, help="Longest side in pixels. [default: the papers']")
        ] = None,
        sweeps: Annotated[bool, typer.Option(help="Run the parameters that the papers varied.")] = True,
        tables: Annotated[bool, typer.Option(help="Run the methods of the tables.")] = True,
        slow: Annotated[
            bool, typer.Option("--slow", help="With --folder: methods that take minutes, too.")
        ] = False,
        cache: Annotated[
            Path | None,
            typer.Option(
                help="Keep the maps of the photographs here, for other runs. [default: a temporary folder]"
            ),
        ] = None,
        out: Annotated[Path | None, typer.Option("--out", "-o", help="Write everything as JSON.")] = None,
        progress: Annotated[bool, typer.Option(help="Show what is done, and progress bars.")] = True,
    ) -> None:
        """Run the tables of the papers: what they printed, what comes out here, the difference.

        What cannot be run, for want of photographs or weights, is listed with what it waits for.
        """
        with told():
            found = run(
                paper or None,
                folder,
                methods=recipe or None,
                sweeps=sweeps,
                tables=tables,
                slow=slow,
                data_home=data_home,
                download=download,
                backbone=extractor,
                weights="DEFAULT" if weights == "default" else weights,
                image_size=size,
                memory=cache,
                verbose=progress,
            )
            typer.echo(str(found))
            if out is not None:
                found.to_json(out)
                typer.echo(f"Result: {out}")


def run(
    papers: list[str] | None,
    folder: Path | None,
    *,
    tables: bool,
    slow: bool,
    data_home: Path | None,
    download: bool,
    verbose: bool,
    methods: list[str] | None,
    **options: Any,
) -> Any:
    """Run the tables on the published collections, or on a folder.

    Raises
    ------
    ValueError
        If a paper or a recipe is unknown, or the folder cannot be used.
    """
    from .. import recipes
    from ..evaluation import reproduce, reproduce_on_folder

    unknown = sorted(set(methods or ()) - set(recipes.__all__))
    if unknown:
        raise ValueError(f"unknown recipes {unknown}; there are {', '.join(sorted(recipes.__all__))}.")

    def say(line: str) -> None:
        if verbose:
            typer.echo(line, err=True)

    options |= {"methods": methods, "say": say}
    if folder is not None:
        return reproduce_on_folder(folder, papers, tables=tables, slow=slow, **options)
    return reproduce(papers, tables=tables, data_home=data_home, download=download, **options)
