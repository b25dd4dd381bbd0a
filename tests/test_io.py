"""Files that are there whole or not at all, and hashes."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from skretrieval import _io
from skretrieval._io import (
    atomic_write,
    hash_array,
    hash_bytes,
    hash_file,
    move_into_place,
    new_hash,
    write_text,
)


def written(path, content):
    with atomic_write(path) as stream:
        stream.write(content)


def interrupted(path, error):
    with atomic_write(path) as stream:
        stream.write(b"half")
        raise error


def test_what_was_written_is_there_under_its_name_alone(tmp_path):
    written(tmp_path / "a.bin", b"first")
    written(tmp_path / "a.bin", b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_readers_see_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "a.bin"
    written(path, b"old")
    with atomic_write(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_leaves_what_was_there(tmp_path, error, before):
    path = tmp_path / "a.bin"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(type(error)):
        interrupted(path, error)
    assert [name.read_bytes() for name in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_the_end_leaves_what_was_there(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(_io.os, step, fail)
    with pytest.raises(OSError, match="Input/output"):
        written(path, b"new")
    assert [name.read_bytes() for name in tmp_path.iterdir()] == [b"old"]


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(_io.os, "fsync", lambda *given: steps.append("fsync") or fsync(*given))
    monkeypatch.setattr(_io.os, "replace", lambda *given: steps.append("replace") or replace(*given))
    written(tmp_path / "a.bin", b"x" * 10)
    assert steps == ["fsync", "replace"]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys\n"
        "from skretrieval._io import atomic_write\n"
        "with atomic_write(sys.argv[1]) as stream:\n"
        "    stream.write(b'half'); stream.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    others = [name for name in os.listdir(tmp_path) if name != "a.bin"]
    assert len(others) == 1
    assert others[0].startswith(".a.bin.")
    assert others[0].endswith(".tmp")
    written(path, b"new")  # what is left stands in nobody's way
    assert path.read_bytes() == b"new"


def test_concurrent_writers_never_mix(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([number]) * 200_000 for number in range(8)]
    barrier = threading.Barrier(8)

    def write(content):
        barrier.wait()
        with atomic_write(path) as stream:
            for start in range(0, len(content), 10_000):
                stream.write(content[start : start + 10_000])
        return path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(write, contents))
    assert set(seen) <= set(contents)
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.skipif(os.name == "nt", reason="permissions and links of POSIX")
def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    written(tmp_path / "a.bin", b"")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="permissions and links of POSIX")
def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.bin").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "a.bin")
    written(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "a.bin").read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="no /dev/stdout")
def test_a_pipe_is_written_to():
    code = "from skretrieval._io import write_text; write_text('/dev/stdout', 'text')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"text"


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.json", "Zürich\n")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "Zürich\n"


def test_a_folder_takes_its_place(tmp_path):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "a").touch()
    move_into_place(tmp_path / "partial", tmp_path / "whole")
    assert os.listdir(tmp_path / "whole") == ["a"]


@pytest.mark.parametrize("size", [8, 16, 20])
@pytest.mark.parametrize("length", [0, 1, 3 * 2**20 + 1])
def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path, size, length):
    content = np.random.default_rng(0).bytes(length)
    (tmp_path / "a.bin").write_bytes(content)
    expected = hashlib.blake2b(content, digest_size=size).hexdigest()
    assert hash_file(tmp_path / "a.bin", size) == expected
    assert hash_bytes(content, size=size) == hash_bytes(content[:1], content[1:], size=size) == expected
    digest = new_hash(size)
    digest.update(content)
    assert digest.hexdigest() == expected


def test_arrays_of_other_shapes_have_other_hashes():
    values = np.arange(6.0)
    assert hash_array(values) == hashlib.blake2b(b"(6,)" + values.tobytes(), digest_size=20).hexdigest()
    assert hash_array(values) != hash_array(values.reshape(2, 3))
    assert hash_array(values.reshape(2, 3)) == hash_array(np.asfortranarray(values.reshape(2, 3)))
