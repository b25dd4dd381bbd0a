"""A parameter varied over maps that are extracted once, and scored under the protocol of a collection."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from ...postprocessing import DatabaseAugmentation
from .._evaluate import Task, prepare, seeded
from .._photo_set import PhotoSet
from .._pipelines import changed, dimension, failures, frozen, split
from .._rank import rank, take
from .._results import Evaluation
from .._workspace import Run, Workspace


class ProtocolScorer:
    """Score a Pipeline that was fitted on maps by searching a collection, as its protocol says.

    A scorer for ``GridSearchCV`` over maps, with a single split: it fits on the maps of the whitening set, and gives
    the maps of the gallery to be scored on. Steps before the retriever stay as they were fitted; the retriever
    indexes the gallery. The last step of the Pipeline must be a retriever, and the first no extractor.

    Parameters
    ----------
    photographs : PhotoSet
        The collection; its images are not looked at.
    queries : FeatureMaps, default=None
        The maps of its queries; None where gallery items query.
    query_params : dict, default=None
        Parameters of the Pipeline that are others for queries.
    protocol_params : dict, default=None
        Options of the protocol's function.
    """

    def __init__(
        self,
        photographs: PhotoSet,
        queries: Any = None,
        query_params: Mapping[str, Any] | None = None,
        protocol_params: Mapping[str, Any] | None = None,
    ):
        self.photographs = photographs
        self.queries = queries
        self.query_params = dict(query_params or {})
        self.protocol_params = dict(protocol_params or {})
        self.runs: list[Run] = []  # of every call, in order

    def __call__(self, fitted: Pipeline, maps: Any, y: Any = None) -> dict[str, float]:
        """Return the mean of every figure.

        Parameters
        ----------
        fitted : Pipeline
            Fitted on the maps of what is learned from.
        maps : FeatureMaps
            Of the gallery.
        y : ignored
            The ground truth is that of the collection.

        Returns
        -------
        means : dict of str to float
        """
        began = time.perf_counter()
        before, (name, retriever) = fitted[:-1], fitted.steps[-1]
        gallery = before.transform(maps)
        failed = {"gallery": failures(maps), "queries": {}}
        if self.queries is None and not self.query_params:
            asked = take(gallery, self.photographs.query_indices)
        else:
            queries = maps[self.photographs.query_indices] if self.queries is None else self.queries
            with changed(before, self.query_params):
                asked = before.transform(queries)
            failed["queries"] = failures(queries)
        described = time.perf_counter()
        index = clone(retriever).fit(gallery)
        metrics, per_query = rank(index, asked, self.photographs, dict(self.protocol_params))
        seconds = {"describe": described - began, "search": time.perf_counter() - described}
        whole = frozen([*before.steps, (name, index)])
        self.runs.append(Run(whole, metrics, per_query, failed, dimension(gallery), seconds))
        return {metric: figure["mean"] for metric, figure in metrics.items()}


def evaluate_points(
    pipeline: Pipeline,
    dataset: Any,
    argument: str,
    points: Sequence[Any],
    workspace: Workspace,
    *,
    names: Sequence[str],
    data_home: Any = None,
    download: bool = False,
    **params: Any,
) -> list[Evaluation]:
    """Evaluate a Pipeline at some values of a parameter: a ``GridSearchCV`` over maps that are extracted once.

    Parameters
    ----------
    pipeline : Pipeline
        Unfitted; its first step an extractor.
    dataset : str, path or Bunch
        See ``evaluate``.
    argument : str
        A parameter of the steps after the extractor.
    points : sequence
        Its values.
    workspace : Workspace
        Where the maps are cached.
    names : sequence of str
        What to call each.
    data_home, download, **params
        Those of ``evaluate``; not `whitening_pairs`.

    Returns
    -------
    evaluations : list of Evaluation
        One for each value; the figures are those of ``evaluate``.

    Raises
    ------
    ValueError
        If the Pipeline augments the gallery, which has to be done on the gallery and not where whitening is learned.
    """
    steps, rest, _ = split(pipeline)
    if any(isinstance(step, DatabaseAugmentation) for _, step in rest):
        raise ValueError(
            "a Pipeline with DatabaseAugmentation cannot be searched over: it works on the gallery."
        )
    settings = seeded(clone(pipeline))
    task = prepare(dataset, data_home=data_home, download=download, **params)
    overlap = workspace.overlap(task.photographs, task.learning)
    (first, _), *_ = steps
    extractor = workspace.fit_extractor(settings.named_steps[first], task.learning or task.whole)
    runs = _search(settings, first, extractor, task, {argument: list(points)})
    found = []
    for point, name, run in zip(points, names, runs, strict=True):
        run.pipeline.steps[0] = (first, FrozenEstimator(extractor))
        found.append(task.evaluation(clone(settings).set_params(**{argument: point}), run, name, overlap))
    return found


def _search(
    settings: Pipeline, first: str, extractor: Any, task: Task, grid: dict[str, list[Any]]
) -> list[Run]:
    """Fit on the maps of what is learned from, score on those of the gallery."""
    gallery, learning = task.whole, task.learning
    images = [*gallery.images, *(() if learning is None else learning.images)]
    places = np.arange(len(images))
    searched = places[: len(gallery.images)]
    learned = searched if learning is None else places[len(gallery.images) :]
    groups = None if learning is None else learning.groups()
    labels = None if groups is None else np.concatenate([np.repeat(groups[:1], len(searched)), groups])
    scorer = ProtocolScorer(
        gallery,
        None if gallery.queries is None else extractor.transform(gallery.queries),
        task.choices["query_params"],
        task.choices["protocol_params"],
    )
    search = GridSearchCV(
        clone(settings).set_params(**{first: "passthrough"}),
        grid,
        scoring=scorer,
        n_jobs=1,  # the scorer collects what it sees
        cv=[(learned, searched)],
        refit=False,
        error_score="raise",
    )
    with warnings.catch_warnings():  # a level at which no query has a positive
        warnings.filterwarnings("ignore", message=".*test scores are non-finite", category=UserWarning)
        search.fit(extractor.transform(images), labels)
    return scorer.runs
