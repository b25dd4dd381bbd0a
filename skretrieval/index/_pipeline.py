"""From command-line options to a Pipeline, and the Pipeline's three parts."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .. import recipes
from ..extraction import ConvFeatureExtractor, ConvKernelExtractor, UnreadableImageWarning

#: The options that decide what an index holds, with their defaults.
DEFAULTS: dict[str, Any] = {
    "recipe": "grmac",
    "extractor": "kernel",
    "weights": "default",
    "size": None,
    "whitening": "none",
    "expand": 0,
}


def resolve_settings(given: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Complete the given options (those that are not None) by those of an index, or by the defaults.

    Raises
    ------
    ValueError
        If one is unknown, or differs from what the index was made with.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if "weights" in chosen and chosen["weights"] not in ("default", "random"):
        chosen["weights"] = os.path.abspath(chosen["weights"])
    if base is not None:
        differing = [name for name, value in chosen.items() if base[name] != value]
        if differing:
            words = ", ".join(f"{name}={base[name]} (asked for: {chosen[name]})" for name in differing)
            raise ValueError(f"it was made with {words}")
        return dict(base)
    settings = {**DEFAULTS, **chosen}
    if settings["recipe"] not in recipes.__all__:
        raise ValueError(
            f"unknown recipe {settings['recipe']!r}; there are {', '.join(sorted(recipes.__all__))}."
        )
    if settings["whitening"] not in ("none", "pca", "learned"):
        raise ValueError(f"whitening must be none, pca or learned, got {settings['whitening']!r}.")
    if settings["extractor"] == "kernel" and settings["weights"] != "default":
        raise ValueError(
            "weights are for torchvision networks; the kernel extractor learns from your photographs."
        )
    if make_pipeline(settings).named_steps["pooler"]._layers:
        raise ValueError(
            f"recipe {settings['recipe']!r} wants several layers or resolutions; use it from Python."
        )
    return settings


def make_pipeline(settings: Mapping[str, Any]) -> Pipeline:
    """Make the unfitted Pipeline of some settings."""
    pipeline = getattr(recipes, settings["recipe"])(
        extractor=_make_extractor(settings),
        whitening=None if settings["whitening"] == "none" else settings["whitening"],
        expand=settings["expand"] or None,
    )
    # codebooks come out alike each time; the index keeps dense rows
    fixed = {"random_state": 0, "sparse_output": False}
    return pipeline.set_params(
        **{
            name: fixed[name.rpartition("__")[2]]
            for name in pipeline.get_params()
            if name.rpartition("__")[2] in fixed
        }
    )


def _make_extractor(settings: Mapping[str, Any]) -> ConvFeatureExtractor | ConvKernelExtractor:
    size = {} if settings["size"] is None else {"image_size": settings["size"]}
    if settings["extractor"] == "kernel":
        return ConvKernelExtractor(random_state=0, **size)
    weights = {"default": "DEFAULT", "random": None}.get(settings["weights"], settings["weights"])
    return ConvFeatureExtractor(settings["extractor"], weights=weights, random_state=0, **size)


def split_pipeline(pipeline: Pipeline) -> tuple[Pipeline, Pipeline]:
    """Split into the encoder (photographs to raw descriptors) and the search (all after the pooler)."""
    cut = list(pipeline.named_steps).index("pooler") + 1
    return pipeline[:cut], pipeline[cut:]


def describe_files(
    encoder: Pipeline, files: list[str]
) -> tuple[np.ndarray, list[int] | None, dict[int, str]]:
    """Describe photographs; those that cannot be read are left out.

    Parameters
    ----------
    encoder : Pipeline
        Fitted extractor and pooler.
    files : list of str
        The photographs.

    Returns
    -------
    rows : ndarray of shape (n_rows, d)
        The descriptors of the readable photographs, in order.
    n_regions : list of int, or None
        Rows of each readable photograph, where descriptors are region sets.
    failed : dict
        Position of each unreadable photograph, and why.
    """
    with leniently(encoder):
        maps = encoder.steps[0][1].transform(files)
        described = encoder[1:].transform(maps)
    failed = {position: _reason(text, files[position]) for position, text in maps.failed_.items()}
    good = [position for position in range(len(files)) if position not in failed]
    if isinstance(described, np.ndarray):
        return described[good], None, failed
    sets = [np.asarray(described[position]) for position in good]
    rows = np.concatenate(sets) if sets else np.empty((0, 0), dtype=np.float32)
    return rows, [len(rows) for rows in sets], failed


@contextmanager
def leniently(encoder: Pipeline, **params: Any) -> Iterator[None]:
    """Let unreadable photographs pass, without a warning: the caller lists them. Set other parameters for now, too."""
    extractor = encoder.steps[0][1]
    params = {"on_error": "warn", **params}
    usual = {name: extractor.get_params()[name] for name in params}
    extractor.set_params(**params)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadableImageWarning)
            yield
    finally:
        extractor.set_params(**usual)


def _reason(text: str, file: str) -> str:
    """Drop "Entry 3 (path): " from a message: the list of skipped files says the path."""
    _, found, rest = text.partition(f"({file}): ")
    return rest if found else re.sub(r"^Entry \d+: ", "", text)
