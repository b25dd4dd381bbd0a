"""Whatever holds photographs, as a list of them: columns, data sets, generators, files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ._crop import ImageCrop, image_name

_KEYS = ("image", "img")  # under which data sets keep a photograph
_PHOTOGRAPH = str | os.PathLike | Image.Image | np.ndarray | bytes


def check_images(X: Any) -> list[Any]:
    """Return photographs as a list, after the checks that need no decoding.

    Parameters
    ----------
    X : sequence, column, data set or generator
        Of paths, PIL images, uint8 arrays, ImageCrop, the bytes of files, open binary files, or torch tensors of
        shape (3, H, W) or (1, H, W), uint8 or real numbers between 0 and 1. A DataFrame with one column, a Series,
        an array of shape (n, 1) and any iterator are taken for the sequence that they hold; a map-style torch or
        torchvision data set for its items. Of an item (image, target) the image counts, and of a dict what stands
        under "image" or "img", as the `datasets` library has it.

    Returns
    -------
    images : list
        The photographs: paths, PIL images, arrays and crops unchanged, open files read to bytes, tensors as uint8
        arrays of shape (H, W, 3) or (H, W).

    Raises
    ------
    ValueError
        If `X` is empty, a single photograph instead of a sequence, or a table of several columns.
    TypeError
        If `X` is no sequence or has no order, or an entry is no photograph; the message says which.

    Examples
    --------
    >>> from skretrieval.extraction import check_images
    >>> check_images(("a.jpg", "b.jpg"))
    ['a.jpg', 'b.jpg']
    >>> check_images({"image": name} for name in ("a.jpg", "b.jpg"))
    ['a.jpg', 'b.jpg']
    """
    items = [_photograph(index, item) for index, item in enumerate(_sequence(X))]
    if not items:
        raise ValueError("Found 0 images (empty X) while a minimum of 1 is required.")
    return items


def _sequence(X: Any) -> Iterable[Any]:
    if isinstance(X, _PHOTOGRAPH | ImageCrop | bytearray | memoryview) and not isinstance(X, np.ndarray):
        raise ValueError(
            f"Expected a sequence of images, got a single one: {image_name(X)}. Wrap it in a list."
        )
    if hasattr(X, "read"):
        raise ValueError("Expected a sequence of images, got a single open file. Wrap it in a list.")
    if isinstance(X, Mapping):
        raise TypeError(
            f"Expected a sequence of images, got a {type(X).__name__} with the keys "
            f"{', '.join(map(repr, list(X)[:5]))}. Choose one of its values."
        )
    if isinstance(X, set | frozenset):
        raise TypeError(
            f"Expected a sequence of images, got a {type(X).__name__}, which has no order: results could not be "
            "told apart. Make a sorted list of it."
        )
    if hasattr(X, "columns") and hasattr(X, "shape"):  # a DataFrame
        names = list(X.columns)
        if len(names) != 1:
            raise ValueError(
                f"Expected a sequence of images, got a table with {len(names)} columns "
                f"({', '.join(map(str, names[:5]))}). Choose the one that holds them: X[name]."
            )
        return X[names[0]]
    if isinstance(X, np.ndarray | torch.Tensor):
        return _array(X)
    if hasattr(X, "__iter__"):
        return X
    if hasattr(X, "__len__") and hasattr(X, "__getitem__"):  # a torch data set: its end is no IndexError
        return (X[index] for index in range(len(X)))
    raise TypeError(f"Expected a sequence of images, got {type(X).__name__}.")


def _array(X: np.ndarray | torch.Tensor) -> Any:
    """Return the rows of an array: of one dimension, a column, or four for pixels."""
    pixels = isinstance(X, torch.Tensor) or X.dtype.kind not in "OUST"
    if X.ndim == 1 or (pixels and X.ndim == 4):
        return X
    if not pixels and X.ndim == 2 and X.shape[1] == 1:
        return X[:, 0]
    shape = tuple(X.shape)
    if pixels:
        raise ValueError(
            f"Expected a sequence of images, got an array of shape {shape}. A single image goes in a list; "
            "several of one size form an array of shape (n, H, W, 3)."
        )
    raise ValueError(
        f"Expected a 1-D sequence of images, got an array of shape {shape}. Choose the column that holds them."
    )


def _photograph(index: int, item: Any) -> Any:
    """Return the photograph that an entry is or holds."""
    if isinstance(item, ImageCrop):
        whole = _photograph(index, item.image)
        return item if whole is item.image else ImageCrop(whole, item.box)
    if isinstance(item, Mapping):
        return _photograph(index, _value(index, item))
    if isinstance(item, tuple) and item and not _is_pair(item):
        return _photograph(index, item[0])
    if isinstance(item, torch.Tensor):
        return _pixels(index, item)
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    if hasattr(item, "read") and not isinstance(item, _PHOTOGRAPH):
        return _contents(index, item)
    if not isinstance(item, _PHOTOGRAPH):
        raise TypeError(
            f"Entry {index}: expected a path, PIL image, uint8 array, bytes or ImageCrop, got "
            f"{'a missing value' if item is None or item != item else type(item).__name__}."
        )
    return item


def _is_pair(item: tuple) -> bool:
    """Tell whether a tuple holds several photographs, of which none may be chosen for the user."""
    first, *others = item
    paths = str | os.PathLike if isinstance(first, str | os.PathLike) else os.PathLike
    return any(
        isinstance(other, Image.Image | bytes | paths) or getattr(other, "ndim", 0) >= 2 for other in others
    )


def _value(index: int, item: Mapping) -> Any:
    key = next((key for key in _KEYS if key in item), None)
    if key is not None:
        return item[key]
    if item.get("bytes") is not None:  # how the `datasets` library keeps one that it has not decoded
        return item["bytes"]
    if item.get("path") is not None:
        return item["path"]
    raise TypeError(
        f"Entry {index}: expected a photograph under the key 'image', got a dict with the keys "
        f"{', '.join(map(repr, list(item)[:5]))}."
    )


def _contents(index: int, stream: Any) -> bytes:
    """Read an open file from its beginning, or from where it is if it cannot go back."""
    if getattr(stream, "seekable", bool)():
        stream.seek(0)
    data = stream.read()
    if not isinstance(data, bytes):
        raise TypeError(f"Entry {index}: the file was opened as text; open it with mode 'rb'.")
    return data


def _pixels(index: int, tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor (3, H, W) or (1, H, W), as torchvision makes them, as a uint8 array."""
    shape = tuple(tensor.shape)
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and shape[0] not in (1, 3)):
        raise TypeError(f"Entry {index}: a tensor must have shape (3, H, W) or (1, H, W), got {shape}.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise TypeError(f"Entry {index}: a tensor must be dense, got one of layout {tensor.layout}.")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        if not bool(((tensor >= 0) & (tensor <= 1)).all()):
            raise ValueError(
                f"Entry {index}: a tensor of real numbers must lie between 0 and 1; the extractor normalises by "
                "itself, so give it photographs that are not normalised."
            )
        tensor = tensor.double().mul(255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise TypeError(f"Entry {index}: a tensor must be uint8 or real, got {tensor.dtype}.")
    array = tensor.numpy()
    if array.ndim == 3:
        array = array[0] if shape[0] == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))
    return array
