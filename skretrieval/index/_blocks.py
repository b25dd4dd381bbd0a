"""The arrays of an index block by block: they are merged, post-processed and written without being held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import gen_batches, get_tags

from .._region_sets import ragged_arange
from ._image_index import IndexedImage, split_regions
from ._writing import write_file

# Numbers in a block: 4 MiB of float32.
_BLOCK_ELEMENTS = 2**20

Block = tuple[np.ndarray, np.ndarray]


def write_blocks(file: Path, n_rows: int, blocks: Iterable[Block]) -> dict:
    """Write an array as .npy from its blocks.

    Parameters
    ----------
    file : Path
        What to write.
    n_rows : int
        Rows of the whole array.
    blocks : iterable of (places, rows)
        Rows and their ascending row numbers; together the whole array. Blocks may come in any order.

    Returns
    -------
    record : dict
        For the manifest.
    """

    # Written, not mapped: a full disk is then an error, where writing to a mapped file would end the process.
    def write(stream):
        header: dict[str, Any] = {}
        for places, rows in blocks:
            if not header:
                header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (n_rows, rows.shape[1])}
                np.lib.format.write_array_header_1_0(stream, header)
                first = stream.tell()
            if (rows.dtype.str, rows.shape[1]) != (header["descr"], header["shape"][1]):
                raise ValueError(
                    f"{file.name}: blocks of {header['descr']} x {header['shape'][1]} and {rows.dtype.str} x "
                    f"{rows.shape[1]} do not form one array."
                )
            runs = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
            for start, stop in pairwise(runs):
                stream.seek(first + int(places[start]) * rows.shape[1] * rows.itemsize)
                stream.write(np.ascontiguousarray(rows[start:stop]).data)

    return write_file(file, write)


def merge(parts: Sequence[tuple[Any, int, int]]) -> Iterator[Block]:
    """Put rows of several arrays one after another.

    Parameters
    ----------
    parts : sequence of (source, start, stop)
        Rows `start` to `stop` of an array, or of the .npy file at a path. A file is read once, whole, and one at a
        time: thousands of small ones would be thousands of open files, if they were mapped.

    Yields
    ------
    places : ndarray of shape (m,)
        Where some rows stand in the whole, ascending.
    rows : ndarray of shape (m, d)
        These rows.
    """
    starts = np.array([start for _, start, _ in parts])
    counts = np.array([stop for _, _, stop in parts]) - starts
    places = np.cumsum(counts) - counts
    by_source: dict[int, list[int]] = {}
    for number, (source, _, _) in enumerate(parts):
        by_source.setdefault(id(source), []).append(number)
    for members in by_source.values():
        source = parts[members[0]][0]
        array = np.load(source, allow_pickle=False) if isinstance(source, Path) else source
        widest = int(counts[members].max()) * array.shape[1]
        for batch in gen_batches(len(members), max(1, _BLOCK_ELEMENTS // max(1, widest))):
            own = np.array(members[batch])
            taken = array[ragged_arange(starts[own], counts[own])]
            yield ragged_arange(places[own], counts[own]), taken


def fit_search(
    search: Pipeline,
    rows: np.ndarray,
    images: list[IndexedImage],
    keep: Callable[[int, Iterable[Block]], np.ndarray],
) -> Iterator[Block]:
    """Fit all steps of `search` but the retriever on the gallery, and return the gallery's final descriptors.

    Parameters
    ----------
    search : Pipeline
        Post-processing and the retriever.
    rows : ndarray of shape (n_rows, d)
        The gallery as pooled, mapped from its file.
    images : list of IndexedImage
        In the order of the rows. Their labels are used if all have one. Where descriptors are region sets, steps get
        lists of arrays, of all images at once.
    keep : callable
        Takes a number of rows and blocks, writes them to a file and returns them mapped: what a step is fitted on,
        if steps before it changed the rows.

    Returns
    -------
    blocks : iterator of (places, rows)
        The final descriptors, row after row.
    """
    post = search[:-1]
    labels = [image.label for image in images]
    y = np.array(labels) if all(labels) else None
    if images[0].n_regions is not None:
        sets = split_regions(rows, images)
        return _numbered(map(np.asarray, post.fit_transform(sets, y) if len(post) else sets))
    waiting: list = []  # fitted steps that `rows` has not been through
    for _, step in post.steps:
        if not get_tags(step).requires_fit:
            # What it makes of a row doesn't depend on the others; it only wants to know their length.
            step.fit(next(_transformed(rows[:1], waiting)))
        else:
            if waiting:
                rows, waiting = keep(len(rows), _numbered(_transformed(rows, waiting))), []
            step.fit(rows, y)
        waiting.append(step)
    return _numbered(_transformed(rows, waiting))


def _transformed(rows: np.ndarray, steps: list) -> Iterator[np.ndarray]:
    for block in gen_batches(len(rows), max(1, _BLOCK_ELEMENTS // rows.shape[1])):
        part: Any = rows[block]
        for step in steps:
            part = step.transform(part)
        yield np.asarray(part)


def _numbered(parts: Iterable[np.ndarray]) -> Iterator[Block]:
    first = 0
    for part in parts:
        yield np.arange(first, first + len(part)), part
        first += len(part)
