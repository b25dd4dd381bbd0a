"""The commands and their options. Heavy imports wait until a command runs, so that --help answers at once."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .._version import __version__
from . import _evaluate, _reproduce

app = typer.Typer(
    help="Training-free image retrieval: index photographs, search them, look at the results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_state = {"traceback": False}
_LISTED = 20  # skipped files shown after indexing; `info` shows all

RecipeOption = Annotated[
    str | None,
    typer.Option(help="How maps become descriptors: gsw, grmac, sjw, crow, rmac, spoc ... [default: grmac]"),
]
ExtractorOption = Annotated[
    str | None,
    typer.Option(
        help="'kernel' learns filters from your photographs, without downloads; or a torchvision network "
        "(vgg16, resnet50 ...). [default: kernel]"
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="For a network: 'default' (torchvision's), 'random', or a state-dict file. [default: default]"
    ),
]
SizeOption = Annotated[
    int | None, typer.Option(min=1, help="Longest side in pixels. [default: the extractor's]")
]
WhiteningOption = Annotated[
    str | None,
    typer.Option(
        help="none, pca, or learned (needs sub-folders as labels). Worth it with many more photographs than "
        "dimensions. [default: none]"
    ),
]
ExpandOption = Annotated[
    int | None, typer.Option(min=0, help="Query expansion with that many neighbours. [default: 0]")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
HtmlOption = Annotated[Path | None, typer.Option(help="Write a page with the results.")]


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
    """Training-free image retrieval: index photographs, search them, look at the results."""
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
    ] = 0.7,
    limit: Annotated[int, typer.Option(min=1, help="Photographs of FOLDER that are used, at most.")] = 200,
    recipe: RecipeOption = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    size: SizeOption = None,
    whitening: WhiteningOption = None,
    expand: ExpandOption = None,
) -> None:
    """Search real photographs by changed views of them, offline, and write a page with the results.

    Each query is a photograph of the gallery, cropped, warped, relit, blurred and compressed; the search should
    find the photograph it was made from.
    """
    with _told():
        from ..index import resolve_settings
        from ._demo import run_demo

        given = _given(recipe, extractor, weights, size, whitening, expand)
        run_demo(
            folder, html, resolve_settings(given), views=views, strength=strength, limit=limit, say=typer.echo
        )


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="The photographs, at any depth.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder of the index; made, or brought up to date.")
    ],
    recipe: RecipeOption = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    size: SizeOption = None,
    whitening: WhiteningOption = None,
    expand: ExpandOption = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Start anew, with other options if wanted.")
    ] = False,
    folder_moved: Annotated[
        bool, typer.Option("--folder-moved", help="FOLDER is where the indexed photographs are now.")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=1, help="Photographs that the extractor learns from, at most.")
    ] = 1000,
    device: DeviceOption = "auto",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Photographs that go through the network together.")
    ] = 8,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Make the index of a folder of photographs, or bring it up to date.

    Only new and changed photographs are described; what is gone leaves the index. Interrupted work goes on
    where it stopped. Files that cannot be read are skipped and listed.
    """
    with _told(interrupted="What is finished is kept: the same command goes on from there."):
        from ..index import update_index

        report = update_index(
            folder,
            out,
            _given(recipe, extractor, weights, size, whitening, expand),
            rebuild=rebuild,
            folder_moved=folder_moved,
            sample=sample,
            extractor_params={"device": device, "batch_size": batch_size},
            progress=progress,
        )
        parts = [(report.n_described, "described"), (report.n_resumed, "finished before an interruption")]
        parts += [(report.n_kept, "unchanged"), (report.n_moved, "moved"), (report.n_removed, "removed")]
        parts += [(len(report.skipped), "skipped")]
        done = ", ".join(f"{count} {word}" for count, word in parts if count)
        typer.echo(f"{out}: {report.n_images} images ({done}), {report.seconds:.1f} s")
        _list_skipped(report.skipped, _LISTED)


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="The folder that `skretrieval index` wrote.")],
    image: Annotated[Path, typer.Argument(help="The photograph to search for.")],
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="LEFT TOP RIGHT BOTTOM", help="Search for this part of IMAGE, in pixels."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Results to show.")] = 20,
    html: HtmlOption = None,
) -> None:
    """Search an index for a photograph, or for the part of it in a box.

    An index holds pickled models, and loading them can run code: search only indexes from a source that you
    trust.
    """
    with _told():
        from ..index import ImageIndex, as_scores

        item = _query_item(image, box)
        loaded = ImageIndex(index)
        began = time.perf_counter()
        distances, indices = loaded.search([item], top)
        seconds = time.perf_counter() - began
        name, scores = as_scores(loaded.retriever, distances)
        width = max(len(loaded.labels[row]) for row in indices[0])  # 0 without labels
        width = max(width, len("label")) + 2 if width else 0
        typer.echo(f"{'rank':>4}  {name:>10}  {'label':{width}.{width}}image")
        for rank, (score, row) in enumerate(zip(scores[0], indices[0], strict=True), start=1):
            typer.echo(f"{rank:4d}  {score:10.4f}  {loaded.labels[row]:{width}}{_shown(loaded.files[row])}")
        if html is not None:
            from ..inspection import results_page

            known = loaded.label_of(image)
            page = results_page(
                html,
                [item],
                loaded.files,
                indices,
                scores,
                query_labels=None if known is None else [known],
                gallery_labels=None if known is None else loaded.labels,
                gallery_titles=[image.path for image in loaded.images],
                title=f"Search for {image.name}",
                figures={"gallery": len(loaded.images), "seconds": f"{seconds:.3f}"},
                settings={
                    **loaded.manifest["settings"],
                    "index": index,
                    "dimension": loaded.manifest["dimension"],
                },
                score_name=name,
                n_results=top,
            )
            typer.echo(f"Page: {page.resolve()}")


@app.command()
def info(index: Annotated[Path, typer.Argument(help="The folder that `skretrieval index` wrote.")]) -> None:
    """Tell what an index holds, how it was made, and whether its files are whole. Loads no model."""
    with _told():
        from ..index import index_info

        found = index_info(index)
        for line in found.lines:
            typer.echo(line)
        _list_skipped(found.skipped)
        if found.n_pending is not None:
            typer.echo(
                f"Interrupted work: {found.n_pending} images are described and not yet in the index. "
                "Run the same `skretrieval index` again."
            )


# ---------------------------------------------------------------------------------------------------- what they share
def _query_item(image: Path, box: tuple[float, float, float, float] | None) -> Any:
    """Make the item to search for; the box is checked against the photograph's size."""
    from ..datasets import check_box
    from ..extraction import ImageCrop

    if not image.is_file():
        raise FileNotFoundError(f"no such file: {image}.")
    if box is None:
        return str(image)
    check_box(image, box)
    return ImageCrop(str(image), box)


def _given(
    recipe: str | None,
    extractor: str | None,
    weights: str | None,
    size: int | None,
    whitening: str | None,
    expand: int | None,
) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "extractor": extractor,
        "weights": weights,
        "size": size,
        "whitening": whitening,
        "expand": expand,
    }


class _Echo(logging.Handler):
    """Prints what the library logs: what goes on as it is, anything graver as a note."""

    def emit(self, record: logging.LogRecord) -> None:
        grave = record.levelno >= logging.WARNING
        typer.echo(f"Note: {record.getMessage()}" if grave else record.getMessage(), err=grave)


@contextlib.contextmanager
def _told(interrupted: str = "") -> Iterator[None]:
    """Turn errors that a user can mend into one line, warnings into notes; print what the library logs."""
    usual, log, echo = warnings.showwarning, logging.getLogger("skretrieval"), _Echo()
    level = log.level
    log.addHandler(echo)
    log.setLevel(logging.INFO)
    warnings.showwarning = lambda message, *args, **kwargs: typer.echo(f"Note: {message}", err=True)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. {interrupted}", err=True)
        raise typer.Exit(130) from None
    except (OSError, ValueError, ImportError) as error:
        if _state["traceback"]:
            raise
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    finally:
        warnings.showwarning = usual
        log.removeHandler(echo)
        log.setLevel(level)


def _list_skipped(skipped: dict[str, str], limit: int | None = None) -> None:
    for path in sorted(skipped)[:limit]:
        typer.echo(f"Skipped {_shown(path)}: {skipped[path]}", err=True)
    if limit is not None and len(skipped) > limit:
        typer.echo(f"... and {len(skipped) - limit} more; `skretrieval info` lists all", err=True)


def _shown(path: str | os.PathLike) -> str:
    """Make a file name printable, whatever bytes it holds."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return os.fspath(path).encode(encoding, "replace").decode(encoding)


_evaluate.add_command(app, _told)
_reproduce.add_command(app, _told)
