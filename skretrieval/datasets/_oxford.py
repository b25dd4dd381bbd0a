"""Oxford5k and Paris6k: 55 queries each, ground truth in text files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from ._registry import OXFORD5K, PARIS6K, Archive, DataSet
from ._store import Options, by_stem, described, fetch, query_crop

PARIS_CORRUPT = (
    "paris_louvre_000136",
    "paris_louvre_000146",
    "paris_moulinrouge_000422",
    "paris_museedorsay_001059",
    "paris_notredame_000188",
    "paris_pantheon_000284",
    "paris_pantheon_000960",
    "paris_pantheon_000974",
    "paris_pompidou_000195",
    "paris_pompidou_000196",
    "paris_pompidou_000201",
    "paris_pompidou_000467",
    "paris_pompidou_000640",
    "paris_sacrecoeur_000299",
    "paris_sacrecoeur_000330",
    "paris_sacrecoeur_000353",
    "paris_triomphe_000662",
    "paris_triomphe_000833",
    "paris_triomphe_000863",
    "paris_triomphe_000867",
)

_GRADES = ("good", "ok", "junk")
_QUERY_PREFIX = "oxc1_"  # before the names in Oxford's query files, and nowhere else


def fetch_oxford5k(
    *,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    progress: bool = True,
    mirrors: str | Sequence[str] | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    keep_archives: bool = False,
) -> Bunch:
    """Load Oxford5k, downloading it if necessary (2 GB).

    Parameters
    ----------
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
            The gallery, sorted by name.
        queries : list of ImageCrop
            The queries, sorted by the name of their ground truth: a photograph of the gallery and a box.
        query_names : list of str
            The names of the queries' ground truth, such as ``all_souls_1``.
        query_indices : ndarray of shape (n_queries,)
            Where each query's photograph is in the gallery.
        ground_truth : list of dict
            For each query the positions `good`, `ok` and `junk`, int64 arrays.
        protocol : str
            ``"oxford"``.
        name : str
            ``"oxford5k"``.
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
    J. Philbin et al., Object retrieval with large vocabularies and fast spatial matching, CVPR 2007.
    """
    options = Options(data_home, download_if_missing, progress, mirrors, n_retries, delay, keep_archives)
    return _buildings(OXFORD5K, options, set())


def fetch_paris6k(
    *,
    drop_corrupt: bool = False,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    progress: bool = True,
    mirrors: str | Sequence[str] | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    keep_archives: bool = False,
) -> Bunch:
    """Load Paris6k, downloading it if necessary (2.5 GB).

    Parameters
    ----------
    drop_corrupt : bool, default=False
        Leave out the 20 files of the publisher's list that are no photographs, as most papers do: 6,392 remain. With
        them, extractors need ``on_error="warn"``.

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
        As :func:`fetch_oxford5k`, and

        corrupt : list of str
            The names, without ending, of the 20 files that are no photographs.

    Raises
    ------
    OSError
        If files are missing and may not, or cannot, be downloaded. The message lists each with its addresses, size,
        hash and place.

    ValueError
        If an archive is refused, or photographs that the ground truth names are missing.

    References
    ----------
    J. Philbin et al., Lost in quantization: improving particular object retrieval in large scale image databases,
    CVPR 2008.
    """
    options = Options(data_home, download_if_missing, progress, mirrors, n_retries, delay, keep_archives)
    dataset = _buildings(PARIS6K, options, set(PARIS_CORRUPT) if drop_corrupt else set())
    dataset.corrupt = list(PARIS_CORRUPT)
    return dataset


def _buildings(dataset: DataSet, options: Options, dropped: set[str]) -> Bunch:
    places = fetch(dataset, options)
    folders = [piece.folder for piece in dataset.pieces if isinstance(piece, Archive)]
    photographs = by_stem([places[name] for name in folders[:-1]])
    gallery = {name: path for name, path in photographs.items() if name not in dropped}
    positions = {name: index for index, name in enumerate(gallery)}
    truth = _text_files(places[folders[-1]])
    names = sorted(name.removesuffix("_query.txt") for name in truth if name.endswith("_query.txt"))
    if not names:
        raise ValueError(f"{places[folders[-1]]} holds no query; delete it to fetch it again.")
    queries, indices, ground_truth = [], [], []
    for name in names:
        image, box = _read_query(truth[f"{name}_query.txt"])
        if image not in positions:
            raise ValueError(f"The photograph {image} of the query {name} is missing.")
        queries.append(query_crop(gallery[image], box))
        indices.append(positions[image])
        ground_truth.append(
            {grade: _read_grade(truth, f"{name}_{grade}.txt", positions, dropped) for grade in _GRADES}
        )
    return Bunch(
        images=list(gallery.values()),
        queries=queries,
        query_names=names,
        query_indices=np.array(indices, dtype=np.int64),
        ground_truth=ground_truth,
        protocol="oxford",
        name=dataset.name,
        DESCR=described(dataset, len(gallery), len(queries)),
    )


def _text_files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.rglob("*.txt") if not path.name.startswith(".")}


def _read_query(path: Path) -> tuple[str, tuple[float, ...]]:
    fields = path.read_text(encoding="utf-8").split()
    try:
        box = tuple(float(field) for field in fields[1:])
    except ValueError:
        box = ()
    if len(box) != 4:
        raise ValueError(f"{path} must hold a name and four numbers, got {' '.join(fields)[:80]!r}.")
    return fields[0].removeprefix(_QUERY_PREFIX), box


def _read_grade(
    truth: dict[str, Path], file: str, positions: dict[str, int], dropped: set[str]
) -> np.ndarray:
    if file not in truth:
        raise ValueError(f"The ground truth has no {file}.")
    names = [name for name in truth[file].read_text(encoding="utf-8").split() if name not in dropped]
    missing = [name for name in names if name not in positions]
    if missing:
        raise ValueError(f"{len(missing)} photographs of {truth[file]} are missing, {missing[0]} among them.")
    return np.array([positions[name] for name in names], dtype=np.int64)
