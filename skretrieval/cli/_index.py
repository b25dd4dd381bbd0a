"""``skretrieval index``, ``search`` and ``info``: arguments and printing around an `ImageIndex`."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._terminal import printable, progress_bar
from ._options import (
    DeviceOption,
    DtypeOption,
    EnlargeOption,
    ExpandOption,
    ExtractorOption,
    HtmlOption,
    RecipeOption,
    SizeOption,
    TrustOption,
    WeightsOption,
    WhiteningOption,
    given,
)

if TYPE_CHECKING:
    from ..index import SearchResults, UpdateReport

NOTHING_FOUND = 3  # the exit status of a search without results; 1 is an error, 2 a wrong command line
_LISTED = 20  # skipped files shown after indexing; `info` shows all
_INTERRUPTED = "What is finished is kept: the same command goes on from there."

Told = Callable[..., AbstractContextManager[None]]


def add_commands(app: typer.Typer, told: Told) -> None:
    """Add the commands to the command line; `told` turns errors that a user can mend into one line."""

    @app.command()
    def index(
        folder: Annotated[Path, typer.Argument(help="The photographs, at any depth.")],
        out: Annotated[
            Path | None,
            typer.Option(
                "--out",
                "-o",
                help="The folder of the index; made, or brought up to date. [default: NAME.index in the current "
                "folder, NAME being that of FOLDER]",
            ),
        ] = None,
        recipe: RecipeOption = None,
        extractor: ExtractorOption = None,
        weights: WeightsOption = None,
        size: SizeOption = None,
        dtype: DtypeOption = None,
        enlarge: EnlargeOption = None,
        whitening: WhiteningOption = None,
        expand: ExpandOption = None,
        encoder: Annotated[
            Path | None, typer.Option(help="A file that `skretrieval tune --out` wrote, for these options.")
        ] = None,
        regions: Annotated[
            bool,
            typer.Option(
                "--regions",
                help="Describe parts of each photograph (recipe patchify): the search says which part matched.",
            ),
        ] = False,
        exclude: Annotated[
            list[str] | None,
            typer.Option(
                help="Leave out files and folders of this name; may stand several times. `info` lists them."
            ),
        ] = None,
        yes: Annotated[bool, typer.Option("--yes", help="Remove also more than half of the index.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
        rebuild: Annotated[
            bool, typer.Option("--rebuild", help="Start anew, with other options if wanted.")
        ] = False,
        upgrade: Annotated[
            bool,
            typer.Option(
                "--upgrade", help="OUT is of an old release: take over its descriptors. Loads its pickles."
            ),
        ] = False,
        folder_moved: Annotated[
            bool, typer.Option("--folder-moved", help="FOLDER is where the indexed photographs are now.")
        ] = False,
        device: DeviceOption = "auto",
        batch_size: Annotated[
            int, typer.Option(min=1, help="Photographs that go through the network together.")
        ] = 8,
        trust: TrustOption = None,
        progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    ) -> None:
        """Make the index of a folder of photographs, or bring it up to date.

        Only new and changed photographs are described; what is gone leaves the index. Interrupted work goes on
        where it stopped. Files that cannot be read are skipped and listed.
        """
        with told(interrupted=_INTERRUPTED):
            from ..index import EXCLUDED, upgrade_index
            from ._settings import open_or_create
            from ._tune import chosen_for

            if regions and recipe not in (None, "patchify"):
                raise ValueError(f"--regions is --recipe patchify; got --recipe {recipe}, too.")
            recipe = "patchify" if regions else recipe
            options = given(recipe, extractor, weights, size, dtype, enlarge, whitening, expand)
            if out is None:
                out = Path(f"{Path(os.path.abspath(folder)).name or 'photographs'}.index")
            if upgrade:
                typer.echo(
                    "Loading the pickles of the old index, which can run code: do so only if you trust it.",
                    err=True,
                )
                upgrade_index(out)
            opened = open_or_create(
                out,
                options,
                rebuild=rebuild,
                trust=trust or (),
                encoder=encoder,
                choose=lambda: chosen_for(folder, typer.echo),
            )
            what: dict[str, Any] = {"moved": folder_moved, "yes": yes}
            what["exclude"] = [*EXCLUDED, *exclude] if exclude else None
            if dry_run:
                report = opened.plan(folder, **what)
                counts = f"{report.total} to be read, {report.n_kept} unchanged, {report.n_removed} gone"
                typer.echo(f"{_printed(out)}: {counts}")
            else:
                report = _run(opened.update(folder, device=device, batch_size=batch_size, **what), progress)
                typer.echo(
                    f"{_printed(out)}: {report.n_images} images ({_done(report)}), {report.seconds:.1f} s"
                )
            _list_left_out(folder, report)
            if not dry_run and report.n_images == 0:
                raise ValueError(f"None of the {report.total} photographs in {_printed(folder)} can be read.")

    @app.command()
    def search(
        index: Annotated[Path, typer.Argument(help="The folder that `skretrieval index` wrote.")],
        images: Annotated[list[Path], typer.Argument(help="The photographs to search for.")],
        box: Annotated[
            tuple[float, float, float, float] | None,
            typer.Option(metavar="LEFT TOP RIGHT BOTTOM", help="Search for this part of IMAGE, in pixels."),
        ] = None,
        top: Annotated[int, typer.Option(min=1, help="Results to show.")] = 20,
        label: Annotated[
            list[str] | None, typer.Option(help="Only photographs of this label (several: any).")
        ] = None,
        where: Annotated[
            str | None,
            typer.Option(help="Only photographs for which this holds: \"label = 'dog' and taken > '2020'\"."),
        ] = None,
        min_similarity: Annotated[float | None, typer.Option(help="Leave out what is less alike.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a query.")] = False,
        as_csv: Annotated[bool, typer.Option("--csv", help="Print a table with commas.")] = False,
        null: Annotated[
            bool, typer.Option("-0", "--null", help="Print paths only, each ended by a zero byte.")
        ] = False,
        html: HtmlOption = None,
        trust: TrustOption = None,
    ) -> None:
        """Search an index for photographs, or for the part of one in a box.

        The exit status is 0 where something was found, 3 where nothing was, and 1 for an error.
        """
        with told():
            from ..index import ImageIndex

            if as_json + as_csv + null > 1:
                raise ValueError("Give one of --json, --csv and -0.")
            if len(images) > 1 and (box is not None or html is not None):
                raise ValueError("--box and --html are for one photograph.")
            for image in images:
                if not image.is_file():
                    raise FileNotFoundError(f"No such file: {_printed(image)}.")
            condition = _condition(label, where)
            opened = ImageIndex(index, trust=trust or ())
            found = []
            for image in images:
                began = time.perf_counter()
                results = opened.search(str(image), top, box=box, where=condition)
                if min_similarity is not None:
                    results = results.at_least(min_similarity)
                found.append((results, time.perf_counter() - began))
            _print([results for results, _ in found], as_json, as_csv, null)
            if html is not None:
                results, seconds = found[0]
                told_of = {"index": _printed(index), "images": len(opened), "seconds": f"{seconds:.3f}"}
                page = results.save_html(html, **told_of, **opened.settings)
                typer.echo(f"Page: {_printed(page.resolve())}", err=as_json or as_csv or null)
            if not any(len(results) for results, _ in found):
                raise typer.Exit(NOTHING_FOUND)

    @app.command()
    def info(
        index: Annotated[Path, typer.Argument(help="The folder that `skretrieval index` wrote.")],
        verify: Annotated[
            bool, typer.Option("--verify", help="Read every file, and say whether it is whole.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
        trust: TrustOption = None,
    ) -> None:
        """Tell what an index holds, how it was made, and whether its files are whole."""
        with told():
            from ..index import ImageIndex

            opened = ImageIndex(index, trust=trust or ())
            found = opened.info(verify=verify)
            skipped = opened.skipped()
            if as_json:
                typer.echo(json.dumps({**found, "skipped": skipped}))
                return
            for name, value in _lines(found, verify):
                typer.echo(f"{name:<11} {value}")
            _list(skipped)


def _run(reports: Iterator[UpdateReport], progress: bool) -> UpdateReport:
    """Run an update; where no bar is wanted there is none, for it would share a lock with other processes."""
    report = next(reports)
    with _bar(report) if progress else nullcontext() as bar:
        for report in reports:
            if bar is not None:
                bar.total = report.total
                bar.update(report.done - bar.n)
    return report


def _bar(report: UpdateReport) -> Any:
    return progress_bar(total=report.total, unit="image")


def _done(report: UpdateReport) -> str:
    parts = [
        (report.n_described, "described"),
        (report.n_kept, "unchanged"),
        (report.n_moved, "moved"),
        (report.n_copied, "copies"),
        (report.n_removed, "removed"),
        (report.n_blank, "blank"),
        (len(report.skipped), "skipped"),
    ]
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def _list_left_out(folder: Path, report: UpdateReport) -> None:
    from ..index import passed_over_words

    _list(report.skipped, _LISTED)
    for path, reason in sorted(report.odd.items()):
        typer.echo(f"Passed over {_printed(folder / path)}: {reason}", err=True)
    for path, reason in sorted(report.errors.items()):
        typer.echo(
            f"Cannot look at {_printed(folder / path)}: {reason}. What the index holds of it stays.", err=True
        )
    words = passed_over_words(report.passed_over)
    if words:
        typer.echo(words, err=True)


def _list(skipped: dict[str, str], limit: int | None = None) -> None:
    for path in sorted(skipped)[:limit]:
        typer.echo(f"Skipped {_printed(path)}: {_printed(skipped[path])}", err=True)
    if limit is not None and len(skipped) > limit:
        typer.echo(f"... and {len(skipped) - limit} more; `skretrieval info` lists all", err=True)


def _condition(labels: Sequence[str] | None, where: str | None) -> str | None:
    if not labels:
        return where
    quoted = ", ".join("'" + label.replace("'", "''") + "'" for label in labels)
    return f"label in ({quoted})" + (f" and ({where})" if where else "")


def _print(found: Sequence[SearchResults], as_json: bool, as_csv: bool, null: bool) -> None:
    if as_json:
        for results in found:
            typer.echo(results.to_json())
    elif as_csv:
        _print_csv(found)
    elif null:
        for results in found:
            for path in results.paths:
                sys.stdout.buffer.write(os.fsencode(path) + b"\0")
        sys.stdout.buffer.flush()
    else:
        for results in found:
            _print_table(results, with_query=len(found) > 1)


def _print_csv(found: Sequence[SearchResults]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = ["rank", "similarity", "id", "label", "path", "width", "height", "taken", "box"]
    writer.writerow(["query", *names])
    for results in found:
        for record in results.records():
            record["box"] = record["box"] and " ".join(f"{edge:g}" for edge in record["box"])
            writer.writerow([_printed(results.query), *(record[name] for name in names)])


def _print_table(results: SearchResults, with_query: bool) -> None:
    if with_query:
        typer.echo(_printed(results.query))
    width = max((len(label) for label in results.labels), default=0)  # 0 without labels
    width = max(width, len("label")) + 2 if width else 0
    typer.echo(f"{'rank':>4}  similarity  {'label':{width}.{width}}image")
    for record in results.records():
        label = f"{record['label']:{width}}"
        box = record["box"]
        part = "" if box is None else "  at " + " ".join(f"{edge:.0f}" for edge in box)
        typer.echo(
            f"{record['rank']:4d}  {record['similarity']:10.4f}  {label}{_printed(record['path'])}{part}"
        )


def _lines(found: dict[str, Any], verify: bool) -> Iterator[tuple[str, str]]:
    """Yield what `info` prints."""
    state = "whole" if found["complete"] else "not complete: run `skretrieval index` again"
    yield "Index", _printed(found["where"])
    yield "Format", f"version {found['format_version']}, generation {found['generation']}, {state}"
    yield "Written", found["created"]
    yield "Folder", _printed(found["folder"] or "(none yet)")
    yield "Images", f"{found['n_images']} ({found['n_skipped']} files skipped, {found['n_blank']} blank)"
    yield "Labels", str(found["n_labels"])
    yield "Dimension", str(found["dimension"])
    yield "Settings", ", ".join(f"{name}={value}" for name, value in found["settings"].items())
    yield "Left out", ", ".join(_printed(pattern) for pattern in found["exclude"])
    yield "Written by", ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    changed = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in found["changed_versions"].items())
    yield "Since then", changed or "the same versions are installed"
    each = found["n_bytes_per_image"]
    per_image = "" if each is None else f", {each / 2**10:.1f} KiB an image"
    yield "On disk", f"{found['n_bytes'] / 2**20:.1f} MiB{per_image}, {found['n_unused_rows']} rows unused"
    yield "Checked", "every file was read and is whole" if verify else "sizes; `--verify` reads every file"


def _printed(path: Any) -> str:
    """Make a path printable, whatever bytes it holds and whatever this terminal can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return printable(str(path)).encode(encoding, "backslashreplace").decode(encoding)
