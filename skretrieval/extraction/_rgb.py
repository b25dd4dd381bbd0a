"""One rule from any mode of an image to RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

_WHITE_IS_ZERO, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 0, 258, 262, 339  # of TIFF
_UNSIGNED = 1
_BLOCK = 2**20  # pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB.

    Transparency is laid on white, as a viewer shows it. Integers of more than 8 bits are scaled by the bit depth of
    their file; without a file, by 16 bits, or 32 where a value is larger. Real numbers are scaled by 1, 255 or 65535,
    the first that none of them exceeds, or else by the largest. Negative numbers are black, and so is NaN. Where a TIFF
    says that zero is white, the values are inverted. CMYK is inverted in JPEG files of Adobe, which store the inverse.

    Parameters
    ----------
    image : PIL.Image.Image
        Loaded, or opened.

    Returns
    -------
    PIL.Image.Image
        Mode RGB; `image` itself if it is so already.
    """
    key = image.info.get("transparency")
    if image.mode == "RGB" and key is None:
        return image
    if image.mode.startswith(("I", "F")):
        grey, see_through = _grey(image, key)
        image = Image.fromarray(grey)
        if see_through is not None:
            image.putalpha(Image.fromarray(np.where(see_through, 0, 255).astype(np.uint8)))
            key = None
    if image.mode == "CMYK" and getattr(image, "format", None) == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every JPEG for one of Adobe
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or key is not None:
        if isinstance(key, tuple) and max(key) > 255:  # a key of 16 bits; the pixels were cut to 8
            image.info["transparency"] = tuple(value >> 8 for value in key)
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image, key: object) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale the values of a grey image to uint8; also tell which are transparent."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    see_through = values == key if isinstance(key, int) else None
    # so many rows at a time that the real numbers of a large photograph don't fill the memory
    step = max(1, _BLOCK // values.shape[1])
    blocks = [slice(top, top + step) for top in range(0, len(values), step)]
    if image.mode == "F":
        highest = max(_real(values[rows]).max() for rows in blocks)
        largest = next((limit for limit in (1.0, 255.0, 65535.0) if highest <= limit), highest)
    else:
        if tags and image.mode == "I" and _number(tags, _SAMPLE_FORMAT, _UNSIGNED) == _UNSIGNED:
            values = values.astype(np.int32, copy=False).view(np.uint32)  # Pillow reads all 32 bits as signed
        bits = _number(tags, _BITS, 0)
        signed = _number(tags, _SAMPLE_FORMAT, _UNSIGNED) != _UNSIGNED
        if not bits:
            bits = 16 if image.mode != "I" or values.max(initial=0) < 2**16 else 31
            signed = False
        largest = 2.0 ** (bits - signed) - 1
    grey = np.empty(values.shape, dtype=np.uint8)
    with np.errstate(over="ignore"):
        for rows in blocks:
            scaled = np.rint(np.clip(_real(values[rows]), 0, largest) / (largest / 255.0))
            grey[rows] = np.clip(scaled, 0, 255).astype(np.uint8)
    if tags and _number(tags, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return grey, see_through


def _real(values: np.ndarray) -> np.ndarray:
    """Return real numbers of 64 bits; what is none is 0."""
    return np.nan_to_num(values.astype(np.float64), nan=0.0)


def _number(tags: object, tag: int, missing: int) -> int:
    """Return the (first) number of a tag."""
    try:
        value = tags[tag]  # type: ignore[index]
        return int(value[0] if isinstance(value, tuple) else value)
    except Exception:  # no such tag, or one of another kind: a file can hold anything
        return missing
