"""ROxford5k and RParis6k: the revisited benchmarks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sklearn.utils import Bunch

from ._ground_truth import load_revisited_ground_truth
from ._registry import ROXFORD5K, RPARIS6K, Archive, DataSet
from ._store import Options, by_stem, described, fetch, find, query_crop


def fetch_roxford5k(
    *,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    progress: bool = True,
    mirrors: str | Sequence[str] | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    keep_archives: bool = False,
) -> Bunch:
    """Load ROxford5k, downloading it if necessary (2 GB, shared with Oxford5k).

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
            The gallery, in the order of the published list.
        queries : list of ImageCrop
            Photographs that are not in the gallery, and their boxes.
        query_names : list of str
            The names of the queries' photographs.
        query_indices : None
            The queries are not in the gallery.
        ground_truth : list of dict
            For each query the positions `easy`, `hard` and `junk`, int64 arrays.
        protocol : str
            ``"revisited"``.
        name : str
            ``"roxford5k"``.
        DESCR : str
            What it is, protocol, citation, licence.

    Raises
    ------
    OSError
        If files are missing and may not, or cannot, be downloaded. The message lists each with its addresses, size,
        hash and place.

    ValueError
        If an archive or the ground truth is refused, or photographs that the ground truth names are missing.

    References
    ----------
    F. Radenović et al., Revisiting Oxford and Paris: large-scale image retrieval benchmarking, CVPR 2018.
    """
    options = Options(data_home, download_if_missing, progress, mirrors, n_retries, delay, keep_archives)
    return _revisited(ROXFORD5K, options)


def fetch_rparis6k(
    *,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    progress: bool = True,
    mirrors: str | Sequence[str] | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    keep_archives: bool = False,
) -> Bunch:
    """Load RParis6k, downloading it if necessary (2.5 GB, shared with Paris6k).

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
        As :func:`fetch_roxford5k`.

    Raises
    ------
    OSError
        If files are missing and may not, or cannot, be downloaded. The message lists each with its addresses, size,
        hash and place.

    ValueError
        If an archive or the ground truth is refused, or photographs that the ground truth names are missing.

    References
    ----------
    F. Radenović et al., Revisiting Oxford and Paris: large-scale image retrieval benchmarking, CVPR 2018.
    """
    options = Options(data_home, download_if_missing, progress, mirrors, n_retries, delay, keep_archives)
    return _revisited(RPARIS6K, options)


def _revisited(dataset: DataSet, options: Options) -> Bunch:
    places = fetch(dataset, options)
    truth = load_revisited_ground_truth(places[f"gnd_{dataset.name}.pkl"])
    photographs = by_stem([places[piece.folder] for piece in dataset.pieces if isinstance(piece, Archive)])
    images = find(truth.imlist, photographs, dataset.name)
    asked = find(truth.qimlist, photographs, f"the queries of {dataset.name}")
    queries = []
    for name, path, entry in zip(truth.qimlist, asked, truth.gnd, strict=True):
        if entry["bbx"] is None:
            raise ValueError(f"The query {name} of {dataset.name} has no box.")
        queries.append(query_crop(path, entry["bbx"]))
    return Bunch(
        images=images,
        queries=queries,
        query_names=truth.qimlist,
        query_indices=None,
        ground_truth=[{grade: entry[grade] for grade in ("easy", "hard", "junk")} for entry in truth.gnd],
        protocol="revisited",
        name=dataset.name,
        DESCR=described(dataset, len(images), len(queries)),
    )
