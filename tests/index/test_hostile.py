"""An index that somebody has tampered with gives the right answer or one clear sentence, and touches nothing else."""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from fixtures.indexes import update

from skretrieval.index import ImageIndex, IndexDamagedError

CLEAR = (ValueError, FileNotFoundError)  # IndexDamagedError is a ValueError
ODD = [None, -1, 2**62, 1.5, "\x1b[31m", "7", b"\xff\0", "9" * 5000]


def change(index, statement, *values):
    with closing(sqlite3.connect(index / "index.sqlite", isolation_level=None)) as connection:
        connection.execute(statement, values)


def outcome(index, query, photographs=None):
    """Open, search, tell; return what was found, or the error, which must be a clear one."""
    found = []
    for step in ("search", "by number", "info", "verify", "skipped", "update"):
        try:
            opened = ImageIndex(index)
            if step == "search":
                found.append(opened.search(query, n_neighbors=3).names)
            elif step == "by number":
                found.append(opened.search(5, n_neighbors=3).names)
            elif step == "info":
                json.dumps(opened.info())
            elif step == "verify":
                opened.info(verify=True)
            elif step == "skipped":
                opened.skipped()
            elif photographs is not None:
                update(opened, photographs, moved=True, yes=True)
        except CLEAR as error:
            text = str(error)
            assert text.endswith((".", "trust: trust=[...], or --trust TYPE for each.")), text
            assert "\x1b" not in text
            found.append(error)
    return found


def is_right(found, expected):
    return all(isinstance(part, Exception) or part == expected for part in found)


@pytest.fixture
def expected(made, query):
    return ImageIndex(made / "plain").search(query, n_neighbors=3).names


SETTINGS = ["id", "format_version", "generation", "model", "encoder", "search", "stale", "folder", "exclude"]
SETTINGS += ["settings", "versions", "created"]
VALUES = ["null", "true", "-1", "0", "3", "1e999", "NaN", "9" * 5000, '"x"', '"\\u0000"', '"\\u001b[31m"']
VALUES += ["[]", "[1]", "{}", '{"a": NaN}', "[" * 100_000, "", '"../../x"', '{"skretrieval": 7}']


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_of_other_kinds(plain, query, expected, key):
    for value in VALUES:
        change(plain, "UPDATE settings SET value = ? WHERE key = ?", value, key)
        found = outcome(plain, query)
        assert is_right(found, expected), (key, value, found)
        assert any(isinstance(part, Exception) for part in found) or key in (
            "settings",
            "exclude",
            "versions",
            "created",
            "generation",
            "folder",
            "stale",
            "search",
        ), (key, value)
    change(plain, "DELETE FROM settings WHERE key = ?", key)
    assert isinstance(outcome(plain, query)[0], IndexDamagedError)


@pytest.mark.parametrize("value", [b"\xff\xfe", 7, 1.5, b"{}"])
def test_settings_that_are_no_text(plain, query, value):
    change(plain, "UPDATE settings SET value = ? WHERE key = 'folder'", value)
    assert isinstance(outcome(plain, query)[0], IndexDamagedError)


def columns(table):
    from skretrieval.index import _table

    return [column.name for column in getattr(_table, table.upper()).columns]


@pytest.mark.parametrize("column", columns("images"))
def test_lines_of_images_of_other_kinds(plain, query, column):
    for value in ODD:
        copy = shutil.copytree(plain, plain.parent / "tampered")
        try:
            change(copy, f"UPDATE images SET {column} = ? WHERE id = 5", value)
        except sqlite3.IntegrityError:  # the table itself refuses it
            shutil.rmtree(copy)
            continue
        for part in outcome(copy, query):
            assert isinstance(part, Exception) or len(part) == 3 or column in ("row", "n_rows", "blank", "id")
        shutil.rmtree(copy)


@pytest.mark.parametrize("column", columns("files"))
def test_lines_of_files_of_other_kinds(plain, query, expected, column):
    for value in ODD:
        for kind in ("descriptors", "model"):
            copy = shutil.copytree(plain, plain.parent / "tampered")
            try:
                change(copy, f"UPDATE files SET {column} = ? WHERE kind = '{kind}'", value)
            except sqlite3.IntegrityError:
                shutil.rmtree(copy)
                continue
            found = outcome(copy, query)
            assert is_right(found, expected) or column in ("n_columns", "dtype", "n_rows"), (
                column,
                value,
                found,
            )
            shutil.rmtree(copy)


@pytest.mark.parametrize("table", ["settings", "images", "files"])
def test_tables_that_are_missing_or_empty(plain, query, table):
    change(plain, f"DELETE FROM {table}")
    found = outcome(plain, query)
    assert found == [[], found[1]] if table == "images" else isinstance(found[0], CLEAR)
    change(plain, f"DROP TABLE {table}")
    assert isinstance(outcome(plain, query)[0], IndexDamagedError)
    change(plain, f"CREATE TABLE {table} (key, value)")
    assert isinstance(outcome(plain, query)[0], CLEAR)


FILES = ["index.sqlite", "descriptors", "model", "encoder", "weights", "gallery", "search"]


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "missing", "link", "folder", "pipe", "large"])
@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_not_as_written(made, whitened, query, kind, damage):
    expected = ImageIndex(made / "whitened").search(query, n_neighbors=3).names
    (file,) = [
        file for file in whitened.iterdir() if file.name.startswith(kind) and "sqlite-" not in file.name
    ]
    content = file.read_bytes()
    file.unlink()
    outside = whitened.parent / "outside"
    if damage == "half":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        place = len(content) // 2
        file.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    elif damage == "link":
        outside.write_bytes(content)
        file.symlink_to(outside)
    elif damage == "folder":
        file.mkdir()
    elif damage == "pipe":
        os.mkfifo(file)
    elif damage == "large":
        file.write_bytes(content + b"x" * 4096)
    elif damage == "empty":
        file.write_bytes(b"")
    found = outcome(whitened, query, made / "photographs")
    if kind == "gallery" and damage == "flipped":  # numbers that are numbers: only reading all tells
        assert isinstance(found[-1 if len(found) < 4 else 2], Exception)
    else:
        assert is_right(found, expected), found
    if damage not in ("large", "flipped"):
        assert any(isinstance(part, Exception) for part in found)
    if damage == "link":
        assert outside.read_bytes() == content


@pytest.mark.parametrize("name", ["writer.lock", "writer.txt"])
def test_links_in_place_of_the_lock_are_not_followed(plain, photographs, name):
    outside = plain.parent / "diary.txt"
    outside.write_text("dear")
    (plain / name).unlink()
    (plain / name).symlink_to(outside)
    with pytest.raises(IndexDamagedError, match="no regular file"):
        update(ImageIndex(plain), photographs, moved=True)
    assert outside.read_text() == "dear"


@pytest.mark.parametrize(
    "path", [b"../secret.png", b"/etc/passwd", b"a/../../secret.png", b"..", b"", b"a\0b"]
)
def test_paths_never_lead_out_of_the_folder(plain, query, path):
    change(plain, "UPDATE images SET path = ?, name = 'x' WHERE name = 'b/01.png'", path)
    for what in (query, 5):
        with pytest.raises(IndexDamagedError, match="names a photograph"):
            ImageIndex(plain).search(what)
    with pytest.raises(IndexDamagedError, match="names a photograph"):
        ImageIndex(plain).info(verify=True)


def test_names_in_the_table_are_printed_escaped(plain, query):
    change(plain, "UPDATE images SET name = ?, label = ?, taken = ?", "\x1b[2J", "\x1b]0;x", "\x1b[2J")
    found = ImageIndex(plain).search(query)
    printed = str(found.records())
    assert "\x1b" not in printed
    change(plain, "UPDATE images SET reason = ?, row = NULL, n_rows = NULL WHERE id = 3", "\x1b[2J")
    assert "\x1b" not in str(ImageIndex(plain).skipped())


FOREIGN = [
    "index.json",
    ".lock",
    "pending/000001.npy",
    "a.tmp",
    ".index.sqlite.tmp",
    "gallery-3.npy",
    "images-3.npy",
]


def test_files_of_others_stay(plain, photographs):
    for name in [*FOREIGN, f"descriptors-{'0' * 32}.rows", f"model-{'0' * 40}.skops"]:
        (plain / name).parent.mkdir(exist_ok=True)
        (plain / name).write_text(name)
    index = ImageIndex(plain)
    (photographs / "a" / "00.png").unlink()
    update(index, photographs, moved=True)
    index.vacuum()
    index.reset()
    update(index, photographs)
    for name in [*FOREIGN, f"descriptors-{'0' * 32}.rows", f"model-{'0' * 40}.skops"]:
        assert (plain / name).read_text() == name


def test_a_table_cannot_name_files_of_others_for_deletion(plain, photographs):
    outside = plain.parent / "letter.txt"
    outside.write_text("dear")
    for name in ("../letter.txt", str(outside), "writer.lock", "index.sqlite"):
        change(plain, "INSERT INTO files (file, kind, in_use) VALUES (?, 'descriptors', 0)", name)
        with pytest.raises(IndexDamagedError, match="names a file"):
            update(ImageIndex(plain), photographs, moved=True)
        change(plain, "DELETE FROM files WHERE file = ?", name)
    assert outside.read_text() == "dear"
    assert len(ImageIndex(plain)) == 12


def test_files_in_use_are_not_deleted_whatever_the_table_says(plain, photographs, query):
    change(plain, "UPDATE files SET in_use = 0 WHERE kind IN ('model', 'encoder')")
    update(ImageIndex(plain), photographs, moved=True)
    assert len(ImageIndex(plain).search(query, n_neighbors=3)) == 3


def test_a_database_of_another_program_is_left_alone(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        connection.execute("CREATE TABLE settings (key, value)")
        connection.commit()
    before = (folder / "index.sqlite").read_bytes()
    with pytest.raises(ValueError, match="not the database of an index"):
        ImageIndex(folder)
    with pytest.raises(FileExistsError, match="Give a folder"):
        ImageIndex.create(folder)
    assert (folder / "index.sqlite").read_bytes() == before


def test_rows_in_one_another_are_refused(plain):
    change(plain, "UPDATE images SET n_rows = 3 WHERE id = 2")
    with pytest.raises(IndexDamagedError, match="rows that cannot be"):
        ImageIndex(plain).info(verify=True)


def test_a_flipped_number_is_found_by_verify(plain):
    (file,) = plain.glob("descriptors-*.rows")
    numbers = np.fromfile(file, np.float32)
    numbers[17] += 0.25
    numbers.tofile(file)
    with pytest.raises(IndexDamagedError, match="has changed since it was written"):
        ImageIndex(plain).info(verify=True)


def test_a_newer_format_says_what_to_do(plain):
    change(plain, "UPDATE settings SET value = '9' WHERE key = 'format_version'")
    with pytest.raises(ValueError, match=r"has format version 9; .* Upgrade to skretrieval"):
        ImageIndex(plain)


# ------------------------------------------------------------------------------------------------ of another user
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
@pytest.mark.parametrize("wal", ["absent", "present"])
def test_an_index_of_another_user_can_be_searched(plain, query, expected, wal, photographs):
    writer = None
    if wal == "present":  # as while its owner updates it, with a change that only the WAL has
        writer = sqlite3.connect(plain / "index.sqlite")
        writer.execute("SELECT count(*) FROM images").fetchall()  # opens the WAL, which then stays
        shutil.copy(photographs / "a" / "00.png", photographs / "a" / "new.png")
        update(ImageIndex(plain), photographs, moved=True)
        assert (plain / "index.sqlite-wal").stat().st_size > 0
    for file in plain.iterdir():
        file.chmod(0o444)
    plain.chmod(0o555)
    shut = {folder: folder.stat().st_mode & 0o7777 for folder in plain.parents}
    shut = {folder: mode for folder, mode in shut.items() if mode & 0o055 != 0o055}
    for folder, mode in shut.items():
        folder.chmod(mode | 0o055)
    image = query.read_bytes()
    os.seteuid(65534)
    try:
        index = ImageIndex(plain)
        found = index.search(image, n_neighbors=3)
        assert len(index) == (12 if writer is None else 13)
        with pytest.raises(OSError, match=r"ermission|cannot"):
            update(ImageIndex(plain), photographs, moved=True)
    finally:
        os.seteuid(0)
        plain.chmod(0o755)
        for folder, mode in shut.items():
            folder.chmod(mode)
    if writer is not None:
        writer.close()
    else:
        assert found.names == expected
