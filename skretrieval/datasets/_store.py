"""The folder where the data sets lie: what is there is used, what is missing is fetched, once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from .._io import write_text
from ..extraction import ImageCrop
from ._archives import ArchiveError, DamagedArchive, extract
from ._download import Transfer, check_mirrors, download, sha256_of
from ._folder import list_images, photograph_size
from ._registry import Archive, DataSet, Piece, RemoteFile

_MANIFEST = "manifest.json"


def get_data_home(data_home: str | os.PathLike | None = None) -> Path:
    """Return the folder where the data sets lie. It is not created.

    Parameters
    ----------
    data_home : path, default=None
        The folder; None for the environment variable ``SKRETRIEVAL_DATA``, or ``~/skretrieval_data`` without it.

    Returns
    -------
    folder : pathlib.Path
        With ``~`` expanded.

    Examples
    --------
    >>> from skretrieval.datasets import get_data_home
    >>> get_data_home("photographs").name
    'photographs'
    """
    if data_home is None:
        data_home = os.environ.get("SKRETRIEVAL_DATA") or Path("~", "skretrieval_data")
    return Path(data_home).expanduser()


@dataclass(frozen=True)
class Options:
    """The options that all the ``fetch_*`` functions share."""

    data_home: str | os.PathLike | None
    download_if_missing: bool
    progress: bool
    mirrors: str | Sequence[str] | None
    n_retries: int
    delay: float
    keep_archives: bool

    def transfer(self) -> Transfer:
        """Return the part that downloads need, checked."""
        if self.n_retries < 0:
            raise ValueError(f"n_retries must be 0 or more, got {self.n_retries}.")
        if self.delay < 0:
            raise ValueError(f"delay must be 0 or more seconds, got {self.delay}.")
        return Transfer(
            check_mirrors(self.mirrors), int(self.n_retries), float(self.delay), progress=self.progress
        )


def fetch(dataset: DataSet, options: Options, pieces: Sequence[Piece] | None = None) -> dict[str, Path]:
    """Make sure that the pieces of a data set are there, and return where.

    Parameters
    ----------
    dataset : DataSet
        The data set.
    options : Options
        How.
    pieces : sequence of RemoteFile or Archive, default=None
        Only these of its pieces.

    Returns
    -------
    places : dict of str to Path
        The file of each RemoteFile by its name, the folder of each Archive by its folder's name.

    Raises
    ------
    OSError
        If something is missing and may not, or cannot, be downloaded. The message lists every missing file with its
        addresses, size, hash and place.

    ValueError
        If an archive or an option is refused.
    """
    pieces = dataset.pieces if pieces is None else pieces
    transfer = options.transfer()
    root = get_data_home(options.data_home) / dataset.folder
    if not all(_ready(piece, root) for piece in pieces):
        if not options.download_if_missing and any(_missing(piece, root) for piece in pieces):
            raise OSError(
                f"Data set {dataset.name} is not complete in {root}, and download_if_missing is False.\n"
                + _instructions(pieces, root, transfer)
            )
        root.mkdir(parents=True, exist_ok=True)
        # Another process may be fetching the same: wait for it, then look again.
        with filelock.FileLock(root / ".lock"):
            manifest = _Manifest(root / _MANIFEST)
            for piece in pieces:
                try:
                    _provide(piece, root, manifest, transfer, options)
                except ArchiveError:
                    raise
                except OSError as error:
                    raise OSError(
                        f"Data set {dataset.name}: {error}\n" + _instructions(pieces, root, transfer)
                    ) from error
    for piece in pieces:
        if isinstance(piece, RemoteFile):  # small files: ground truth and lists
            _Manifest(root / _MANIFEST).check(piece, root / piece.name)
    return {_name(piece): root / _name(piece) for piece in pieces}


def _name(piece: Piece) -> str:
    return piece.folder if isinstance(piece, Archive) else piece.name


def _ready(piece: Piece, root: Path) -> bool:
    place = root / _name(piece)
    return place.is_dir() if isinstance(piece, Archive) else place.is_file()


def _by_hand(piece: Piece, root: Path) -> Path | None:
    """Find an archive that somebody has put in place of the published one."""
    names = piece.by_hand if isinstance(piece, Archive) else ()
    return next((root / name for name in names if (root / name).is_file()), None)


def _missing(piece: Piece, root: Path) -> list[RemoteFile]:
    """List the files of a piece that would have to be downloaded."""
    if _ready(piece, root):
        return []
    absent = [file for file in piece.files if not (root / file.name).is_file()]
    return [] if absent and _by_hand(piece, root) else absent


def _provide(piece: Piece, root: Path, manifest: _Manifest, transfer: Transfer, options: Options) -> None:
    """Download and unpack what is missing of a piece."""
    if _ready(piece, root):
        return
    missing = _missing(piece, root)
    if missing and not options.download_if_missing:
        raise OSError(f"{_name(piece)} has vanished from {root} while the data set was being read.")
    for file in missing:
        known = file.sha256 or manifest.sha256(file.name)
        digest, url = download(file, root / file.name, transfer, known)
        manifest.pin(file.name, digest, (root / file.name).stat().st_size, url)
    if isinstance(piece, RemoteFile):
        manifest.check(piece, root / piece.name)
        return
    archives = [root / file.name for file in piece.files]
    if not all(path.is_file() for path in archives):
        replacement = _by_hand(piece, root)
        assert replacement is not None  # else it would have been downloaded
        archives = [replacement]
    for path in archives:
        manifest.check(RemoteFile(path.name, (), sha256=_published(piece, path.name)), path, pin=True)
    try:
        extract(archives, root / piece.folder, progress=options.progress)
    except (ArchiveError, DamagedArchive):
        # What was downloaded without a published hash must not be pinned when it turns out to be of no use.
        for file in piece.files:
            if file.sha256 is None and manifest.downloaded(file.name):
                manifest.forget(file.name)
                (root / file.name).unlink(missing_ok=True)
        raise
    if not options.keep_archives:
        for file in piece.files:
            if manifest.downloaded(file.name):  # not those that somebody has put there
                (root / file.name).unlink(missing_ok=True)


def _published(piece: Archive, name: str) -> str | None:
    return next((file.sha256 for file in piece.files if file.name == name), None)


class _Manifest:
    """The hashes of the files of one folder, as they were when they first came."""

    def __init__(self, path: Path):
        self.path = path
        try:
            files = json.loads(path.read_text(encoding="utf-8"))["files"]
            self.files: dict[str, dict] = dict(files)
        except FileNotFoundError:
            self.files = {}
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"{path} is damaged; delete it to pin the files that are there anew.") from error

    def sha256(self, name: str) -> str | None:
        return self.files.get(name, {}).get("sha256")

    def downloaded(self, name: str) -> bool:
        return self.files.get(name, {}).get("url") is not None

    def pin(self, name: str, sha256: str, size: int, url: str | None) -> None:
        self.files[name] = {"sha256": sha256, "size": size, "url": url}
        self._write()

    def forget(self, name: str) -> None:
        self.files.pop(name, None)
        self._write()

    def check(self, file: RemoteFile, path: Path, pin: bool = False) -> None:
        """Hold a file against its published or pinned hash; without either, pin it if asked to."""
        expected = file.sha256 or self.sha256(file.name)
        if expected is None and not pin:
            return
        digest = sha256_of(path)
        if expected is None:
            self.pin(file.name, digest, path.stat().st_size, None)
        elif digest != expected:
            where = "published" if file.sha256 else f"written down in {self.path}"
            raise OSError(
                f"{path} has the SHA-256 {digest}, but {expected} is {where}. Delete the file to fetch it again"
                + ("." if file.sha256 else f", or its entry in {self.path.name} to trust it as it is.")
            )

    def _write(self) -> None:
        write_text(self.path, json.dumps({"files": self.files}, indent=1, sort_keys=True) + "\n")


def _instructions(pieces: Sequence[Piece], root: Path, transfer: Transfer) -> str:
    """Say for every file that is missing where it comes from, what is known of it, and where it belongs."""
    known = _Manifest(root / _MANIFEST)
    lines = []
    for piece in pieces:
        for file in _missing(piece, root):
            size = "unknown" if file.size is None else f"{file.size:,} bytes (as reported)"
            sha256 = file.sha256 or known.sha256(file.name) or "not published; the first download pins it"
            lines += [
                f"  {root / file.name}",
                f"    from: {' or '.join(transfer.urls(file))}",
                f"    size: {size}; SHA-256: {sha256}",
            ]
            if isinstance(piece, Archive):
                lines.append(f"    or, unpacked already, as the folder {root / piece.folder}")
    if not lines:
        return "All its files are there."
    return "Put these files in place and call again:\n" + "\n".join(lines)


def index_images(folders: Sequence[Path]) -> dict[str, str]:
    """List the photographs below folders: their path in the folder, with forward slashes, to their file.

    Raises
    ------
    ValueError
        If there is none.
    """
    found: dict[str, str] = {}
    for folder in folders:
        base = str(folder)
        found.update((name, os.path.join(base, *name.split("/"))) for name in list_images(folder))
    if not found:
        raise ValueError(f"No photographs in {', '.join(map(str, folders))}. Delete it to fetch it again.")
    return found


def by_stem(folders: Sequence[Path]) -> dict[str, str]:
    """List the photographs below folders by their name without folder and ending, sorted.

    Raises
    ------
    ValueError
        If two have the same name.
    """
    stems: dict[str, str] = {}
    for name, path in index_images(folders).items():
        stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if stem in stems:
            raise ValueError(f"Two photographs are called {stem}: {stems[stem]} and {path}.")
        stems[stem] = path
    return dict(sorted(stems.items()))


def find(names: Sequence[str], photographs: dict[str, str], where: str) -> list[str]:
    """Return the photographs of these names.

    Raises
    ------
    ValueError
        If some are missing; the first are named.
    """
    missing = [name for name in names if name not in photographs]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(names)} photographs of {where} are missing, {missing[0]} among them. "
            "Delete the folder of the photographs to fetch it again."
        )
    return [photographs[name] for name in names]


def query_crop(path: str, box: Sequence[float]) -> ImageCrop:
    """Make a query of a photograph and the box of its ground truth.

    Boxes were drawn with sub-pixel corners and may stick out by a little: they are cut to the photograph.

    Raises
    ------
    ValueError
        If the photograph cannot be read, or nothing of the box lies in it.
    """
    try:
        width, height = photograph_size(path)
    except ValueError as error:
        raise ValueError(f"The query {error}") from error
    left, top, right, bottom = (float(edge) for edge in box)
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    if not (inside[2] - inside[0] >= 1 and inside[3] - inside[1] >= 1):
        raise ValueError(
            f"The box {tuple(box)} of the query {path} lies outside its {width}x{height} pixels."
        )
    return ImageCrop(path, inside)


def described(dataset: DataSet, n_images: int, n_queries: int | None = None) -> str:
    """Return the DESCR of a data set with what is there."""
    here = f"{n_images:,} gallery images" + ("" if n_queries is None else f" and {n_queries:,} queries")
    return f"{dataset.descr}\nHere: {here}.\n"
