"""`skretrieval tune`: which setting of the network suits a folder of photographs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._terminal import printable

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from ..evaluation import Tuning

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
    def tune(
        folder: Annotated[Path, typer.Argument(help="The photographs, at any depth.")],
        pairs: Annotated[
            Path | None,
            typer.Option(
                help="A table (.csv) with two photographs of the same object a line, relative to FOLDER or absolute; "
                "20 of different objects do. They go before pairs that local features verify."
            ),
        ] = None,
        verify: Annotated[
            bool, typer.Option(help="Look for pairs by local features, too (needs the extra opencv).")
        ] = True,
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="Write the encoder here, for `index --encoder`.")
        ] = None,
        labels: Annotated[
            bool, typer.Option("--labels", help="Sub-folders are objects: show the true mAP, too.")
        ] = False,
        limit: Annotated[int, typer.Option(min=2, help="Photographs looked at, at most.")] = 2000,
        seed: Annotated[int, typer.Option(help="Of the draw and of the test.")] = 0,
        top: Annotated[int, typer.Option(min=1, help="Settings shown.")] = 10,
    ) -> None:
        """Choose layer, pooler, whitening and image size for a folder of photographs.

        Starts from the default (EfficientNet-Lite0's last layer, GR-MAC, no whitening, 512 pixels), and leaves it
        only where photographs of the same object are found better by more than chance. Says what it chose and why.
        """
        with told():
            found = _run(folder, pairs, verify, labels, limit, seed, typer.echo)
            _print_table(found, top)
            if out is not None:
                from ..index import save_encoder

                typer.echo(f"Encoder: {printable(str(save_encoder(found.pipeline, out)))}")


def chosen_for(folder: Path, say: Callable[[str], None]) -> tuple[Pipeline, str]:
    """Return the Pipeline that tuning chooses for a folder, and its setting in words."""
    found = _run(folder, None, True, False, 2000, 0, say)
    say(_conclusion(found))
    return found.pipeline, str(found.choice.chosen)


def _run(
    folder: Path,
    pairs: Path | None,
    verify: bool,
    labels: bool,
    limit: int,
    seed: int,
    say: Callable[[str], None],
) -> Tuning:
    from ..datasets import list_images, load_image_folder
    from ..evaluation import tune
    from ..extraction import readable_suffixes

    if not folder.is_dir():
        raise FileNotFoundError(f"No such folder: {folder}.")
    if pairs is None and not verify:
        raise ValueError("--no-verify needs --pairs: without either there is no evidence.")
    truth = None
    if labels:
        bunch = load_image_folder(folder)
        paths, truth = [str(path) for path in bunch.images], bunch.labels
        if truth is None:
            raise ValueError(f"--labels: {folder} has no sub-folders, whose names would be the objects.")
    else:
        paths = [str(folder / path) for path in list_images(folder, tuple(readable_suffixes()))]
    if not paths:
        raise ValueError(f"{folder} has no photographs.")
    given = None if pairs is None else read_pairs(pairs, folder, paths)
    found = tune(
        paths,
        pairs=given,
        verify=verify,
        labels=truth,
        n_images=limit,
        random_state=seed,
        n_jobs=-1,
        say=say,
    )
    for place, why in sorted(found.failed.items()):
        say(f"Skipped {printable(paths[place])}: {printable(why)}")
    return found


def read_pairs(file: Path, folder: Path, paths: list[str]) -> list[tuple[int, int]]:
    """Read a table of pairs of photographs.

    Parameters
    ----------
    file : Path
        Two paths a line, relative to `folder` or absolute, with a comma between them. A first line "first,second"
        is a head; empty lines are passed over.
    folder : Path
        The photographs.
    paths : list of str
        All of them.

    Returns
    -------
    pairs : list of (int, int)
        Positions in `paths`.

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    ValueError
        If a line is not two of the photographs, or names one twice; the message names file and line.
    """
    if not file.is_file():
        raise FileNotFoundError(f"No such file: {file}.")
    position = {Path(path).resolve(): place for place, path in enumerate(paths)}
    found: list[tuple[int, int]] = []
    with file.open(newline="", encoding="utf-8-sig") as stream:
        lines = csv.reader(stream)
        try:
            for row in lines:
                cells = [cell.strip() for cell in row]
                if not any(cells) or (not found and cells == ["first", "second"]):
                    continue
                found.append(_pair(cells, f"{file}, line {lines.line_num}", folder, position))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}, line {lines.line_num + 1}: no table in UTF-8: {error}.") from error
    if not found:
        raise ValueError(f"{file} has no pairs.")
    return found


def _pair(cells: list[str], where: str, folder: Path, position: dict[Path, int]) -> tuple[int, int]:
    if len(cells) != 2:
        raise ValueError(f"{where}: {len(cells)} values; two paths are needed.")
    places = []
    for cell in cells:
        path = (folder / cell).resolve()
        if path not in position:
            raise ValueError(f"{where}: {cell!r} is no photograph of {folder}.")
        places.append(position[path])
    if places[0] == places[1]:
        raise ValueError(f"{where}: both are the same photograph, {cells[0]!r}.")
    return places[0], places[1]


def _print_table(found: Tuning, top: int) -> None:
    """Print the best settings, the default and the chosen one."""
    choice = found.choice
    order = sorted(found.settings, key=lambda setting: -choice.scores.get(setting, 0.0))
    shown = order[:top] if choice.scores else []
    shown += [setting for setting in (choice.default, choice.chosen) if setting not in shown]
    with_truth = bool(found.true_scores)
    typer.echo(f"{'evidence':>8}  {'mAP':>5}  setting" if with_truth else f"{'evidence':>8}  setting")
    for setting in dict.fromkeys(shown):
        evidence = f"{choice.scores[setting]:8.3f}" if choice.scores else f"{'-':>8}"
        true = f"  {found.true_scores[setting]:5.3f}" if with_truth else ""
        mark = " (default)" if setting == choice.default else ""
        mark += " (chosen)" if setting == choice.chosen else ""
        typer.echo(f"{evidence}{true}  {setting}{mark}")
    left_out = len(found.settings) - len(dict.fromkeys(shown))
    if left_out:
        typer.echo(f"... and {left_out} more settings")
    typer.echo(
        f"Evidence: {choice.n_pairs} pairs of {choice.n_groups} objects; {choice.coverage:.0%} of the photographs "
        "have a mate."
    )
    typer.echo(_conclusion(found))


def _conclusion(found: Tuning) -> str:
    return f"Chosen: {found.choice.chosen}: {found.choice.reason}."
