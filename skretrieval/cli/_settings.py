"""From command-line options to a Pipeline, and to the index that it makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .. import recipes
from ..extraction import ConvFeatureExtractor, ConvKernelExtractor
from ..index import ImageIndex, IndexDamagedError, load_encoder
from ..pooling import keep_signs

#: The recipe that is chosen for the photographs, by `skretrieval tune`.
AUTO = "auto"
_NETWORK = recipes.grmac(extractor="photographs").named_steps["extractor"]
#: The options that decide what an index holds, with their defaults.
DEFAULTS: dict[str, Any] = {
    "recipe": "grmac",
    "extractor": _NETWORK.backbone,
    "weights": "default",
    "size": _NETWORK.image_size,
    "dtype": _NETWORK.dtype,
    "enlarge": _NETWORK.enlarge,
    "whitening": "auto",
    "expand": 0,
}

#: What indexes were made with that do not say so, from before there was the option.
_BEFORE: dict[str, Any] = {"enlarge": True, "dtype": "float32"}


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
        made_with = {**_BEFORE, **base} if base else base
        differing = [name for name, value in chosen.items() if made_with.get(name) != value]
        if differing:
            words = ", ".join(
                f"{name}={made_with.get(name, '(made from Python)')} (asked for: {chosen[name]})"
                for name in differing
            )
            raise ValueError(f"it was made with {words}.")
        return dict(base)
    settings = {**DEFAULTS, **chosen}
    if settings["extractor"] == "kernel":
        # it learns on a CPU, from photographs of its own size
        unfit = [name for name in ("weights", "dtype") if chosen.get(name, DEFAULTS[name]) != DEFAULTS[name]]
        if unfit:
            raise ValueError(
                f"{' and '.join(unfit)} are for networks; the kernel extractor learns from your photographs."
            )
        settings |= {"dtype": "float32", "size": chosen.get("size")}
    if settings["recipe"] not in recipes.__all__:
        raise ValueError(
            f"unknown recipe {settings['recipe']!r}; there are {', '.join(sorted(recipes.__all__))}."
        )
    if settings["whitening"] not in ("none", "auto", "pca", "learned"):
        raise ValueError(f"whitening must be none, pca or learned, or auto, got {settings['whitening']!r}.")
    pipeline = make_pipeline(settings)
    extractor = pipeline.named_steps["extractor"]
    if isinstance(extractor, ConvFeatureExtractor):
        extractor.check_backbone()  # before anything is made
    if pipeline.named_steps["pooler"].takes_tuples:
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
    chosen = {
        name: fixed[last] for name in pipeline.get_params() if (last := name.rpartition("__")[2]) in fixed
    }
    return keep_signs(pipeline.set_params(**chosen))


def _make_extractor(settings: Mapping[str, Any]) -> ConvFeatureExtractor | ConvKernelExtractor:
    size = {} if settings["size"] is None else {"image_size": settings["size"]}
    size["enlarge"] = settings.get("enlarge", _BEFORE["enlarge"])
    if settings["extractor"] == "kernel":
        return ConvKernelExtractor(random_state=0, **size)
    weights = {"default": "DEFAULT", "random": None}.get(settings["weights"], settings["weights"])
    size["dtype"] = settings.get("dtype", _BEFORE["dtype"])
    return ConvFeatureExtractor(settings["extractor"], weights=weights, random_state=0, **size)


def open_or_create(
    out: Path,
    options: Mapping[str, Any],
    *,
    rebuild: bool = False,
    trust: Collection[str] = (),
    encoder: Path | None = None,
    choose: Callable[[], tuple[Pipeline, str]] | None = None,
) -> ImageIndex:
    """Open the index of a folder if its options are those that are asked for, or make one.

    Parameters
    ----------
    out : Path
        The folder of the index.
    options : mapping
        Options of `DEFAULTS`; None leaves the index's, or the default.
    rebuild : bool, default=False
        Begin anew in place of an index that is there, damaged or not; it may have other options.
    trust : collection of str
        Types that its Pipeline may hold besides the usual ones.
    encoder : Path, optional
        The file of a Pipeline, in the place of the options.
    choose : callable, optional
        What recipe "auto" asks for a Pipeline and the words for its setting, where an index is to be made.

    Returns
    -------
    index : ImageIndex
        To be updated.

    Raises
    ------
    FileExistsError
        If the folder holds other things than an index.
    ValueError
        If an option is unknown, or differs from the index's without `rebuild`.
    """
    read = None if encoder is None else load_encoder(encoder, trust)
    if read is not None or options.get("recipe") == AUTO:
        others = [
            name for name, value in options.items() if value is not None and (name, value) != ("recipe", AUTO)
        ]
        if others or (read is not None and options.get("recipe") is not None):
            words = ", ".join(f"--{name}" for name in others or ["recipe"])
            what = "--encoder" if read is not None else "--recipe auto"
            raise ValueError(f"{what} decides all of the encoder: leave out {words}.")

    def made() -> tuple[Pipeline, dict[str, Any]]:
        if read is not None:
            return read[0], {"encoder": read[1]}
        if options.get("recipe") == AUTO and choose is not None:
            pipeline, words = choose()
            return pipeline, {"recipe": AUTO, "chosen": words}
        settings = resolve_settings(options)
        return make_pipeline(settings), settings

    try:
        index = ImageIndex(out, trust=trust)
        if rebuild:
            pipeline, settings = made()
            index.reset(pipeline, settings=settings)
            return index
    except (FileNotFoundError, IndexDamagedError) as error:
        is_damaged = isinstance(error, IndexDamagedError)
        if is_damaged and not rebuild:
            raise
        pipeline, settings = made()
        return ImageIndex.create(out, pipeline, settings=settings, trust=trust, rebuild=is_damaged)
    asked = {"encoder": read[1]} if read is not None else options
    try:
        resolve_settings(asked, index.settings)
    except ValueError as error:
        if len(index) == 0 and not index.skipped():  # made by a command that failed: there is nothing to lose
            pipeline, settings = made()
            index.reset(pipeline, settings=settings)
            return index
        raise ValueError(f"{out}: {error} Give another --out, or --rebuild to start anew.") from error
    return index


def as_scores(retriever: Any, distances: np.ndarray) -> tuple[str, np.ndarray]:
    """Return what to show for distances: the similarity for the cosine, else the distance itself."""
    while hasattr(retriever, "retriever"):  # a wrapper, such as query expansion
        retriever = retriever.retriever
    return ("similarity", 1 - distances) if retriever.metric == "cosine" else ("distance", distances)
