"""An index that is damaged is made anew in its place, and nothing else is touched."""

import sqlite3
from contextlib import closing

import pytest
from fixtures.indexes import pipeline, update

from skretrieval.cli._settings import open_or_create
from skretrieval.index import ImageIndex, IndexDamagedError

SETTING = "UPDATE settings SET value = ? WHERE key = ?"
DAMAGE = {
    "no json": (SETTING, ("{", "versions")),
    "of another kind": (SETTING, ("7", "id")),
    "a blob": (SETTING, (b"\xff", "exclude")),
    "deep": (SETTING, ("[" * 100_000, "settings")),
    "huge": (SETTING, ('"' + "x" * 2**25 + '"', "settings")),
    "one missing": ("DELETE FROM settings WHERE key = 'generation'", ()),
    "none": ("DELETE FROM settings", ()),
    "no table of settings": ("DROP TABLE settings", ()),
    "no table of files": ("DROP TABLE files", ()),
    "another table of images": ("ALTER TABLE images RENAME TO pictures", ()),
    "a name that is not ours": (
        "INSERT INTO files (file, kind, in_use) VALUES ('../letter.txt', 'model', 0)",
        (),
    ),
}


def damage(index, how):
    statement, values = DAMAGE[how]
    with closing(sqlite3.connect(index / "index.sqlite", isolation_level=None)) as connection:
        connection.execute(statement, values)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_index_is_made_anew(plain, photographs, how):
    (plain / "letter.txt").write_text("dear")
    (plain.parent / "letter.txt").write_text("dear")
    (plain / f"model-{'0' * 40}.skops").write_text("of somebody else")
    damage(plain, how)
    if how == "no json":
        assert open_or_create(plain, {"recipe": "mac"}, rebuild=True).settings["recipe"] == "mac"
    index = ImageIndex.create(plain, pipeline(), rebuild=True)
    assert len(index) == 0
    assert update(index, photographs).n_described == 12
    index.info(verify=True)
    assert (plain / "letter.txt").read_text() == "dear"
    assert (plain.parent / "letter.txt").read_text() == "dear"
    assert (plain / f"model-{'0' * 40}.skops").read_text() == "of somebody else"
    if how != "no table of files":  # by which the old rows were known as ours
        assert len(list(plain.glob("descriptors-*"))) == 1


def test_a_database_cut_short_is_made_anew(plain, photographs):
    file = plain / "index.sqlite"
    file.write_bytes(file.read_bytes()[:5000])
    index = ImageIndex.create(plain, pipeline(), rebuild=True)
    assert update(index, photographs).n_described == 12


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\0" * 200, b"notes"])
def test_a_database_without_our_mark_is_not_replaced(plain, content):
    (plain / "index.sqlite").write_bytes(content)
    for rebuild in (
        lambda: ImageIndex.create(plain, rebuild=True),
        lambda: open_or_create(plain, {}, rebuild=True),
    ):
        with pytest.raises(IndexDamagedError, match="not the database of an index"):
            rebuild()
    assert (plain / "index.sqlite").read_bytes() == content


def test_without_rebuild_a_damaged_index_stays(plain):
    damage(plain, "no json")
    before = (plain / "index.sqlite").read_bytes()
    with pytest.raises(IndexDamagedError):
        open_or_create(plain, {})
    assert (plain / "index.sqlite").read_bytes() == before


def test_one_that_is_whole_can_be_rebuilt_while_it_is_read(plain, photographs, query):
    reader = ImageIndex(plain)
    assert len(reader.search(query)) == 12
    index = ImageIndex.create(plain, pipeline(whitened=True), rebuild=True)
    with pytest.raises(ValueError, match="is empty"):
        reader.search(query)
    update(index, photographs)
    assert reader.search(query, n_neighbors=1).names[0].endswith("01.png")


def test_rebuild_of_what_is_not_there_makes_it(tmp_path):
    assert len(ImageIndex.create(tmp_path / "new", pipeline(), rebuild=True)) == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="other things"):
        ImageIndex.create(tmp_path / "other", pipeline(), rebuild=True)
