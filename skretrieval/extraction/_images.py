"""Photographs in every form that users have, to RGB arrays of the asked size."""

from __future__ import annotations

import os
import threading
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .._io import hash_array, hash_bytes
from ._crop import ImageCrop, image_name
from ._decode import MIN_SIDE, check_header, check_sides, decode, read_file, upright
from ._metadata import orientation_of
from ._rgb import to_rgb

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

_DECODING = threading.Lock()
# Pixels above which torch resizes. It has Pillow's filter in vector instructions, 4 times as fast, which for a camera's
# photograph is much of what comes before the network; one value in some hundreds is rounded otherwise, by 1 or 2. What
# is smaller, the published collections of 1024 pixels among them, stays Pillow's to the bit.
_LARGE = 2**21


class UnreadableImageWarning(UserWarning):
    """Photographs could not be read and were left out, as ``on_error="warn"`` asks for; the message lists them."""


def check_headers(items: list[Any]) -> None:
    """Open (not decode) every file once, so that a bad path fails before hours of work and not after.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the entry and its path.
    """
    for index, item in enumerate(items):
        image = item.image if isinstance(item, ImageCrop) else item
        if isinstance(image, str | os.PathLike | bytes):
            with _naming(index, item):
                check_header(image)


class _naming:
    """Turn whatever reading an image raises into an error that names the entry and its path."""

    def __init__(self, index: int, item: Any) -> None:
        self.index, self.item = index, item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or not isinstance(error, Exception):
            return
        where = f"Entry {self.index} ({image_name(self.item)})"
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{where}: no such file.") from error
        if isinstance(error, Image.DecompressionBombError):
            raise ValueError(
                f"{where}: larger than the limit of {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels "
                "(PIL.Image.MAX_IMAGE_PIXELS guards against decompression bombs)."
            ) from error
        if isinstance(error, MemoryError):
            raise ValueError(f"{where}: there is not enough memory to read it.") from error
        if isinstance(error, Image.UnidentifiedImageError):
            raise ValueError(f"{where}: not an image file, or an empty one.") from error
        text = " ".join(str(error).split())  # some decoders break lines
        reason = text.removesuffix(".") or type(error).__name__
        raise ValueError(f"{where}: cannot be read as an image: {reason}.") from error


def read_image(
    item: Any,
    *,
    position: int = 0,
    draft: int | None = None,
    data: bytes | None = None,
    truncated: Literal["raise", "pad"] = "raise",
) -> Image.Image:
    """Read one photograph as an upright RGB image, by the rules that the extractors follow.

    Parameters
    ----------
    item : path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photograph.
    position : int, default=0
        Where it stands in the user's sequence, for error messages.
    draft : int, default=None
        A longest side in pixels that suffices: a JPEG at least twice as large may be decoded at a fraction of its
        size (never below `draft`). Ignored for crops, whose boxes count full pixels.
    data : bytes, default=None
        What the item's file holds, where it has been read already.
    truncated : {"raise", "pad"}, default="raise"
        With "pad" what there is of a file that was cut short is read; the rest is grey or black.

    Returns
    -------
    image : PIL.Image.Image
        Mode RGB.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no image, a damaged or a too large one, or a box lies outside. Messages name position and path.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.extraction import ImageCrop, read_image
    >>> grey = np.zeros((40, 60), dtype=np.uint8)
    >>> image = read_image(ImageCrop(grey, (10, 5, 50, 35)))
    >>> image.mode, image.size
    ('RGB', (40, 30))
    """
    with _naming(position, item):
        if isinstance(item, ImageCrop):
            return _crop(_read_upright(item.image if data is None else data, None, truncated), item.box)
        return _read_upright(item if data is None else data, draft, truncated)


def _read_upright(image: Any, draft: int | None, truncated: Literal["raise", "pad"] = "raise") -> Image.Image:
    """Read a path, the bytes of a file, a PIL image or a uint8 array as upright RGB."""
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if isinstance(image, Image.Image):
        check_sides(image.size)
        with _DECODING:  # a lazily opened image has one decoder, and may stand in several crops
            image.load()
        return upright(to_rgb(image), orientation_of(image))
    return decode(image if isinstance(image, bytes) else read_file(image), draft, truncated)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise ValueError(f"arrays must be uint8, got {array.dtype}.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"arrays must have shape (H, W, 3) or (H, W), got {array.shape}.")
    if min(array.shape[:2]) < 1:
        raise ValueError(f"array of shape {array.shape} has no pixel.")
    return Image.fromarray(array)


def _crop(image: Image.Image, box: tuple) -> Image.Image:
    left, top, right, bottom = (round(float(edge)) for edge in box)
    width, height = image.size
    if left < 0 or top < 0 or right > width or bottom > height:
        raise ValueError(f"box {tuple(box)} lies outside the image of {width}x{height} pixels.")
    if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        raise ValueError(f"box {tuple(box)} is smaller than {MIN_SIDE}x{MIN_SIDE} pixels.")
    return image.crop((left, top, right, bottom))


def scaled_size(width: int, height: int, longest: int | None, *, enlarge: bool = True) -> tuple[int, int]:
    """Return the size that a photograph is resized to.

    Parameters
    ----------
    width, height : int
        Its size in pixels.
    longest : int or None
        Pixels of the longest side of the result; None keeps the size.
    enlarge : bool, default=True
        Whether a smaller photograph is scaled up to `longest`; else it keeps its size.

    Returns
    -------
    width, height : int
        In the same proportion, at least 1.

    Examples
    --------
    >>> from skretrieval.extraction import scaled_size
    >>> scaled_size(4000, 3000, 1024)
    (1024, 768)
    >>> scaled_size(640, 480, 1024, enlarge=False)
    (640, 480)
    """
    if longest is None or (not enlarge and max(width, height) <= longest):
        return width, height
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize_longest(
    image: Image.Image,
    longest: int | None,
    *,
    enlarge: bool = True,
    multiple: int = 1,
    interpolation: str = "bicubic",
) -> np.ndarray:
    """Resize a photograph as the extractors do: bicubic unless said otherwise, with antialiasing.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB or L.
    longest : int or None
        Pixels of the longest side of the result; None keeps the size.
    enlarge : bool, default=True
        Whether a smaller photograph is scaled up to `longest`; else it keeps its pixels.
    multiple : int, default=1
        The sides become the nearest multiples of it: nothing is cut away, the proportions change a little.
    interpolation : str, default="bicubic"
        One of :data:`~skretrieval.extraction.INTERPOLATIONS`, as Pillow has them.

    Returns
    -------
    pixels : uint8 ndarray of shape (H, W, 3) or (H, W)
        May be read-only.

    Examples
    --------
    >>> from PIL import Image
    >>> from skretrieval.extraction import resize_longest
    >>> resize_longest(Image.new("RGB", (80, 60)), 40).shape
    (30, 40, 3)
    """
    width, height = scaled_size(*image.size, longest, enlarge=enlarge)
    if multiple > 1:
        width, height = (max(1, round(side / multiple)) * multiple for side in (width, height))
    size = (width, height)
    if size == image.size:
        return np.asarray(image)
    if image.width * image.height <= _LARGE or interpolation not in ("bicubic", "bilinear"):
        return np.asarray(image.resize(size, Image.Resampling[interpolation.upper()]))
    # a bytearray, since torch takes no memory that it must not write to
    pixels = np.frombuffer(bytearray(image.tobytes()), np.uint8).reshape(*image.size[::-1], -1)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = functional.interpolate(planes, size=size[::-1], mode=interpolation, antialias=True)[0]
    array = np.ascontiguousarray(resized.permute(1, 2, 0).numpy())
    return array if image.mode == "RGB" else array[:, :, 0]


def content_digest(item: Any, *, position: int = 0) -> tuple[str, bytes | None]:
    """Hash what a photograph shows: the bytes of a file, the pixels of anything else, and the box of a crop.

    Parameters
    ----------
    item : path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photograph.
    position : int, default=0
        Where it stands in the user's sequence, for error messages.

    Returns
    -------
    digest : str
        Hexadecimal; after a crop's the edges of its box.
    data : bytes or None
        What the file holds, so that it need not be read again; None where there is no file.

    Raises
    ------
    FileNotFoundError, ValueError
        If it cannot be read. Messages name position and path.

    Examples
    --------
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skretrieval.extraction import content_digest
    >>> pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    >>> content_digest(pixels) == content_digest(Image.fromarray(pixels))
    True
    """
    if isinstance(item, ImageCrop):
        digest, data = content_digest(item.image, position=position)
        return f"{digest}-{','.join(str(float(edge)) for edge in item.box)}", data
    if isinstance(item, str | os.PathLike):
        with _naming(position, item):
            data = read_file(item)
        return hash_bytes(data), data
    if isinstance(item, bytes):
        return hash_bytes(item), item
    with _naming(position, item):
        pixels = np.asarray(_read_upright(item, None))
    return hash_array(pixels), None
