"""Unpacking of untrusted archives: nothing outside the folder, no links, no devices, no bombs."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .._io import move_into_place
from .._terminal import progress_bar

_LOG = logging.getLogger("skretrieval.datasets")

_CHUNK = 1 << 20
_TAR_TAIL = 1 << 20  # bytes of padding at the end, and what is read ahead
_TAR_EXTRA = 4096  # bytes of headers and padding that a member of a tar may come with
_TAR_NAME = 1 << 16  # bytes of a header that holds a long name or attributes: tarfile reads it in one piece
_TAR_ANNOUNCING = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    RecursionError,  # tarfile follows headers that announce headers by recursion
)


class ArchiveError(ValueError):
    """An archive that is refused: it holds what no data set of photographs needs."""


class DamagedArchive(OSError):
    """An archive that ends early or whose checksums are wrong."""


@dataclass
class Limits:
    """What an archive may unpack to.

    Photographs hardly compress, so an archive that grows twentyfold holds something else; the allowance of 64 MiB
    is for archives of text.
    """

    growth: float = 20.0
    allowance: int = 64 << 20
    file_size: int = 256 << 20
    members: int = 2_000_000

    def total(self, packed: int) -> int:
        """Return the number of bytes that an archive of `packed` bytes may unpack to."""
        return int(self.growth * packed) + self.allowance


def extract(
    archives: list[Path], folder: Path, *, limits: Limits | None = None, progress: bool = False
) -> None:
    """Unpack an archive, so that `folder` is there whole or not at all.

    It is unpacked into a folder beside, which takes its name when all is done. What an interrupted run has left is
    removed first.

    Parameters
    ----------
    archives : list of Path
        One ``.tar``, ``.tar.gz``, ``.tgz`` or ``.zip``, or the volumes of a ``.rar``, the first one first.
    folder : Path
        The folder to make. It must not exist.
    limits : Limits, default=None
        What it may unpack to.
    progress : bool, default=False
        Show a progress bar.

    Raises
    ------
    ArchiveError
        If a member has an absolute path or one that leads out of the folder, is a link, a device or encrypted, or
        the limits are passed. The message names the member.

    OSError
        If the archive is damaged.
    """
    limits = limits or Limits()
    _LOG.info("Unpacking %s to %s", archives[0].name, folder)
    packed = sum(path.stat().st_size for path in archives)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    title = f"unpacking {archives[0].name}"
    with progress_bar(desc=title, unit=" files") if progress else nullcontext() as bar:
        advance = (lambda _: None) if bar is None else bar.update
        writer = _Writer(archives[0], partial, limits, limits.total(packed), advance)
        try:
            _reader(archives[0])(archives[0], writer)
            if writer.members == 0:
                raise DamagedArchive(f"{archives[0]} is empty.")
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, _BROKEN):
                reason = str(error).removesuffix(".") or type(error).__name__
                raise DamagedArchive(f"{archives[0]} is damaged: {reason}.") from error
            raise
    move_into_place(partial, folder)


@dataclass
class _Writer:
    """Write the members of one archive, holding each against the rules before anything is written."""

    archive: Path
    root: Path
    limits: Limits
    allowed: int
    advance: Callable[[int], Any]
    members: int = 0
    written: int = 0
    _folders: set[Path] = field(default_factory=set)

    def refuse(self, name: str, why: str) -> ArchiveError:
        return ArchiveError(f"{self.archive} is refused: its member {name!r} {why}.")

    def check(self, name: str, size: int) -> Path:
        """Check a member's name and size; return where it goes."""
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ":" in parts[0] or "\0" in name:
            raise self.refuse(name, "has an absolute path")
        parts = [part for part in parts if part not in ("", ".")]
        if ".." in parts:
            raise self.refuse(name, "leads out of the folder")
        self.members += 1
        if self.members > self.limits.members:
            raise self.refuse(name, f"is beyond the limit of {self.limits.members:,} members")
        if size > self.limits.file_size:
            raise self.refuse(name, f"has {size:,} bytes; the limit for one is {self.limits.file_size:,}")
        if self.written + size > self.allowed:
            raise self.refuse(name, f"takes the total beyond its limit of {self.allowed:,} bytes")
        return self.root.joinpath(*parts)

    def folder(self, name: str) -> None:
        path = self.check(name, 0)
        self._make(path)

    def file(self, name: str, size: int, source: IO[bytes]) -> None:
        path = self.check(name, size)
        if path == self.root:
            raise self.refuse(name, "has no name")
        self._make(path.parent)
        with open(path, "wb") as out:
            left = size
            while chunk := source.read(min(_CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise self.refuse(name, f"is larger than the {size:,} bytes that it states")
                out.write(chunk)
        if left:
            raise EOFError(f"{name} ends {left:,} bytes early.")
        self.written += size
        self.advance(1)

    def _make(self, path: Path) -> None:
        if path not in self._folders:
            path.mkdir(parents=True, exist_ok=True)
            self._folders.add(path)


class _Counted:
    """A stream that ends in an error when more comes out of it than an archive may unpack to.

    Headers and padding come on top of the members' own bytes, for as many members as there were so far.
    """

    def __init__(self, stream: IO[bytes], writer: _Writer):
        self._stream, self._read, self._writer = stream, 0, writer

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > self._writer.allowed + _TAR_TAIL + _TAR_EXTRA * (self._writer.members + 1):
            raise self._writer.refuse(
                "(between members)", f"unpacks to more than {self._writer.allowed:,} bytes"
            )
        return data


def _headers(writer: _Writer) -> type[tarfile.TarInfo]:
    """Make the class of headers that refuse to announce a name or attributes too long to be held in memory."""

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> Any:
            header = super().frombuf(buf, encoding, errors)
            if header.type in _TAR_ANNOUNCING and header.size > _TAR_NAME:
                raise writer.refuse(header.name, f"announces a name or attributes of {header.size:,} bytes")
            return header

    return Header


def _reader(path: Path) -> Callable[[Path, _Writer], None]:
    name = path.name.lower()
    if name.endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")):
        return _read_tar
    if name.endswith(".zip"):
        return _read_zip
    if name.endswith(".rar"):
        return _read_rar
    raise ArchiveError(f"{path} is no kind of archive that can be unpacked: tar, tar.gz, zip or rar.")


def _read_tar(path: Path, writer: _Writer) -> None:
    with open(path, "rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        stream: Any = raw
        for magic, kind in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
            if start.startswith(magic):
                stream = kind(raw)
        counted: Any = _Counted(stream, writer)
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=_headers(writer)) as tar:
            for member in tar:
                if member.isdir():
                    writer.folder(member.name)
                    continue
                if not member.isreg():
                    kind_of = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link"}
                    raise writer.refuse(member.name, f"is {kind_of.get(member.type, 'a device or pipe')}")
                source = tar.extractfile(member)
                assert source is not None  # only for members that are no regular files
                with source:
                    writer.file(member.name, member.size, source)
        while stream.read(_CHUNK):  # to the end, where the checksum of the compressed stream is
            pass


def _read_zip(path: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 0x1:
                raise writer.refuse(info.filename, "is encrypted")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refuse(info.filename, "is a link or a device")
            if info.is_dir():
                writer.folder(info.filename)
                continue
            try:
                source = archive.open(info)
            except NotImplementedError as error:
                raise OSError(
                    f"{path}: {info.filename} is packed in a way that cannot be read: {error}."
                ) from error
            with source:
                writer.file(info.filename, info.file_size, source)


def _read_rar(path: Path, writer: _Writer) -> None:
    try:
        import rarfile
    except ImportError as error:
        raise ImportError(
            f"{path} is unpacked by rarfile, which is not installed. "
            'Install the extra "rar": pip install "scikit-retrieval[rar]". It calls unrar, unar or 7z, one of which '
            "must be installed too."
        ) from error
    try:
        with rarfile.RarFile(path) as archive:
            if archive.needs_password():
                raise writer.refuse("(all)", "is encrypted")
            for info in archive.infolist():
                if info.is_dir():
                    writer.folder(info.filename)
                    continue
                if not info.is_file() or info.file_redir is not None:
                    raise writer.refuse(info.filename, "is a link or a device")
                with archive.open(info) as source:
                    writer.file(info.filename, info.file_size, source)
    except rarfile.RarCannotExec as error:
        raise OSError(
            f"{path} needs a program that unpacks rar: install unrar, unar or 7-Zip and call again."
        ) from error
    except rarfile.Error as error:
        raise DamagedArchive(f"{path} is damaged: {error}.") from error
