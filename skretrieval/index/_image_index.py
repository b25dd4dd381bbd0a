"""A folder of photographs as an index: updated, searched, and trusted with them."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sklearn.pipeline import Pipeline

from . import _info, _models
from ._creation import begin, first_model, folder_of, is_free, make_index, replace_index
from ._encoder import fitted, halves_of, how_to_run, pipeline_of
from ._reader import Reader
from ._renewal import refresh, remove_unused
from ._table import (
    DATABASE,
    FILES,
    IMAGES,
    open_engine,
    put_settings,
    transaction,
)
from ._update import Update, UpdateReport
from ._walk import root_of
from ._writer import Updates, writer


class ImageIndex(Reader):
    """The index of a folder of photographs.

    It lies in a folder of its own: a database (SQLite) with a line for each photograph, files of descriptors that are
    mapped into memory, and the fitted Pipeline, which is read without running code. Every batch of photographs is kept
    as soon as it is described, so that an update that is interrupted goes on where it was. Several processes and
    threads may search while one updates; they see the index before a batch or after it. Nothing is ever deleted that
    the index did not make.

    Parameters
    ----------
    where : path
        The folder of the index. To make one: :meth:`create`.
    trust : collection of str, default=()
        Full names of types, beside those of this package and of scikit-learn, that the Pipeline may hold.

    Attributes
    ----------
    where : Path
        The folder of the index.

    Raises
    ------
    FileNotFoundError
        If there is no index.
    ValueError
        If the index is damaged or a newer release wrote it; the message says what, and what to do.

    Notes
    -----
    Threads: any number may search one index and look at it, also while one updates it; of several that would
    change it at the same time, the others are refused with an error.

    Examples
    --------
    >>> import shutil, tempfile
    >>> from skretrieval.datasets import load_sample_photographs
    >>> from skretrieval.index import ImageIndex
    >>> photographs, folder = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> for number, file in enumerate(load_sample_photographs().images[:3]):
    ...     _ = shutil.copy(file, f"{photographs}/{number}.png")
    >>> index = ImageIndex.create(f"{folder}/index")
    >>> for report in index.update(photographs):
    ...     pass
    >>> report.n_described
    3
    >>> index.search(f"{photographs}/1.png", n_neighbors=2).paths[0].endswith("1.png")
    True
    """

    # ------------------------------------------------------------------------------------------------ making one
    @classmethod
    def create(
        cls,
        where: str | os.PathLike,
        encoder: str | Pipeline | None = None,
        *,
        trust: Collection[str] = (),
        settings: dict[str, Any] | None = None,
        rebuild: bool = False,
    ) -> ImageIndex:
        """Make an empty index.

        Parameters
        ----------
        where : path
            The folder of the index: one that is not there yet, or an empty one.
        encoder : None, str or Pipeline, default=None
            How photographs are described and searched: the name of a recipe, or a Pipeline that begins with an
            extractor. What it learns it learns at the first update; a fitted Pipeline is fitted anew.
        trust : collection of str, default=()
            As for the class.
        settings : dict, default=None
            What :meth:`info` is to say of how it was made; of values that JSON holds.
        rebuild : bool, default=False
            Take the place of an index that is there, also of a damaged one that cannot be opened. Only files that it
            says it made are deleted; the photographs are not touched.

        Returns
        -------
        index : ImageIndex
            To be filled by :meth:`update`.

        Raises
        ------
        FileExistsError
            If the folder holds an index (without `rebuild`), or anything else.
        ValueError, TypeError
            If `encoder` is no recipe or Pipeline, or cannot be written by skops; to be rebuilt, if the database in
            the folder does not have the mark of an index.
        """
        folder = folder_of(where)
        pipeline = pipeline_of(encoder)
        if rebuild and os.path.lexists(folder / DATABASE):
            replace_index(folder, pipeline, settings or {})
            return cls(folder, trust=trust)
        if not is_free(folder):
            what = "an index already" if (folder / DATABASE).exists() else "other things"
            raise FileExistsError(f"{folder} holds {what}. Give a folder that is empty or not there.")
        make_index(folder, pipeline, settings or {})
        return cls(folder, trust=trust)

    # ------------------------------------------------------------------------------------------------ updating
    def update(
        self,
        folder: str | os.PathLike | None = None,
        *,
        exclude: Collection[str] | None = None,
        moved: bool = False,
        yes: bool = False,
        device: str = "auto",
        batch_size: int = 8,
    ) -> Iterator[UpdateReport]:
        """Bring the index up to date with a folder; to be iterated over, for that is what does the work.

        New and changed photographs are described, those that are gone leave the index, and those that were renamed or
        moved are known by their content. Between two reports everything is on disk: stopped there, by whatever, the
        next update goes on from it.

        Parameters
        ----------
        folder : path, default=None
            The photographs, at any depth. None: the folder of the last update.
        exclude : collection of str, default=None
            Patterns of names that are left out (:data:`EXCLUDED` to begin with); kept for later updates.
        moved : bool, default=False
            Accept another folder than that of the last update: the photographs lie there now.
        yes : bool, default=False
            Remove also more than half of the index.
        device : str, default="auto"
            Where the network runs.
        batch_size : int, default=8
            Photographs that go through the network together.

        Yields
        ------
        report : UpdateReport
            What was done so far: always the same object. After the last one, all.

        Raises
        ------
        FileNotFoundError
            If the folder is not there or cannot be looked at; nothing is removed then.
        ValueError
            If it holds no photographs, another process is updating, or `folder` is another one than before.
        TooManyRemovedError
            If more than half of the index would be removed.
        """
        if isinstance(exclude, str):
            raise TypeError(f"exclude must be a list of patterns, got the text {exclude!r}.")
        return Updates(self._updates(folder, exclude, moved, yes, device, batch_size))

    def _updates(
        self,
        folder: str | os.PathLike | None,
        exclude: Collection[str] | None,
        moved: bool,
        yes: bool,
        device: str,
        batch_size: int,
    ) -> Generator[UpdateReport, None, None]:
        engine = open_engine(self.where, write=True)
        with writer(self.where):
            settings, root, exclude = self._begin(folder, exclude, moved)
            remove_unused(engine, self.where)

            def encoder(sample: Any) -> Pipeline:
                if settings["encoder"] is None:
                    return self._fit_encoder(engine, settings, sample, device, batch_size)
                # its own, not that of searches: how it runs is changed
                found = _models.read_model(self.where, settings["encoder"], self._trust)
                return found.set_params(**how_to_run(found, device, batch_size))

            with closing(Update(engine, self.where, root, encoder, exclude, yes).run()) as reports:
                for report in reports:
                    if report.phase == "describing" and report.done == 0:
                        with transaction(engine, self.where) as connection:  # now this is to become its index
                            put_settings(connection, {"folder": str(root), "exclude": exclude})
                    yield report
            report.phase = "whitening"
            yield report
            refresh(engine, self.where, self._load)
            remove_unused(engine, self.where)
            report.phase = "done"
            yield report

    def plan(
        self,
        folder: str | os.PathLike | None = None,
        *,
        exclude: Collection[str] | None = None,
        moved: bool = False,
        yes: bool = False,
    ) -> UpdateReport:
        """Tell what :meth:`update` would do, and do nothing.

        Parameters
        ----------
        folder, exclude, moved, yes
            As for :meth:`update`.

        Returns
        -------
        report : UpdateReport
            With ``total``, the photographs that would be read (moved ones among them), ``n_kept``, ``n_removed`` (gone
            under their names), ``errors``, ``odd`` and ``passed_over``.

        Raises
        ------
        FileNotFoundError, ValueError, TooManyRemovedError
            As :meth:`update` would.
        """
        _, root, exclude = self._begin(folder, exclude, moved)
        update = Update(self._engine, self.where, root, None, exclude, yes)
        todo, gone = update.plan()
        update.report.total, update.report.phase = len(todo), "done"
        update.report.n_removed = sum(known.readable for known in gone.values())
        return update.report

    def _begin(
        self, folder: str | os.PathLike | None, exclude: Collection[str] | None, moved: bool
    ) -> tuple[dict[str, Any], Path, list[str]]:
        settings = self._in_one_state(lambda connection, settings: settings)
        root = root_of(folder, settings["folder"], moved)
        return settings, root, settings["exclude"] if exclude is None else list(exclude)

    def _fit_encoder(
        self, engine: sa.Engine, settings: dict[str, Any], sample: Any, device: str, batch_size: int
    ) -> Pipeline:
        """Fit the encoder on a sample, and keep it before anything is described with it."""
        model = _models.read_model(self.where, settings["model"], self._trust)
        encoder = halves_of(model).encoder
        encoder.set_params(**how_to_run(encoder, device, batch_size))
        photographs = list(sample())
        if not photographs:
            raise ValueError("None of the photographs can be read.")
        encoder = fitted(encoder, photographs)
        content, weights = _models.model_bytes(encoder)
        files = [_models.write_weights(engine, self.where, *item) for item in weights.items()]
        settings["encoder"] = _models.write_model(engine, self.where, "encoder", content)
        with transaction(engine, self.where) as connection:
            _models.use_weights(connection, files)
            _models.use_model(connection, settings["encoder"])
            put_settings(connection, {"encoder": settings["encoder"], "versions": _info.package_versions()})
        return encoder

    def reset(self, encoder: str | Pipeline | None = None, *, settings: dict[str, Any] | None = None) -> None:
        """Empty the index, to be filled anew by another encoder; the photographs are not touched.

        Parameters
        ----------
        encoder : None, str or Pipeline, default=None
            As for :meth:`create`.
        settings : dict, default=None
            As for :meth:`create`.
        """
        content = first_model(pipeline_of(encoder), settings or {})
        engine = open_engine(self.where, write=True)
        with writer(self.where):
            model = _models.write_model(engine, self.where, "model", content)
            with transaction(engine, self.where) as connection:
                generation = _info.check_settings(connection, self.where)["generation"] + 1
                connection.execute(sa.delete(IMAGES))
                connection.execute(sa.update(FILES).values(in_use=False))
                begin(connection, model, settings or {}, generation)
            remove_unused(engine, self.where)

    def vacuum(self) -> int:
        """Give back the space of descriptors that no photograph of the index has any more.

        Returns
        -------
        n_bytes : int
            How many bytes less the index takes on disk.
        """
        engine = open_engine(self.where, write=True)
        with writer(self.where):
            before = _info.bytes_of(self.where)
            refresh(engine, self.where, self._load, compact=True)
            remove_unused(engine, self.where)
        return before - _info.bytes_of(self.where)
