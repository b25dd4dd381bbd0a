"""INRIA Holidays: as published, or upright."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from sklearn.utils import Bunch

from .._io import move_into_place
from ..extraction import read_orientation
from ._registry import HOLIDAYS, HOLIDAYS_UPRIGHT, Archive
from ._store import Options, by_stem, described, fetch

_SCENE = 100  # numbers of a scene's photographs: 123400 is the query, 123401, 123402 ... the others
_ORIENTATION = 0x0112
_CLOCKWISE = {0: 1, 90: 6, 180: 3, 270: 8}  # the EXIF orientation that shows a photograph turned by so much


def fetch_holidays(
    *,
    database: str = "all",
    upright: bool = False,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    progress: bool = True,
    mirrors: str | Sequence[str] | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    keep_archives: bool = False,
) -> Bunch:
    """Load INRIA Holidays, downloading it if necessary (2.8 GB).

    Parameters
    ----------
    database : {"all", "non_queries"}, default="all"
        The gallery: all 1,491 photographs, each query being ignored in its own ranking; or only the 991 that are no
        queries, which scores higher.

    upright : bool, default=False
        Turn photographs that lie on their side, by the published table of MultiGrain: copies in the folder
        ``upright`` carry the turn as their EXIF orientation, which the extractors apply; their pixels are not encoded
        anew. They are about a fifth of all.

    data_home : path, default=None
        Where the data sets lie; None for the environment variable ``SKRETRIEVAL_DATA``, or ``~/skretrieval_data``.

    download_if_missing : bool, default=True
        Download what is missing. False raises an error that says which files to put where.

    progress : bool, default=True
        Show progress bars.

    mirrors : str or sequence of str, default=None
        Base addresses to try before the known ones; the name of the file is appended.

    n_retries : int, default=3
        How many attempts in a row may bring nothing new before the next server is asked. A download that was cut is
        continued, in this call or a later one.

    delay : float, default=1.0
        Seconds before the first of these attempts; doubled for each one after it.

    keep_archives : bool, default=False
        Keep the archives that were downloaded once they are unpacked.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : list of str
            The gallery, sorted by number.
        queries : list of str
            The first photograph of each scene, sorted by number.
        query_names : list of str
            Their numbers.
        query_indices : ndarray of shape (n_queries,), or None
            Where each query is in the gallery; None with ``database="non_queries"``.
        ground_truth : list of dict
            For each query the positions `positives` and `junk` (the query itself), int64 arrays; and `query`, its
            own position, which ``evaluate_holidays(database="non_queries")`` asks for: not with
            ``database="non_queries"`` here, where no query is in the gallery.
        protocol : str
            ``"holidays"``.
        name : str
            ``"holidays"`` or ``"holidays_upright"``.
        DESCR : str
            What it is, protocol, citation, licence.

    Raises
    ------
    OSError
        If files are missing and may not, or cannot, be downloaded. The message lists each with its addresses, size,
        hash and place.

    ValueError
        If an archive is refused, or photographs that the ground truth names are missing.

    References
    ----------
    H. Jégou, M. Douze and C. Schmid, Hamming embedding and weak geometric consistency for large scale image search,
    ECCV 2008. Upright: M. Berman et al., MultiGrain: a unified image embedding for classes and instances,
    arXiv:1902.05509.
    """
    if database not in ("all", "non_queries"):
        raise ValueError(f"database must be 'all' or 'non_queries', got {database!r}.")
    options = Options(data_home, download_if_missing, progress, mirrors, n_retries, delay, keep_archives)
    dataset = HOLIDAYS_UPRIGHT if upright else HOLIDAYS
    places = fetch(dataset, options)
    photographs = by_stem([places[piece.folder] for piece in dataset.pieces if isinstance(piece, Archive)])
    for name, path in photographs.items():
        if not name.isdecimal():
            raise ValueError(f"{path} is called neither 100000.jpg nor a number like it.")
    if upright:
        table = places["holidays-rotate.yaml"]
        photographs = _upright(photographs, _read_rotations(table), table.parent / "upright")
    numbers = np.array([int(name) for name in photographs])
    is_query = numbers % _SCENE == 0
    names, paths = list(photographs), list(photographs.values())
    gallery = np.arange(len(numbers)) if database == "all" else np.flatnonzero(~is_query)
    scenes = numbers[gallery] // _SCENE
    own = np.flatnonzero(is_query)
    if not own.size or not gallery.size:
        raise ValueError(f"{own.size} queries and {gallery.size} gallery images: both are needed.")
    ground_truth: list[dict[str, Any]] = []
    for number in numbers[own]:
        same, itself = scenes == number // _SCENE, numbers[gallery] == number
        ground_truth.append(
            {
                "positives": np.flatnonzero(same & ~itself).astype(np.int64),
                "junk": np.flatnonzero(itself).astype(np.int64),
            }
        )
        if database == "all":
            ground_truth[-1]["query"] = int(np.flatnonzero(itself)[0])
    return Bunch(
        images=[paths[index] for index in gallery],
        queries=[paths[index] for index in own],
        query_names=[names[index] for index in own],
        query_indices=own.astype(np.int64) if database == "all" else None,
        ground_truth=ground_truth,
        protocol="holidays",
        name=dataset.name,
        DESCR=described(dataset, len(gallery), len(own)),
    )


def _read_rotations(path: Path) -> dict[str, int]:
    """Read the table: lines of ``"100600.jpg": 90,``, degrees clockwise."""
    table = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if text in ("", "{", "}"):
            continue
        match = re.fullmatch(r'"?(\d+)\.jpg"?\s*:\s*(0|90|180|270)\s*,?', text)
        if match is None:
            raise ValueError(f"{path}, line {number}: expected a file and its rotation, got {text[:80]!r}.")
        table[match[1]] = int(match[2])
    return table


def _upright(photographs: dict[str, str], rotations: dict[str, int], folder: Path) -> dict[str, str]:
    """Copy the photographs that must be turned, or that carry a turn which the table doesn't know of.

    The table was made for the pixels as they are stored, so it replaces what a camera wrote.
    """
    result, needed = {}, {}
    for name, path in photographs.items():
        turn = _CLOCKWISE[rotations.get(name, 0)]
        written = read_orientation(path)
        result[name] = path
        if turn != written:
            needed[name] = turn
            result[name] = str(folder / f"{name}.jpg")
    if needed and not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.partial")
        with filelock.FileLock(folder.parent / ".lock"):
            if not folder.is_dir():  # another process may have made it
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                for name, turn in needed.items():
                    data = Path(photographs[name]).read_bytes()
                    (partial / f"{name}.jpg").write_bytes(with_orientation(data, turn))
                move_into_place(partial, folder)
    return result


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Return a JPEG whose only EXIF entry is an orientation; its compressed pixels are untouched.

    Raises
    ------
    ValueError
        If it is no JPEG.
    """
    if jpeg[:2] != b"\xff\xd8":
        raise ValueError(f"A JPEG begins with FFD8, these bytes with {jpeg[:2].hex().upper() or None}.")
    entry = struct.pack(">HHIHH", _ORIENTATION, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08" + struct.pack(">H", 1) + entry + b"\0\0\0\0"
    kept = [b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif]
    position = 2
    while jpeg[position : position + 1] == b"\xff" and jpeg[position + 1 : position + 2] != b"\xda":
        marker = jpeg[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        length = int.from_bytes(jpeg[position + 2 : position + 4], "big")
        segment = jpeg[position : position + 2 + length]
        if length < 2 or len(segment) != 2 + length:
            raise ValueError(
                f"The JPEG of {len(jpeg):,} bytes ends early: its segment at byte {position:,} is not whole."
            )
        if not (marker == 0xE1 and segment[4:10] == b"Exif\0\0"):
            kept.append(segment)
        position += 2 + length
    if jpeg[position : position + 2] != b"\xff\xda":
        raise ValueError(
            f"The JPEG of {len(jpeg):,} bytes has no pixels after its headers, which end at byte {position:,}."
        )
    return b"".join([*kept, jpeg[position:]])
