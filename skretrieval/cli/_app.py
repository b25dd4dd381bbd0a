"""The commands and their options. Heavy imports wait until a command runs, so that --help answers at once."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .._terminal import printable
from .._version import __version__
from . import _evaluate, _index, _reproduce, _tune
from ._options import (
    DtypeOption,
    EnlargeOption,
    ExpandOption,
    ExtractorOption,
    RecipeOption,
    SizeOption,
    WeightsOption,
    WhiteningOption,
    given,
)

app = typer.Typer(
    help="Training-free image retrieval: index photographs, search them, look at the results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_state = {"traceback": False}

# What torch reads when it is loaded, where the user has not set it. Threads that wait give their core back, which
# matters on every machine that does something else, too; large memory pages save the network a quarter of its time
# (benchmarks/network_settings.py). A library must leave both to its user, a program need not.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}


def main() -> None:
    """Run the command line (the entry point of ``skretrieval`` and of ``python -m skretrieval.cli``)."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"skretrieval {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    """Training-free image retrieval: index photographs, search them, look at the results.

    The exit status is 0 for success, 1 for an error, 2 for a wrong command line, 3 for a search that found nothing, and
    130 after Ctrl-C.
    """
    _state["traceback"] = traceback


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="Your photographs. Without: those that come with scikit-image.")
    ] = None,
    html: Annotated[Path, typer.Option(help="The page to write.")] = Path("skretrieval_demo.html"),
    views: Annotated[int, typer.Option(min=1, help="Queries made from each photograph.")] = 2,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="How far queries are from their photograph.")
    ] = 1.0,
    limit: Annotated[int, typer.Option(min=1, help="Photographs of FOLDER that are used, at most.")] = 200,
    recipe: RecipeOption = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    size: SizeOption = None,
    dtype: DtypeOption = None,
    enlarge: EnlargeOption = None,
    whitening: WhiteningOption = None,
    expand: ExpandOption = None,
) -> None:
    """Search real photographs by changed views of them, offline, and write a page with the results.

    Each query is a photograph of the gallery, cropped, warped, relit, blurred and compressed; the search should
    find the photograph it was made from.
    """
    with _told():
        from ._demo import run_demo
        from ._settings import resolve_settings

        options = given(recipe, extractor, weights, size, dtype, enlarge, whitening, expand)
        run_demo(
            folder,
            html,
            resolve_settings(options),
            views=views,
            strength=strength,
            limit=limit,
            say=typer.echo,
        )


# ---------------------------------------------------------------------------------------------------- what they share
class _Echo(logging.Handler):
    """Prints what the library logs: what goes on as it is, anything graver as a note."""

    def emit(self, record: logging.LogRecord) -> None:
        grave = record.levelno >= logging.WARNING
        text = _escaped(record.getMessage())
        typer.echo(f"Note: {text}" if grave else text, err=grave)


def _escaped(text: object) -> str:
    """Return a text without what steers a terminal; its lines stay."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


@contextlib.contextmanager
def _told(interrupted: str = "") -> Iterator[None]:
    """Turn errors that a user can mend into one line, warnings into notes; print what the library logs."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that can't show a name shows its escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    usual, log, echo = warnings.showwarning, logging.getLogger("skretrieval"), _Echo()
    level = log.level
    log.addHandler(echo)
    log.setLevel(logging.INFO)
    warnings.showwarning = lambda message, *args, **kwargs: typer.echo(f"Note: {_escaped(message)}", err=True)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. {interrupted}", err=True)
        raise typer.Exit(130) from None
    except (OSError, ValueError, ImportError) as error:
        if _state["traceback"]:
            raise
        typer.echo(f"Error: {_escaped(error)}", err=True)
        raise typer.Exit(1) from error
    finally:
        warnings.showwarning = usual
        log.removeHandler(echo)
        log.setLevel(level)


_index.add_commands(app, _told)
_evaluate.add_command(app, _told)
_reproduce.add_command(app, _told)
_tune.add_command(app, _told)
