"""The photographs of a folder, and what a walk through it could not see."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .._terminal import printable
from ..extraction import readable_suffixes

#: What is left out unless told otherwise: what programs keep beside photographs, and hidden folders.
EXCLUDED = ("@eaDir", ".*", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "Thumbs.db", "#recycle")


class Entry(NamedTuple):
    """A photograph that the walk came by.

    Attributes
    ----------
    path : str
        Relative to the root, with forward slashes.
    size : int
        Bytes.
    mtime_ns : int
        When it was last changed, in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass
class Walk:
    """Walks through a folder, once.

    Only regular files are photographs; those behind a link count. A folder behind a link is entered once, whatever the
    number of links to it, and not where the walk is in it already: links could multiply without end. Nothing is
    opened.

    Parameters
    ----------
    root : Path
        The folder.
    exclude : collection of str
        Patterns of names, of files and of folders, that are left out, as :mod:`fnmatch` has them; one with a slash is
        held against the path from the root.
    avoid : Path, optional
        A folder that is left out, whatever its name: that of the index itself.

    Attributes
    ----------
    errors : dict of str to str
        Folders (relative; "" is the root) and files that could not be looked at, and why. What lies below such a
        folder may be there all the same.
    passed_over : Counter
        Files that are no photographs, by their suffix as they spell it.
    odd : dict of str to str
        What has the name of a photograph and is no regular file, and what it is.
    """

    root: Path
    exclude: Collection[str] = EXCLUDED
    avoid: Path | None = None
    errors: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    odd: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the photographs, folder by folder, names in order within each."""
        self._suffixes = readable_suffixes()
        self._linked: set[tuple[int, int]] = set()
        self._avoided = _identity(self.avoid) if self.avoid is not None else None
        folders: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
        while folders:  # no recursion: folders may lie deeper than Python calls
            relative, above = folders.pop()
            below: list[str] = []
            listing, above = self._listing(relative, above)
            for entry in listing:
                photograph = self._looked_at(
                    entry, f"{relative}/{entry.name}" if relative else entry.name, below
                )
                if photograph is not None:
                    yield photograph
            folders += [(path, above) for path in reversed(below)]

    def _listing(
        self, relative: str, above: frozenset[tuple[int, int]]
    ) -> tuple[list[os.DirEntry], frozenset[tuple[int, int]]]:
        """Return what lies in a folder, by name, and the folders that the walk is in with this one."""
        folder = os.path.join(self.root, relative)
        try:
            identity = _identity(folder)
            if identity in above:
                self.odd[relative] = "a loop of links"
                return [], above
            if identity == self._avoided:
                return [], above
            if relative and os.path.islink(folder):
                if identity in self._linked:
                    self.odd[relative] = "a link to a folder that another link leads to"
                    return [], above
                self._linked.add(identity)
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: entry.name), above | {identity}
        except OSError as error:
            self.errors[relative] = error.strerror or str(error)
            return [], above

    def _looked_at(self, entry: os.DirEntry, path: str, below: list[str]) -> Entry | None:
        """Return the photograph that an entry of a folder is; a folder is added to those below."""
        if self._is_excluded(entry.name, path):
            return None
        suffix = os.path.splitext(entry.name)[1]
        try:
            if entry.is_dir():
                below.append(path)
                return None
            if suffix.lower() not in self._suffixes:
                self.passed_over[suffix] += 1
                return None
            status = entry.stat()
        except FileNotFoundError:  # gone since, or a link to nothing
            if entry.is_symlink():
                self.odd[path] = "a link to nothing"
            return None
        except OSError as error:
            (self.odd if entry.is_symlink() else self.errors)[path] = error.strerror or str(error)
            return None
        if not stat.S_ISREG(status.st_mode):
            self.odd[path] = _kind(status.st_mode)
            return None
        return Entry(path, status.st_size, status.st_mtime_ns)

    def _is_excluded(self, name: str, path: str) -> bool:
        return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.exclude)


def root_of(folder: str | os.PathLike | None, before: str | None, moved: bool) -> Path:
    """Return the folder of photographs, which is that of the last update unless told otherwise."""
    if folder is None:
        if before is None:
            raise ValueError("Say which folder of photographs: the index has none yet.")
        return Path(before)
    root = Path(folder).resolve()
    if before is not None and str(root) != before and not moved:
        raise ValueError(
            f"This is the index of {printable(before)}, not of {printable(str(root))}. Say moved=True, or "
            "--folder-moved, if the photographs were moved there."
        )
    return root


def passed_over_words(passed_over: Counter[str]) -> str:
    """Say how many files of each suffix were passed over, and which extra reads some of them.

    Examples
    --------
    >>> from collections import Counter
    >>> from skretrieval.index._walk import passed_over_words
    >>> passed_over_words(Counter({".mov": 3, ".txt": 1}))
    '3 .mov, 1 .txt not read'
    """
    if not passed_over:
        return ""
    counts = ", ".join(
        f"{count} {printable(suffix) or 'without suffix'}"
        for suffix, count in sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    )
    is_heif = any(suffix.lower() in (".heic", ".heif", ".hif") for suffix in passed_over)
    advice = ': install "scikit-retrieval[heif]"' if is_heif else ""
    return f"{counts} not read{advice}"


def _identity(folder: str | os.PathLike) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")
