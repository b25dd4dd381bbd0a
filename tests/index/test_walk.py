"""Walking through a folder: what is a photograph, what is passed over, and what could not be seen."""

import os
import socket
from collections import Counter

import pytest

from skretrieval.index import passed_over_words
from skretrieval.index._walk import Walk


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def paths(walk):
    return [entry.path for entry in walk]


def test_only_regular_files_are_photographs(tmp_path, monkeypatch):
    touch(tmp_path / "a.png", tmp_path / "sub" / "b.JPG")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "nothing.png").symlink_to("gone.png")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "linked.png").symlink_to("a.png")
    (tmp_path / "folder.png").mkdir()
    touch(tmp_path / "folder.png" / "c.webp")
    walk = Walk(tmp_path)
    assert sorted(paths(walk)) == ["a.png", "folder.png/c.webp", "linked.png", "sub/b.JPG"]
    assert walk.odd.keys() == {"pipe.jpg", "socket.jpg", "zero.png", "nothing.png", "self.png"}
    assert (walk.odd["pipe.jpg"], walk.odd["socket.jpg"]) == ("a named pipe", "a socket")
    assert (walk.odd["zero.png"], walk.odd["nothing.png"]) == ("a device", "a link to nothing")
    assert walk.errors == {}


def test_loops_of_links_end(tmp_path):
    touch(tmp_path / "a" / "x.png", tmp_path / "b" / "y.png")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    walk = Walk(tmp_path)
    found = paths(walk)
    assert {"a/x.png", "b/y.png"} <= set(found)
    assert len(found) <= 4
    assert walk.odd["a/up"] == "a loop of links"


def test_links_that_multiply_are_followed_once(tmp_path):
    """Two links in each of 40 folders to the next one: 2**40 paths to the last."""
    for level in range(40):
        touch(tmp_path / f"{level:02d}" / "x.png")
        if level < 39:
            for name in ("l", "r"):
                (tmp_path / f"{level:02d}" / name).symlink_to(f"../{level + 1:02d}")
    walk = Walk(tmp_path)
    assert len(paths(walk)) < 200
    assert "a link to a folder that another link leads to" in walk.odd.values()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
def test_a_folder_that_may_not_be_read_is_an_error(tmp_path):
    touch(tmp_path / "a" / "x.png", tmp_path / "b" / "y.png")
    (tmp_path / "a").chmod(0)
    shut = {folder: folder.stat().st_mode & 0o7777 for folder in (tmp_path, *tmp_path.parents)}
    shut = {folder: mode for folder, mode in shut.items() if mode & 0o055 != 0o055}
    for folder, mode in shut.items():
        folder.chmod(mode | 0o055)
    os.seteuid(65534)
    try:
        walk = Walk(tmp_path)
        assert paths(walk) == ["b/y.png"]
    finally:
        os.seteuid(0)
        for folder, mode in shut.items():
            folder.chmod(mode)
    assert walk.errors == {"a": "Permission denied"}


def test_what_is_excluded(tmp_path):
    for name in ("@eaDir", ".thumbnails", ".Trash-1000", "$RECYCLE.BIN", "__MACOSX", "keep", "keep/deep"):
        touch(tmp_path / name / "x.png")
    assert paths(Walk(tmp_path)) == ["keep/x.png", "keep/deep/x.png"]
    assert paths(Walk(tmp_path, ["*eep/d*", "[@._$]*"])) == ["keep/x.png"]


def test_the_folder_of_the_index_is_avoided(tmp_path):
    touch(tmp_path / "index" / "x.png", tmp_path / "y.png")
    (tmp_path / "link").symlink_to("index")
    assert paths(Walk(tmp_path, avoid=tmp_path / "index")) == ["y.png"]


def test_suffixes_are_counted_as_they_are_spelled(tmp_path):
    touch(*(tmp_path / name for name in ("a.MOV", "b.mov", "c.mov", "d", "e.\x1b[2J", "f.Heic")))
    walk = Walk(tmp_path)
    paths(walk)
    assert walk.passed_over[".MOV"] == 1
    assert walk.passed_over[".mov"] == 2
    words = passed_over_words(walk.passed_over)
    assert {"2 .mov", "1 .MOV", "1 without suffix"} <= set(words.split(" not read")[0].split(", "))
    assert "\x1b" not in words
    assert "scikit-retrieval[heif]" in passed_over_words(Counter({".HEIC": 1}))


def test_deep_and_wide_folders(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(500):  # deeper than a path may be long
        os.mkdir("deeper and deeper", dir_fd=folder)
        below = os.open("deeper and deeper", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    touch(*(tmp_path / "wide" / f"{number}.png" for number in range(3000)))
    walk = Walk(tmp_path)
    assert len(paths(walk)) == 3000
    assert list(walk.errors.values()) == ["File name too long"]


def test_a_folder_that_became_a_file_meanwhile(tmp_path):
    touch(tmp_path / "a" / "x.png", tmp_path / "b" / "y.png", tmp_path / "0.png")
    walk = Walk(tmp_path)
    entries = iter(walk)
    assert next(entries).path == "0.png"
    (tmp_path / "b" / "y.png").unlink()
    (tmp_path / "b").rmdir()
    (tmp_path / "b").write_bytes(b"x")
    assert [entry.path for entry in entries] == ["a/x.png"]
    assert walk.errors == {"b": "Not a directory"}


def test_a_root_that_cannot_be_looked_at(tmp_path):
    walk = Walk(tmp_path / "gone")
    assert paths(walk) == []
    assert walk.errors == {"": "No such file or directory"}
