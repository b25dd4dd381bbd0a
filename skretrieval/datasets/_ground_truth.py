"""The ground truth of the revisited benchmarks, in its published format."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from ._pickles import load_plain_pickle

_MAX_POSITIONS = 4_000_000  # of all queries together: lists can be shared, what is made of them is not


def load_revisited_ground_truth(path: str | os.PathLike) -> Bunch:
    """Read the ground truth of ROxford5k or RParis6k in its published format.

    Nothing that the pickle names is run: see the errors.

    Parameters
    ----------
    path : path
        ``gnd_roxford5k.pkl``, ``gnd_rparis6k.pkl``, or a file of the same format: a dict with `imlist`, `qimlist` and
        `gnd`, a list with a dict of `bbx`, `easy`, `hard` and `junk` for each query.

    Returns
    -------
    ground_truth : :class:`~sklearn.utils.Bunch`
        With the attributes

        imlist : list of str
            The names of the gallery images, without ending.
        qimlist : list of str
            The names of the query images.
        gnd : list of dict
            For each query `easy`, `hard` and `junk`, int64 arrays of positions in `imlist`, and `bbx`, a float64
            array (left, top, right, bottom), or None.

    Raises
    ------
    ValueError
        If the pickle holds anything but plain containers and numpy arrays (the message names what), or is not of
        this format.

    References
    ----------
    Radenović et al., Revisiting Oxford and Paris: large-scale image retrieval benchmarking, CVPR 2018.

    Examples
    --------
    >>> import pickle, tempfile
    >>> from skretrieval.datasets import load_revisited_ground_truth
    >>> query = {"bbx": [0, 0, 9, 9], "easy": [1], "hard": [], "junk": [0]}
    >>> with tempfile.NamedTemporaryFile(suffix=".pkl") as file:
    ...     pickle.dump({"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [query]}, file)
    ...     file.flush()
    ...     load_revisited_ground_truth(file.name).gnd[0]["easy"]
    array([1])
    """
    content = load_plain_pickle(path)
    try:
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}.")
        imlist, qimlist = (_names(content[key], key) for key in ("imlist", "qimlist"))
        gnd = content["gnd"]
        if not isinstance(gnd, list | tuple) or len(gnd) != len(qimlist):
            raise ValueError(f"gnd must be a list of {len(qimlist)} dicts, one for each of qimlist.")
        queries, room = [], _MAX_POSITIONS
        for index, entry in enumerate(gnd):
            queries.append(_query(index, entry, len(imlist), room))
            room -= sum(queries[-1][key].size for key in ("easy", "hard", "junk"))
    except (KeyError, ValueError) as error:
        message = f"it has no {error}" if isinstance(error, KeyError) else str(error).removesuffix(".")
        raise ValueError(f"{path} is no ground truth of the revisited benchmarks: {message}.") from error
    return Bunch(imlist=imlist, qimlist=qimlist, gnd=queries)


def _names(value: Any, key: str) -> list[str]:
    if isinstance(value, np.ndarray) and value.dtype.kind == "U" and value.size <= _MAX_POSITIONS:
        value = value.ravel().tolist()
    if (
        not isinstance(value, list | tuple)
        or not value
        or not all(isinstance(name, str) and name for name in value)
    ):
        raise ValueError(f"{key} must be a list of names.")
    return list(value)


def _numbers(value: Any, room: int, what: str) -> np.ndarray:
    """Return an array, or a list of numbers or of arrays, flat; nothing is copied before its size is known."""
    parts = value if isinstance(value, list | tuple) else [value]
    sizes = [part.size if isinstance(part, np.ndarray) else 1 for part in parts]
    if sum(sizes) > room:
        raise ValueError(f"{what} has {sum(sizes):,} numbers, more than the {room:,} that there may be.")
    if not all(isinstance(part, bool | int | float | np.ndarray) for part in parts):
        raise ValueError(f"{what} must be positions or coordinates, one list of numbers.")
    return np.concatenate([np.ravel(part) for part in parts]) if parts else np.zeros(0)


def _query(index: int, entry: Any, n_images: int, room: int) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"gnd[{index}] is no dict.")
    query: dict[str, Any] = {}
    for key in ("easy", "hard", "junk"):
        values = _numbers(entry[key], min(n_images, room), f"gnd[{index}][{key!r}]")
        room -= values.size
        whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and np.all(values == np.floor(values)))
        if values.size and not whole:
            raise ValueError(f"gnd[{index}][{key!r}] must be positions, got {values.dtype}.")
        if values.size and (values.min() < 0 or values.max() >= n_images):
            raise ValueError(f"gnd[{index}][{key!r}] has positions outside 0 to {n_images - 1}.")
        query[key] = values.astype(np.int64)
    box = entry.get("bbx")
    query["bbx"] = (
        None if box is None else np.asarray(_numbers(box, 4, f"gnd[{index}]['bbx']"), dtype=np.float64)
    )
    if box is not None and (query["bbx"].size != 4 or not np.isfinite(query["bbx"]).all()):
        raise ValueError(f"gnd[{index}]['bbx'] must be four numbers.")
    return query
