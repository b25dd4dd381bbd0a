"""The metadata of a photograph's file: what counts is taken by itself, the rest is left out before decoding."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # of JPEG: they stand alone, without a length
_SCAN = 0xDA
_RAW_PROFILE, _LARGEST_EXIF = b"Raw profile type ", 2**18
_ORIENTATION, _DATE, _EXIF_FOLDER, _DATE_TAKEN = 0x0112, 0x0132, 0x8769, 0x9003  # tags of EXIF and TIFF
# What says how the pixels of a TIFF are stored: sizes, compression, strips and tiles, colours, tables of JPEG.
_TIFF_TAGS = {
    *range(256, 260),
    262,
    266,
    273,
    *range(277, 280),
    284,
    292,
    293,
    317,
    *range(320, 326),
    332,
    334,
}
_TIFF_TAGS |= {338, 339, 340, 341, 347, *range(512, 522), *range(529, 533), 50674}
_EXIF_ITEM = re.compile(rb"(infe\x02[\s\S]{7})Exif")  # in the list of items of AVIF and HEIC


class Parts(NamedTuple):
    """A file taken apart.

    Attributes
    ----------
    pixels : bytes
        The file without its metadata, as far as its format is known here.
    orientation : int
        As :func:`orientation` gives it; 0 where only the decoder can tell.
    exif : bytes
        The block of EXIF; empty where there is none or only the decoder can tell.
    """

    pixels: bytes
    orientation: int
    exif: bytes


def take_apart(data: bytes) -> Parts:
    """Part the pixels of a PNG, JPEG, TIFF, AVIF or HEIC from its metadata; other files stay as they are."""
    if data.startswith(_PNG):
        return _png_parts(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_parts(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_parts(data)
    if data[4:8] == b"ftyp":  # their decoders turn the photograph by the container's word, not by EXIF
        return Parts(_EXIF_ITEM.sub(rb"\1skip", data), 0, b"")
    return Parts(data, 0, b"")


def _png_parts(data: bytes) -> Parts:
    found, exif, kept, place = 0, b"", [_PNG], len(_PNG)
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        content = data[place + 8 : end - 4]
        if kind in _PNG_CHUNKS:
            kept.append(data[place:end])
        elif kind == b"eXIf":
            found, exif = found or orientation(content), exif or content
        elif kind == b"zTXt" and content.startswith(_RAW_PROFILE):  # how EXIF stood in PNG before 2017
            content = _from_raw_profile(content)
            found, exif = found or orientation(content), exif or content
        elif kind == b"iTXt" and content.startswith(b"XML:com.adobe.xmp"):
            found = found or _orientation_of_xmp(content)
        if kind == b"IEND":
            break
        place = end
    return Parts(b"".join(kept), found or 1, exif)


def _jpeg_parts(data: bytes) -> Parts:
    found, of_xmp, exif, kept, place = 0, 0, b"", [data[:2]], 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data) and data[place + 1] != _SCAN:
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        end = place + 2
        if marker not in _BARE_MARKERS:
            end += struct.unpack_from(">H", data, end)[0]
        segment = data[place:end]
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            found, exif = found or orientation(segment[4:]), exif or segment[4:]
        elif marker == 0xE1:
            of_xmp = of_xmp or _orientation_of_xmp(segment)
        # JFIF and Adobe say how colours are stored; the other application segments and comments are metadata
        elif marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        place = end
    return Parts(b"".join([*kept, data[place:]]), found or of_xmp or 1, exif)


def _tiff_parts(data: bytes) -> Parts:
    """Give a TIFF a directory of its first picture that names nothing but pixels; places in the file stay."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        entries = {tag: data[place : place + 12] for tag, _, _, place in _entries(data, order, first)}
    except struct.error:  # cut short: the decoder says so
        return Parts(data, 0, data)
    kept = [entries[tag] for tag in sorted(entries.keys() & _TIFF_TAGS)]
    padding = b"\0" * (len(data) % 2)
    parts = [data[:4], struct.pack(f"{order}I", len(data) + len(padding)), data[8:], padding]
    parts += [struct.pack(f"{order}H", len(kept)), *kept, b"\0" * 4]
    return Parts(b"".join(parts), orientation(data) or 1, data)


def _entries(exif: bytes, order: str, first: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count and place of the entries of a directory.

    Raises
    ------
    struct.error
        Where the block ends before the directory does.
    """
    (n_entries,) = struct.unpack_from(f"{order}H", exif, first)
    for place in range(first + 2, first + 2 + 12 * n_entries, 12):
        yield *struct.unpack_from(f"{order}HHI", exif, place), place


def _order_of(exif: bytes) -> str | None:
    return {b"II": "<", b"MM": ">"}.get(exif[:2])


def orientation(exif: bytes) -> int:
    """Find the orientation in an EXIF block, and look at nothing else.

    Parameters
    ----------
    exif : bytes
        The block, with or without ``Exif`` and two zeros before it.

    Returns
    -------
    orientation : int
        1 to 8 as EXIF counts them; 0 where there is none or it cannot be made out.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = _order_of(exif)
    if order is None:
        return 0
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        for tag, kind, count, place in _entries(exif, order, first):
            form = {1: "B", 3: "H", 4: "I"}.get(kind)
            if tag == _ORIENTATION and form is not None and count == 1:
                value = struct.unpack_from(order + form, exif, place + 8)[0]
                return value if 1 <= value <= 8 else 0
    except struct.error:
        pass
    return 0


def date_taken(exif: bytes) -> str | None:
    """Find in an EXIF block when a photograph was taken, or else when it was written.

    Parameters
    ----------
    exif : bytes
        The block, with or without ``Exif`` and two zeros before it.

    Returns
    -------
    date : str or None
        As YYYY-MM-DD HH:MM:SS; None where there is none or it cannot be made out.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = _order_of(exif)
    if order is None:
        return None
    dates: dict[int, str] = {}
    try:
        folders = [struct.unpack_from(f"{order}I", exif, 4)[0]]
        for depth in range(2):
            for tag, kind, count, place in _entries(exif, order, folders[-1]):
                if tag in (_DATE, _DATE_TAKEN) and kind == 2 and 19 <= count <= 24:
                    (start,) = struct.unpack_from(f"{order}I", exif, place + 8)
                    text = exif[start : start + count].decode("ascii").strip("\0 ")
                    dates[tag] = datetime.strptime(text, "%Y:%m:%d %H:%M:%S").isoformat(sep=" ")
                if tag == _EXIF_FOLDER and depth == 0:
                    folders.append(struct.unpack_from(f"{order}I", exif, place + 8)[0])
            if len(folders) == 1:
                break
    except (struct.error, ValueError):  # cut short, or a date that is none
        pass
    return dates.get(_DATE_TAKEN, dates.get(_DATE))


def _orientation_of_xmp(text: bytes) -> int:
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', text)
    return 0 if found is None else int(found[1])


def _from_raw_profile(content: bytes) -> bytes:
    """Return the EXIF block of a text chunk of ImageMagick: lines of hexadecimal digits, compressed."""
    try:
        text = zlib.decompressobj().decompress(content[len(_RAW_PROFILE) + 6 :], _LARGEST_EXIF)
        return bytes.fromhex(text.decode("ascii").split("\n", 3)[3].replace("\n", ""))
    except (zlib.error, ValueError, IndexError):
        return b""


def orientation_of(opened: Image.Image) -> int:
    """Find the orientation of an opened image whose file was not taken apart."""
    tags = getattr(opened, "tag_v2", None)
    try:
        if tags is not None:  # TIFF
            value = int(tags[_ORIENTATION])
            return value if 1 <= value <= 8 else 0
        exif = opened.info.get("exif")
        return orientation(exif if isinstance(exif, bytes) else opened.getexif().tobytes())
    except Exception:  # no orientation, or metadata of another kind: a file can hold anything
        return 0
