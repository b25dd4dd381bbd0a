"""Repeat the evaluations of a result file, and compare photographs and weights with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ._evaluate import as_list, evaluate, load
from ._photo_set import PhotoSet
from ._plain import from_plain
from ._results import Comparison, Evaluation, read_records
from ._workspace import workspace_for

#: What a result may ask of the function that fetches a collection: what is in it, not where it comes from.
_OPTIONS = {"drop_corrupt", "upright", "database", "queries"}


def rerun(
    source: Any,
    *,
    dataset: Any = None,
    whitening_set: Any = None,
    distractors: Any = None,
    data_home: Any = None,
    download: bool = False,
    memory: Any = None,
    weights: Any = None,
    trusted: Collection[str] = (),
    verbose: bool = False,
) -> Evaluation | Comparison:
    """Repeat the evaluations that a result file describes.

    Parameters
    ----------
    source : path, Evaluation or Comparison
        The file, or what was written to it.
    dataset, whitening_set, distractors : str, path or Bunch, default=None
        Where the photographs are now, if not where they were, or if they were given as a Bunch. They must be the
        same photographs: the hashes of file names, contents and ground truth are compared.
    data_home, download, memory, verbose
        As for :func:`evaluate`.
    weights : path, default=None
        Where the state dict is now. It must hold the same weights: the fingerprints are compared.
    trusted : collection of str
        Full names of classes and functions outside skretrieval and scikit-learn that the file may name, such as
        the factory of a network of your own.

    Returns
    -------
    evaluation : Evaluation or Comparison
        New; ``evaluation.differences(old)`` tells what differs. On the same machine and versions nothing does.

    Raises
    ------
    ValueError
        If the file cannot be rerun, or photographs or weights are not those of the result.
    FileNotFoundError
        If there is no such file.
    """
    records = read_records(source)
    given = {"dataset": dataset, "whitening_set": whitening_set, "distractors": distractors}
    pipelines = [_rebuild(record, weights, trusted) for record in records]
    found = []
    options = [from_plain(record["options"]) for record in records]
    twice = any(one["query_params"] or one.get("fit_on") == "halves" for one in options)
    with workspace_for(pipelines, memory, verbose, twice) as workspace:
        for record, pipeline in zip(records, pipelines, strict=True):
            sets = {part: _reload(record, part, given[part], data_home, download) for part in given}
            choices = from_plain(record["options"])
            pairs = choices.pop("whitening_pairs")
            if sets["whitening_set"] is None:  # results from before there was a choice are of the gallery
                choices.setdefault("fit_on", "gallery")
            again = evaluate(
                pipeline,
                sets["dataset"],
                whitening_set=sets["whitening_set"],
                whitening_pairs=None if pairs is None else tuple(np.array(side) for side in pairs),
                distractors=sets["distractors"],
                name=record["name"],
                workspace=workspace,
                **choices,
            )
            was, now = record["weights_fingerprint"], again.record["weights_fingerprint"]
            if was != now and not _learns(pipeline):
                raise ValueError(f"The weights are others than those of the result: {now} instead of {was}.")
            found.append(again)
    return found[0] if len(found) == 1 else Comparison(found)


def _reload(record: Mapping[str, Any], part: str, given: Any, data_home: Any, download: bool) -> Any:
    """Load again what a record names, and compare it with the record."""
    wanted = record[part]
    if not wanted:
        return None
    many = isinstance(wanted, list)
    summaries = wanted if many else [wanted]
    places = [None] * len(summaries) if given is None else as_list(given)
    if len(places) != len(summaries):
        raise ValueError(f"{part}: the result has {len(summaries)}, got {len(places)}.")
    loaded = [_reload_one(part, *pair, data_home, download) for pair in zip(summaries, places, strict=True)]
    return loaded if many else loaded[0]


def _reload_one(
    part: str, summary: Mapping[str, Any], given: Any, data_home: Any, download: bool
) -> PhotoSet:
    source = summary["source"]
    if given is None and source is None:
        raise ValueError(f"{part}: {summary['name']} was given from memory; give it again.")
    place = given
    options = None
    if place is None:
        place = source["name"] if "name" in source else f"folder:{source['folder']}"
        options = source.get("options")
        foreign = sorted(set(options or ()) - _OPTIONS)
        if foreign:
            raise ValueError(f"{part}: {', '.join(foreign)} cannot come from a result.")
    loaded, _ = load(place, data_home, download, options)
    if loaded.digest() != summary["hash"]:
        raise ValueError(
            f"{part}: the photographs or the ground truth of {loaded.name} are others than those of the result "
            f"(hash {loaded.digest()}, expected {summary['hash']})."
        )
    return loaded


def _rebuild(record: Mapping[str, Any], weights: Any, trusted: Collection[str]) -> Pipeline:
    if "steps" not in record["pipeline"]:
        why = record["pipeline"]["why_not_rerunnable"].removesuffix(".")
        raise ValueError(f"{record['name']} cannot be rerun: {why}.")
    pipeline = from_plain(record["pipeline"]["steps"], trusted)
    if weights is not None:
        pipeline.set_params(**{f"{pipeline.steps[0][0]}__weights": str(weights)})
    return pipeline


def _learns(pipeline: Pipeline) -> bool:
    """Whether the extractor learns its weights, in whose fingerprint the last bit may depend on the machine."""
    return isinstance(pipeline.steps[0][1], str) or not hasattr(pipeline.steps[0][1], "weights")
