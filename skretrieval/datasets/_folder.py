"""A folder of photographs, with its labels, queries and boxes."""

from __future__ import annotations

import codecs
import csv as csv_module
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from ..extraction import ImageCrop, read_size

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_ROLES = ("gallery", "query")


def load_image_folder(
    folder: str | os.PathLike,
    *,
    csv: str | os.PathLike | None = None,
    extensions: Iterable[str] = EXTENSIONS,
) -> Bunch:
    """Load a folder of photographs: paths, labels and queries.

    Without `csv`, the name of the first folder below `folder` is the label of all photographs in it, at any
    depth; photographs that all lie in `folder` itself have no labels. With `csv`, the table says it all.

    Parameters
    ----------
    folder : path
        Where the photographs are. Names with a leading dot are left out; links to folders are not followed.

    csv : path, default=None
        A table with a header and the columns

        - ``path``: relative to `folder`, or absolute;
        - ``label`` (optional): what the photograph shows; all rows have one, or none;
        - ``role`` (optional): ``gallery`` (also when empty) or ``query``;
        - ``box`` (optional): ``left top right bottom`` in pixels, with blanks between, or commas in quotes.
          The item is then an :class:`~skretrieval.extraction.ImageCrop`.

    extensions : iterable of str
        Which files are photographs, without regard to case. Not used with `csv`.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : list of str or ImageCrop
            The gallery: sorted paths, or in the order of the table.
        labels : ndarray of shape (n_images,), dtype str, or None
            What each shows; None if the folder doesn't say.
        target : ndarray of shape (n_images,) or None
            The labels as numbers: ``target_names[target]`` are the labels.
        target_names : ndarray of str or None
            The names of gallery and queries together, sorted.
        queries : list of str or ImageCrop
            The rows of role ``query``; empty without `csv`.
        query_labels, query_target : ndarray of shape (n_queries,) or None
            As `labels` and `target`, for the queries.
        DESCR : str
            A sentence with the counts.

    Raises
    ------
    FileNotFoundError
        If `folder`, `csv` or a file of the table doesn't exist.

    ValueError
        If there is no photograph, some photographs lie in `folder` and others below it, the table lacks a
        column, or a row cannot be used. Messages name the row, counted with the header as row 1.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skretrieval.datasets import load_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     for name in ["cat/1.png", "cat/2.png", "dog/1.png"]:
    ...         path = Path(folder, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 8)).save(path)
    ...     dataset = load_image_folder(folder)
    >>> dataset.labels
    array(['cat', 'cat', 'dog'], dtype='<U3')
    >>> dataset.target
    array([0, 0, 1])
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"No such folder: {root}.")
    if csv is None:
        images, labels = _walk(root, tuple(extensions))
        queries: list = []
        query_labels = None if labels is None else np.array([], dtype=labels.dtype)
    else:
        images, labels, queries, query_labels = _read_table(root, Path(csv))
    if labels is None or query_labels is None:
        target_names = target = query_target = None
    else:
        target_names = np.unique(np.concatenate([labels, query_labels]))
        target = np.searchsorted(target_names, labels)
        query_target = np.searchsorted(target_names, query_labels)
    known = "no labels" if target_names is None else f"{len(target_names)} labels"
    return Bunch(
        images=images,
        labels=labels,
        target=target,
        target_names=target_names,
        queries=queries,
        query_labels=query_labels,
        query_target=query_target,
        DESCR=f"{len(images)} gallery images and {len(queries)} queries of {root}, {known}.",
    )


def list_images(root: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """List the image files below a folder, sorted, as paths relative to it with forward slashes."""
    endings = tuple(ending.lower() for ending in extensions)
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(folder).relative_to(root)
        found += [
            (relative / name).as_posix()
            for name in names
            if name.lower().endswith(endings) and not name.startswith(".")
        ]
    return sorted(found)


def folder_labels(paths: list[str], root: Path) -> list[str] | None:
    """Return the first folder of each relative path, or None if all lie in the root.

    Raises
    ------
    ValueError
        If some lie in the root and others below: then a label for each cannot be told.
    """
    loose = [path for path in paths if "/" not in path]
    if len(loose) == len(paths):
        return None
    if loose:
        raise ValueError(
            f"{len(loose)} of {len(paths)} images lie in {root} itself ({loose[0]}, ...) and the others in "
            "its sub-folders, whose names are the labels. Move them, or name the labels in a table (csv=)."
        )
    return [path.split("/", 1)[0] for path in paths]


def _walk(root: Path, extensions: tuple[str, ...]) -> tuple[list, np.ndarray | None]:
    paths = list_images(root, extensions)
    if not paths:
        raise ValueError(f"No images in {root}: no file ends in {', '.join(extensions)}.")
    labels = folder_labels(paths, root)
    return [str(root / path) for path in paths], None if labels is None else np.array(labels)


def _read_table(root: Path, path: Path) -> tuple[list, np.ndarray | None, list, np.ndarray | None]:
    if not path.is_file():
        raise FileNotFoundError(f"No such table: {path}.")
    reader = csv_module.DictReader(io.StringIO(_text_of(path), newline=""), skipinitialspace=True)
    try:
        columns = reader.fieldnames or []
        if "path" not in columns:
            raise ValueError(f"{path} has no column 'path'; its columns are {list(columns)}.")
        rows = list(reader)
    except csv_module.Error as error:
        raise ValueError(f"{path}, line {reader.line_num + 1}: no table: {error}.") from error
    if not rows:
        raise ValueError(f"{path} has no rows.")
    items: dict[str, list] = {role: [] for role in _ROLES}
    labels: dict[str, list] = {role: [] for role in _ROLES}
    for number, row in enumerate(rows, start=2):
        try:
            role = (row.get("role") or "").strip() or "gallery"
            if role not in _ROLES:
                raise ValueError(f"role must be gallery or query, got {role!r}.")
            items[role].append(_item(root, row))
            labels[role].append((row.get("label") or "").strip())
        except (FileNotFoundError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"{path}, row {number}: {error}") from error
    everything = labels["gallery"] + labels["query"]
    if any(everything) and not all(everything):
        number = next(n for n, row in enumerate(rows, start=2) if not (row.get("label") or "").strip())
        raise ValueError(f"{path}, row {number}: no label, while other rows have one.")
    if not items["gallery"]:
        raise ValueError(f"{path} has no row of role gallery.")
    known = any(everything)
    return (
        items["gallery"],
        np.array(labels["gallery"]) if known else None,
        items["query"],
        np.array(labels["query"], dtype=str) if known else None,
    )


def _text_of(path: Path) -> str:
    """Read a table in UTF-8, or in UTF-16 with its mark, as spreadsheets save them.

    Raises
    ------
    ValueError
        If it is neither. An older code page cannot be told from another, and a wrong one gives wrong names.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        shown = data[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace")
        raise ValueError(
            f"{path}, line {line}: {shown.strip()!r} is not UTF-8 (byte 0x{data[error.start]:02x}). Save the table "
            "as CSV UTF-8."
        ) from error


def _item(root: Path, row: dict[str, Any]) -> str | ImageCrop:
    """Make the path or ImageCrop of a row; what can be checked without decoding is checked."""
    name = (row["path"] or "").strip()
    if not name:
        raise ValueError("the path is empty.")
    image = root / name
    if not image.is_file():
        raise FileNotFoundError(f"no such file: {image}.")
    text = (row.get("box") or "").strip()
    if not text:
        return str(image)
    try:
        box = tuple(float(edge) for edge in text.replace(",", " ").replace(";", " ").split())
    except ValueError:
        raise ValueError(f"box must be four numbers, left top right bottom, got {text!r}.") from None
    check_box(image, box)
    left, top, right, bottom = (int(edge) if edge.is_integer() else edge for edge in box)
    return ImageCrop(str(image), (left, top, right, bottom))


def check_box(image: Path, box: tuple[float, ...]) -> None:
    """Check a box against the size of its photograph, read from the header alone.

    Raises
    ------
    ValueError
        If it is not (left, top, right, bottom) inside the upright photograph.
    """
    if len(box) != 4:
        raise ValueError(f"box must be four numbers, left top right bottom, got {len(box)}.")
    width, height = photograph_size(image)
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"box {tuple(box)} doesn't lie inside {image} of {width}x{height} pixels: "
            f"0 <= left < right <= {width} and 0 <= top < bottom <= {height} must hold."
        )


def photograph_size(image: str | os.PathLike) -> tuple[int, int]:
    """Return width and height of an upright photograph, read from its header.

    Raises
    ------
    ValueError
        If it cannot be read; the message names it.
    """
    try:
        return read_size(image)
    except Exception as error:  # decoders raise whatever a file brings them to
        reason = str(error).removesuffix(".") or type(error).__name__
        raise ValueError(f"{os.fspath(image)} cannot be read as an image: {reason}.") from error
