"""Fitting a Pipeline here and searching there, with everything that two Pipelines share done once."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from ..extraction import FeatureMaps
from ..metrics import evaluate as score_rankings
from ..metrics import standard_error
from ..model_selection import warn_if_overlapping
from ..postprocessing import DatabaseAugmentation
from ..retrieval._base import RetrieverMixin
from ._photo_set import PhotoSet
from ._plain import NotPlainError, to_plain

_BLOCK = 2**22  # ranks held at a time: 32 MB of indices, and as much again while they are scored
_UKBENCH_DEPTH = 4
KAPPAS = (1, 5, 10)


@dataclass
class Run:
    """What one Pipeline did on one collection."""

    pipeline: Pipeline  # fitted; all that learned is frozen
    metrics: dict[str, dict[str, Any]]
    per_query: dict[str, np.ndarray]
    failed: dict[str, dict[int, str]]
    dimension: int
    seconds: dict[str, float]


@dataclass
class _Front:
    """A fitted extractor and pooler, or whatever turns items into descriptors."""

    steps: list[tuple[str, Any]]
    key: str | None  # None: not to be shared
    learned: Any = None  # descriptors of what was learned from
    failed: dict[int, str] = field(default_factory=dict)


class Workspace:
    """Runs Pipelines; maps of photographs are extracted once, descriptors pooled once for each pooler.

    Parameters
    ----------
    memory : str, path or joblib.Memory, default=None
        Given to the extractors, which keep there the maps of each photograph.
    verbose : bool, default=False
        Show progress bars.
    """

    def __init__(self, memory: Any = None, verbose: bool = False):
        self.memory = memory
        self.verbose = verbose
        self._extractors: dict[str, Any] = {}
        self._fronts: dict[str, _Front] = {}
        self._described: dict[tuple[str, ...], tuple[Any, dict[int, str]]] = {}
        self._overlaps: dict[tuple[str, str], int] = {}

    def run(
        self,
        pipeline: Pipeline,
        photographs: PhotoSet,
        learning: PhotoSet | None = None,
        *,
        pairs: Any = None,
        query_params: Mapping[str, Any] | None = None,
        protocol_params: Mapping[str, Any] | None = None,
    ) -> Run:
        """Fit what learns, index the gallery, rank it for each query, and score.

        Parameters
        ----------
        pipeline : Pipeline
            Unfitted; the last step a retriever.
        photographs : PhotoSet
            What to search, and its queries.
        learning : PhotoSet, default=None
            What every step before the retriever is fitted on; None for the gallery, without its labels.
        pairs : tuple of two arrays, default=None
            Matching items of `learning`, for a whitening that learns from pairs.
        query_params : dict, default=None
            Parameters of the Pipeline that are others for queries.
        protocol_params : dict, default=None
            Options of the protocol's function.

        Returns
        -------
        run : Run
        """
        began = time.perf_counter()
        here = learning is None
        source = photographs if learning is None else learning
        labels = None if here else source.groups()
        front_steps, rest, retriever = split(pipeline)
        front = self._fit_front(front_steps, source)
        fitted, descriptors = self._fit_rest(rest, front.learned, labels, pairs)
        failed = {"whitening": front.failed} if not here else {}
        if here:
            gallery, failed["gallery"] = descriptors, front.failed
        else:
            raw, failed["gallery"] = self._describe(front, photographs.images, photographs.digest())
            gallery = _through(fitted, raw)
        fitted = [
            (name, step if step is not None else clone(given))
            for (name, step), (_, given) in zip(fitted, rest, strict=True)
        ]
        gallery = _fit_augmentations(fitted, rest, gallery)
        queries, failed["queries"] = self._queries(front, fitted, photographs, gallery, query_params)
        described = time.perf_counter()
        index = clone(retriever).fit(gallery)
        metrics, per_query = rank(index, queries, photographs, dict(protocol_params or {}))
        frozen = [
            (
                name,
                step
                if step == "passthrough" or isinstance(step, DatabaseAugmentation)
                else FrozenEstimator(step),
            )
            for name, step in [*front.steps, *fitted]
        ]
        whole = Pipeline([*frozen, (pipeline.steps[-1][0], index)])
        seconds = {"describe": described - began, "search": time.perf_counter() - described}
        return Run(whole, metrics, per_query, failed, _dimension(gallery), seconds)

    def overlap(self, photographs: PhotoSet, learning: PhotoSet | None) -> int:
        """Count the test photographs and queries that are learned from, and warn of them, once."""
        if learning is None:
            return 0
        key = (photographs.digest(), learning.digest())
        if key not in self._overlaps:
            tested, queries = photographs.images, photographs.queries
            if queries is not None:
                both = (tested, queries)
                arrays = all(isinstance(items, np.ndarray) for items in both)
                tested = np.concatenate(both) if arrays else [*tested, *queries]
            self._overlaps[key] = len(warn_if_overlapping(learning.images, tested, fit_name="whitening set"))
        return self._overlaps[key]

    # ------------------------------------------------------------------ photographs to raw descriptors
    def _fit_front(self, steps: list[tuple[str, Any]], source: PhotoSet) -> _Front:
        if not steps:
            return _Front([], None, source.images)
        try:
            key = json.dumps([[to_plain(step) for _, step in steps], source.digest()])
        except NotPlainError:
            key = None
        if key is not None and key in self._fronts:
            return self._fronts[key]
        (extractor_name, extractor), (pooler_name, pooler) = steps
        extractor = self._fit_extractor(extractor, source)
        maps = _maps(extractor, source.images)
        pooler = clone(pooler)
        learned = pooler.fit_transform(maps)
        front = _Front([(extractor_name, extractor), (pooler_name, pooler)], key, learned, _failures(maps))
        if key is not None:
            self._fronts[key] = front
        return front

    def _fit_extractor(self, extractor: Any, source: PhotoSet) -> Any:
        """Fit an extractor, or return one that was fitted with the same settings on the same photographs."""
        if isinstance(extractor, str):
            return extractor
        try:
            key = json.dumps([to_plain(extractor), source.digest()])
        except NotPlainError:
            key = None
        if key is None or key not in self._extractors:
            fitted = clone(extractor)
            wanted = {"memory": self.memory} if self.memory is not None else {}
            fitted.set_params(**wanted, verbose=self.verbose or fitted.get_params()["verbose"])
            fitted.fit(source.images)
            if key is None:
                return fitted
            self._extractors[key] = fitted
        return self._extractors[key]

    def _describe(
        self, front: _Front, items: Any, digest: str, params: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[int, str]]:
        """Return the raw descriptors of some photographs, and which of them could not be read."""
        if not front.steps:
            return items, {}
        params = dict(params or {})
        key = None if front.key is None else (front.key, digest, json.dumps(to_plain(params)))
        if key is not None and key in self._described:
            return self._described[key]
        (_, extractor), _ = front.steps
        with changed(Pipeline(front.steps), params):
            maps = _maps(extractor, items)
            result = front.steps[1][1].transform(maps), _failures(maps)
        if key is not None:
            self._described[key] = result
        return result

    def _queries(self, front, fitted, photographs, gallery, query_params) -> tuple[Any, dict[int, str]]:
        """Describe the queries; those that are gallery items as they stand are not described again."""
        query_params = dict(query_params or {})
        names = {name for name, _ in front.steps}
        for_front = {key: value for key, value in query_params.items() if key.split("__")[0] in names}
        for_rest = {key: value for key, value in query_params.items() if key not in for_front}
        items, kind = photographs.queries, "queries"
        if items is None:
            if not query_params:
                return _take(gallery, photographs.query_indices), {}
            items, kind = [photographs.images[i] for i in photographs.query_indices], "own"
        raw, failed = self._describe(front, items, f"{photographs.digest()}-{kind}", for_front)
        with changed(Pipeline(fitted or [("none", "passthrough")]), for_rest):
            return _through(fitted, raw), failed

    # ------------------------------------------------------------------ raw descriptors to descriptors
    @staticmethod
    def _fit_rest(rest, descriptors, labels, pairs) -> tuple[list[tuple[str, Any]], Any]:
        """Fit whitening and the like; what works on the gallery itself waits, as None."""
        fitted: list[tuple[str, Any]] = []
        used_pairs = pairs is None
        for name, step in rest:
            if isinstance(step, DatabaseAugmentation):
                fitted.append((name, None))
                continue
            if step is None or step == "passthrough":
                fitted.append((name, "passthrough"))
                continue
            step = clone(step)
            if pairs is not None and "pairs" in inspect.signature(step.fit).parameters:
                descriptors = step.fit(descriptors, pairs=pairs).transform(descriptors)
                used_pairs = True
            else:
                has_both = hasattr(step, "fit_transform")  # frozen steps have not
                descriptors = (
                    step.fit_transform(descriptors, labels)
                    if has_both
                    else step.fit(descriptors, labels).transform(descriptors)
                )
            fitted.append((name, step))
        if not used_pairs:
            raise ValueError("whitening_pairs was given, but no step learns from pairs")
        return fitted, descriptors


def split(pipeline: Pipeline) -> tuple[list, list, Any]:
    """Split into extractor and pooler (none where descriptors come in), the steps after them, and the retriever.

    Raises
    ------
    TypeError
        If it is no Pipeline that ends in a retriever.
    """
    if not isinstance(pipeline, Pipeline) or not hasattr(pipeline.steps[-1][1], "kneighbors"):
        raise TypeError(f"Expected a Pipeline whose last step is a retriever, got {pipeline!r}")
    *steps, (_, retriever) = pipeline.steps
    has_maps = len(steps) > 1 and (hasattr(steps[0][1], "image_size") or steps[0][0] == "extractor")
    cut = 2 if has_maps else 0
    return steps[:cut], steps[cut:], retriever


@contextmanager
def changed(pipeline: Pipeline, params: Mapping[str, Any]) -> Iterator[None]:
    """Set parameters of a fitted Pipeline for now."""
    usual = {name: pipeline.get_params()[name] for name in params if name in pipeline.get_params()}
    unknown = sorted(set(params) - set(usual))
    if unknown:
        raise ValueError(f"query_params: {unknown} are no parameters of the steps before the retriever")
    pipeline.set_params(**params)
    try:
        yield
    finally:
        pipeline.set_params(**usual)


def rank(
    index: Any, queries: Any, photographs: PhotoSet, params: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Rank the gallery for each query and score, a block of queries at a time.

    Returns
    -------
    metrics : dict of dict
        For each figure its ``mean``, and ``standard_error`` and ``n_queries`` where it is a mean of average
        precisions (or of N-S).
    per_query : dict of ndarray of shape (n_queries,)
        The figures of each query, NaN where it has no positive.
    """
    n, protocol = index.n_samples_fit_, photographs.protocol
    depth, step = n, max(1, _BLOCK // n)
    truth = photographs.ground_truth
    own = photographs.query_indices if photographs.queries is None else None
    n_queries = photographs.n_queries
    if protocol == "ukbench":
        depth, step = min(n, _UKBENCH_DEPTH), n_queries
        params.setdefault("queries", "all" if n_queries == len(truth) else "first")
    else:
        params.setdefault("kappas", KAPPAS)
    blocks: list[tuple[int, dict[str, dict[str, Any]]]] = []
    for start in range(0, n_queries, step):
        stop = min(start + step, n_queries)
        part_own = None if own is None else own[start:stop]
        ranks = _search(index, _take(queries, slice(start, stop)), depth, part_own)
        part = truth if protocol == "ukbench" else truth[start:stop]
        blocks.append((stop - start, score_rankings(ranks, part, protocol, **params)))
    return _joined([figures for _, figures in blocks], protocol, params)


def _joined(blocks: list[dict[str, dict[str, Any]]], protocol: str, params: dict[str, Any]):
    """Put the figures of all blocks together."""
    metrics: dict[str, dict[str, Any]] = {}
    per_query: dict[str, np.ndarray] = {}
    for level in blocks[0]:
        prefix = f"{level}_" if protocol == "revisited" else ""
        name = f"{level}_map" if protocol == "revisited" else level
        values = np.concatenate([np.asarray(block[level]["per_query"], dtype=float) for block in blocks])
        per_query[name] = values
        defined = values[~np.isnan(values)]
        metrics[name] = {
            "mean": float(defined.mean()) if defined.size else float("nan"),
            "standard_error": standard_error(values),
            "n_queries": int(defined.size),
        }
        counts = np.array([block[level]["n_queries"] for block in blocks])
        used = counts > 0
        for place, kappa in enumerate(params.get("kappas", ()) if protocol != "ukbench" else ()):
            means = np.array([block[level]["precision_at"][place] for block in blocks])
            mean = np.average(means[used], weights=counts[used]) if used.any() else np.nan
            metrics[f"{prefix}p@{kappa}"] = {"mean": float(mean), "n_queries": int(defined.size)}
    return metrics, per_query


def _search(index: Any, queries: Any, depth: int, own: np.ndarray | None) -> np.ndarray:
    """Rank the gallery; `own` is the gallery item that each query is, which expansion may want to leave out."""
    if own is None or not isinstance(index, RetrieverMixin):
        return index.kneighbors(queries, n_neighbors=depth, return_distance=False)
    checked = index._index._check_queries(queries)
    return index._search(checked, depth, own)[1]


def _maps(extractor: Any, items: Any) -> Any:
    return items if isinstance(extractor, str) else extractor.transform(items)


def _failures(maps: Any) -> dict[int, str]:
    return dict(maps.failed_) if isinstance(maps, FeatureMaps) else {}


def _through(steps: list[tuple[str, Any]], descriptors: Any) -> Any:
    for _, step in steps:
        if step is not None and step != "passthrough":
            descriptors = step.transform(descriptors)
    return descriptors


def _fit_augmentations(fitted, rest, gallery: Any) -> Any:
    """Fit what works on the gallery itself; it stands right before the retriever."""
    for place, ((_, step), (name, given)) in enumerate(zip(fitted, rest, strict=True)):
        if isinstance(given, DatabaseAugmentation):
            if any(not isinstance(later, DatabaseAugmentation) for _, later in rest[place + 1 :]):
                raise ValueError(f"{name}: DatabaseAugmentation belongs right before the retriever")
            gallery = step.fit_transform(gallery)
    return gallery


def _take(descriptors: Any, which: Any) -> Any:
    if isinstance(which, slice) or not isinstance(descriptors, list | tuple):
        return descriptors[which]
    return [descriptors[i] for i in which]


def _dimension(descriptors: Any) -> int:
    first = descriptors[0] if isinstance(descriptors, list | tuple) else descriptors
    return int(np.shape(first)[-1])


def device_of(pipeline: Pipeline) -> dict[str, Any]:
    """Tell what a fitted Pipeline ran on, and with which weights."""
    extractor: Any = getattr(pipeline.steps[0][1], "estimator", None)
    if not hasattr(extractor, "_device"):
        return {"device": "cpu", "weights_fingerprint": None, "dtype": None}
    device = extractor._device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "weights_fingerprint": extractor.fingerprint_,
        "dtype": getattr(extractor, "dtype", "float32"),
    }
