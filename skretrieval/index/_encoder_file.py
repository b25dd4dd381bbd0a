"""An encoder in a file of its own, which an index can be made with: skops, so that reading it runs no code."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from .._io import atomic_write, hash_array, hash_bytes
from ._encoder import halves_of, pipeline_of
from ._models import load_model, model_bytes


def save_encoder(pipeline: Pipeline, path: str | os.PathLike) -> Path:
    """Write an unfitted Pipeline, for ``skretrieval index --encoder`` and :func:`load_encoder`.

    Parameters
    ----------
    pipeline : Pipeline
        Begins with an extractor. What was fitted is not written: an index fits on its own photographs.
    path : path
        The file; replaced if it is there.

    Returns
    -------
    path : Path
        The file.

    Raises
    ------
    TypeError
        If it is no Pipeline.
    ValueError
        If it does not begin with an extractor, or a step cannot be written by skops.
    """
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"encoder must be a Pipeline, got {type(pipeline).__name__}.")
    whole = clone(pipeline_of(pipeline))
    halves_of(whole)
    content, _ = model_bytes(whole)
    path = Path(path)
    with atomic_write(path) as stream:
        stream.write(content)
    return path


def load_encoder(path: str | os.PathLike, trust: Collection[str] = ()) -> tuple[Pipeline, str]:
    """Read what :func:`save_encoder` wrote.

    Parameters
    ----------
    path : path
        The file.
    trust : collection of str, default=()
        Full names of types that it may hold besides those of this package, scikit-learn and NumPy.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.
    digest : str
        Tells its steps and their parameters; the same for another file of the same Pipeline.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IndexDamagedError
        If it is no file of :func:`save_encoder`, or damaged.
    ValueError
        If it holds types that are not trusted; the message names them.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}.")
    content = path.read_bytes()
    pipeline = load_model(content, path.parent, trust, str(path))
    pipeline = clone(pipeline)
    return pipeline, _digest(pipeline)


def _digest(pipeline: Pipeline) -> str:
    """Hash parameters as they are written out: the files of skops differ from one writing to the next."""
    written = []
    for name, value in sorted(pipeline.get_params().items()):
        if isinstance(value, np.ndarray):
            written.append(f"{name}={hash_array(value)}")
        elif isinstance(value, BaseEstimator):
            written.append(f"{name}={type(value).__module__}.{type(value).__qualname__}")
        elif name != "steps":
            written.append(f"{name}={value!r}")
    return hash_bytes("\n".join(written).encode())
