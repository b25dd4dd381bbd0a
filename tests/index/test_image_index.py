"""Making, updating, searching: what `ImageIndex` promises."""

import contextlib
import gc
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import filelock
import numpy as np
import pytest
from fixtures.indexes import draw, pipeline, update

from skretrieval.index import ImageIndex, TooManyRemovedError, _models, _update


def is_locked(index):
    lock = filelock.FileLock(index / "writer.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False


@pytest.fixture
def in_small_batches(monkeypatch):
    monkeypatch.setattr(_update, "_BATCH_SIZES", (2, 2))


def test_an_index_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "index"

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("skretrieval.index._creation.put_settings", fail)
        with pytest.raises(KeyboardInterrupt):
            ImageIndex.create(folder, pipeline())
    assert os.listdir(folder) == []
    (folder / f".creating-{'0' * 32}").mkdir()  # as a killed process leaves it
    assert len(ImageIndex.create(folder, pipeline())) == 0


def test_a_folder_that_holds_other_things_is_refused(made, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="other things"):
        ImageIndex.create(tmp_path, pipeline())
    assert os.listdir(tmp_path) == ["letter.txt"]
    with pytest.raises(FileExistsError, match="an index already"):
        ImageIndex.create(made / "plain", pipeline())


def test_the_address_of_a_server_is_refused():
    for work in (ImageIndex, ImageIndex.create):
        with pytest.raises(ValueError, match="where must be a folder"):
            work("postgresql://user:secret@host/base")


@pytest.mark.parametrize("settings", [{"a": float("nan")}, {"a": {1, 2}}, {"a": b"x"}])
def test_settings_that_json_does_not_hold_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="settings must be of values that JSON holds"):
        ImageIndex.create(tmp_path / "index", pipeline(), settings=settings)
    assert not (tmp_path / "index").exists()


# ------------------------------------------------------------------------------------------------ iterating
def test_an_update_that_nobody_iterates_over_warns(plain, photographs):
    updates = ImageIndex(plain).update(photographs, moved=True)
    with pytest.warns(RuntimeWarning, match="not iterated over, so nothing was done"):
        updates.__del__()
    updates.close()
    assert not is_locked(plain)


@pytest.mark.parametrize("how", ["close", "collect", "error", "interrupt", "thread"])
def test_an_update_left_half_way_keeps_what_it_has(tmp_path, photographs, in_small_batches, how):
    index = ImageIndex.create(tmp_path / "index", pipeline())
    updates = index.update(photographs)
    report = next(report for report in updates if report.done == 4)
    assert is_locked(index.where)
    if how == "close":
        updates.close()
    elif how == "collect":
        del updates
        gc.collect()
    elif how == "thread":  # another thread than the one that began it
        with ThreadPoolExecutor(1) as pool:
            pool.submit(updates.close).result()
    else:
        error = {"error": ZeroDivisionError, "interrupt": KeyboardInterrupt}[how]
        with pytest.raises(error):
            updates.throw(error)
    assert not is_locked(index.where)
    assert len(index) == 4
    again = update(index)
    assert (again.n_described, again.n_kept, len(index)) == (8, 4, 12)
    assert report.n_described == 4


def test_one_writer_at_a_time_is_told_who_holds_it(plain, photographs):
    updates = ImageIndex(plain).update(photographs, moved=True)
    next(updates)
    with pytest.raises(ValueError, match=f"Another process is updating .*process {os.getpid()}"):
        update(ImageIndex(plain), photographs, moved=True)
    (plain / "writer.txt").write_bytes(b"\xff\x1b[2J")
    with pytest.raises(ValueError, match=r"updating .*\\x1b") as error:
        update(ImageIndex(plain), photographs, moved=True)
    assert "\x1b" not in str(error.value)
    updates.close()


# ------------------------------------------------------------------------------------------------ updating
def test_only_what_changed_is_described(plain, photographs):
    index = ImageIndex(plain)
    draw(photographs / "a" / "new.png", 50)
    draw(photographs / "b" / "01.png", 51)
    (photographs / "c" / "02.png").unlink()
    (photographs / "a" / "00.png").rename(photographs / "c" / "moved.png")
    shutil.copy(photographs / "c" / "05.png", photographs / "c" / "copy.png")
    os.link(photographs / "c" / "05.png", photographs / "c" / "link.png")
    report = update(index, photographs, moved=True)
    counts = (report.n_described, report.n_moved, report.n_copied, report.n_removed)
    assert counts == (2, 1, 2, 1)
    found = index.search(photographs / "c" / "moved.png", n_neighbors=1)
    assert (found.names, found.labels) == (["c/moved.png"], ["c"])
    names = set(index.search(photographs / "c" / "05.png", n_neighbors=3).names)
    assert names == {"c/05.png", "c/copy.png", "c/link.png"}


def test_a_photograph_replaced_by_an_older_one_is_seen(plain, photographs):
    index = ImageIndex(plain)
    update(index, photographs, moved=True)
    draw(photographs / "a" / "00.png", 77)
    os.utime(photographs / "a" / "00.png", (1, 1))
    assert update(index, photographs).n_described == 1


def test_more_than_half_removed_asks(plain, photographs):
    index = ImageIndex(plain)
    for folder in "ab":
        shutil.rmtree(photographs / folder)
    with pytest.raises(TooManyRemovedError, match="8 of 12"):
        update(index, photographs, moved=True)
    assert len(index) == 12
    assert index.plan(photographs, moved=True, yes=True).n_removed == 8
    assert update(index, photographs, moved=True, yes=True).n_removed == 8
    assert len(index) == 4


@pytest.mark.parametrize("state", ["missing", "empty", "a file"])
def test_a_root_that_is_not_there_removes_nothing(plain, photographs, state):
    index = ImageIndex(plain)
    shutil.rmtree(photographs)
    if state == "empty":
        photographs.mkdir()
    elif state == "a file":
        photographs.write_text("x")
    with pytest.raises((FileNotFoundError, ValueError), match=r"Nothing was changed\."):
        update(index, photographs, moved=True, yes=True)
    assert len(index) == 12


def test_names_of_any_bytes_are_kept_exactly(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    names = [b"caf\xe9.png", b"new\nline.png", b"\x1b[31mred.png", "\u202egnp.exe.png".encode(), b" .. .png"]
    for number, name in enumerate(names):
        draw(folder / "x.png", number)
        os.rename(folder / "x.png", os.fsencode(folder) + b"/" + name)
    index = ImageIndex.create(tmp_path / "index", pipeline())
    assert update(index, folder).n_described == 5
    for name in names:
        path = os.fsdecode(os.fsencode(folder) + b"/" + name)
        found = index.search(path, n_neighbors=1)
        assert found.paths == [path]
        assert found.names[0].isprintable()
        assert found.to_json().isprintable()
    assert update(index).n_kept == 5
    assert len(index.search(index.search(path).ids[0], where="path like 'caf\udce9%'")) == 1


def test_exclude_is_a_list_of_patterns(plain, photographs):
    with pytest.raises(TypeError, match="exclude must be a list of patterns"):
        ImageIndex(plain).update(photographs, exclude="*.png")
    index = ImageIndex(plain)
    assert update(index, photographs, moved=True, exclude=["a", "b/01.png"]).n_removed == 5
    assert index.info()["exclude"] == ["a", "b/01.png"]


def test_updated_and_fresh_indexes_find_the_same(whitened, photographs, tmp_path):
    index = ImageIndex(whitened)
    for number in range(4):
        draw(photographs / "a" / f"new{number}.png", 90 + number)
    shutil.rmtree(photographs / "c")
    update(index, photographs, moved=True)
    assert index.vacuum() >= 0
    index.info(verify=True)
    fresh = ImageIndex.create(tmp_path / "fresh", pipeline(whitened=True))
    update(fresh, photographs)
    for query in ("a/00.png", "b/04.png", "a/new2.png"):
        found, expected = (own.search(photographs / query, n_neighbors=12) for own in (index, fresh))
        assert len(found) == 12
        assert sorted(found.names) == sorted(expected.names)
        np.testing.assert_allclose(found.similarities[0], 1, atol=1e-5)
        for name, similarity in zip(found.names, found.similarities, strict=True):
            place = expected.names.index(name)
            np.testing.assert_allclose(similarity, expected.similarities[place], atol=1e-4)


def test_reset_takes_another_encoder(plain, photographs, query):
    index = ImageIndex(plain)
    index.reset(pipeline(whitened=True), settings={"new": 1})
    with pytest.raises(ValueError, match="is empty"):
        index.search(query)
    update(index, photographs)
    assert index.info()["settings"] == {"new": 1}
    assert index.info()["dimension"] == 4
    assert len(list(plain.glob("descriptors-*"))) == 1


# ------------------------------------------------------------------------------------------------ faults of the disk


def files_of(index):
    return {file.name for file in index.iterdir() if not file.name.startswith(("writer", "index.sqlite-"))}


@pytest.mark.parametrize("step", range(0, 16, 3))
def test_a_disk_that_fails_at_any_write_loses_nothing(whitened, photographs, query, monkeypatch, step):
    index = ImageIndex(whitened)
    draw(photographs / "a" / "new.png", 99)
    count, fsync = iter(range(10**6)), os.fsync

    def fail(descriptor):
        if next(count) == step:
            raise OSError(28, "No space left on device")
        return fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with contextlib.suppress(OSError):
            update(index, photographs, moved=True)
    assert not is_locked(whitened)
    assert query.name in str(index.search(query, n_neighbors=1).names)
    update(index, photographs, moved=True)
    assert len(index) == 13
    ImageIndex(whitened).info(verify=True)
    assert len(files_of(whitened)) == 7


def test_a_full_disk_is_an_error_of_the_system(tmp_path, photographs, in_small_batches):
    resource = pytest.importorskip("resource")
    index = ImageIndex.create(tmp_path / "index", pipeline())
    for report in index.update(photographs):
        if report.done:
            break
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in index.where.glob("descriptors*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match=r"large|full|disk"):
            update(index)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(index) == 2
    assert update(index).n_described == 10


# ------------------------------------------------------------------------------------------------ many at once
def test_eight_threads_search_with_one_encoder(plain, made, monkeypatch):
    index, loaded, read = ImageIndex(plain), [], _models.read_model
    monkeypatch.setattr(_models, "read_model", lambda *args: loaded.append(args[1]) or read(*args))
    files = sorted((made / "photographs").rglob("*.png"))
    barrier = threading.Barrier(8)

    def search(file):
        barrier.wait()
        return index.search(file, n_neighbors=1).paths[0]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(search, files[:8]))
    assert found == [str(file) for file in files[:8]]
    assert sorted(name.split("-")[0] for name in loaded) == ["encoder", "model"]


def test_searches_while_the_same_object_updates(plain, photographs, query, in_small_batches):
    index = ImageIndex(plain)
    for number in range(6):
        draw(photographs / f"{number}.png", 200 + number)
    for _ in index.update(photographs, moved=True, device="cpu", batch_size=1):
        found = index.search(query, n_neighbors=1)
        assert found.names == ["b/01.png"]


def test_files_gone_while_a_search_began_are_looked_up_again(plain, photographs, query, monkeypatch):
    """A reader that has looked at the table, but not yet at the files, when a writer deletes them."""
    from skretrieval.index import _gallery

    shutil.rmtree(photographs / "a")
    index, other, row_file = ImageIndex(plain), ImageIndex(plain), _gallery.row_file
    waiting = [1]

    def late(connection, folder, kind):
        if waiting:
            waiting.pop()
            update(other, photographs, moved=True)
            other.vacuum()
        return row_file(connection, folder, kind)

    monkeypatch.setattr(_gallery, "row_file", late)
    assert index.search(query, n_neighbors=1).names == ["b/01.png"]
    assert len(index.search(query, n_neighbors=99)) == 8


def test_an_index_goes_to_other_processes(plain, query):
    index = ImageIndex(plain, trust=["a.b"])
    index.search(query)
    copy = pickle.loads(pickle.dumps(index))
    assert copy.search(query).names == index.search(query).names
    with copy as opened:
        assert opened is copy
    assert copy.search(query).names == index.search(query).names


def test_numbers_that_no_photograph_has(plain):
    for number in (0, -1, 99, 2**63, 2**100):
        with pytest.raises(ValueError, match=f"The index has no photograph {number}"):
            ImageIndex(plain).search(number)
