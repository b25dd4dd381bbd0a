"""Fitted Pipelines on disk: skops for the estimators, safetensors for the weights of networks. Neither runs code."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import skops.io
import sqlalchemy as sa
import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from .. import extraction, pooling, postprocessing, retrieval
from .._io import atomic_write, hash_bytes
from .._linalg import WhiteningAxes
from .._terminal import printable
from ..extraction import ConvFeatureExtractor
from ._rows import sync_folder
from ._table import FILES, OUR_NAME, IndexDamagedError, check_is_regular, transaction

_LARGEST_MODEL, _LARGEST_WEIGHTS = 2**31, 2**36  # bytes; skops unpacks a file in memory


def trusted_types() -> set[str]:
    """Return the full names of the types of this package that a model may hold without being named.

    Estimators, and the tuples in which they keep what they learned: none does anything when it is made. skops itself
    trusts scikit-learn's estimators and NumPy's and SciPy's types.
    """
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in [*own_estimators().values(), WhiteningAxes]}


def own_estimators() -> dict[str, type]:
    """Return the estimators of this package that a Pipeline may have as steps, by name."""
    packages = (extraction, pooling, postprocessing, retrieval)
    kinds = [getattr(package, name) for package in packages for name in package.__all__]
    return {
        kind.__name__: kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseEstimator)
    }


def model_bytes(pipeline: Pipeline) -> tuple[bytes, dict[str, bytes]]:
    """Write a fitted Pipeline.

    Parameters
    ----------
    pipeline : Pipeline
        Of estimators that skops can write: those of this package and of scikit-learn, and others without code of
        their own in their state.

    Returns
    -------
    model : bytes
        A file of skops, without the weights of networks.
    weights : dict of str to bytes
        Files of safetensors by their content's hash, which the model names.

    Raises
    ------
    ValueError
        If skops cannot write a step; the message names it.
    """
    weights: dict[str, bytes] = {}
    steps = []
    for name, step in pipeline.steps:
        if isinstance(step, ConvFeatureExtractor):
            step, tensors = step.without_weights()
            if tensors:
                content = bytes_of({key: tensor.clone().contiguous() for key, tensor in tensors.items()})
                digest = hash_bytes(content)
                weights[digest] = content
                step.weights_digest_ = digest
        steps.append((name, step))
    try:
        return skops.io.dumps(Pipeline(steps)), weights
    except Exception as error:  # skops names what it cannot write in errors of many kinds
        raise ValueError(f"The Pipeline cannot be written to an index: {error}.") from error


def load_model(
    data: bytes, weights_folder: Path, trust: Collection[str] = (), what: str = "The model"
) -> Pipeline:
    """Read what :func:`model_bytes` wrote.

    Parameters
    ----------
    data : bytes
        The file of skops.
    weights_folder : Path
        Where files of weights lie, by their hash.
    trust : collection of str
        Full names of types that may be made besides those of :func:`trusted_types`.
    what : str
        Names the file in messages.

    Returns
    -------
    pipeline : Pipeline
        Fitted.

    Raises
    ------
    IndexDamagedError
        If the file is no model, or weights are missing or changed.
    ValueError
        If it holds types that are not trusted; the message names them.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > _LARGEST_MODEL:
            raise ValueError(f"unpacked it would have {n_bytes} bytes, more than {_LARGEST_MODEL}.")
        unknown = skops.io.get_untrusted_types(data=data)
    except Exception as error:  # whatever a file can be made to raise
        raise IndexDamagedError(f"{what} is damaged: {error!r}.") from error
    refused = sorted(set(unknown) - trusted_types() - set(trust))
    if refused:
        raise ValueError(
            f"{what} holds types that are not trusted: {', '.join(map(printable, refused))}. Name those that you "
            "trust: trust=[...], or --trust TYPE for each."
        )
    try:
        pipeline = skops.io.loads(data, trusted=unknown)
        if not isinstance(pipeline, Pipeline) or not pipeline.steps:
            raise TypeError(f"it holds a {type(pipeline).__name__}.")
        for step in _estimators(pipeline):
            step.get_params()  # an AttributeError if an estimator has got new parameters since
            if hasattr(step, "memory"):
                step.memory = None  # a file does not say from where on this machine is read
        for _, step in pipeline.steps:
            digest = (
                step.__dict__.pop("weights_digest_", None) if isinstance(step, ConvFeatureExtractor) else None
            )
            if digest is not None:
                step.put_weights(_weights(weights_folder, digest, what))
    except IndexDamagedError:
        raise
    except Exception as error:
        raise IndexDamagedError(f"{what} cannot be loaded: {error!r}.") from error
    return pipeline


def _estimators(of: Any) -> list[BaseEstimator]:
    """Return the estimators in an object, at any depth, with those that they were fitted to."""
    found, seen, waiting = [], set(), [of]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, BaseEstimator):
            found.append(part)
            waiting += vars(part).values()
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple | set):
            waiting += part
    return found


def _weights(folder: Path, digest: Any, what: str) -> dict[str, Any]:
    if not isinstance(digest, str) or OUR_NAME.fullmatch(f"weights-{digest}.safetensors") is None:
        raise IndexDamagedError(f"{what} is damaged: it names its weights {digest!r}.")
    file = folder / f"weights-{digest}.safetensors"
    content = _content(file, _LARGEST_WEIGHTS)
    if hash_bytes(content) != digest:
        raise IndexDamagedError(f"{file} is damaged: its content has changed since it was written.")
    return tensors_of(content)


def write_model(engine: sa.Engine, folder: Path, kind: str, content: bytes) -> str:
    """Write a model into the folder of an index; :func:`use_model` says later that it is the one of its kind.

    Returns
    -------
    file : str
        Its name, which tells its content.
    """
    file = f"{kind}-{hash_bytes(content)}.skops"
    _note(engine, folder, file, kind)
    _write(folder, file, content)
    return file


def use_model(connection: sa.Connection, file: str) -> None:
    """Say in the table that a model that was written is the one of its kind."""
    kind = sa.select(FILES.c.kind).where(FILES.c.file == file).scalar_subquery()
    connection.execute(sa.update(FILES).where(FILES.c.kind == kind).values(in_use=False))
    connection.execute(sa.update(FILES).where(FILES.c.file == file).values(in_use=True))


def write_weights(engine: sa.Engine, folder: Path, digest: str, content: bytes) -> str:
    """Write weights into the folder of an index; those that another index of this user holds are linked, not copied.

    Returns
    -------
    file : str
        Its name, which tells its content.
    """
    file = f"weights-{digest}.safetensors"
    _note(engine, folder, file, "weights")
    if _holds(folder / file, content):
        return file
    # No such place, or on another file system: then it is a file of its own.
    with contextlib.suppress(OSError):
        shared = Path(torch.hub.get_dir()).parent / "skretrieval"  # beside what torch caches for this user
        shared.mkdir(parents=True, exist_ok=True)
        if not _holds(shared / file, content):
            with atomic_write(shared / file) as stream:
                stream.write(content)
        (folder / file).unlink(missing_ok=True)
        os.link(shared / file, folder / file)
        sync_folder(folder)
        return file
    _write(folder, file, content)
    return file


def use_weights(connection: sa.Connection, files: Collection[str]) -> None:
    """Say in the table that weights that were written are used."""
    connection.execute(sa.update(FILES).where(FILES.c.file.in_(list(files))).values(in_use=True))


def _note(engine: sa.Engine, folder: Path, file: str, kind: str) -> None:
    """Note a file before it is made, so that what a killed process leaves of it is known as ours."""
    with transaction(engine, folder) as connection:
        if connection.execute(sa.select(FILES.c.kind).where(FILES.c.file == file)).first() is None:
            connection.execute(sa.insert(FILES).values(file=file, kind=kind, in_use=False))


def _holds(path: Path, content: bytes) -> bool:
    try:
        return check_is_regular(path) == len(content) and path.read_bytes() == content
    except FileNotFoundError:
        return False


def _write(folder: Path, file: str, content: bytes) -> None:
    """Write a file under the name that was noted: another one, as for an atomic write, a kill would leave unknown."""
    if _holds(folder / file, content):
        return
    (folder / file).unlink(missing_ok=True)
    with open(folder / file, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(folder)


def read_model(folder: Path, file: str, trust: Collection[str] = ()) -> Pipeline:
    """Read a model of an index, by the name of its file.

    Raises
    ------
    IndexDamagedError
        If it is missing, or its content is not that of which its name tells.
    ValueError
        If it holds types that are not trusted.
    """
    if OUR_NAME.fullmatch(file) is None:
        raise IndexDamagedError(f"{folder} is damaged: its table names a model {file!r}.")
    content = _content(folder / file, _LARGEST_MODEL)
    if hash_bytes(content) not in file:
        raise IndexDamagedError(f"{folder / file} is damaged: its content has changed since it was written.")
    return load_model(content, folder, trust, str(folder / file))


def _content(path: Path, largest: int) -> bytes:
    try:
        size = check_is_regular(path)
        if size > largest:
            raise IndexDamagedError(f"{path} is damaged: it has {size} bytes, more than {largest}.")
        return path.read_bytes()
    except OSError as error:
        raise IndexDamagedError(f"{path} cannot be read: {error.strerror}.") from error
