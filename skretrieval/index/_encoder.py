"""From a recipe or a Pipeline to the two halves of an index: the encoder, and the search behind it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from .. import recipes
from ..extraction import UnreadableImageWarning
from ..retrieval import NearestNeighborsRetriever

DEFAULT_RECIPE = "grmac"


class Halves(NamedTuple):
    """A Pipeline in two.

    Attributes
    ----------
    encoder : Pipeline
        Photographs to descriptors that do not depend on the other photographs of the index.
    search : Pipeline
        What is fitted on the whole index, and the retriever at its end.
    """

    encoder: Pipeline
    search: Pipeline


def pipeline_of(encoder: str | Pipeline | None) -> Pipeline:
    """Return the Pipeline that an index is made with.

    Parameters
    ----------
    encoder : None, str or Pipeline
        None for the default, the name of a recipe, or a Pipeline that begins with an extractor; one without a
        retriever at its end gets :class:`~skretrieval.retrieval.NearestNeighborsRetriever`.

    Returns
    -------
    pipeline : Pipeline
        With a retriever at its end.

    Raises
    ------
    ValueError
        For the name of no recipe.
    TypeError
        For anything else.
    """
    if encoder is None or isinstance(encoder, str):
        name = DEFAULT_RECIPE if encoder is None else encoder
        if name not in recipes.__all__:
            raise ValueError(f"Unknown recipe {name!r}; there are {', '.join(sorted(recipes.__all__))}.")
        return getattr(recipes, name)(extractor="photographs")
    if not isinstance(encoder, Pipeline):
        raise TypeError(
            f"encoder must be None, the name of a recipe or a Pipeline, got {type(encoder).__name__}."
        )
    if hasattr(encoder.steps[-1][1], "kneighbors"):
        return encoder
    return Pipeline([*encoder.steps, ("retriever", NearestNeighborsRetriever())])


def halves_of(pipeline: Pipeline) -> Halves:
    """Split a Pipeline behind the last step that describes each photograph by itself."""
    cut = 0
    for place, (_, step) in enumerate(pipeline.steps[:-1], start=1):
        tags = get_tags(step)
        if not tags.input_tags.two_d_array or (place == cut + 1 and not tags.requires_fit):
            cut = place
    if cut == 0:
        raise ValueError("The Pipeline has no step that describes photographs: begin it with an extractor.")
    return Halves(pipeline[:cut], pipeline[cut:])


class Described(NamedTuple):
    """The descriptors of some photographs.

    Attributes
    ----------
    rows : ndarray of shape (sum of counts, d)
        One after the other.
    counts : list of int
        Rows of each photograph; 0 for one that could not be read.
    failed : dict of int to str
        Why, by position.
    """

    rows: np.ndarray
    counts: list[int]
    failed: dict[int, str]


def describe(encoder: Pipeline, photographs: list[Any]) -> Described:
    """Describe photographs; those that cannot be read cost nothing but themselves."""
    with leniently(encoder):
        maps = encoder.steps[0][1].transform(photographs)
        described = encoder[1:].transform(maps) if len(encoder) > 1 else maps
    failed = {place: re.sub(r"^Entry \d+ \(.*?\): ", "", text) for place, text in maps.failed_.items()}
    own = {place: np.atleast_2d(described[place]) for place in range(len(photographs)) if place not in failed}
    counts = [len(own.get(place, ())) for place in range(len(photographs))]
    sets = list(own.values())
    return Described(np.concatenate(sets) if sets else np.empty((0, 0), np.float32), counts, failed)


def fitted(encoder: Pipeline, photographs: list[Any]) -> Pipeline:
    """Return a copy of an encoder that has learned from photographs, of which some may be unreadable."""
    encoder = clone(encoder)
    with leniently(encoder):
        return encoder.fit(photographs)


def how_to_run(encoder: Pipeline, device: str, batch_size: int) -> dict[str, Any]:
    """Return the parameters of the extractor that change no result, as those of the encoder."""
    name, extractor = encoder.steps[0]
    params = {"device": device, "batch_size": batch_size}
    return {
        f"{name}__{key}": value for key, value in params.items() if key in extractor.get_params(deep=False)
    }


@contextmanager
def leniently(encoder: Pipeline) -> Iterator[None]:
    """Let unreadable photographs pass, without a warning: the caller lists them."""
    extractor = encoder.steps[0][1]
    usual = extractor.get_params(deep=False).get("on_error")
    extractor.set_params(on_error="warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadableImageWarning)
            yield
    finally:
        extractor.set_params(on_error=usual)
