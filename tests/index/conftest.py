"""A folder of photographs and its index, made once; tests that change them take a copy."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from fixtures.indexes import draw, pipeline, update

from skretrieval.index import ImageIndex


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Twelve photographs in three folders, and two indexes of them: plain, and whitened."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(12):
        draw(folder / "photographs" / "abc"[number % 3] / f"{number:02d}.png", number)
    for name in ("plain", "whitened"):
        update(
            ImageIndex.create(folder / name, pipeline(name == "whitened")),
            folder / "photographs",
        )
        with closing(sqlite3.connect(folder / name / "index.sqlite")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@pytest.fixture
def photographs(made, tmp_path):
    """The photographs, to be changed."""
    return shutil.copytree(made / "photographs", tmp_path / "photographs")


@pytest.fixture
def plain(made, tmp_path):
    """The folder of the index without whitening, to be changed."""
    return shutil.copytree(made / "plain", tmp_path / "plain")


@pytest.fixture
def whitened(made, tmp_path):
    """The folder of the index with whitening, to be changed."""
    return shutil.copytree(made / "whitened", tmp_path / "whitened")


@pytest.fixture
def query(made):
    """A photograph of the indexes, the fifth by name."""
    return made / "photographs" / "b" / "01.png"


@pytest.fixture(autouse=True)
def torch_home(tmp_path_factory, monkeypatch):
    """Weights that indexes share lie in a folder of the tests."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "torch"))
