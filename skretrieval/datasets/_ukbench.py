"""The University of Kentucky benchmark."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from sklearn.utils import Bunch

from ._registry import UKBENCH
from ._store import Options, described, fetch, index_images

_GROUP = 4  # photographs of one object, one after the other


def fetch_ukbench(
    *,
    queries: str = "all",
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    progress: bool = True,
    mirrors: str | Sequence[str] | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    keep_archives: bool = False,
) -> Bunch:
    """Load UKBench, downloading it if necessary (1.5 GB).

    Parameters
    ----------
    queries : {"all", "first"}, default="all"
        Ask with all 10,200 photographs, or with the first one of each of the 2,550 objects.

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
            All of them, or every fourth.
        query_names : list of str
            Such as ``ukbench00000``.
        query_indices : ndarray of shape (n_queries,)
            Where each query is in the gallery.
        ground_truth : list of dict
            For each query `positives`, the positions of the photographs of its object, its own included: an int64
            array of 4.
        protocol : str
            ``"ukbench"``.
        name : str
            ``"ukbench"``.
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
    D. Nistér and H. Stewénius, Scalable recognition with a vocabulary tree, CVPR 2006.
    """
    if queries not in ("all", "first"):
        raise ValueError(f"queries must be 'all' or 'first', got {queries!r}.")
    options = Options(data_home, download_if_missing, progress, mirrors, n_retries, delay, keep_archives)
    places = fetch(UKBENCH, options)
    numbered: dict[int, str] = {}
    for name, path in index_images([places["ukbench"]]).items():
        match = re.fullmatch(r"(?:.*/)?ukbench(\d+)\.jpg", name)
        if match is None or "thumbnails" in name.split("/"):  # the archive has small copies as well
            continue
        if int(match[1]) in numbered:
            raise ValueError(
                f"Two photographs have the number {match[1]}: {numbered[int(match[1])]} and {path}."
            )
        numbered[int(match[1])] = path
    numbers = np.array(sorted(numbered))
    if not numbers.size or numbers.size % _GROUP or not np.array_equal(numbers, np.arange(numbers.size)):
        raise ValueError(
            f"{places['ukbench']} holds {numbers.size} photographs; their numbers must run from 0 without gaps, in "
            f"groups of {_GROUP}. Delete it to fetch it again."
        )
    images = [numbered[number] for number in numbers]
    asked = np.arange(0, len(images), 1 if queries == "all" else _GROUP, dtype=np.int64)
    return Bunch(
        images=images,
        queries=[images[index] for index in asked],
        query_names=[os.path.basename(images[index]).removesuffix(".jpg") for index in asked],
        query_indices=asked,
        ground_truth=[
            {"positives": np.arange(_GROUP, dtype=np.int64) + index // _GROUP * _GROUP} for index in asked
        ],
        protocol="ukbench",
        name=UKBENCH.name,
        DESCR=described(UKBENCH, len(images), len(asked)),
    )
