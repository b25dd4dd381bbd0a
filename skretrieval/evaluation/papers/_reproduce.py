"""Run the papers' tables again: printed figures, ours, and what is missing for the others."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from sklearn.pipeline import Pipeline

from ..._io import write_text
from .._encoders import stand_in
from .._evaluate import evaluate, load
from .._photo_set import ENLARGED, SIBLINGS
from .._pipelines import encoder_key, split
from .._plain import settings_key
from .._results import Evaluation, aligned, finite
from .._workspace import Workspace, workspace_for
from ._sweeps import evaluate_points
from ._tables import Sweep, TableRow, paper_sweeps, paper_tables

_LOG = logging.getLogger("skretrieval.evaluation")

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
        One for each distinct Pipeline and collection; each can be rerun. Without the fitted Pipelines.
    files : dict of str to str
        For each collection that is missing, which files it takes and where they go.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.
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
        text = json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False)
        if path is not None:
            write_text(path, text + "\n")
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

    Parameters that were varied are a ``GridSearchCV`` over the maps with one split: what learns is fitted on the
    whitening set, and the collection is searched and scored under its protocol.

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
        Where the maps are cached; None for a temporary folder, on the disk that ``TMPDIR`` names. Each photograph goes
        through each network once (VGG16's pool5 of a photograph of 1024 pixels takes 1.5 MB).
    verbose : bool, default=False
        Show progress bars.
    say : callable, default=None
        Takes a line about each evaluation as it is done; None logs it.

    Returns
    -------
    reproduction : Reproduction
        Printing it shows paper, ours, difference, and what is missing.

    Raises
    ------
    ValueError
        If a paper is unknown.
    """
    say = say or _LOG.info
    printed = [row for row in paper_tables(papers) if tables and (methods is None or row.recipe in methods)]
    varied = [
        sweep for sweep in paper_sweeps(papers) if sweeps and (methods is None or sweep.recipe in methods)
    ]
    with workspace_for((), memory, verbose, temporary=True) as workspace:
        runner = _Runner(workspace, data_home, download, (backbone, weights, image_size), say)
        runner.run_tables(printed)
        for sweep in varied:
            runner.run_sweep(sweep)
    runner.result.files = runner.collections.files()
    return runner.result


class _Runner:
    """Runs figures one after the other, and each distinct one once."""

    def __init__(self, workspace: Workspace, data_home: Any, download: bool, network: tuple, say: Callable):
        self.workspace, self.network, self.say = workspace, network, say
        self.places = {"data_home": data_home, "download": download}
        self.collections = _Collections(data_home, download)
        self.result = Reproduction()
        self._done: dict[str, list[Evaluation]] = {}

    def run_tables(self, rows: list[TableRow]) -> None:
        """Run the methods, grouped by extractor and pooler; the descriptors of a group are dropped at its end."""
        pipelines = [self._pipeline(row) if row.recipe else None for row in rows]
        alike: dict[str | None, list[int]] = {}
        for place, pipeline in enumerate(pipelines):
            alike.setdefault(encoder_key(split(pipeline)[0]) if pipeline else None, []).append(place)
        done = [Reproduced(row, missing=(NO_COUNTERPART,)) for row in rows]
        for places in alike.values():
            for place in places:
                pipeline = pipelines[place]
                if pipeline is not None:
                    (done[place],) = self._run([rows[place]], pipeline, rows[place], {})
            if pipelines[places[-1]] is not None:
                self.workspace.forget(pipelines[places[-1]])
        self.result.rows += done

    def run_sweep(self, sweep: Sweep) -> None:
        """Run the points of a sweep that have a figure."""
        pairs = list(points_of(sweep))
        if pairs:
            rows, points = map(list, zip(*pairs, strict=True))
            self.result.rows += self._run(rows, self._pipeline(sweep), rows[0], {sweep.argument: points})

    def _run(
        self, rows: list[TableRow], pipeline: Pipeline, row: TableRow, grid: dict[str, list[Any]]
    ) -> list[Reproduced]:
        """Evaluate once, or at each point of a grid of one parameter; `rows` are the figures."""
        params = row.evaluate_params
        waits = _missing_weights(pipeline.named_steps["extractor"], self.places["download"])
        lacking = [*self.collections.missing(row.dataset, params), *filter(None, [waits])]
        if lacking:
            return [Reproduced(one, missing=tuple(lacking)) for one in rows]
        key = settings_key(pipeline, row.dataset, params, grid)
        if key not in self._done:
            given: dict[str, Any] = {**params, **self.places, "workspace": self.workspace}
            if grid:
                ((argument, points),) = grid.items()
                names = [str(one) for one in rows]
                each = evaluate_points(pipeline, row.dataset, argument, points, names=names, **given)
            else:
                each = [evaluate(pipeline, row.dataset, name=str(row), **given)]
            # without the fitted Pipelines, each of which holds the descriptors of a gallery
            self._done[key] = [Evaluation(one.record) for one in each]
            self.result.evaluations += self._done[key]
            for one, evaluation in zip(rows, self._done[key], strict=True):
                ours = evaluation.metrics[one.metric]["mean"]
                self.say(f"{one}, {one.dataset}: {ours:.4f} (paper: {one.value:.4f})")
        found = []
        for one, evaluation in zip(rows, self._done[key], strict=True):
            figure = evaluation.metrics[one.metric]
            if math.isnan(figure["mean"]):
                found.append(Reproduced(one, missing=(f"positives of a query of {one.dataset}",)))
            else:
                found.append(Reproduced(one, figure["mean"], figure.get("standard_error")))
        return found

    def _pipeline(self, row: TableRow | Sweep) -> Pipeline:
        """Build the Pipeline of a row or sweep, with another network if that is asked for."""
        backbone, weights, image_size = self.network
        network = row.pipeline().named_steps["extractor"]
        return row.pipeline(stand_in(network, backbone, _weights_of(network, backbone, weights), image_size))


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


def _missing_weights(extractor: Any, download: bool) -> str | None:
    """Tell which file of weights an extractor lacks; one that learns its own weights needs none."""
    return extractor.missing_weights(download) if hasattr(extractor, "missing_weights") else None


def _weights_of(extractor: Any, backbone: str | None, weights: Any) -> Any:
    """Find the file of a network's weights, where a folder of them is given."""
    if weights is None or not os.path.isdir(weights):
        return weights
    given: Any = getattr(extractor, "backbone", None)
    name = backbone or (given.args[0] if hasattr(given, "args") else given)
    return os.path.join(weights, f"{name}.pth")


class _Collections:
    """Tells which collections are on this machine; each is looked up once."""

    def __init__(self, data_home: Any, download: bool):
        self.data_home, self.download = data_home, download
        self._found: dict[str, str] = {}

    def missing(self, dataset: str, params: dict[str, Any]) -> list[str]:
        """Name what is missing for an evaluation."""
        base = ENLARGED.get(dataset, (dataset,))[0]
        needed = [(base, params.get("options")), *((more, None) for more in ENLARGED.get(dataset, ())[1:])]
        if params.get("whitening_set") == "sibling":
            needed.append((SIBLINGS[base], None))
        return [name for name, options in needed if self._is_missing(name, options)]

    def files(self) -> dict[str, str]:
        """Return what the data sets say about their missing files."""
        return {json.loads(key)[0]: text for key, text in self._found.items() if text}

    def _is_missing(self, name: str, options: Any) -> bool:
        key = json.dumps([name, options])
        if key not in self._found:
            try:
                load(name, self.data_home, self.download, options)
                self._found[key] = ""
            except (OSError, ValueError) as error:  # not there, or unpacked in part
                self._found[key] = str(error)
        return bool(self._found[key])
