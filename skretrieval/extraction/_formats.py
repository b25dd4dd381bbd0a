"""The decoders that may look at a file, and no others."""

from __future__ import annotations

import struct
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import BinaryIO

from PIL import Image

# Those that hand a file to another program (EPS to Ghostscript), play video, or need a file's neighbours are left out.
# HEIF and JXL come with plugins of Pillow; those that take any beginning for their own come last.
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
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands
_BEGINNINGS = {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"ftypavif": "AVIF", b"ftypavis": "AVIF"}
_BEGINNINGS |= {b"ftyp" + brand: "HEIC" for brand in _HEIC}
_MOST_FILLED = 2**26  # bytes
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


@cache
def registered_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that can be read here, after the plugins that are installed were registered."""
    Image.init()
    with suppress(ImportError):  # the extra heif
        import_module("pillow_heif").register_heif_opener()
    with suppress(ImportError):
        import_module("pillow_jxl")  # registers itself
    return tuple(name for name in FORMATS if name in Image.OPEN)


def readable_suffixes() -> frozenset[str]:
    """Return the endings of the files that can be read here.

    Returns
    -------
    suffixes : frozenset of str
        In lower case, with their dot; those of HEIC with the extra `heif`.

    Examples
    --------
    >>> from skretrieval.extraction import readable_suffixes
    >>> {".jpg", ".jfif", ".png", ".avif"} <= readable_suffixes()
    True
    >>> ".eps" in readable_suffixes()
    False
    """
    formats = registered_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def open_image(stream: BinaryIO) -> Image.Image:
    """Open a photograph with the decoders of `FORMATS`; nothing is decoded yet.

    As PIL.Image.open does it, but for two things: no decoder off the list is loaded or asked, and a large photograph
    is no warning, which could not name the file, since :func:`share_of_memory` decides about it.

    Raises
    ------
    PIL.UnidentifiedImageError, PIL.Image.DecompressionBombError, ValueError, OSError
        If it is no image, has too many pixels, or is damaged.
    """
    formats = registered_formats()
    prefix = stream.read(16)
    for name in formats:
        factory, accepts = Image.OPEN[name]
        try:
            if accepts is None or accepts(prefix) is True:
                stream.seek(0)
                opened = factory(stream, "")
                _check_pixels(opened.size)
                return opened
        except (SyntaxError, IndexError, TypeError, struct.error):  # not of this format after all
            continue
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC and "HEIF" not in formats:
        raise ValueError('it is HEIC, which takes the extra heif: pip install "scikit-retrieval[heif]".')
    if prefix.startswith(_JPEG_XL) and "JXL" not in formats:
        raise ValueError("it is JPEG XL, which takes a plugin of Pillow: pip install pillow-jxl-plugin.")
    begins = next((name for mark, name in _BEGINNINGS.items() if mark in (prefix[:4], prefix[4:12])), None)
    if begins is not None:
        raise ValueError(f"it begins as {begins} and cannot be opened: it is damaged or was cut short.")
    raise Image.UnidentifiedImageError("not an image file, or an empty one")


def filled_up(data: bytes) -> bytes:
    """Give a file that was cut short the end that its decoder waits for, or zeros up to the length that it states."""
    if data.startswith(b"\xff\xd8"):
        return data + b"\xff\xd9"  # the end of a JPEG: its decoder makes the missing blocks grey
    stated = len(data)
    if data[:4] == b"RIFF" and len(data) >= 12:
        stated = 8 + int.from_bytes(data[4:8], "little")
    elif data[4:8] == b"ftyp":
        stated, size = 0, 8
        while stated + 8 <= len(data) and size >= 8:  # boxes, each with its length before it
            size = int.from_bytes(data[stated : stated + 4], "big")
            stated += size
    missing = stated - len(data)
    enough = missing <= 3 * len(data)  # of a beginning alone a photograph would be made up
    return data + bytes(missing) if 0 < missing <= _MOST_FILLED and enough else data


def _check_pixels(size: tuple[int, int]) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > 2 * limit:
        raise Image.DecompressionBombError(f"{size[0]}x{size[1]} pixels, more than the limit of {2 * limit}")
