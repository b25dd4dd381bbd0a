"""The bytes of a photograph to upright RGB pixels, whatever its metadata say."""

from __future__ import annotations

import io
import os
import stat
from contextlib import suppress
from typing import Literal, NamedTuple

from PIL import Image

from ._formats import filled_up, open_image
from ._memory_share import share_of_memory
from ._metadata import Parts, date_taken, orientation_of, take_apart
from ._rgb import to_rgb

_GROWTH = 2**20  # bytes that are read at a time of a file that grows
LARGEST_FILE = 2**30  # bytes; what is larger is no photograph but would fill the memory
MIN_SIDE = 2  # pixels; a photograph with a 1-pixel side has no structure to describe

# Bytes a pixel while it is decoded, converted and turned, as measured: a decoder's own planes, Pillow's four bytes, and
# copies of these. Grey and transparent pixels go through more of them.
_BYTES_A_PIXEL = {"RGB": 16, "L": 12}
_MOST_BYTES_A_PIXEL = 24
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    data: bytes, draft: int | None = None, truncated: Literal["raise", "pad"] = "raise"
) -> Image.Image:
    """Decode a file to an upright RGB image.

    Only the pixels and the EXIF orientation are taken: nothing else of the metadata can keep a photograph from being
    read. Decoding waits while photographs of other threads take so much memory that it could run out.

    Parameters
    ----------
    data : bytes
        The file.
    draft : int, optional
        A longest side that suffices: a JPEG at least twice as large may be decoded at a fraction of its size, never
        below `draft`.
    truncated : {"raise", "pad"}, default="raise"
        With "pad" what there is of a file that was cut short is decoded; the rest is grey, black, or what the decoder
        makes of zeros (WebP, HEIC, AVIF). JPEG 2000, QOI and DDS are read whole or not at all, and so are TIFF files
        that have their directory at the end, as compressed ones mostly do.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, upright.

    Raises
    ------
    ValueError, OSError, SyntaxError, PIL.Image.DecompressionBombError
        If the file is no image of the formats in `FORMATS`, is damaged or truncated, has a side of one pixel, or
        takes more than half of the memory.
    """
    parts = take_apart(data)
    pixels = parts.pixels
    if truncated == "pad":
        pixels = filled_up(pixels)
    with open_image(io.BytesIO(pixels)) as opened:
        check_sides(opened.size)
        if draft is not None and opened.format == "JPEG":
            longest = max(opened.size)
            width, height = (max(1, round(side * draft / longest)) for side in opened.size)
            opened.draft(None, (width, height))
        a_pixel = _BYTES_A_PIXEL.get(opened.mode, _MOST_BYTES_A_PIXEL)
        with share_of_memory(opened.size[0] * opened.size[1] * a_pixel) as share:
            _load(opened, truncated)
            return share.pass_to(upright(to_rgb(opened), parts.orientation or orientation_of(opened)))


def _load(opened: Image.Image, truncated: str) -> None:
    try:
        opened.load()
    except (OSError, SyntaxError):
        # Pillow's own switch for this counts for the whole process; what it would keep lies in the image already
        if truncated == "raise" or getattr(opened, "_im", None) is None:
            raise
        opened.tile = []  # type: ignore[attr-defined]
        opened.load()
        if opened.getbbox() is None:  # not one pixel came: a black photograph would be made up
            raise


def read_file(path: str | os.PathLike) -> bytes:
    """Read a regular file whole.

    Raises
    ------
    FileNotFoundError, OSError
        If it cannot be read.
    ValueError
        If it is a pipe, a device or a socket, for whose end one would wait, or larger than `LARGEST_FILE` bytes.
    """
    with open(
        os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb"
    ) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file.")
        if status.st_size > LARGEST_FILE:
            raise ValueError(f"it has {status.st_size} bytes, more than {LARGEST_FILE}.")
        # no more than it has: a read sets aside all that it asks for
        parts = [stream.read(status.st_size + 1)]
        while parts[-1] and sum(map(len, parts)) > status.st_size:  # it has grown meanwhile
            parts.append(stream.read(_GROWTH))
            if sum(map(len, parts)) > LARGEST_FILE:
                raise ValueError(f"it grows beyond {LARGEST_FILE} bytes while it is read.")
        return b"".join(parts) if len(parts) > 1 else parts[0]


def check_header(file: str | os.PathLike | bytes) -> None:
    """Open, and do not decode, a file or its bytes: raise what :func:`decode` raises for a file of another kind."""
    if not isinstance(file, bytes):
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise ValueError("it is no regular file.")
        # Its metadata may be to blame for an error; they do not count.
        with open(file, "rb") as stream, suppress(Exception):
            if stream.read(4) not in _TIFF:  # of whose metadata Pillow would warn
                stream.seek(0)
                with open_image(stream) as opened:
                    if min(opened.size) >= MIN_SIDE:
                        return
    read_size(file)


def read_size(file: str | os.PathLike | bytes) -> tuple[int, int]:
    """Return width and height of the upright photograph in a file, without decoding it.

    Parameters
    ----------
    file : path or bytes
        The file, or what it holds.

    Returns
    -------
    width, height : int
        In pixels.

    Raises
    ------
    ValueError, OSError, SyntaxError, PIL.Image.DecompressionBombError
        As :func:`decode` for a file of another kind.
    """
    return _header(_parts_of(file))[0]


def read_orientation(file: str | os.PathLike | bytes) -> int:
    """Return how EXIF says that a photograph is turned, without decoding it.

    Parameters
    ----------
    file : path or bytes
        The file, or what it holds.

    Returns
    -------
    orientation : int
        1 to 8 as EXIF counts them; 1 where it says nothing.

    Raises
    ------
    ValueError, OSError, SyntaxError, PIL.Image.DecompressionBombError
        As :func:`decode` for a file of another kind.
    """
    return _header(_parts_of(file))[1]


def _parts_of(file: str | os.PathLike | bytes) -> Parts:
    return take_apart(file if isinstance(file, bytes) else read_file(file))


def _header(parts: Parts) -> tuple[tuple[int, int], int]:
    """Return the upright size of a photograph, and its orientation."""
    with open_image(io.BytesIO(parts.pixels)) as opened:
        check_sides(opened.size)
        width, height = opened.size
        # Pillow turns a TIFF by itself where its directory was not replaced
        turned = parts.orientation or (1 if opened.format == "TIFF" else orientation_of(opened)) or 1
    return ((height, width) if turned >= 5 else (width, height)), turned


class Facts(NamedTuple):
    """What the file of a photograph says beside its pixels.

    Attributes
    ----------
    width, height : int or None
        Of the upright photograph, in pixels.
    taken : str or None
        When, as YYYY-MM-DD HH:MM:SS.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.
    """

    width: int | None
    height: int | None
    taken: str | None


def read_facts(data: bytes) -> Facts:
    """Read the size and the date of a photograph; what cannot be made out is None.

    Parameters
    ----------
    data : bytes
        The file.

    Returns
    -------
    facts : Facts
        Nothing is decoded.
    """
    try:
        parts = take_apart(data)
        (width, height), _ = _header(parts)
    except Exception:  # a file can hold anything
        return Facts(None, None, None)
    exif = parts.exif
    if not exif:
        try:
            with open_image(io.BytesIO(data)) as opened:
                exif = opened.info.get("exif") or b""
        except Exception:  # damaged metadata
            exif = b""
    return Facts(width, height, date_taken(exif) if isinstance(exif, bytes) else None)


def check_sides(size: tuple[int, int]) -> None:
    """Raise a ValueError for an image with a side of less than `MIN_SIDE` pixels."""
    if min(size) < MIN_SIDE:
        raise ValueError(f"{size[0]}x{size[1]} pixels; each side needs at least {MIN_SIDE}.")


def upright(image: Image.Image, turned: int) -> Image.Image:
    """Turn an image as its EXIF orientation says; an orientation that there is not says nothing."""
    method = _UPRIGHT.get(turned)
    return image if method is None else image.transpose(method)
