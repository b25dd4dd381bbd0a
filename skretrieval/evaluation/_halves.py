"""What is learned is learned on other photographs than those that are scored: one half of the objects each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from ..metrics import ground_truth_from_labels, standard_error
from ..postprocessing import DatabaseAugmentation, LearnedWhitening, PCAWhitening
from ._photo_set import PhotoSet, enlarge
from ._pipelines import split
from ._rank import take
from ._workspace import Run, Workspace

FIT_ON = ("gallery", "halves")
_WAYS = (
    "Give a whitening_set (--whitening-set FOLDER) to learn from, or fit_on='gallery' (--fit-on gallery) to learn from "
    "the photographs that are scored, which flatters"
)


def split_in_halves(photographs: PhotoSet) -> list[np.ndarray]:
    """Split labelled photographs in two by label: the positions of each half.

    Raises
    ------
    ValueError
        If there are no labels, or too few.
    """
    if photographs.protocol != "labels" or photographs.labels is None or photographs.queries is not None:
        raise ValueError(f"{photographs.name}: labels are needed (sub-folders), and no queries of its own.")
    labels = np.asarray(photographs.labels)
    names, counts = np.unique(labels, return_counts=True)
    if np.count_nonzero(counts > 1) < 4:
        raise ValueError(f"{photographs.name}: at least four labels with two photographs each are needed.")
    first = np.isin(labels, names[::2])
    return [np.flatnonzero(first), np.flatnonzero(~first)]


def subset(photographs: PhotoSet, positions: np.ndarray) -> PhotoSet:
    """Return labelled photographs at some positions, a collection of its own."""
    labels = np.asarray(photographs.labels)[positions]
    return replace(
        photographs,
        images=take(list_or_array(photographs.images), positions),
        labels=labels,
        query_indices=np.arange(len(positions)),
        ground_truth=ground_truth_from_labels(labels),
        source=None,
        _digest=[],
    )


def list_or_array(images: Any) -> Any:
    """Return a table of descriptors as it is, any other sequence as a list."""
    return images if isinstance(images, np.ndarray) else list(images)


def steps_that_learn(pipeline: Pipeline) -> list[str]:
    """Name the steps between the extractor and the retriever that learn from the photographs they are fitted on.

    Codebooks, whitening, selected features. An extractor that learns (``ConvKernelExtractor``) is not among them: its
    filters fit the textures of a collection, without labels and before any descriptor.
    """
    encoder, rest, _ = split(pipeline)
    found = [name for name, pooler in encoder[1:] if getattr(pooler, "_learns", False)]
    for name, step in rest:
        idle = (
            step is None or step == "passthrough" or isinstance(step, DatabaseAugmentation | FrozenEstimator)
        )
        if not idle and get_tags(step).requires_fit:
            found.append(name)
    return found


def choose(fit_on: str | None, pipelines: Iterable[Pipeline], photographs: PhotoSet, elsewhere: bool) -> str:
    """Decide what steps are fitted on: "whitening_set", "gallery" or "halves".

    Raises
    ------
    ValueError
        If `fit_on` is unknown or goes with a whitening set, or halves are needed and impossible.
    """
    if fit_on is not None and fit_on not in FIT_ON:
        raise ValueError(f"fit_on must be one of {', '.join(FIT_ON)} or None, got {fit_on!r}.")
    if elsewhere:
        if fit_on is not None:
            raise ValueError(f"fit_on={fit_on!r} and a whitening_set: give one of them.")
        return "whitening_set"
    learning = sorted({name for pipeline in pipelines for name in steps_that_learn(pipeline)})
    published = photographs.protocol != "labels" or "name" in (photographs.source or {})
    if fit_on == "gallery" or (fit_on is None and (published or not learning)):
        return "gallery"
    try:
        split_in_halves(photographs)
    except ValueError as error:
        what = (
            f"{', '.join(learning)} would be fitted on the photographs that are scored"
            if learning
            else "fit_on"
        )
        raise ValueError(
            f"{what}, and halves of the objects are impossible: {str(error).rstrip('.')}. {_WAYS}."
        ) from error
    return "halves"


def run_on_halves(
    workspace: Workspace, pipeline: Pipeline, photographs: PhotoSet, added: Sequence[PhotoSet], **options: Any
) -> Run:
    """Fit on one half of the objects and score the other, both ways; figures are over all photographs.

    Parameters
    ----------
    workspace : Workspace
        Runs the halves.
    pipeline : Pipeline
        Unfitted.
    photographs : PhotoSet
        Labelled, each querying all others of its half.
    added : sequence of PhotoSet
        Distractors, which join the gallery of each half.
    **options
        ``query_params`` and ``protocol_params`` of ``Workspace.run``.

    Returns
    -------
    run : Run
        Its Pipeline is the one that was fitted on the second half and holds the first.
    """
    positions = split_in_halves(photographs)
    parts = [subset(photographs, half) for half in positions]
    runs = [
        workspace.run(clone(pipeline), enlarge(here, added) if added else here, there, **options)
        for here, there in (parts, parts[::-1])
    ]
    per_query = {name: np.full(len(photographs.images), np.nan) for name in runs[0].per_query}
    for run, half in zip(runs, positions, strict=True):
        for name, values in run.per_query.items():
            per_query[name][half] = values
    metrics: dict[str, dict[str, Any]] = {}
    for name in runs[0].metrics:
        each = [run.metrics[name] for run in runs]
        counts = [figure["n_queries"] for figure in each]
        if name in per_query:
            values = per_query[name]
            mean = float(np.nanmean(values)) if any(counts) else float("nan")
            metrics[name] = {"mean": mean, "standard_error": standard_error(values), "n_queries": sum(counts)}
        else:
            total = sum(figure["mean"] * figure["n_queries"] for figure in each if figure["n_queries"])
            mean = total / sum(counts) if any(counts) else float("nan")
            metrics[name] = {"mean": mean, "n_queries": sum(counts)}
    seconds = {part: sum(run.seconds[part] for run in runs) for part in runs[0].seconds}
    return replace(
        runs[0], metrics=metrics, per_query=per_query, failed=_failures(runs, positions), seconds=seconds
    )


def _failures(runs: Sequence[Run], positions: Sequence[np.ndarray]) -> dict[str, dict[int, str]]:
    """Collect which photographs could not be read, by their places in the whole collection."""
    found: dict[int, str] = {}
    for run, half in zip(runs, positions, strict=True):
        for place, why in run.failed.get("gallery", {}).items():
            if place < len(half):
                found[int(half[place])] = why
    return {"gallery": dict(sorted(found.items())), "queries": {}}


def without_whitening(pipeline: Pipeline) -> Pipeline | None:
    """Return the same Pipeline without whitening, or None if it has none that can be left out."""
    plain = clone(pipeline)
    changed = {
        name: "passthrough" for name, step in plain.steps if isinstance(step, PCAWhitening | LearnedWhitening)
    }
    changed |= {
        name: False
        for name, value in plain.get_params().items()
        if name.rpartition("__")[2] == "whiten" and value is True
    }
    return plain.set_params(**changed) if changed else None


def told(how: str, learning: Sequence[str], unwhitened: Any) -> str | None:
    """Say in a line what was fitted on what; None where there is nothing to say."""
    names = ", ".join(learning)
    if how == "halves":
        beside = ""
        if unwhitened is not None:
            name, figure = next(iter(unwhitened.items()))
            beside = f"; without whitening {name} is {figure['mean']:.4f} on the same halves"
        fitted = f"{names} fitted on one half of the objects" if names else "one half of the objects"
        return f"{fitted}, the other half scored, both ways{beside}"
    if how == "gallery" and names:
        return f"{names} fitted on the photographs that are scored: the figure flatters"
    return None
