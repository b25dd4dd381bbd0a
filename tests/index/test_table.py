"""Names, settings and the header of the database."""

import errno
import sqlite3

import pytest
import sqlalchemy as sa

from skretrieval.index import IndexDamagedError, printable
from skretrieval.index._table import (
    IMAGES,
    check_is_ours,
    given_path,
    open_engine,
    put_settings,
    settings_of,
    stored_path,
    transaction,
)


@pytest.mark.parametrize("path", ["a.png", "a/b.png", "caf\udce9.png", "a\nb", "..a", "a..", "\u202e", " "])
def test_paths_are_stored_exactly(path):
    assert given_path(stored_path(path)) == path
    assert printable(path).isprintable()


@pytest.mark.parametrize("stored", [b"", b"..", b"../a", b"a/..", b"a/../b", b"/a", b"a\0b"])
def test_paths_that_lead_elsewhere_are_refused(stored):
    with pytest.raises(IndexDamagedError, match=r"names a photograph .*\.$"):
        given_path(stored)


def test_settings_come_back(plain):
    engine = open_engine(plain, write=True)
    values = {"settings": {"a": [1, None, "caf\udce9"]}}
    with transaction(engine, plain) as connection:
        put_settings(connection, values)
        assert settings_of(connection)["settings"] == values["settings"]
    with pytest.raises(ValueError, match="Out of range"), transaction(engine, plain) as connection:
        put_settings(connection, {"settings": float("inf")})


def test_settings_of_many_bytes_are_refused(plain):
    engine = open_engine(plain, write=True)
    with transaction(engine, plain) as connection:
        put_settings(connection, {"settings": "x" * 2**24})
        with pytest.raises(IndexDamagedError, match="more than 16777216"):
            settings_of(connection)


def test_reading_changes_nothing(plain):
    engine = open_engine(plain)
    with pytest.raises(OSError, match="cannot be written") as error, transaction(engine, plain) as connection:
        connection.execute(sa.delete(IMAGES))
    assert error.value.errno == errno.EACCES


def test_the_header_says_whose_a_file_is(tmp_path, plain):
    check_is_ours(plain / "index.sqlite")
    with pytest.raises(FileNotFoundError, match="holds no index"):
        check_is_ours(tmp_path / "gone" / "index.sqlite")
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    connection.execute("CREATE TABLE images (id)")
    connection.close()
    with pytest.raises(IndexDamagedError, match="not the database of an index"):
        check_is_ours(tmp_path / "index.sqlite")
