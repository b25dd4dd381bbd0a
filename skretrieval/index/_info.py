"""What an index says of itself, and whether it is what a release writes."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import zlib
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from .._terminal import printable
from .._version import __version__
from . import _models
from ._gallery import check_rows, live_rows
from ._rows import in_blocks, mapped, row_file
from ._table import (
    DATABASE,
    FILES,
    FORMAT_VERSION,
    IMAGES,
    OUR_NAME,
    IndexDamagedError,
    given_path,
    settings_of,
)

_PACKAGES = ("numpy", "scikit-learn", "torch", "torchvision", "pillow", "skops", "safetensors", "sqlalchemy")
_LARGEST = 2**53  # numbers that JSON holds everywhere


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_text(value: Any) -> bool:
    return type(value) is str and "\0" not in value


def _is_words(value: Any) -> bool:
    return _is_text(value) and value.isprintable()


def _is_file(kind: str, none: bool = False) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if value is None:
            return none
        return type(value) is str and value.startswith(f"{kind}-") and OUR_NAME.fullmatch(value) is not None

    return check


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: type(value) is str and re.fullmatch("[0-9a-f]{32}", value) is not None,
    "format_version": lambda value: value == FORMAT_VERSION and _is_number(value),
    "generation": _is_number,
    "model": _is_file("model"),
    "encoder": _is_file("encoder", none=True),
    "search": _is_file("search", none=True),
    "stale": lambda value: type(value) is bool,
    "folder": lambda value: value is None or (_is_text(value) and os.path.isabs(value)),
    "exclude": lambda value: type(value) is list and all(map(_is_text, value)),
    "settings": lambda value: type(value) is dict,
    "versions": lambda value: type(value) is dict and all(map(_is_words, [*value, *value.values()])),
    "created": _is_words,
}


def check_settings(connection: sa.Connection, where: Path) -> dict[str, Any]:
    """Return the settings of an index, if they are what some release wrote and this one can read.

    Raises
    ------
    ValueError
        If a newer release wrote them.
    IndexDamagedError
        If one is missing or of another kind.
    """
    settings = settings_of(connection)
    found = settings.get("format_version")
    if found is not None and _is_number(found) and found > FORMAT_VERSION:
        versions = settings.get("versions")
        by = versions.get("skretrieval") if isinstance(versions, dict) else None
        raise ValueError(
            f"{where} has format version {found}; this skretrieval {__version__} reads up to {FORMAT_VERSION}. "
            f"Upgrade to skretrieval {by if _is_words(by) else '(unknown)'}."
        )
    for key, is_sound in _CHECKS.items():
        if not is_sound(settings.get(key, ...)):
            value = printable(str(settings[key])[:100]) if key in settings else "missing"
            raise IndexDamagedError(f"{where} is damaged: its setting {key!r} is {value}.")
    return settings


def info_of(connection: sa.Connection, where: Path) -> dict[str, Any]:
    """Return what :meth:`ImageIndex.info` tells."""
    settings = check_settings(connection, where)
    descriptors, gallery = (row_file(connection, where, kind) for kind in ("descriptors", "gallery"))
    lines = sa.select(IMAGES.c.row, IMAGES.c.n_rows).where(IMAGES.c.row.is_not(None)).distinct().subquery()
    n_rows = connection.execute(sa.select(sa.func.sum(lines.c.n_rows))).scalar_one() or 0
    readable = IMAGES.c.row.is_not(None)

    def count(of: Any, *conditions: Any) -> int:
        return connection.execute(sa.select(sa.func.count(of)).where(*conditions)).scalar_one()

    kept = ("id", "format_version", "folder", "generation", "created", "exclude", "settings", "versions")
    n_images, n_bytes = count(IMAGES.c.id, readable), bytes_of(where)
    return {
        **{key: settings[key] for key in kept},
        "where": str(where),
        "n_images": n_images,
        "n_labels": count(IMAGES.c.label.distinct(), readable, IMAGES.c.label != ""),
        "n_skipped": count(IMAGES.c.id, IMAGES.c.reason.is_not(None)),
        "n_blank": count(IMAGES.c.id, IMAGES.c.blank),
        "dimension": getattr(gallery or descriptors, "n_columns", None),
        "n_rows": n_rows,
        "n_unused_rows": (descriptors.n_rows if descriptors else 0) - n_rows,
        "n_bytes": n_bytes,
        "n_bytes_per_image": n_bytes / n_images if n_images else None,
        "complete": settings["encoder"] is not None and not (settings["stale"] and gallery is not None),
        "changed_versions": {
            name: [settings["versions"].get(name), number]
            for name, number in package_versions().items()
            if settings["versions"].get(name) != number
        },
    }


def verify(connection: sa.Connection, where: Path, trust: Collection[str]) -> None:
    """Read all that an index has.

    Raises
    ------
    IndexDamagedError
        Naming the first file that is not what was written.
    """
    found = connection.exec_driver_sql("PRAGMA integrity_check").scalar_one()
    if found != "ok":
        raise IndexDamagedError(f"{where / DATABASE} is damaged: {found}.")
    n_rows = 0
    for kind in ("gallery", "descriptors"):
        rows = row_file(connection, where, kind)
        n_rows, checksum = 0, 0
        if rows is None:
            continue
        n_rows = rows.n_rows
        for block in in_blocks(mapped(where, rows)):
            checksum = zlib.crc32(np.ascontiguousarray(block).data, checksum)
            if not np.isfinite(block).all():
                raise IndexDamagedError(f"{where / rows.file} is damaged: a number is not finite.")
        if checksum != rows.checksum:
            raise IndexDamagedError(
                f"{where / rows.file} is damaged: its content has changed since it was written."
            )
    live_rows(connection)
    check_rows(connection, where, n_rows)
    for (path,) in connection.execute(sa.select(IMAGES.c.path)):
        given_path(path)
    chosen = sa.select(FILES.c.file).where(FILES.c.in_use, FILES.c.kind.in_(["model", "encoder", "search"]))
    for file in connection.execute(chosen).scalars().all():
        _models.read_model(where, file, trust)


def bytes_of(where: Path) -> int:
    """Return how many bytes the files of an index take on disk."""
    n_bytes = 0
    with os.scandir(where) as files:
        for file in files:
            if file.name.startswith(DATABASE) or OUR_NAME.fullmatch(file.name):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile by who writes
                    n_bytes += file.stat(follow_symlinks=False).st_size
    return n_bytes


def package_versions() -> dict[str, str]:
    """Return the versions of what the descriptors of an index depend on."""
    versions = {"skretrieval": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
