"""Pipelines taken apart, changed for a while, and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from ..extraction import FeatureMaps
from ..postprocessing import DatabaseAugmentation
from ._plain import NotPlainError, settings_key


def split(pipeline: Pipeline) -> tuple[list, list, Any]:
    """Split into extractor and pooler (none where descriptors come in), the steps after them, and the retriever.

    Raises
    ------
    TypeError
        If it is no Pipeline that ends in a retriever.
    """
    if not isinstance(pipeline, Pipeline) or not hasattr(pipeline.steps[-1][1], "kneighbors"):
        raise TypeError(f"Expected a Pipeline whose last step is a retriever, got {pipeline!r}.")
    *steps, (_, retriever) = pipeline.steps
    has_maps = len(steps) > 1 and (hasattr(steps[0][1], "image_size") or steps[0][0] == "extractor")
    cut = 2 if has_maps else 0
    return steps[:cut], steps[cut:], retriever


def encoder_key(steps: list[tuple[str, Any]]) -> str | None:
    """Write the settings of an extractor and a pooler as text, if that is possible."""
    try:
        return settings_key(*(step for _, step in steps))
    except NotPlainError:
        return None


def frozen(steps: list[tuple[str, Any]]) -> Pipeline:
    """Put fitted steps together, so that ``fit`` indexes another gallery without learning anew."""
    *before, last = steps
    held = [
        (
            name,
            step
            if step == "passthrough" or isinstance(step, DatabaseAugmentation)
            else FrozenEstimator(step),
        )
        for name, step in before
    ]
    return Pipeline([*held, last])


@contextmanager
def changed(pipeline: Pipeline, params: Mapping[str, Any]) -> Iterator[None]:
    """Set parameters of a fitted Pipeline for now."""
    usual = {name: pipeline.get_params()[name] for name in params if name in pipeline.get_params()}
    unknown = sorted(set(params) - set(usual))
    if unknown:
        raise ValueError(f"query_params: {unknown} are no parameters of the steps before the retriever.")
    pipeline.set_params(**params)
    try:
        yield
    finally:
        pipeline.set_params(**usual)


def through(steps: list[tuple[str, Any]], descriptors: Any) -> Any:
    """Send descriptors through fitted steps."""
    for _, step in steps:
        if step is not None and step != "passthrough":
            descriptors = step.transform(descriptors)
    return descriptors


def fit_augmentations(fitted: list[tuple[str, Any]], rest: list[tuple[str, Any]], gallery: Any) -> Any:
    """Fit the steps that augment the gallery by itself, which stand right before the retriever."""
    for place, ((_, step), (name, given)) in enumerate(zip(fitted, rest, strict=True)):
        if isinstance(given, DatabaseAugmentation):
            if any(not isinstance(later, DatabaseAugmentation) for _, later in rest[place + 1 :]):
                raise ValueError(f"{name}: DatabaseAugmentation belongs right before the retriever.")
            gallery = step.fit_transform(gallery)
    return gallery


def failures(maps: Any) -> dict[int, str]:
    """Tell which photographs could not be read."""
    return dict(maps.failed_) if isinstance(maps, FeatureMaps) else {}


def dimension(descriptors: Any) -> int:
    """Tell how many numbers describe a photograph, or a region of it."""
    first = descriptors[0] if isinstance(descriptors, list | tuple) else descriptors
    return int(np.shape(first)[-1])


def device_of(pipeline: Pipeline) -> dict[str, Any]:
    """Tell what a fitted Pipeline ran on, and with which weights."""
    extractor: Any = getattr(pipeline.steps[0][1], "estimator", None)
    if not hasattr(extractor, "torch_device"):
        return {"device": "cpu", "weights_fingerprint": None, "dtype": None}
    device = extractor.torch_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "weights_fingerprint": extractor.fingerprint_,
        "dtype": getattr(extractor, "dtype", "float32"),
    }
