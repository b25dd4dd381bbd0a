"""A disk, a rename or a commit that fails at any step: the index opens, has what was committed, and goes on."""

import contextlib
import functools
import itertools
import os
import shutil
import sqlite3

import pytest
from fixtures.indexes import draw, pipeline, update

from skretrieval.index import ImageIndex, _table

N_STEPS = 60  # more than any operation has; one that is through before the fault ends the loop


class Faults:
    """Counts the calls of something, and lets one of them fail."""

    def __init__(self, step):
        self.step, self.calls = step, 0

    def now(self):
        """Count a call; tell whether it is the one that fails."""
        self.calls += 1
        return self.calls == self.step

    @property
    def happened(self):
        return self.calls >= self.step


def failing_system_call(patch, step, name):
    faults, usual = Faults(step), getattr(os, name)

    def call(*args, **keywords):
        if faults.now():
            raise OSError(28, "No space left on device")
        return usual(*args, **keywords)

    patch.setattr(os, name, call)
    return faults


def failing_commit(patch, step):
    """Let SQLite report an error of a commit: by turns of one that was not made, and of one that was."""
    faults, is_done = Faults(step), step % 4 < 2

    class Connection(sqlite3.Connection):
        def commit(self):
            fails = self.in_transaction and faults.now()
            if is_done or not fails:
                super().commit()
            if fails:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error

    patch.setattr(_table.sqlite3, "connect", functools.partial(sqlite3.connect, factory=Connection))
    return faults


FAULTS = {
    "replace": functools.partial(failing_system_call, name="replace"),
    "link": functools.partial(failing_system_call, name="link"),
    "fsync": functools.partial(failing_system_call, name="fsync"),
    "commit": failing_commit,
}


def content(index):
    """Return the photographs of an index, by name, with the similarity of each to one of them."""
    found = ImageIndex(index).search(index.parent / "photographs" / "b" / "01.png", n_neighbors=100)
    return dict(zip(found.names, (round(value, 5) for value in found.similarities), strict=True))


def kinds_of(index):
    """Return the kinds of the files of an index beside its table, as often as they lie there."""
    names = [name for name in os.listdir(index) if not name.startswith(("writer", "index.sqlite"))]
    return sorted(name.partition("-")[0] for name in names)


def changed(index):
    photographs = index.parent / "photographs"
    draw(photographs / "a" / "new.png", 99)
    (photographs / "c" / "11.png").unlink(missing_ok=True)
    for _ in ImageIndex(index).update(photographs, moved=True, batch_size=1, device="cpu"):
        pass


def vacuumed(index):
    ImageIndex(index).vacuum()


def reset(index):
    ImageIndex(index).reset(pipeline(whitened=True))


@pytest.mark.parametrize("fault", ["fsync", "commit"])
@pytest.mark.parametrize("operation", [changed, vacuumed, reset], ids=lambda function: function.__name__)
def test_a_fault_at_any_step_loses_nothing(request, photographs, monkeypatch, operation, fault):
    # of a whitened index an update gives back what no photograph has, and leaves nothing to a vacuum
    index = request.getfixturevalue("plain" if operation is vacuumed else "whitened")
    if operation is vacuumed:
        (photographs / "c" / "11.png").unlink()
        update(ImageIndex(index), photographs, moved=True)
    before = content(index)
    kept = shutil.copytree(index, index.parent / "kept")
    present = shutil.copytree(photographs, photographs.parent / "present")
    operation(index)
    update(ImageIndex(index), photographs, moved=True)
    after, kinds = content(index), kinds_of(index)
    for step in itertools.count(1, 2 if operation is reset else 1):
        for place, copy in ((index, kept), (photographs, present)):
            shutil.rmtree(place)
            shutil.copytree(copy, place)
        with monkeypatch.context() as patch:
            faults = FAULTS[fault](patch, step)
            with contextlib.suppress(OSError):
                operation(index)
        assert step < N_STEPS
        if operation is not reset or len(ImageIndex(index)):
            added, gone = set(after) - set(before), set(before) - set(after)
            assert set(before) - gone <= set(content(index)) <= set(before) | added, step
        ImageIndex(index).info(verify=True)
        update(ImageIndex(index), photographs, moved=True)
        assert (content(index), kinds_of(index)) == (after, kinds), step
        ImageIndex(index).info(verify=True)
        if not faults.happened:
            break
    assert step > 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_while_one_is_made_leaves_it_whole_or_not(tmp_path, photographs, monkeypatch, fault):
    for step in itertools.count(1):
        where = tmp_path / f"index{step}"
        with monkeypatch.context() as patch:
            faults = FAULTS[fault](patch, step)
            with contextlib.suppress(OSError):
                ImageIndex.create(where, pipeline(whitened=True))
        if not (where / "index.sqlite").exists():
            ImageIndex.create(where, pipeline(whitened=True))
        update(ImageIndex(where), photographs)
        assert len(content(where)) == 12
        assert kinds_of(where) == ["descriptors", "encoder", "gallery", "model", "search", "weights"]
        if not faults.happened:
            break


@pytest.mark.parametrize("name", ["replace", "link"])
def test_weights_that_cannot_be_shared_are_the_indexs_own(tmp_path, photographs, monkeypatch, name):
    index = ImageIndex.create(tmp_path / "index", pipeline())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    with monkeypatch.context() as patch:
        faults = failing_system_call(patch, 1, name)
        update(index, photographs)
    assert faults.happened
    assert len(list(index.where.glob("weights-*"))) == 1
    assert not list((tmp_path / "elsewhere").rglob("*.tmp"))
    ImageIndex(index.where).info(verify=True)
