"""The bytes of a photograph to upright RGB pixels, whatever its metadata say."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from ._rgb import to_rgb

# The decoders that may look at a file. Those that hand it to another program (EPS to Ghostscript), play video, or need
# a file's neighbours are left out; plugins for HEIC and JPEG XL count once they are registered.
FORMATS = (
    *(
        "AVIF",
        "BMP",
        "DDS",
        "DIB",
        "GIF",
        "HEIF",
        "ICNS",
        "ICO",
        "JPEG",
        "JPEG2000",
        "JXL",
        "MPO",
        "PCX",
        "PNG",
    ),
    *("PPM", "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM"),
)
MIN_SIDE = 2  # pixels; a photograph with a 1-pixel side has no structure to describe

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # of JPEG: they stand alone, without a length
_SCAN = 0xDA
_RAW_PROFILE, _LARGEST_EXIF = b"Raw profile type ", 2**18
_ORIENTATION = 0x0112  # the tag of EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, draft: int | None = None) -> Image.Image:
    """Decode a file to an upright RGB image.

    Only the pixels and the EXIF orientation are taken: nothing else of the metadata can keep a photograph from being
    read. Decoding waits while other threads hold so many pixels that memory could run out.

    Parameters
    ----------
    data : bytes
        The file.
    draft : int, optional
        A longest side that suffices: a JPEG at least twice as large may be decoded at a fraction of its size, never
        below `draft`.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, upright.

    Raises
    ------
    ValueError, OSError, SyntaxError, PIL.Image.DecompressionBombError
        If the file is no image of the formats in `FORMATS`, is damaged or truncated, or has a side of one pixel.
    """
    turned, data = _without_metadata(data)
    with Image.open(io.BytesIO(data), formats=_registered()) as opened:
        check_sides(opened.size)
        if draft is not None and opened.format == "JPEG":
            longest = max(opened.size)
            opened.draft(None, tuple(max(1, round(side * draft / longest)) for side in opened.size))
        with _share_of_memory(opened.size[0] * opened.size[1]):
            opened.load()
            return upright(to_rgb(opened), turned or _orientation_of(opened))


def check_header(data: bytes) -> None:
    """Open, and do not decode, a file: raise what :func:`decode` raises for a file of another kind."""
    with Image.open(io.BytesIO(_without_metadata(data)[1]), formats=_registered()) as opened:
        check_sides(opened.size)


def check_sides(size: tuple[int, int]) -> None:
    """Raise a ValueError for an image with a side of less than `MIN_SIDE` pixels."""
    if min(size) < MIN_SIDE:
        raise ValueError(f"{size[0]}x{size[1]} pixels; each side needs at least {MIN_SIDE}")


def upright(image: Image.Image, turned: int) -> Image.Image:
    """Turn an image as its EXIF orientation says; an orientation that there is not says nothing."""
    method = _UPRIGHT.get(turned)
    return image if method is None else image.transpose(method)


def _registered() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


# ---------------------------------------------------------------------------------------------------- metadata
def _without_metadata(data: bytes) -> tuple[int, bytes]:
    """Return the orientation of a PNG or JPEG (else 0: not looked for), and the file without its metadata."""
    try:
        if data.startswith(_PNG):
            return _png_parts(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg_parts(data)
    except (struct.error, IndexError):  # cut short: the decoder says so
        pass
    return 0, data


def _png_parts(data: bytes) -> tuple[int, bytes]:
    found, kept, place = 0, [_PNG], len(_PNG)
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        content = data[place + 8 : end - 4]
        if kind in _PNG_CHUNKS:
            kept.append(data[place:end])
        elif kind == b"eXIf":
            found = found or orientation(content)
        elif kind == b"zTXt" and content.startswith(_RAW_PROFILE):  # how EXIF stood in PNG before 2017
            found = found or orientation(_from_raw_profile(content))
        elif kind == b"iTXt" and content.startswith(b"XML:com.adobe.xmp"):
            found = found or _orientation_of_xmp(content)
        if kind == b"IEND":
            break
        place = end
    return found or 1, b"".join(kept)


def _jpeg_parts(data: bytes) -> tuple[int, bytes]:
    found, of_xmp, kept, place = 0, 0, [data[:2]], 2
    while data[place] == 0xFF and data[place + 1] != _SCAN:
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        end = place + 2
        if marker not in _BARE_MARKERS:
            end += struct.unpack_from(">H", data, end)[0]
        segment = data[place:end]
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            found = found or orientation(segment[4:])
        elif marker == 0xE1:
            of_xmp = of_xmp or _orientation_of_xmp(segment)
        # JFIF and Adobe say how colours are stored; the other application segments and comments are metadata
        elif marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        place = end
    return found or of_xmp or 1, b"".join([*kept, data[place:]])


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
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 0
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        (n_entries,) = struct.unpack_from(f"{order}H", exif, first)
        for entry in range(n_entries):
            place = first + 2 + 12 * entry
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, place)
            form = {1: "B", 3: "H", 4: "I"}.get(kind)
            if tag == _ORIENTATION and form is not None and count == 1:
                value = struct.unpack_from(order + form, exif, place + 8)[0]
                return value if 1 <= value <= 8 else 0
    except struct.error:
        pass
    return 0


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


def _orientation_of(opened: Image.Image) -> int:
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


# ---------------------------------------------------------------------------------------------------- memory
_BYTES_A_PIXEL = 12  # decoded, converted, turned: at most three copies of four bytes
_held = 0
_freed = threading.Condition()


def memory_budget() -> int:
    """Return how many bytes of decoded pixels all threads may hold together: a quarter of the memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):  # not on this system
        return 2**31


@contextmanager
def _share_of_memory(n_pixels: int) -> Iterator[None]:
    """Wait until the pixels fit into the budget; what is larger than the budget is decoded alone."""
    global _held
    wanted = n_pixels * _BYTES_A_PIXEL
    with _freed:
        _freed.wait_for(lambda: _held == 0 or _held + wanted <= memory_budget())
        _held += wanted
    try:
        yield
    finally:
        with _freed:
            _held -= wanted
            _freed.notify_all()
