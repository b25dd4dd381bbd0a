"""The half of an index that only reads: searching it and looking at it, from any number of threads and processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from typing import Any, Self, TypeVar

import numpy as np
import sqlalchemy as sa
from sklearn.pipeline import Pipeline

from .._terminal import printable
from ..extraction import ImageCrop
from . import _gallery, _info, _models
from ._creation import folder_of
from ._matched import RegionBoxes
from ._results import SearchResults, path_of, results_of
from ._table import IMAGES, IndexDamagedError, open_engine, stamp, transaction

T = TypeVar("T")


class Reader:
    """An index that is open for reading.

    Parameters
    ----------
    where : path
        The folder of the index.
    trust : collection of str, default=()
        Full names of types that its models may hold.
    """

    def __init__(self, where: str | os.PathLike, *, trust: Collection[str] = ()):
        self.where = folder_of(where)
        self._trust = tuple(trust)
        self._lock = threading.RLock()
        self._models: dict[str, Pipeline] = {}
        self._gallery: _gallery.Gallery | None = None
        self._boxes: RegionBoxes | None = None
        self._engine = open_engine(self.where)
        self._in_one_state(lambda connection, settings: None)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to open the same index."""
        return {"where": self.where, "trust": self._trust}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the same index."""
        self.__init__(state["where"], trust=state["trust"])  # type: ignore[misc]

    def __enter__(self) -> Self:
        """Return the index."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the models and of the mapped descriptors; the next search loads them again."""
        with self._lock:
            self._models, self._gallery, self._boxes = {}, None, None

    def _in_one_state(self, work: Callable[[sa.Connection, dict[str, Any]], T]) -> T:
        """Do what only reads, on one state of the index.

        A writer deletes the files of a state that is over. Where they went away between the look at the table and
        that at the file, it is done again on the state that is now.
        """
        while True:
            state, before = None, stamp(self.where)
            try:
                with transaction(self._engine, self.where) as connection:
                    settings = _info.check_settings(connection, self.where)
                    state = settings["id"], settings["generation"]
                    found = work(connection, settings)
                if before == stamp(self.where):
                    return found
            except (IndexDamagedError, OSError):
                if before == stamp(self.where) and (state is None or state == self._state()):
                    raise

    def _state(self) -> tuple[str, int]:
        with transaction(self._engine, self.where) as connection:
            settings = _info.check_settings(connection, self.where)
        return settings["id"], settings["generation"]

    # ------------------------------------------------------------------------------------------------ searching
    def search(
        self,
        image: Any,
        n_neighbors: int = 20,
        box: tuple[float, float, float, float] | None = None,
        where: str | None = None,
        rerank: None = None,
    ) -> SearchResults:
        """Find the photographs that are most alike.

        Parameters
        ----------
        image : path, PIL.Image.Image, uint8 ndarray, bytes, ImageCrop or int
            What to search for; a number is that of a photograph of the index.
        n_neighbors : int, default=20
            Results, or as many as there are.
        box : tuple (left, top, right, bottom), default=None
            Search for this part of it, in pixels of the upright photograph; right and bottom are exclusive.
        where : str, default=None
            Only among photographs for which this holds, such as ``"label = 'dog' and taken > '2020'"``; fields are
            path, label, taken, width, height, size and id.
        rerank : None
            No re-ranking exists yet.

        Returns
        -------
        results : SearchResults
            Best first. Photographs without any structure are in no result.

        Raises
        ------
        ValueError
            If the photograph cannot be read or has no structure, the box does not fit, the condition is none, or the
            index is empty or damaged.
        """
        if rerank is not None:
            raise ValueError(f"rerank must be None, got {rerank!r}: there is no re-ranking yet.")
        if isinstance(n_neighbors, bool) or not isinstance(n_neighbors, int | np.integer) or n_neighbors < 1:
            raise ValueError(f"n_neighbors must be an integer of at least 1, got {n_neighbors!r}.")
        return self._in_one_state(
            lambda connection, settings: self._searched(
                connection, settings, image, int(n_neighbors), box, where
            )
        )

    def _searched(
        self,
        connection: sa.Connection,
        settings: dict[str, Any],
        image: Any,
        n_neighbors: int,
        box: tuple[float, float, float, float] | None,
        where: str | None,
    ) -> SearchResults:
        with self._lock:  # once for all threads
            gallery = _gallery.open_gallery(connection, self.where, settings, self._load, self._gallery)
            self._gallery = gallery
        if settings["folder"] is None:
            raise IndexDamagedError(f"{self.where} is damaged: it has photographs and no folder of them.")
        if isinstance(image, int | np.integer) and not isinstance(image, bool):
            image = _file_of(connection, settings["folder"], int(image))
        item = image if box is None else ImageCrop(image, box)
        found = gallery.search(connection, self._encoder(settings), item, n_neighbors, where)
        return results_of(connection, found, settings["folder"], image, box, self._region_boxes(settings))

    def _encoder(self, settings: dict[str, Any]) -> Pipeline:
        if settings["encoder"] is None:
            raise ValueError(f"{self.where} is empty: run an update first.")
        return self._load(settings["encoder"])

    def _region_boxes(self, settings: dict[str, Any]) -> RegionBoxes:
        encoder = self._encoder(settings)
        with self._lock:  # once for all threads
            if self._boxes is None or self._boxes.encoder is not encoder:
                self._boxes = RegionBoxes(encoder)
            return self._boxes

    def _load(self, digest: str) -> Pipeline:
        """Load a model of the index, once for all threads."""
        with self._lock:
            if digest not in self._models:
                self._models[digest] = _models.read_model(self.where, digest, self._trust)
            return self._models[digest]

    # ------------------------------------------------------------------------------------------------ looking at it
    def __len__(self) -> int:
        """Return the number of photographs."""
        count = sa.select(sa.func.count()).select_from(IMAGES).where(IMAGES.c.row.is_not(None))
        return self._in_one_state(lambda connection, _: connection.execute(count).scalar_one())

    def info(self, verify: bool = False) -> dict[str, Any]:
        """Tell what the index holds, how it was made, and whether it is whole.

        Parameters
        ----------
        verify : bool, default=False
            Also read every file, and raise if one has changed or a number is not finite.

        Returns
        -------
        info : dict
            Of values that JSON holds: ``id``, ``where``, ``folder``, ``n_images``, ``n_labels``, ``n_skipped``,
            ``n_blank``, ``dimension``, ``n_rows``, ``n_unused_rows``, ``n_bytes``, ``generation``, ``created``,
            ``complete``, ``exclude``, ``settings``, ``versions`` (that it was made with), ``changed_versions``.

        Raises
        ------
        ValueError
            If it is damaged.
        """

        def look(connection: sa.Connection, settings: dict[str, Any]) -> dict[str, Any]:
            if verify:
                _info.verify(connection, self.where, self._trust)
            return _info.info_of(connection, self.where)

        return self._in_one_state(look)

    @property
    def settings(self) -> dict[str, Any]:
        """What it was made with, as :meth:`ImageIndex.create` was told; :meth:`info` tells more, and counts."""
        return self._in_one_state(lambda connection, settings: settings["settings"])

    def skipped(self) -> dict[str, str]:
        """Return the files that could not be read, as they are printed, and why."""
        chosen = sa.select(IMAGES.c.name, IMAGES.c.reason).where(IMAGES.c.reason.is_not(None))
        lines = self._in_one_state(
            lambda connection, _: connection.execute(chosen.order_by(IMAGES.c.name)).all()
        )
        return {printable(name): printable(reason) for name, reason in lines}

    def __repr__(self) -> str:
        """Say where it lies."""
        return f"ImageIndex({str(self.where)!r})"


def _file_of(connection: sa.Connection, folder: str, number: int) -> str:
    path = None
    if 0 <= number < 2**63:
        path = connection.execute(sa.select(IMAGES.c.path).where(IMAGES.c.id == number)).scalar_one_or_none()
    if path is None:
        raise ValueError(f"The index has no photograph {number}.")
    return path_of(folder, path)
