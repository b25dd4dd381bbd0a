"""What a search found, for people and for programs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .._terminal import printable
from ..extraction import ImageCrop
from ..inspection import results_page
from ._gallery import Found
from ._matched import RegionBoxes
from ._table import IMAGES, given_path


@dataclass(frozen=True)
class SearchResults:
    """Photographs of an index, most alike first.

    Attributes
    ----------
    query : object
        What was searched for.
    box : tuple (left, top, right, bottom) or None
        Which part of it, in pixels.
    ids : list of int
        Numbers of the photographs in the index.
    paths : list of str
        Where they lie.
    names : list of str
        The same relative to the folder of the index, as they are printed.
    similarities : list of float
        Of descriptors by the cosine: 1 for the same direction. By another metric 1 / (1 + distance).
    distances : list of float
        In the metric.
    labels : list of str
        The first folder of each name; empty for a photograph that lies in none.
    boxes : list of tuple (left, top, right, bottom) or None
        The part of each that matched, in pixels of the upright photograph, where the encoder describes regions
        (:class:`~skretrieval.pooling.RegionSetPooler`); else None.
    widths, heights : list of int or None
        In pixels, upright.
    taken : list of str or None
        When, as YYYY-MM-DD HH:MM:SS, where the camera says so.
    metric : str
        By which they were compared.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.
    """

    query: Any
    box: tuple[float, float, float, float] | None
    metric: str
    ids: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    similarities: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float] | None] = field(default_factory=list)
    widths: list[int | None] = field(default_factory=list)
    heights: list[int | None] = field(default_factory=list)
    taken: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.ids)

    def at_least(self, similarity: float) -> SearchResults:
        """Return the results that are at least as similar as that."""
        n = sum(own >= similarity for own in self.similarities)
        parts = {name: getattr(self, name)[:n] for name in _LISTS}
        return replace(self, **parts)

    def records(self) -> list[dict[str, Any]]:
        """Return one dict per result, of values that JSON holds.

        Returns
        -------
        records : list of dict
            With the keys rank, id, name, path, label, similarity, distance, width, height, taken and box.
        """
        return [
            {
                "rank": place + 1,
                "id": self.ids[place],
                "name": self.names[place],
                "path": printable(self.paths[place]),
                "label": self.labels[place],
                "similarity": self.similarities[place],
                "distance": self.distances[place],
                "width": self.widths[place],
                "height": self.heights[place],
                "taken": self.taken[place],
                "box": self.boxes[place],
            }
            for place in range(len(self))
        ]

    def to_json(self) -> str:
        """Return the results as JSON: an object with ``query``, ``box``, ``metric`` and ``results``."""
        query = printable(os.fspath(self.query)) if isinstance(self.query, str | os.PathLike) else None
        content = {"query": query, "box": self.box, "metric": self.metric, "results": self.records()}
        return json.dumps(content, allow_nan=False)

    def to_frame(self) -> Any:
        """Return the results as a pandas DataFrame, one line each.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("SearchResults.to_frame needs pandas: pip install pandas.") from error
        columns = ["rank", "id", "name", "path", "label", "similarity", "distance"]
        return pd.DataFrame(self.records(), columns=[*columns, "width", "height", "taken", "box"])

    def save_html(self, path: str | os.PathLike, **settings: Any) -> Path:
        """Write a page with the query and the results, which needs no other file.

        Parameters
        ----------
        path : path
            The page.
        **settings : object
            What the page is to say beside the results, by name.

        Returns
        -------
        path : Path
            The page.
        """
        query = self.query if self.box is None else ImageCrop(self.query, self.box)
        return results_page(
            path,
            [query],
            self.paths,
            [list(range(len(self)))],
            [self.similarities],
            gallery_titles=self.names,
            settings=settings,
            boxes=[self.boxes],
            score_name="similarity",
            n_results=max(1, len(self)),
        )


_LISTS = [part.name for part in fields(SearchResults) if part.name not in ("query", "box", "metric")]


def results_of(
    connection: sa.Connection,
    found: Found,
    folder: str,
    query: Any,
    box: tuple[float, float, float, float] | None,
    regions: RegionBoxes,
) -> SearchResults:
    """Complete what a search found by what the table says of the photographs."""
    lines: dict[int, Any] = {}
    columns = (
        IMAGES.c.id,
        IMAGES.c.path,
        IMAGES.c.label,
        IMAGES.c.width,
        IMAGES.c.height,
        IMAGES.c.taken,
    )
    for start in range(0, len(found.ids), 500):
        chosen = sa.select(*columns).where(IMAGES.c.id.in_(found.ids[start : start + 500]))
        lines |= {line.id: line for line in connection.execute(chosen)}
    images = [lines[number] for number in found.ids]
    paths = [path_of(folder, line.path) for line in images]
    cosine = found.metric == "cosine"
    matched: list[int | None] = [None] * len(images) if found.regions is None else [*found.regions]
    return SearchResults(
        query=query,
        box=box,
        metric=found.metric,
        ids=found.ids,
        paths=paths,
        names=[printable(given_path(line.path)) for line in images],
        similarities=[1 - distance if cosine else 1 / (1 + distance) for distance in found.distances],
        distances=found.distances,
        labels=[printable(line.label or "") for line in images],
        boxes=[
            None if region is None or line.width is None else regions.box_of(region, line.width, line.height)
            for region, line in zip(matched, images, strict=True)
        ],
        widths=[line.width for line in images],
        heights=[line.height for line in images],
        taken=[line.taken if line.taken is None else printable(line.taken) for line in images],
    )


def path_of(folder: str, stored: bytes) -> str:
    """Return where a photograph of the index lies.

    Raises
    ------
    IndexDamagedError
        If the table names one that would not lie in the folder.
    """
    return os.path.join(folder, given_path(stored))
