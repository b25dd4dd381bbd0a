"""What is searched: the rows of an index, as described or whitened, behind a retriever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from ._encoder import halves_of
from ._filter import condition
from ._rows import mapped, row_file
from ._table import (
    IMAGES,
    IndexDamagedError,
)

Load = Callable[[str], Pipeline]


class Found(NamedTuple):
    """What a search found.

    Attributes
    ----------
    ids : list of int
        Numbers of the photographs, best first.
    distances : list of float
        In the retriever's metric.
    metric : str
        Its name.
    regions : list of int or None
        Which region of each photograph matched; None where photographs have one descriptor.
    """

    ids: list[int]
    distances: list[float]
    metric: str
    regions: list[int] | None = None


class Gallery:
    """The rows of an index in one of its states.

    Parameters
    ----------
    state : tuple
        Which.
    rows : ndarray of shape (n_rows, d)
        Mapped; some may be of no photograph any more.
    search : Pipeline
        Fitted steps that a query goes through, and the unfitted retriever.
    sets : tuple of ndarray (starts, counts), or None
        Where each photograph's rows lie, if it has several.
    live : ndarray, or None where all are
        The rows of photographs that are not blank, for a retriever that learns from what it finds.
    """

    def __init__(
        self,
        state: tuple[Any, ...],
        rows: np.ndarray,
        search: Pipeline,
        sets: tuple[np.ndarray, np.ndarray] | None,
        live: np.ndarray | None = None,
    ):
        self.state, self.rows, self.search_steps, self.sets, self.live = state, rows, search, sets, live
        self.retriever = clone(search.steps[-1][1]).fit(self._items(live))

    @property
    def n_items(self) -> int:
        """How many photographs, or contents, can be found."""
        return len(self.rows) if self.sets is None else len(self.sets[0])

    def _items(self, chosen: np.ndarray | None) -> Any:
        if self.sets is None:
            return self.rows if chosen is None else np.asarray(self.rows[chosen])
        starts, counts = self.sets if chosen is None else (self.sets[0][chosen], self.sets[1][chosen])
        return [self.rows[start : start + count] for start, count in zip(starts, counts, strict=True)]

    def _first_rows(self, items: np.ndarray) -> np.ndarray:
        return items if self.sets is None else self.sets[0][items]

    def search(
        self, connection: sa.Connection, encoder: Pipeline, item: Any, n_neighbors: int, where: str | None
    ) -> Found:
        """Search for one photograph.

        Raises
        ------
        ValueError
            If it cannot be read, or shows nothing that could be searched for.
        """
        query: Any = encoder.transform([item])
        if not np.any(query[0]):
            raise ValueError("The photograph has no structure to search for: its descriptor is zero.")
        for _, step in self.search_steps.steps[:-1]:
            query = step.transform(query)
        retriever, items = self.retriever, self.live
        holds = None if where is None else condition(where)
        if holds is not None:
            items = self._that_hold(connection, holds)
            if len(items) == 0:
                return Found([], [], _metric(retriever))
            retriever = clone(self.search_steps.steps[-1][1]).fit(self._items(items))
        size, k = (self.n_items if items is None else len(items)), n_neighbors
        while True:
            k = min(k, size)
            distances, places = retriever.kneighbors(query, n_neighbors=k)
            found = places[0] if items is None else items[places[0]]
            ids, at = self._images_of(connection, self._first_rows(found), holds)
            if len(ids) >= n_neighbors or k == size:
                ids, at = ids[:n_neighbors], at[:n_neighbors]
                regions = None
                if self.sets is not None and ids:
                    regions = retriever.matched_regions(query, places[:, at])[0, :, 1].tolist()
                return Found(ids, distances[0][at].tolist(), _metric(retriever), regions)
            k *= 2  # rows of no photograph stand among them

    def _that_hold(self, connection: sa.Connection, holds: sa.ColumnElement[bool]) -> np.ndarray:
        """Return the items of which a photograph meets a condition."""
        chosen = sa.select(IMAGES.c.row).where(IMAGES.c.row.is_not(None), sa.not_(IMAGES.c.blank), holds)
        rows = np.unique(np.array(connection.execute(chosen).scalars().all(), dtype=np.int64))
        return rows if self.sets is None else np.searchsorted(self.sets[0], rows)

    def _images_of(
        self, connection: sa.Connection, rows: np.ndarray, holds: sa.ColumnElement[bool] | None
    ) -> tuple[list[int], list[int]]:
        """Return the photographs whose rows these are, and which of them each has; blank ones match nothing."""
        by_row: dict[int, list[int]] = {}
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500].tolist()
            chosen = sa.select(IMAGES.c.row, IMAGES.c.id).where(
                IMAGES.c.row.in_(part), sa.not_(IMAGES.c.blank)
            )
            if holds is not None:
                chosen = chosen.where(holds)
            for row, number in connection.execute(chosen.order_by(IMAGES.c.path)):
                by_row.setdefault(row, []).append(number)
        pairs = [(number, place) for place, row in enumerate(rows.tolist()) for number in by_row.get(row, ())]
        return [number for number, _ in pairs], [place for _, place in pairs]


def open_gallery(
    connection: sa.Connection, folder: Path, settings: dict[str, Any], load: Load, before: Gallery | None
) -> Gallery:
    """Map what is searched as a transaction sees it; the one from before, if it is still that.

    Raises
    ------
    ValueError
        If the index is empty.
    """
    descriptors = row_file(connection, folder, "descriptors")
    if descriptors is None or descriptors.n_rows == 0 or settings["encoder"] is None:
        raise ValueError(f"{folder} is empty: run an update first.")
    check_rows(connection, folder, descriptors.n_rows)
    search, rows = halves_of(load(settings["model"])).search, descriptors
    if len(search) > 1:
        gallery = row_file(connection, folder, "gallery")
        if gallery is None or settings["search"] is None:
            raise ValueError(f"{folder} is not complete: its first update was interrupted. Run it again.")
        if gallery.n_rows > descriptors.n_rows:
            raise IndexDamagedError(f"{folder} is damaged: it has more whitened rows than descriptors.")
        search, rows = load(settings["search"]), gallery
    sets = _sets(connection)
    # Where each content has one row, other photographs in the table change nothing of what was fitted: rows of none
    # are passed over when they are found. A wrapper, such as query expansion, must not find them at all.
    learns = hasattr(search.steps[-1][1], "retriever")
    generation = settings["generation"] if learns or sets is not None else None
    state = (rows, settings["model"], settings["search"], generation)
    if before is not None and before.state == state:
        return before
    if sets is not None:  # those that were described since the whitening are found after it
        there = sets[0] < rows.n_rows
        sets = sets[0][there], sets[1][there]
    live = None
    if learns and sets is None:
        chosen = sa.select(IMAGES.c.row).where(IMAGES.c.row < rows.n_rows, sa.not_(IMAGES.c.blank)).distinct()
        found = np.array(connection.execute(chosen.order_by(IMAGES.c.row)).scalars().all(), dtype=np.int64)
        live = found if 0 < len(found) < rows.n_rows else None
    return Gallery(state, mapped(folder, rows), search, sets, live)


def _sets(connection: sa.Connection) -> tuple[np.ndarray, np.ndarray] | None:
    several = sa.select(IMAGES.c.id).where(IMAGES.c.n_rows > 1).limit(1)
    return None if connection.execute(several).first() is None else live_rows(connection)


def live_rows(connection: sa.Connection) -> tuple[np.ndarray, np.ndarray]:
    """Return first row and number of rows of each content that an image of the index has, in the order of the file.

    Raises
    ------
    IndexDamagedError
        If some lie before the file or in one another.
    """
    chosen = (
        sa.select(IMAGES.c.row, IMAGES.c.n_rows)
        .where(IMAGES.c.row.is_not(None))
        .distinct()
        .order_by(IMAGES.c.row)
    )
    lines = [tuple(line) for line in connection.execute(chosen)]
    if any(count is None for _, count in lines):
        raise IndexDamagedError("The table of the index is damaged: a photograph has no number of rows.")
    found = np.array(lines, dtype=np.int64).reshape(-1, 2)
    starts, counts = found[:, 0], found[:, 1]
    if len(found) and (
        starts[0] < 0
        or counts.min() < 1
        or counts.max() > 2**32
        or starts[-1] > 2**48
        or (starts[1:] < starts[:-1] + counts[:-1]).any()
    ):
        raise IndexDamagedError("The table of the index is damaged: photographs have rows that cannot be.")
    return starts, counts


def check_rows(connection: sa.Connection, folder: Path, n_rows: int) -> None:
    """Raise an `IndexDamagedError` if a photograph has rows beyond the ones that there are; looks at two of them."""
    first, last = (
        connection.execute(
            sa.select(IMAGES.c.row, IMAGES.c.n_rows).where(IMAGES.c.row.is_not(None)).order_by(order).limit(1)
        ).first()
        for order in (IMAGES.c.row, IMAGES.c.row.desc())
    )
    if first is None or last is None:
        return
    if first.row < 0 or last.n_rows is None or last.n_rows < 1 or last.row + last.n_rows > n_rows:
        raise IndexDamagedError(
            f"{folder} is damaged: photographs have rows beyond the {n_rows} that there are."
        )


def _metric(retriever: Any) -> str:
    while hasattr(retriever, "retriever"):
        retriever = retriever.retriever
    return retriever.metric
