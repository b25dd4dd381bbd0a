"""Fit Pipelines on one collection and search another; what Pipelines share is computed once."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from ..model_selection import warn_if_overlapping
from ..postprocessing import DatabaseAugmentation
from ._photo_set import PhotoSet
from ._pipelines import (
    changed,
    dimension,
    encoder_key,
    failures,
    fit_augmentations,
    frozen,
    split,
    through,
)
from ._plain import NotPlainError, settings_key
from ._rank import rank, take


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
class _Encoder:
    """A fitted extractor and pooler, or whatever turns items into descriptors."""

    steps: list[tuple[str, Any]]
    settings: str | None = None  # as text; None: not to be shared
    key: str | None = None  # of the settings and what was learned from
    learned: Any = None  # descriptors of what was learned from
    failed: dict[int, str] = field(default_factory=dict)


class Workspace:
    """Runs Pipelines; maps of photographs are extracted once, descriptors pooled once for each pooler.

    Where no place is given for the maps, a temporary folder holds those that one pooler takes twice, as one that
    learns does.

    Parameters
    ----------
    memory : str, path or joblib.Memory, default=None
        Given to the extractors, which cache there the maps of each photograph.
    verbose : bool, default=False
        Show progress bars.
    """

    def __init__(self, memory: Any = None, verbose: bool = False):
        self.memory = memory
        self.verbose = verbose
        self._extractors: dict[str, Any] = {}
        self._encoders: dict[str, _Encoder] = {}
        self._described: dict[tuple[str, ...], tuple[Any, dict[int, str]]] = {}
        self._overlaps: dict[tuple[str, str], int] = {}
        self._lent: list[Any] | None = None  # extractors that use a temporary folder, where it is one

    def forget(self, pipeline: Pipeline) -> None:
        """Drop the descriptors that the extractor and pooler of a Pipeline gave."""
        key = encoder_key(split(pipeline)[0])
        if key is not None:
            self._encoders = {
                name: encoder for name, encoder in self._encoders.items() if encoder.settings != key
            }
            self._described = {
                name: described for name, described in self._described.items() if name[0] != key
            }

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
        labels = source.groups()
        encoder_steps, rest, retriever = split(pipeline)
        encoder = self._fit_encoder(encoder_steps, source)
        fitted, descriptors = self._fit_rest(rest, encoder.learned, labels, pairs, here)
        failed = {"whitening": encoder.failed} if not here else {}
        if here:
            raw, gallery, failed["gallery"] = encoder.learned, descriptors, encoder.failed
        else:
            raw, failed["gallery"] = self._describe(encoder, photographs.images, photographs.key())
            gallery = through(fitted, raw)
        fitted = [
            (name, step if step is not None else clone(given))
            for (name, step), (_, given) in zip(fitted, rest, strict=True)
        ]
        gallery = fit_augmentations(fitted, rest, gallery)
        queries, failed["queries"] = self._queries(encoder, fitted, photographs, raw, gallery, query_params)
        described = time.perf_counter()
        index = clone(retriever).fit(gallery)
        metrics, per_query = rank(index, queries, photographs, dict(protocol_params or {}))
        whole = frozen([*encoder.steps, *fitted, (pipeline.steps[-1][0], index)])
        seconds = {"describe": described - began, "search": time.perf_counter() - described}
        return Run(whole, metrics, per_query, failed, dimension(gallery), seconds)

    def overlap(self, photographs: PhotoSet, learning: PhotoSet | None) -> int | None:
        """Count the test photographs and queries that are learned from, and warn of them, once.

        None where the gallery itself is learned from.
        """
        if learning is None:
            return None
        key = (photographs.key(), learning.key())
        if key not in self._overlaps:
            tested, queries = photographs.images, photographs.queries
            if queries is not None:
                both = (tested, queries)
                arrays = all(isinstance(items, np.ndarray) for items in both)
                tested = np.concatenate(both) if arrays else [*tested, *queries]
            self._overlaps[key] = len(warn_if_overlapping(learning.images, tested, fit_name="whitening set"))
        return self._overlaps[key]

    # ------------------------------------------------------------------ photographs to raw descriptors
    def _fit_encoder(self, steps: list[tuple[str, Any]], source: PhotoSet) -> _Encoder:
        if not steps:
            return _Encoder([], learned=source.images)
        settings = encoder_key(steps)
        key = None if settings is None else f"{settings} {source.key()}"
        if key is not None and key in self._encoders:
            return self._encoders[key]
        (extractor_name, extractor), (pooler_name, pooler) = steps
        extractor = self.fit_extractor(extractor, source)
        pooler = clone(pooler)
        # Poolers that learn take the maps more than once; of those of other packages it is not known.
        with _cached_for_now(extractor if getattr(pooler, "_learns", True) else None):
            maps = _maps(extractor, source.images)
            learned = pooler.fit_transform(maps)
        fitted = [(extractor_name, extractor), (pooler_name, pooler)]
        encoder = _Encoder(fitted, settings, key, learned, failures(maps))
        if key is not None:
            self._encoders[key] = encoder
        return encoder

    def fit_extractor(self, extractor: Any, source: PhotoSet) -> Any:
        """Fit an extractor, or return one that was fitted with the same settings on the same photographs."""
        if isinstance(extractor, str):
            return extractor
        try:
            key = settings_key(extractor, source.key())
        except NotPlainError:
            key = None
        if key is None or key not in self._extractors:
            fitted = clone(extractor)
            usual = fitted.get_params()
            fitted.set_params(verbose=self.verbose or usual["verbose"])
            if self.memory is not None and (self._lent is None or usual["memory"] is None):
                fitted.set_params(memory=self.memory)
                if self._lent is not None:
                    self._lent.append(fitted)
            fitted.fit(source.images)
            if key is None:
                return fitted
            self._extractors[key] = fitted
        return self._extractors[key]

    def _describe(
        self, encoder: _Encoder, items: Any, digest: str, params: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[int, str]]:
        """Return the raw descriptors of some photographs, and which of them could not be read."""
        if not encoder.steps:
            return items, {}
        params = dict(params or {})
        key = None
        if encoder.settings is not None and encoder.key is not None:
            key = (encoder.settings, encoder.key, digest, settings_key(params))
        if key is not None and key in self._described:
            return self._described[key]
        (_, extractor), _ = encoder.steps
        with changed(Pipeline(encoder.steps), params):
            maps = _maps(extractor, items)
            result = encoder.steps[1][1].transform(maps), failures(maps)
        if key is not None:
            self._described[key] = result
        return result

    def _queries(
        self,
        encoder: _Encoder,
        fitted: list[tuple[str, Any]],
        photographs: PhotoSet,
        raw: Any,
        gallery: Any,
        query_params: Mapping[str, Any] | None,
    ) -> tuple[Any, dict[int, str]]:
        """Describe the queries; those that are gallery items as they stand are not described again."""
        query_params = dict(query_params or {})
        names = {name for name, _ in encoder.steps}
        for_encoder = {key: value for key, value in query_params.items() if key.split("__")[0] in names}
        for_rest = {key: value for key, value in query_params.items() if key not in for_encoder}
        failed: dict[int, str] = {}
        items, kind = photographs.queries, "queries"
        if items is None:
            assert (
                photographs.query_indices is not None
            )  # a collection has queries, or says which images they are
            if not query_params:
                return take(gallery, photographs.query_indices), {}
            items, kind = [photographs.images[i] for i in photographs.query_indices], "own"
        if kind == "own" and not for_encoder:
            raw = take(raw, photographs.query_indices)
        else:
            raw, failed = self._describe(encoder, items, f"{photographs.key()}-{kind}", for_encoder)
        with changed(Pipeline(fitted or [("none", "passthrough")]), for_rest):
            return through(fitted, raw), failed

    # ------------------------------------------------------------------ raw descriptors to descriptors
    @staticmethod
    def _fit_rest(
        rest: list[tuple[str, Any]], descriptors: Any, labels: Any, pairs: Any, here: bool
    ) -> tuple[list[tuple[str, Any]], Any]:
        """Fit whitening and the like; what works on the gallery itself waits, as None.

        Labels of what is searched (`here`) teach nothing, so that a step that needs labels is refused.
        """
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
                needs_labels = get_tags(step).target_tags.required
                if here and needs_labels:
                    raise ValueError(
                        f"{name} ({type(step).__name__}) learns from labels, and those of the gallery are what is "
                        "scored: give a whitening_set (--whitening-set) with labels or whitening_pairs."
                    )
                given = None if here else labels
                has_both = hasattr(step, "fit_transform")  # frozen steps have not
                descriptors = (
                    step.fit_transform(descriptors, given)
                    if has_both
                    else step.fit(descriptors, given).transform(descriptors)
                )
            fitted.append((name, step))
        if not used_pairs:
            raise ValueError("whitening_pairs was given, but no step learns from pairs.")
        return fitted, descriptors


@contextmanager
def workspace_for(
    pipelines: Iterable[Pipeline], memory: Any = None, verbose: bool = False, temporary: bool = False
) -> Iterator[Workspace]:
    """Give a Workspace for some Pipelines.

    The maps are cached where it is asked for; else in a temporary folder, if several Pipelines share an extractor or
    `temporary` asks for it.
    """
    if memory is not None:
        yield Workspace(memory, verbose)
        return
    extractors = [
        str(pipeline.steps[0][1]) for pipeline in pipelines if hasattr(pipeline.steps[0][1], "memory")
    ]
    if not temporary and len(extractors) == len(set(extractors)):
        yield Workspace(None, verbose)
        return
    with tempfile.TemporaryDirectory(prefix="skretrieval-maps-") as folder:
        workspace = Workspace(folder, verbose)
        workspace._lent = []
        try:
            yield workspace
        finally:
            for extractor in workspace._lent:
                extractor.set_params(memory=None)


@contextmanager
def _cached_for_now(extractor: Any) -> Iterator[None]:
    """Cache the maps of an extractor in a temporary folder for now, if they are cached nowhere."""
    if (
        extractor is None
        or isinstance(extractor, str)
        or extractor.get_params().get("memory", "") is not None
    ):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="skretrieval-maps-") as folder:
        extractor.set_params(memory=folder)
        try:
            yield
        finally:
            extractor.set_params(memory=None)


def _maps(extractor: Any, items: Any) -> Any:
    return items if isinstance(extractor, str) else extractor.transform(items)
