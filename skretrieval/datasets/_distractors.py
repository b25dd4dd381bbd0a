"""Photographs that are right for no query: to make a gallery large."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from sklearn.utils import Bunch

from ._registry import FLICKR100K, REVISITOP1M
from ._store import Options, described, fetch, find, index_images

# Found unreadable by users of the set; its publisher has no such list.
FLICKR_CORRUPT = (
    "06/06_000443.jpg",
    "autumn/autumn_000335.jpg",
    "baby/baby_001317.jpg",
    "cat/cat_001894.jpg",
    "festival/festival_001907.jpg",
    "green/green_002662.jpg",
    "park/park_001319.jpg",
    "portrait/portrait_000801.jpg",
    "river/river_001733.jpg",
    "school/school_001535.jpg",
)


def fetch_flickr100k(
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
    """Load the Flickr100k distractors, downloading them if necessary.

    They are published as 40 volumes of one rar archive, which the extra ``rar`` and one of the programs unrar, unar
    or 7-Zip unpack. A copy that somebody has packed as ``oxc1_100k.tar.gz`` or ``oxc1_100k.zip`` and put into their
    folder is taken as well.

    Parameters
    ----------
    drop_corrupt : bool, default=False
        Leave out 10 files that users found to be unreadable.

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
            The photographs, sorted by folder and name.
        corrupt : list of str
            The 10 files, as folder and name.
        protocol : str
            ``"distractors"``.
        name : str
            ``"flickr100k"``.
        DESCR : str
            What it is, citation, licence.

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
    photographs = index_images([fetch(FLICKR100K, options)["oxc1_100k"]])
    dropped = set(FLICKR_CORRUPT) if drop_corrupt else set()
    images = [path for name, path in photographs.items() if "/".join(name.split("/")[-2:]) not in dropped]
    return Bunch(
        images=images,
        corrupt=list(FLICKR_CORRUPT),
        protocol="distractors",
        name=FLICKR100K.name,
        DESCR=described(FLICKR100K, len(images)),
    )


def fetch_revisitop1m(
    *,
    parts: Iterable[int] | None = None,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    progress: bool = True,
    mirrors: str | Sequence[str] | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    keep_archives: bool = False,
) -> Bunch:
    """Load the R1M distractors of the revisited benchmarks, downloading them if necessary.

    Parameters
    ----------
    parts : iterable of int, default=None
        Only these of the 100 archives, counted from 1; each has about 10,000 photographs.

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
            The photographs, in the order of the published list.
        protocol : str
            ``"distractors"``.
        name : str
            ``"revisitop1m"``.
        DESCR : str
            What it is, citation, licence.

    Raises
    ------
    OSError
        If files are missing and may not, or cannot, be downloaded. The message lists each with its addresses, size,
        hash and place.

    ValueError
        If an archive is refused, or photographs that the ground truth names are missing.

    References
    ----------
    F. Radenović et al., Revisiting Oxford and Paris: large-scale image retrieval benchmarking, CVPR 2018.
    """
    table, *archives = REVISITOP1M.pieces
    if parts is not None:
        wanted = sorted(set(parts))
        if not wanted or wanted[0] < 1 or wanted[-1] > len(archives):
            raise ValueError(f"parts must be numbers from 1 to {len(archives)}, got {wanted}.")
        archives = [archives[part - 1] for part in wanted]
    options = Options(data_home, download_if_missing, progress, mirrors, n_retries, delay, keep_archives)
    places = fetch(REVISITOP1M, options, [table, *archives])
    photographs = index_images([place for name, place in places.items() if name != "revisitop1m.txt"])
    # The archives hold the folder of all photographs or its content; the list starts below it.
    photographs = {name.removeprefix("jpg/"): path for name, path in photographs.items()}
    lines = places["revisitop1m.txt"].read_text(encoding="utf-8").split("\n")
    listed = [line.strip().removeprefix("jpg/") for line in lines if line.strip()]
    if parts is not None:
        listed = [name for name in listed if name in photographs]
    images = find(listed, photographs, REVISITOP1M.name)
    if not images:
        raise ValueError(f"{places['revisitop1m.txt']} names no photograph of the archives.")
    return Bunch(
        images=images,
        protocol="distractors",
        name=REVISITOP1M.name,
        DESCR=described(REVISITOP1M, len(images)),
    )
