"""What an index holds, how it was made, and whether its files are whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ._image_index import MANIFEST, checked_file, package_versions, read_manifest, words_of
from ._pending import Pending


@dataclass
class IndexInfo:
    """What :func:`index_info` found.

    Attributes
    ----------
    lines : list of str
        What the index holds; none where the first run was interrupted.
    skipped : dict of str to str
        Files that could not be read, and why.
    n_pending : int or None
        Images that an interrupted run has described and that are not yet in the index; None where none was interrupted.
    """

    lines: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    n_pending: int | None = None


def index_info(path: str | os.PathLike) -> IndexInfo:
    """Tell what an index holds, after checking every file. Loads no model.

    Parameters
    ----------
    path : path
        The folder of the index.

    Returns
    -------
    info : IndexInfo

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no index, or a file is damaged; the message says which.
    """
    folder = Path(path).resolve()
    pending = Pending(folder)
    info = IndexInfo()
    plan = pending.plan()
    if plan is None or (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        info.lines = _lines(folder, manifest)
        info.skipped = read_skipped(folder, manifest)
    if plan is not None:
        info.n_pending = sum(len(images) for images, _ in pending.shards())
    return info


def read_skipped(path: Path, manifest: dict) -> dict[str, str]:
    """Read which files were left out, and why."""
    name = checked_file(path, manifest, "images").name
    return json.loads((path / name).read_text(encoding="utf-8")).get("skipped", {})


def _lines(path: Path, manifest: dict) -> list[str]:
    """Say what an index holds, after checking every file."""
    for kind in manifest["files"]:
        checked_file(path, manifest, kind)
    used = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    settings = ", ".join(f"{name}={value}" for name, value in manifest["settings"].items())
    then, now = manifest["versions"], package_versions()
    other = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    return [
        f"Index       {path}",
        f"Format      version {manifest['format_version']}, generation {manifest['generation']}, whole",
        f"Written     {manifest['written']}",
        f"Folder      {manifest['folder']}",
        f"Images      {manifest['n_images']} ({manifest['n_skipped']} files skipped)",
        f"Labels      {manifest['n_labels']}",
        f"Dimension   {manifest['dimension']}",
        f"Settings    {settings}",
        f"Written by  {words_of(then)}",
        f"Since then  {', '.join(other) if other else 'the same versions are installed'}",
        f"On disk     {used / 2**20:.1f} MiB",
        "Trust       front-*.joblib and search-*.joblib are pickles: `search` loads them, and loading can run "
        "code. Search only an index from a source that you trust.",
    ]
