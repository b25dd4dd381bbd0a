"""The papers' methods and parameter sweeps on a labelled folder, where their collections are not at hand."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from ...metrics import leave_one_out_map, standard_error
from .._evaluate import evaluate
from .._halves import split_in_halves, subset
from .._photo_set import PhotoSet, load_photo_set
from .._plain import settings_key
from .._workspace import Workspace, workspace_for
from ._adapt import Adapter
from ._folder_results import FolderReproduction, FolderRow, FolderSweep
from ._tables import Sweep, TableRow, paper_sweeps, paper_tables

_LOG = logging.getLogger("skretrieval.evaluation")

#: Methods that take minutes for a hundred photographs, and how they come by that.
SLOW = {"mop_cnn": "about 60 runs of the network per photograph"}
_MEANS = {"map": "", "ns": "", "easy_map": " easy", "medium_map": " medium"}


def reproduce_on_folder(
    folder: Any,
    papers: Collection[str] | None = None,
    *,
    methods: Collection[str] | None = None,
    tables: bool = True,
    sweeps: bool = True,
    slow: bool = False,
    backbone: str | None = None,
    weights: Any = None,
    image_size: int | None = None,
    memory: Any = None,
    verbose: bool = False,
    say: Callable[[str], None] | None = None,
) -> FolderReproduction:
    """Run the papers' methods and sweeps on labelled photographs, to see whether their trends hold there.

    The labels are split in two halves. What a method learns it learns on one half; each photograph of the other half
    then queries the rest of it, and the reverse. Sweeps are a ``GridSearchCV`` over the maps with the same two folds
    and :func:`~skretrieval.metrics.leave_one_out_map` as the score.

    Parameters
    ----------
    folder : str, path or Bunch
        Labelled photographs, see :func:`evaluate`.
    papers : collection of str, default=None
        Keys of ``PAPERS``; None for all.
    methods : collection of str, default=None
        Names of recipes; None for all.
    tables, sweeps : bool, default=True
        Whether to run the methods of the tables, and the varied parameters.
    slow : bool, default=False
        Whether to run the methods that take minutes too.
    backbone : str, default=None
        A torchvision network in the place of the papers'; its last layers stand for theirs.
    weights : "DEFAULT", "random" or path, default=None
        Its weights.
    image_size : int, default=None
        Longest side in pixels; several resolutions are scaled in proportion.
    memory : path, default=None
        Where the maps are cached; None for a temporary folder.
    verbose : bool, default=False
        Show progress bars.
    say : callable, default=None
        Takes a line about each method as it is done; None logs it.

    Returns
    -------
    reproduction : FolderReproduction

    Raises
    ------
    ValueError
        If the folder has no labels, or fewer than two photographs of four labels.
    """
    say = say or _LOG.info
    printed, varied = paper_tables(papers), paper_sweeps(papers)
    photographs = load_photo_set(folder)
    halves = split_in_halves(photographs)
    network = backbone or "the papers' networks"
    size = image_size or "as in the papers"
    result = FolderReproduction(
        f"{photographs.name}: {len(photographs.images)} photographs, {network}, longest side {size}"
    )
    adapt = Adapter(photographs, halves, backbone, weights, image_size, result.notes)
    with workspace_for((), memory, verbose, temporary=True) as workspace, _noted(result.notes):
        if tables:
            rows = [row for row in printed if methods is None or row.recipe in methods]
            _run_tables(
                result,
                rows,
                slow,
                adapt,
                [subset(photographs, half) for half in halves],
                workspace,
                say,
            )
        if sweeps:
            chosen = [sweep for sweep in varied if methods is None or sweep.recipe in methods]
            _run_sweeps(result, chosen, adapt, photographs, halves, workspace, say)
    return result


def _run_tables(
    result: FolderReproduction,
    rows: list[TableRow],
    slow: bool,
    adapt: Adapter,
    halves: list[Any],
    workspace: Workspace,
    say: Callable[[str], None],
) -> None:
    """Run each distinct method of the tables once."""
    done: dict[str, Any] = {}
    methods: dict[tuple, FolderRow] = {}
    for row in rows:
        if not row.recipe or row.metric not in _MEANS or _other_network(row):
            continue
        if row.recipe in SLOW and not slow:
            result.skipped[row.recipe] = f"{SLOW[row.recipe]}; ask for it with slow"
            continue
        if row.recipe in result.skipped:
            continue
        pipeline = adapt(row.recipe, row.settings)
        key = settings_key(pipeline)
        if key not in done:
            try:
                done[key] = _on_halves(pipeline, str(row), halves, workspace)
            except (ImportError, ValueError) as error:
                result.skipped[row.recipe] = str(error)
                continue
            result.evaluations += done[key][2]
            say(f"{row}: {done[key][0]:.4f}")
        name = f"{row.paper} {row.method}" + (f" + {row.qe}" if row.qe else "")
        name += f" ({row.dimension})" if row.dimension else ""
        mean, spread, _ = done[key]
        method = methods.setdefault((name, key), FolderRow(name, row.recipe, {}, mean, spread, key))
        whole = "" if row.evaluate_params.get("crop_queries", True) else " full"
        method.printed[f"{row.paper} {row.table}", f"{row.dataset}{_MEANS[row.metric]}{whole}"] = row.value
    result.rows = list(methods.values())


def _on_halves(
    pipeline: Pipeline, name: str, halves: list[Any], workspace: Workspace
) -> tuple[float, float, list]:
    """Learn on one half and search the other, both ways: mean and standard error over all queries."""
    pairs = (halves, halves[::-1])
    found = [
        evaluate(pipeline, here, whitening_set=there, name=name, workspace=workspace) for here, there in pairs
    ]
    values = np.concatenate([one.per_query["map"] for one in found])
    return float(np.nanmean(values)), standard_error(values), found


def _run_sweeps(
    result: FolderReproduction,
    sweeps: list[Sweep],
    adapt: Adapter,
    photographs: PhotoSet,
    halves: list[Any],
    workspace: Workspace,
    say: Callable[[str], None],
) -> None:
    """Search each grid over maps that are extracted once."""
    done: dict[str, tuple[list[float], list[float]]] = {}
    labels = np.asarray(photographs.labels)
    folds = [(halves[1], halves[0]), (halves[0], halves[1])]
    for sweep in sweeps:
        if _other_network(sweep):
            continue
        pipeline = adapt(sweep.recipe, sweep.settings, sweep.argument)
        if sweep.argument not in pipeline.get_params():
            result.skipped[f"{sweep}"] = f"{sweep.argument} is of a step that was left out"
            continue
        key = settings_key(pipeline, sweep.argument, list(sweep.points))
        if key not in done:
            given = pipeline.named_steps["extractor"]
            pipeline.set_params(extractor="passthrough")
            scores = []
            for learned, searched in folds:
                # an extractor that learns does so on one half, as the other steps
                extractor = workspace.fit_extractor(given, subset(photographs, learned))
                grid = GridSearchCV(
                    pipeline,
                    {sweep.argument: list(sweep.points)},
                    scoring=leave_one_out_map,
                    cv=[(learned, searched)],
                    refit=False,
                    error_score="raise",
                ).fit(extractor.transform(photographs.images), labels)
                scores.append(grid.cv_results_["mean_test_score"])
            done[key] = (np.mean(scores, axis=0).tolist(), np.std(scores, axis=0).tolist())
            say(f"{sweep}: {', '.join(f'{score:.4f}' for score in done[key][0])}")
        result.sweeps.append(FolderSweep(sweep, *done[key]))


def _other_network(row: Any) -> bool:
    """Tell rows of a second network of a paper apart: one network stands for all."""
    return row.settings.get("extractor", {}).get("backbone") in ("alexnet", "resnet101")


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """Turn warnings into notes, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        if text not in notes:
            notes.append(text)
