"""Downloads that survive cut connections: resumed, verified, and put in place only when whole."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote, urlsplit

from .._io import move_into_place
from .._terminal import progress_bar
from ._registry import RemoteFile

_LOG = logging.getLogger("skretrieval.datasets")

_CHUNK = 1 << 18
_USER_AGENT = "skretrieval (https://github.com/scikit-retrieval/scikit-retrieval)"
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})  # worth asking the same server again
_STARTS = {  # what a file of a kind begins with: a web page in its place is an error, not a data set
    ".tgz": b"\x1f\x8b",
    ".gz": b"\x1f\x8b",
    ".zip": b"PK",
    ".rar": b"Rar!\x1a\x07",
}
_PAGE = re.compile(rb"^\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)


_LEAST_RATE = (
    1024  # bytes a second, over the seconds of `timeout`; below it a server is taken for one that hangs
)
_MOST_ATTEMPTS = 1000  # at one server, however little each brings
_TOLERANCE = 1.1  # sizes are those that others reported; a mirror may have packed a file anew
_LARGEST = {"": 2**28, ".tgz": 2**34, ".gz": 2**34, ".zip": 2**34, ".rar": 2**34}  # where no size is known


class _OtherServer(OSError):
    """Asking this server again is of no use."""


class _TooSlow(OSError):
    """What arrives is too little to wait for."""


class _Damaged(OSError):
    """What arrived is whole, and not what was asked for."""


@dataclass(frozen=True)
class Transfer:
    """How to download: mirrors to try first, patience, and whether a progress bar shows."""

    mirrors: tuple[str, ...] = ()
    n_retries: int = 3
    delay: float = 1.0
    timeout: float = 30.0
    progress: bool = True

    def urls(self, file: RemoteFile) -> list[str]:
        """List the addresses of a file in the order in which they are tried."""
        own = [f"{base.rstrip('/')}/{quote(file.name)}" for base in self.mirrors]
        return list(dict.fromkeys([*own, *file.urls]))


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def download(file: RemoteFile, path: Path, transfer: Transfer, sha256: str | None) -> tuple[str, str]:
    """Download a file to `path`, from the first server that gives it whole.

    What has arrived lies in ``<path>.part`` and is continued by a later attempt, also in a later process. Only a
    complete file whose hash is right takes the name `path`.

    Parameters
    ----------
    file : RemoteFile
        What to download.
    path : Path
        Where to.
    transfer : Transfer
        How.
    sha256 : str or None
        What its hash must be, if that is known.

    Returns
    -------
    sha256, url : str
        The file's hash, and where it came from.

    Raises
    ------
    OSError
        If no server gives it; the message has what went wrong with each.
    """
    failures = []
    # The server that sent the beginning goes first: with another one it might have to be thrown away.
    begun = _read_state(path.with_name(path.name + ".part")).get("url")
    for url in sorted(transfer.urls(file), key=lambda url: url != begun):
        _LOG.info("Downloading %s from %s", file.name, url)
        try:
            return _from_server(url, file, path, transfer, sha256), url
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
                raise
            failures.append(f"  {url}: {_reason(error)}")
            _LOG.info("%s did not come from %s: %s", file.name, url, _reason(error))
    raise OSError(f"{file.name} could not be downloaded.\n" + "\n".join(failures))


def _from_server(url: str, file: RemoteFile, path: Path, transfer: Transfer, sha256: str | None) -> str:
    """Ask one server until the file is whole, giving up when `n_retries` attempts in a row bring nothing new."""
    part = path.with_name(path.name + ".part")
    failed, furthest, restarted = 0, _size(part), False
    for attempt in count(1):
        resumed = _size(part) > 0
        try:
            _attempt(url, part, transfer, file, any_server=sha256 is not None)
            digest = _verify(part, file.name, sha256)
        except _OtherServer:
            raise
        except _Damaged:
            _discard(part)
            if restarted or not resumed:
                raise
            # What was there already may have come from another file: once more, from the start.
            furthest, restarted = 0, True
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EACCES, errno.EROFS):
                raise
            failed = 0 if _size(part) > furthest and not isinstance(error, _TooSlow) else failed + 1
            furthest = max(furthest, _size(part))
            if failed > transfer.n_retries or attempt >= _MOST_ATTEMPTS:
                raise
            time.sleep(transfer.delay * 2 ** max(failed - 1, 0))
        else:
            move_into_place(part, path)
            _state(part).unlink(missing_ok=True)
            return digest
    raise AssertionError("the count of attempts has no end.")


def _limit(file: RemoteFile) -> int:
    """Return how many bytes a file may have at most."""
    if file.size is not None:
        return int(file.size * _TOLERANCE) + 2**16
    return _LARGEST.get(Path(file.name).suffix, _LARGEST[""])


def _attempt(url: str, part: Path, transfer: Transfer, file: RemoteFile, any_server: bool) -> None:
    """Ask once, from where `part` ends.

    Without a known hash only the server that sent the beginning may continue it, and only while its file is the
    same; with one, any may (`any_server`), as the hash of the whole settles it.
    """
    offset, known = _size(part), _read_state(part)
    web = urlsplit(url).scheme in ("http", "https")
    if not (web and (any_server or known.get("url") == url)):
        offset = 0
    request = urllib.request.Request(url, headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if known.get("url") == url and known.get("validator"):
            request.add_header("If-Range", known["validator"])
    try:
        response = urllib.request.urlopen(request, timeout=transfer.timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and _total_of(error.headers.get("Content-Range")) == offset:
                return  # all of it has arrived already
            if error.code == 416:
                _discard(part)
                raise ConnectionError("the server's file has changed.") from error
            kind: type[OSError] = ConnectionError if error.code in _RETRIED else _OtherServer
            raise kind(f"HTTP {error.code} {error.reason}.") from error
    with response:
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length)
        if offset and response.status == 206:
            match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            total = _total_of(response.headers.get("Content-Range"))
            if match is None or int(match[1]) != offset or known.get("total", total) not in (None, total):
                response.close()
                _discard(part)
                raise ConnectionError("the server continued another file.")
        else:
            offset = 0
        limit = _limit(file)
        if total is not None and total > limit:
            _discard(part)
            raise _OtherServer(
                f"the server announces {total:,} bytes, more than the {limit:,} that it may have."
            )
        _check_space(part, None if total is None else total - offset)
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and validator.startswith("W/"):
            validator = response.headers.get("Last-Modified")
        state = {"url": url, "validator": validator, "total": total}
        _state(part).write_text(json.dumps(state), encoding="utf-8")
        with (
            open(part, "ab" if offset else "wb") as out,
            progress_bar(
                desc=file.name,
                total=total,
                initial=offset,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
            )
            if transfer.progress
            else nullcontext() as bar,
        ):
            pace = _Pace(transfer.timeout)
            while chunk := response.read1(_CHUNK):  # what there is, so that a trickle is seen as one
                offset += len(chunk)
                if offset > limit:
                    out.close()
                    _discard(part)
                    raise _OtherServer(f"the server sends more than the {limit:,} bytes that it may have.")
                out.write(chunk)
                if bar is not None:
                    bar.update(len(chunk))
                pace.add(len(chunk))
            out.flush()
            os.fsync(out.fileno())
    if total is not None and _size(part) != total:  # http.client is silent when a connection ends early
        raise ConnectionError(f"the connection was cut after {_size(part):,} of {total:,} bytes.")


class _Pace:
    """Watches that something arrives."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.since, self.n_bytes = time.monotonic(), 0

    def add(self, n_bytes: int) -> None:
        """Count what has arrived; raise _TooSlow if it was too little for the time."""
        self.n_bytes += n_bytes
        passed = time.monotonic() - self.since
        if passed >= self.seconds:
            if self.n_bytes < _LEAST_RATE * passed:
                raise _TooSlow(f"only {self.n_bytes:,} bytes came in {passed:.0f} s.")
            self.since, self.n_bytes = time.monotonic(), 0


def _verify(part: Path, name: str, sha256: str | None) -> str:
    """Check that the file is of its kind and has the hash; return the hash."""
    with open(part, "rb") as opened:
        head = opened.read(512)
    expected = _STARTS.get(Path(name).suffix, b"")
    if not head.startswith(expected) or _PAGE.match(head):
        what = "a web page" if _PAGE.match(head) else f"no {Path(name).suffix} file"
        raise _Damaged(f"what the server sent as {name} is {what}.")
    digest = sha256_of(part)
    if sha256 is not None and digest != sha256:
        raise _Damaged(f"the SHA-256 of {name} is {digest}, expected {sha256}.")
    return digest


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_state(part: Path) -> dict:
    try:
        state = json.loads(_state(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _total_of(content_range: str | None) -> int | None:
    """Return the size of the whole file that a Content-Range header tells."""
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else None


def _check_space(part: Path, needed: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed is not None and needed > free:
        raise OSError(
            errno.ENOSPC, f"{needed:,} bytes are still to come and {free:,} are free", str(part.parent)
        )


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return (str(reason) or type(error).__name__).removesuffix(".") + "."


def check_mirrors(mirrors: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the mirrors as a tuple of base addresses.

    Raises
    ------
    ValueError
        If one is not an http, https or ftp address.
    """
    bases = () if mirrors is None else (mirrors,) if isinstance(mirrors, str) else tuple(mirrors)
    for base in bases:
        if urlsplit(base).scheme not in ("http", "https", "ftp"):
            raise ValueError(f"A mirror must be an http, https or ftp address, got {base!r}.")
    return bases
