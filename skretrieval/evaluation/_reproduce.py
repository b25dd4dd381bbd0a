"""The papers' tables run again: what was printed, what comes out here, and what is missing to tell."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._evaluate import evaluate, load
from ._fronts import missing_weights, stand_in
from ._photo_set import ENLARGED, SIBLINGS
from ._plain import to_plain
from ._results import Evaluation, aligned
from ._tables import Sweep, TableRow, paper_sweeps, paper_tables
from ._workspace import Workspace

NO_COUNTERPART = "no counterpart among the recipes"


@dataclass
class Reproduced:
    """One printed figure and ours.

    Parameters
    ----------
    row : TableRow
        The figure as printed; for a point of a sweep, the method names the value.
    ours : float, default=None
        Between 0 and 1 (N-S: 0 and 4); None where it could not be run.
    standard_error : float, default=None
        Over queries.
    missing : tuple of str, default=()
        What it takes to run it: collections, files of weights.
    """

    row: TableRow
    ours: float | None = None
    standard_error: float | None = None
    missing: tuple[str, ...] = ()


@dataclass
class Reproduction:
    """Printed figures and ours, and the evaluations behind them.

    Parameters
    ----------
    rows : list of Reproduced
        In the order of print.
    evaluations : list of Evaluation
        One for each distinct Pipeline and collection; each can be rerun.
    files : dict of str to str
        For each collection that is missing, which files it takes and where they go.
    """

    rows: list[Reproduced] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> Counter:
        """What is missing, and how many figures wait for it."""
        return Counter(what for row in self.rows for what in row.missing)

    def table(self) -> list[list[str]]:
        """Rows of a table of the figures that were run: the head, then one row for each."""
        rows = [["source", "method", "dim", "data set", "figure", "paper", "ours", "difference"]]
        for done in self.rows:
            if done.ours is None:
                continue
            row, scale = done.row, 1 if done.row.unit == "score" else 100
            error = "" if done.standard_error is None else f" ± {scale * done.standard_error:.2f}"
            name = f"{row.method} + {row.qe}" if row.qe else row.method
            figures = [
                f"{scale * row.value:.2f}",
                f"{scale * done.ours:.2f}{error}",
                f"{scale * (done.ours - row.value):+.2f}",
            ]
            rows.append([f"{row.paper} {row.table}", name, row.dimension, row.dataset, row.metric, *figures])
        return rows

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """Write figures and evaluations as JSON, and return the text.

        Parameters
        ----------
        path : path, default=None
            The file to write; None for none.

        Returns
        -------
        text : str
        """
        content = {
            "format": "skretrieval reproduction",
            "format_version": 1,
            "rows": [
                {
                    **{name: value for name, value in vars(done.row).items() if name != "settings"},
                    "settings": done.row.settings,
                    "paper_value": done.row.value,
                    "ours": done.ours,
                    "standard_error": done.standard_error,
                    "missing": list(done.missing),
                }
                for done in self.rows
            ],
            "evaluations": [json.loads(one.to_json())["evaluations"][0] for one in self.evaluations],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def __str__(self) -> str:
        run = sum(done.ours is not None for done in self.rows)
        lines = aligned(self.table()) if run else []
        lines.append(f"{run} of {len(self.rows)} figures were run (percent; N-S as it is)")
        missing = self.missing
        if missing:
            lines += [
                "",
                "Missing",
                *aligned([[f"  {what}", f"{n} figures"] for what, n in missing.most_common()]),
            ]
        if self.files:
            lines += ["", "Collections that are missing are fetched with --download, or by hand:"]
            lines += [f"  {text.splitlines()[0]}" for text in self.files.values()]
            lines.append(
                f"  `skretrieval evaluate --dataset {next(iter(self.files))}` lists the files and addresses."
            )
        return "\n".join(lines)


def reproduce(
    papers: Collection[str] | None = None,
    *,
    methods: Collection[str] | None = None,
    tables: bool = True,
    sweeps: bool = True,
    data_home: Any = None,
    download: bool = False,
    backbone: str | None = None,
    weights: Any = None,
    image_size: int | None = None,
    memory: Any = None,
    verbose: bool = False,
    say: Callable[[str], None] | None = None,
) -> Reproduction:
    """Run the part of the papers' tables whose photographs and weights are here.

    Parameters
    ----------
    papers : collection of str, default=None
        Keys of ``PAPERS``; None for all.
    methods : collection of str, default=None
        Names of recipes; None for all.
    tables, sweeps : bool, default=True
        Whether to run the methods of the tables, and the varied parameters.
    data_home : path, default=None
        Where the collections lie.
    download : bool, default=False
        Whether collections and weights may be downloaded.
    backbone : str, default=None
        Another network in the place of the papers'.
    weights : path, default=None
        A state dict, or a folder with files such as ``vgg16.pth``; None for torchvision's.
    image_size : int, default=None
        Longest side; None for the papers'.
    memory : path, default=None
        Where the maps are kept.
    verbose : bool, default=False
        Show progress bars.
    say : callable, default=None
        Takes a line about each evaluation as it is done.

    Returns
    -------
    reproduction : Reproduction
        Printing it shows paper, ours, difference, and what is missing.

    Raises
    ------
    ValueError
        If a paper is unknown.
    """
    say = say or (lambda line: None)
    result = Reproduction()
    collections = _Collections(data_home, download)
    workspace = Workspace(memory, verbose)
    done: dict[str, Evaluation] = {}
    for row, point in _work(papers, methods, tables, sweeps):
        if not row.recipe:
            result.rows.append(Reproduced(row, missing=(NO_COUNTERPART,)))
            continue
        front = row.pipeline().named_steps["extractor"]
        front = stand_in(front, backbone, _weights_of(front, backbone, weights), image_size)
        pipeline = row.pipeline(front).set_params(**point)
        lacking = [
            *collections.missing(row.dataset, row.evaluate_params),
            *filter(None, [missing_weights(front, download)]),
        ]
        if lacking:
            result.rows.append(Reproduced(row, missing=tuple(lacking)))
            continue
        key = json.dumps([to_plain(pipeline), row.dataset, to_plain(row.evaluate_params)])
        if key not in done:
            done[key] = evaluate(
                pipeline,
                row.dataset,
                data_home=data_home,
                download=download,
                name=str(row),
                workspace=workspace,
                **row.evaluate_params,
            )
            result.evaluations.append(done[key])
            say(f"{row}, {row.dataset}: {done[key].metrics[row.metric]['mean']:.4f} (paper: {row.value:.4f})")
        figure = done[key].metrics[row.metric]
        result.rows.append(Reproduced(row, figure["mean"], figure.get("standard_error")))
    result.files = collections.files()
    return result


def _work(
    papers: Collection[str] | None, methods: Collection[str] | None, tables: bool, sweeps: bool
) -> Iterator[tuple[TableRow, dict[str, Any]]]:
    """Yield every figure, and the parameters that are varied for it."""
    for row in paper_tables(papers) if tables else ():
        if methods is None or row.recipe in methods:
            yield row, {}
    for sweep in paper_sweeps(papers) if sweeps else ():
        if methods is None or sweep.recipe in methods:
            for row, point in points_of(sweep):
                yield row, {sweep.argument: point}


def points_of(sweep: Sweep) -> Iterator[tuple[TableRow, Any]]:
    """Yield the points of a sweep that have a figure, each as the row of a table."""
    for point, printed in zip(sweep.points, sweep.printed, strict=True):
        if printed:
            shared = {
                name: getattr(sweep, name)
                for name in ("paper", "table", "dataset", "metric", "unit", "recipe")
            }
            method = f"{sweep.method}, {sweep.parameter} = {point}"
            row = TableRow(
                **shared,
                method=method,
                dimension="",
                qe="",
                printed=printed,
                settings=sweep.settings,
                note=sweep.note,
            )
            yield row, point


def _weights_of(extractor: Any, backbone: str | None, weights: Any) -> Any:
    """Find the file of a network's weights, where a folder of them is given."""
    if weights is None or not os.path.isdir(weights):
        return weights
    given: Any = getattr(extractor, "backbone", None)
    name = backbone or (given.args[0] if hasattr(given, "args") else given)
    return os.path.join(weights, f"{name}.pth")


class _Collections:
    """Which collections are here, asked once each."""

    def __init__(self, data_home: Any, download: bool):
        self.data_home, self.download = data_home, download
        self._found: dict[str, str] = {}

    def missing(self, dataset: str, params: dict[str, Any]) -> list[str]:
        """Name what an evaluation would need and has not."""
        base = ENLARGED.get(dataset, (dataset,))[0]
        needed = [(dataset, params.get("options"))]
        if params.get("whitening_set") == "sibling":
            needed.append((SIBLINGS[base], None))
        return [name for name, options in needed if self._is_missing(name, options)]

    def files(self) -> dict[str, str]:
        """Return what the data sets say about their missing files."""
        missing = [(json.loads(key)[0], text) for key, text in self._found.items() if text]
        return {ENLARGED.get(name, (name, name))[0]: text for name, text in missing}

    def _is_missing(self, name: str, options: Any) -> bool:
        key = json.dumps([name, options])
        if key not in self._found:
            try:
                load(name, self.data_home, self.download, options)
                self._found[key] = ""
            except OSError as error:
                self._found[key] = str(error)
        return bool(self._found[key])
