"""Evaluate Pipelines under the protocols of the literature, and rerun what was evaluated."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import scipy
import sklearn
import torch
import torchvision
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from .._version import __version__
from ._halves import choose, run_on_halves, steps_that_learn, told, without_whitening
from ._photo_set import ENLARGED, SIBLINGS, PhotoSet, enlarge, load_photo_set
from ._pipelines import device_of, split
from ._plain import NotPlainError, to_plain
from ._results import Comparison, Evaluation
from ._workspace import Run, Workspace, workspace_for


def evaluate(
    pipeline: Pipeline,
    dataset: Any,
    *,
    whitening_set: Any = None,
    whitening_pairs: Any = None,
    fit_on: str | None = None,
    distractors: Any = None,
    crop_queries: bool = True,
    query_params: Mapping[str, Any] | None = None,
    protocol_params: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    data_home: Any = None,
    download: bool = False,
    memory: Any = None,
    random_state: int = 0,
    name: str | None = None,
    verbose: bool = False,
    workspace: Workspace | None = None,
) -> Evaluation:
    """Evaluate a Pipeline on a collection of photographs, under the collection's protocol.

    Parameters
    ----------
    pipeline : Pipeline
        Unfitted, such as the recipes return; the last step is a retriever. It is cloned.

    dataset : str, path or Bunch
        What to search: the name of a published collection ("oxford5k", "paris6k", "roxford5k", "rparis6k",
        "holidays", "ukbench", or "oxford105k" and "paris106k" with Flickr100k in the gallery); a folder whose
        sub-folders are labels, or a table in one, see :func:`~skretrieval.datasets.load_image_folder`; or a Bunch
        with `images`, `queries`, `query_indices`, `ground_truth` and `protocol`. In a labelled folder without
        queries of its own each photograph queries all others.

    whitening_set : "sibling", str, path or Bunch, default=None
        Where every step before the retriever is fitted: whitening, codebooks, region axes, a network that learns.
        "sibling" is Paris6k for Oxford5k and the reverse, the same for the revisited ones, and Oxford5k for Holidays.
        Its labels, or groups of mutual positives, are given to steps that learn from labels. None: see `fit_on`.

    whitening_pairs : tuple of two arrays of int, default=None
        Matching photographs of `whitening_set`, for ``LearnedWhitening``.

    fit_on : "gallery", "halves" or None, default=None
        Where steps are fitted without a `whitening_set`. "halves": on one half of the objects (labels), and the other
        half is searched and scored, both ways, with and without whitening. "gallery": on the gallery itself, without
        its labels, which flatters. None takes the halves of labelled photographs if a step besides the extractor
        learns (whitening, codebooks), and the gallery else, also for published protocols.

    distractors : str, path, Bunch or list of them, default=None
        Photographs to add to the gallery.

    crop_queries : bool, default=True
        False gives whole photographs where the protocol has boxes.

    query_params : dict, default=None
        Parameters of the Pipeline that differ for queries, such as ``{"pooler__regions": "whole"}`` for
        regional second-order pooling, whose queries are whole photographs.

    protocol_params : dict, default=None
        Options of the protocol: ``kappas``, ``method``, ``precision`` of the functions of
        :mod:`skretrieval.metrics`.

    options : dict, default=None
        Options of the function that fetches `dataset`: ``upright`` or ``database`` of Holidays, ``queries`` of UKB.

    data_home : path, default=None
        Where published collections lie.

    download : bool, default=False
        Whether to download what is missing of them.

    memory : str, path or joblib.Memory, default=None
        Where the extractor caches the maps of each photograph. None: photographs that a step learns from in several
        passes have their maps in a temporary folder meanwhile, so that each goes through the network once.

    random_state : int, default=0
        Given to every step whose `random_state` is None, so that the result can be rerun.

    name : str, default=None
        What to call the Pipeline in tables.

    verbose : bool, default=False
        Show progress bars.

    workspace : Workspace, default=None
        Shares what was extracted and pooled between calls; ``compare`` makes one.

    Returns
    -------
    evaluation : Evaluation
        Figures with standard errors over queries, those of each query, every setting, versions and hashes;
        ``to_json`` writes them, and :func:`rerun` does it again. ``record["fitted_on"]`` says what was fitted on what;
        with "halves" the Pipeline is that of the first half, and ``record["unwhitened"]`` has the figures without
        whitening.

    Warns
    -----
    UserWarning
        If queries or gallery images are in `whitening_set` too.

    Raises
    ------
    ValueError
        If a collection cannot be used for what it was given for: no queries to score, no sibling known, no halves
        (fewer than four labels, or queries of its own) where a step would learn from what is scored; or an option is
        unknown.
    OSError
        If files are missing; for published collections the message says which and where they go.
    TypeError
        If `pipeline` does not end in a retriever.

    Examples
    --------
    Descriptors may stand for photographs where the Pipeline has neither extractor nor pooler:

    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import Normalizer
    >>> from skretrieval.evaluation import evaluate
    >>> from skretrieval.retrieval import NearestNeighborsRetriever
    >>> labels = np.arange(12) % 3
    >>> images = np.eye(3)[labels] + 0.1 * np.random.default_rng(0).random((12, 3))
    >>> pipeline = make_pipeline(Normalizer(), NearestNeighborsRetriever())
    >>> evaluation = evaluate(pipeline, {"images": images, "labels": labels}, name="cosine")
    >>> evaluation.metrics["map"]["mean"]
    1.0
    """
    split(pipeline)
    settings = seeded(clone(pipeline), random_state)
    task = prepare(
        dataset,
        whitening_set=whitening_set,
        whitening_pairs=whitening_pairs,
        distractors=distractors,
        crop_queries=crop_queries,
        query_params=query_params,
        protocol_params=protocol_params,
        options=options,
        data_home=data_home,
        download=download,
    )
    how = choose(fit_on, [settings], task.photographs, task.learning is not None)
    twice = bool(query_params) and task.whole.queries is None  # gallery items are described for queries again
    twice = twice or how == "halves"
    given = workspace_for([settings], memory, verbose, twice) if workspace is None else nullcontext(workspace)
    both = {"query_params": query_params, "protocol_params": protocol_params}
    with given as used:
        if how == "halves":
            run = run_on_halves(used, settings, task.photographs, task.added, **both)
            plain = without_whitening(settings)
            bare = plain and run_on_halves(used, plain, task.photographs, task.added, **both).metrics
            return task.evaluation(settings, run, name, None, how, bare)
        overlap = used.overlap(task.photographs, task.learning)
        run = used.run(
            settings,
            task.whole,
            task.learning,
            pairs=whitening_pairs,
            **both,
        )
    return task.evaluation(settings, run, name, overlap, how)


@dataclass(frozen=True)
class Task:
    """The collection, distractors, learning sets and options of an evaluation."""

    photographs: PhotoSet
    whole: PhotoSet  # with the distractors, and queries as they are asked
    learning: PhotoSet | None
    added: list[PhotoSet]
    choices: dict[str, Any]

    def evaluation(
        self,
        settings: Pipeline,
        run: Run,
        name: str | None,
        overlap: int | None,
        how: str | None = None,
        unwhitened: dict[str, Any] | None = None,
    ) -> Evaluation:
        """Write down what a Pipeline did, and everything that it depends on."""
        how = how or ("gallery" if self.learning is None else "whitening_set")
        learning = steps_that_learn(settings)
        choices = {**self.choices, "fit_on": None if how == "whitening_set" else how}
        record = {
            "name": name or "pipeline",
            "pipeline": _pipeline_record(settings),
            "dataset": {**self.photographs.summary(), "n_images": len(self.whole.images)},
            "whitening_set": None if self.learning is None else self.learning.summary(),
            "overlap": overlap,
            "distractors": [more.summary() for more in self.added],
            "options": to_plain(choices),
            "fitted_on": {"how": how, "steps": learning, "told": told(how, learning, unwhitened)},
            "unwhitened": unwhitened,
            "dimension": run.dimension,
            **device_of(run.pipeline),
            "versions": versions(),
            "failed": {
                part: {str(place): why for place, why in found.items()} for part, found in run.failed.items()
            },
            "seconds": run.seconds,
            "metrics": run.metrics,
            "per_query": {metric: _plain_values(values) for metric, values in run.per_query.items()},
        }
        return Evaluation(record, run.pipeline)


def prepare(
    dataset: Any,
    *,
    whitening_set: Any = None,
    whitening_pairs: Any = None,
    distractors: Any = None,
    crop_queries: bool = True,
    query_params: Mapping[str, Any] | None = None,
    protocol_params: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    data_home: Any = None,
    download: bool = False,
) -> Task:
    """Load what an evaluation takes; the arguments are those of ``evaluate``."""
    photographs, base_name = load(dataset, data_home, download, options)
    if photographs.n_queries == 0:
        raise ValueError(f"{photographs.name} has neither queries nor labels: nothing can be scored.")
    asked = photographs if crop_queries else photographs.uncropped()
    added = [_load_one(more, data_home, download) for more in as_list(distractors)]
    learning = _learning_set(whitening_set, base_name, data_home, download)
    if whitening_pairs is not None and learning is None:
        raise ValueError("whitening_pairs are photographs of a whitening_set, and none is given.")
    choices = {
        "crop_queries": crop_queries,
        "query_params": dict(query_params or {}),
        "protocol_params": dict(protocol_params or {}),
        "whitening_pairs": None
        if whitening_pairs is None
        else [np.asarray(side).tolist() for side in whitening_pairs],
    }
    return Task(photographs, enlarge(asked, added) if added else asked, learning, added, choices)


def compare(
    pipelines: Mapping[str, Pipeline], dataset: Any, *, memory: Any = None, **options: Any
) -> Comparison:
    """Evaluate several Pipelines on the same collection; photographs go through each network once.

    Parameters
    ----------
    pipelines : dict of str to Pipeline
        What to compare, by name.
    dataset : str, path or Bunch
        See :func:`evaluate`.
    memory : str, path or joblib.Memory, default=None
        Where the maps are cached. None: in a temporary folder while the comparison runs, where several Pipelines have
        the same extractor (VGG16's pool5 of a photograph of 1024 pixels takes 1.5 MB).
    **options
        The other arguments of :func:`evaluate`, alike for all.

    Returns
    -------
    comparison : Comparison
        Its table marks what is significantly best (paired randomisation test over queries). Where one Pipeline learns
        and `fit_on` is None, all are scored on the same halves.

    Raises
    ------
    ValueError
        If there is no Pipeline; else as :func:`evaluate`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from skretrieval.evaluation import compare
    >>> from skretrieval.retrieval import NearestNeighborsRetriever
    >>> images = {"images": np.array([[0, 1.0], [0, 5.0], [1, 0.1], [2, 0.1]]), "labels": [0, 0, 1, 1]}
    >>> retrievers = {metric: NearestNeighborsRetriever(metric=metric) for metric in ("cosine", "euclidean")}
    >>> pipelines = {metric: make_pipeline(retriever) for metric, retriever in retrievers.items()}
    >>> compare(pipelines, images)["cosine"].metrics["map"]["mean"]
    1.0
    """
    if not pipelines:
        raise ValueError("There is no Pipeline to compare.")
    twice = bool(options.get("query_params"))
    if options.get("fit_on") is None and options.get("whitening_set") is None:
        # all on the same galleries: halves for all as soon as one of them learns
        photographs, _ = load(
            dataset, options.get("data_home"), options.get("download", False), options.get("options")
        )
        options["fit_on"] = choose(None, pipelines.values(), photographs, False)
    with workspace_for(pipelines.values(), memory, options.get("verbose", False), twice) as workspace:
        return Comparison(
            [
                evaluate(pipeline, dataset, name=name, workspace=workspace, **options)
                for name, pipeline in pipelines.items()
            ]
        )


# ---------------------------------------------------------------------------------------------------- collections
def load(dataset: Any, data_home: Any, download: bool, options: Any) -> tuple[PhotoSet, str]:
    if isinstance(dataset, str) and dataset in ENLARGED:
        base, more = ENLARGED[dataset]
        photographs = load_photo_set(base, data_home=data_home, download=download, options=options)
        added = load_photo_set(more, data_home=data_home, download=download)
        whole = enlarge(photographs, [added])
        source = {"name": dataset, "options": dict((photographs.source or {}).get("options", {}))}
        return PhotoSet(**{**vars(whole), "name": dataset, "source": source, "_digest": []}), base
    photographs = load_photo_set(dataset, data_home=data_home, download=download, options=options)
    return photographs, photographs.name


def _load_one(dataset: Any, data_home: Any, download: bool) -> PhotoSet:
    return load_photo_set(dataset, data_home=data_home, download=download)


def _learning_set(whitening_set: Any, base_name: str, data_home: Any, download: bool) -> PhotoSet | None:
    if whitening_set is None:
        return None
    if isinstance(whitening_set, str) and whitening_set == "sibling":
        if base_name not in SIBLINGS:
            raise ValueError(
                f"no sibling of {base_name!r} is known; there are those of {', '.join(SIBLINGS)}. Name a whitening_set."
            )
        whitening_set = SIBLINGS[base_name]
    return load_photo_set(whitening_set, data_home=data_home, download=download)


def as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


# ---------------------------------------------------------------------------------------------------- pipelines
def seeded(pipeline: Pipeline, random_state: int = 0) -> Pipeline:
    """Give every step without a seed one."""
    params = pipeline.get_params(deep=True)
    unseeded = [
        name for name, value in params.items() if value is None and name.split("__")[-1] == "random_state"
    ]
    return pipeline.set_params(**dict.fromkeys(unseeded, random_state))


def _pipeline_record(pipeline: Pipeline) -> dict[str, Any]:
    try:
        return {"steps": to_plain(pipeline)}
    except NotPlainError as error:
        return {"text": repr(pipeline), "why_not_rerunnable": str(error)}


def versions() -> dict[str, str]:
    """Versions of everything that figures depend on."""
    modules: Sequence[Any] = (np, scipy, sklearn, torch, torchvision, joblib)
    found = {module.__name__: module.__version__ for module in modules}
    return {"python": platform.python_version(), "skretrieval": __version__, **found}


def _plain_values(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
