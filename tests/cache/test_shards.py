"""Shards of descriptors on disk: round trips, several writers, damage."""

import errno
import os
import warnings

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skretrieval._cache import _shards as _descriptor_store
from skretrieval._cache._shards import DescriptorReader, DescriptorWriter, Shard, hashed, reader_of


def shard(names, counts=None, seed=0, width=3, dtype=np.float32):
    counts = np.ones(len(names), dtype=np.int64) if counts is None else np.array(counts, dtype=np.int64)
    digests = np.frombuffer(b"".join(hashed(name) for name in names), dtype=np.uint8).reshape(-1, 20)
    rows = np.random.default_rng(seed).normal(size=(counts.sum(), width)).astype(dtype)
    return Shard(digests, counts, rows, np.array([7]))


def written(folder, *shards):
    for one in shards:
        writer = DescriptorWriter(str(folder))
        writer.add(one)
        writer.flush()
    return [name for name in os.listdir(folder) if name.endswith(".npz")]


@given(
    sets=st.lists(
        st.tuples(
            hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=4),
            st.sampled_from([np.float32, np.float64, np.int64]),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    ),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_found(sets, data, tmp_path_factory):
    """Any order of sizes, dtypes and flushes; NaN and -0.0 to the bit."""
    folder = tmp_path_factory.mktemp("store")
    writer, expected = DescriptorWriter(str(folder)), {}
    for number, (shape, dtype, flush) in enumerate(sets):
        rows = data.draw(hnp.arrays(dtype, shape))
        digest = np.frombuffer(hashed(number), dtype=np.uint8)[None]
        writer.add(Shard(digest, np.array([len(rows)]), rows, np.array([2, 3])))
        expected[hashed(number)] = rows
        if flush:
            writer.flush()
    writer.flush()
    reader = DescriptorReader(str(folder))
    assert reader.find(hashed(0)) is None
    reader.refresh()
    assert reader.channels == [2, 3]
    assert reader.find(hashed("something else")) is None
    for digest, rows in expected.items():
        found = reader.find(digest)
        assert (found.dtype, found.shape, found.tobytes()) == (rows.dtype, rows.shape, rows.tobytes())


def test_parts_are_hashed_apart():
    assert len({hashed("a", "b"), hashed("ab"), hashed("", "ab"), hashed("ab", ""), hashed(b"a", "b2")}) == 5


@pytest.mark.parametrize(("limit", "value"), [("_PHOTOGRAPHS", 4), ("_BYTES", 48), ("_SECONDS", 0.0)])
def test_what_waits_is_bounded(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(_descriptor_store, limit, value)
    writer = DescriptorWriter(str(tmp_path))
    for number in range(3):
        writer.add(shard([f"{number}a", f"{number}b"]))
    reader = reader_of(str(tmp_path))
    assert [reader.find(hashed(f"{n}a")) is not None for n in range(3)] == [True, True, limit == "_SECONDS"]


def test_nothing_is_written_without_descriptors(tmp_path):
    DescriptorWriter(str(tmp_path / "folder")).flush()
    assert not (tmp_path / "folder").exists()
    reader = DescriptorReader(str(tmp_path / "folder"))
    reader.refresh()
    assert reader.channels is None


def test_no_temporary_file_remains_and_none_is_read(tmp_path):
    names = written(tmp_path, shard(["a"]))
    assert os.listdir(tmp_path) == names
    half = (tmp_path / names[0]).read_bytes()[:40]
    (tmp_path / "other.npz.tmp").write_bytes(half)  # what a process that was killed leaves
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reader_of(str(tmp_path)).find(hashed("a")) is not None


def write_some(folder, worker):
    _descriptor_store._PHOTOGRAPHS = 3
    writer = DescriptorWriter(folder)
    for number in range(20):
        writer.add(shard([f"photograph {number}"], seed=number))
        if worker:
            reader_of(folder)
    writer.flush()
    return os.getpid()


def test_concurrent_writers_neither_wait_nor_harm(tmp_path):
    pids = joblib.Parallel(n_jobs=2)(joblib.delayed(write_some)(str(tmp_path), w) for w in (0, 1))
    assert len(set(pids)) == 2
    assert len(os.listdir(tmp_path)) == 14
    reader = reader_of(str(tmp_path))
    for number in range(20):
        rows = reader.find(hashed(f"photograph {number}"))
        assert rows.tobytes() == shard(["any"], seed=number).rows.tobytes()


def write_twice(writer):
    for name in "ab":
        writer.add(shard([name]))
        writer.flush()


def look_up(reader, name):
    reader.refresh()
    return reader.find(hashed(name))


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    place = content.index(b"rows.npy") + 200
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b"", lambda content: b"no archive"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_damaged_shard_is_named_and_what_others_hold_is_found(tmp_path, damage, listed):
    one, two = shard(["a", "b"], width=40), shard(["c"])
    (first,) = written(tmp_path, one)
    written(tmp_path, two)
    reader = DescriptorReader(str(tmp_path))
    if listed:  # before the damage
        reader.refresh()
    (tmp_path / first).write_bytes(damage((tmp_path / first).read_bytes()))
    with pytest.warns(UserWarning, match=rf"{first} is damaged and ignored") as caught:
        found = look_up(reader, "a")
    assert found is None
    assert len(caught) == 1
    assert reader.find(hashed("b")) is None
    assert np.array_equal(reader.find(hashed("c")), two.rows)
    written(tmp_path, one)  # described again
    reader.refresh()
    assert np.array_equal(reader.find(hashed("b")), one.rows[1:])


def test_a_damaged_shard_does_not_hide_another_with_the_same(tmp_path):
    one = shard(["a"], width=40)
    names = sorted([*written(tmp_path, one), *written(tmp_path, one)])
    reader = DescriptorReader(str(tmp_path))
    reader.refresh()
    last = tmp_path / names[-1]  # the one that is asked first
    last.write_bytes(flipped(last.read_bytes()))
    with pytest.warns(UserWarning, match=f"{names[-1]} is damaged"):
        assert np.array_equal(reader.find(hashed("a")), one.rows)


@pytest.mark.parametrize("part", ["digests", "counts", "rows"])
def test_parts_that_do_not_fit_together_are_damage(tmp_path, part):
    parts = shard(["a", "b"])._asdict()
    parts[part] = parts[part][:1]
    np.savez(tmp_path / "odd.npz", **parts)
    with pytest.warns(UserWarning, match=r"odd\.npz is damaged"):
        assert reader_of(str(tmp_path)).find(hashed("a")) is None


def test_no_code_is_run_by_a_shard(tmp_path):
    parts = shard(["a"])._asdict()
    np.savez(tmp_path / "evil.npz", **{**parts, "rows": np.array([[print]], dtype=object)})
    with pytest.warns(UserWarning, match=r"evil\.npz is damaged.*pickle"):
        assert reader_of(str(tmp_path)).find(hashed("a")) is None


def test_shards_that_are_gone_are_forgotten(tmp_path):
    written(tmp_path, shard(["a"]))
    reader = reader_of(str(tmp_path))
    assert reader_of(str(tmp_path)) is reader
    for name in os.listdir(tmp_path):
        os.remove(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reader.find(hashed("a")) is None  # listed, but not there
        reader.refresh()
    written(tmp_path, shard(["a"]))
    assert reader_of(str(tmp_path)).find(hashed("a")) is not None


def test_loaded_shards_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(_descriptor_store, "_LOADED_BYTES", 100)
    written(tmp_path, *(shard([name], seed=seed, width=10) for seed, name in enumerate("abcdef")))
    reader = reader_of(str(tmp_path))
    for _ in range(2):
        for name in "abcdef":
            assert reader.find(hashed(name)) is not None
            assert len(reader._loaded) <= 2
    reader.release()
    assert not reader._loaded


def test_a_place_that_takes_no_files_warns_once_and_goes_on(tmp_path):
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "folder")
    assert reader_of(folder).find(hashed("a")) is None
    writer = DescriptorWriter(folder)
    with pytest.warns(UserWarning, match="cannot be cached") as caught:
        write_twice(writer)
    assert len(caught) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_shard_that_could_not_be_finished_is_removed(tmp_path, monkeypatch, error):
    def fail(descriptor):
        raise error

    monkeypatch.setattr(_descriptor_store.os, "fsync", fail)
    writer = DescriptorWriter(str(tmp_path))
    writer.add(shard(["a"]))
    expected = (
        pytest.warns(UserWarning, match="No space left")
        if isinstance(error, OSError)
        else pytest.raises(type(error))
    )
    with expected:
        writer.flush()
    assert os.listdir(tmp_path) == []


def test_many_small_shards_are_listed_once(tmp_path, monkeypatch):
    written(tmp_path, *(shard([str(n)]) for n in range(300)))
    reader = reader_of(str(tmp_path))
    read = []
    whole = DescriptorReader._read
    monkeypatch.setattr(
        DescriptorReader, "_read", lambda self, name, rows=True: read.append(name) or whole(self, name, rows)
    )
    written(tmp_path, shard(["new"]))
    assert reader_of(str(tmp_path)) is reader
    assert len(read) == 1


def test_a_shard_that_cannot_be_opened_now_is_not_called_damaged(tmp_path, monkeypatch):
    writer = DescriptorWriter(str(tmp_path))
    shard = Shard(
        *(np.zeros(shape, kind) for shape, kind in [((1, 20), "u1"), (1, "i8")]), None, np.array([3])
    )
    writer.add(shard._replace(counts=np.ones(1, "i8"), rows=np.ones((1, 4), "f4")))
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files")))
        reader = DescriptorReader(str(tmp_path))
        reader.refresh()
    assert reader.find(bytes(20)) is None
    reader.refresh()
    assert np.array_equal(reader.find(bytes(20)), np.ones((1, 4), "f4"))
