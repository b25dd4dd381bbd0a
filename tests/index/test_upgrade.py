"""Indexes of the first format become indexes of the present one, or stay as they are."""

import json
import os
import shutil

import joblib
import numpy as np
import pytest
from fixtures.indexes import pipeline, update
from sklearn.pipeline import Pipeline

from skretrieval._io import hash_file
from skretrieval.index import ImageIndex, IndexDamagedError, upgrade_index
from skretrieval.retrieval import NearestNeighborsRetriever


def write_old(folder, photographs, whitened=False):
    """Write an index as the releases of the first format did."""
    folder.mkdir()
    paths = sorted(file.relative_to(photographs).as_posix() for file in photographs.rglob("*.png"))
    files = [str(photographs / path) for path in paths]
    fitted = pipeline(whitened).fit(files)
    descriptors = fitted[:2].transform(files)
    search = Pipeline([*fitted.steps[2:], ("retriever", NearestNeighborsRetriever())])
    images = []
    for path, file in zip(paths, files, strict=True):
        status = os.stat(file)
        image = {"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        images.append(image | {"digest": hash_file(file), "label": path[0], "n_regions": None})
    np.save(folder / "descriptors-1.npy", descriptors)
    np.save(folder / "gallery-1.npy", descriptors)
    joblib.dump(fitted[:2], folder / "front-1.joblib")
    joblib.dump(search, folder / "search-1.joblib")
    (folder / "images-1.json").write_text(json.dumps({"images": images}))
    kinds = {"descriptors": "npy", "gallery": "npy", "front": "joblib", "search": "joblib", "images": "json"}
    manifest = {
        "format": "skretrieval index",
        "format_version": 1,
        "generation": 1,
        "folder": str(photographs),
        "settings": {"recipe": "grmac"},
        "versions": {"skretrieval": "0.1"},
        "written": "2025-01-01T00:00:00+00:00",
        "skipped": {},
        "files": {kind: record(folder / f"{kind}-1.{suffix}") for kind, suffix in kinds.items()},
    }
    (folder / "index.json").write_text(json.dumps(manifest))
    return descriptors


def record(file):
    return {"name": file.name, "bytes": file.stat().st_size, "blake2b": hash_file(file)}


@pytest.fixture(scope="module")
def old(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "index"
    write_old(folder, made / "photographs")
    return folder


@pytest.mark.parametrize("whitened", [False, True])
def test_what_was_described_is_taken_over(made, tmp_path, query, whitened):
    folder = tmp_path / "old"
    write_old(folder, made / "photographs", whitened)
    (folder / "letter.txt").write_text("dear")
    (folder / "pending").mkdir()
    index = upgrade_index(folder)
    assert index.info(verify=True)["n_images"] == 12
    report = update(index)
    assert (report.n_kept, report.n_described) == (12, 0)
    expected = ImageIndex(made / ("whitened" if whitened else "plain")).search(query, n_neighbors=12)
    found = index.search(query, n_neighbors=12)
    assert found.names[0] == expected.names[0]
    np.testing.assert_allclose(sorted(found.similarities), sorted(expected.similarities), atol=1e-4)
    left = {file.name for file in folder.iterdir()}
    assert {"letter.txt", "pending", "index.sqlite"} <= left
    assert not any(name.endswith((".npy", ".joblib", ".json")) for name in left)
    with pytest.raises(FileExistsError, match="present format already"):
        upgrade_index(folder)


DAMAGES = {
    "format": "x",
    "format_version": 7,
    "folder": 7,
    "settings": [],
    "versions": None,
    "written": {},
    "files": {},
}


def damaged(old, folder, change):
    shutil.copytree(old, folder)
    change(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises((IndexDamagedError, FileNotFoundError)) as error:
        upgrade_index(folder)
    assert str(error.value).endswith(".")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("key", DAMAGES)
def test_a_damaged_manifest_changes_nothing(old, tmp_path, key):
    def change(folder):
        manifest = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps(manifest | {key: DAMAGES[key]}))

    damaged(old, tmp_path / "copy", change)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "null", "[" * 100_000, "\udce9"])
def test_a_manifest_that_is_none_changes_nothing(old, tmp_path, content):
    def change(folder):
        (folder / "index.json").write_bytes(content.encode("utf-8", "surrogateescape"))

    damaged(old, tmp_path / "copy", change)


@pytest.mark.parametrize("name", ["images-1.json", "descriptors-1.npy", "front-1.joblib", "search-1.joblib"])
@pytest.mark.parametrize(
    "content", [None, b"", b"x", b"[]", b'{"images": 7}', b'{"images": [{"path": "../x"}]}']
)
@pytest.mark.parametrize("is_noted", [False, True])
def test_damaged_files_change_nothing(old, tmp_path, name, content, is_noted):
    def change(folder):
        if content is None:
            (folder / name).unlink()
            return
        (folder / name).write_bytes(content)
        if is_noted:
            manifest = json.loads((folder / "index.json").read_text())
            manifest["files"][name.split("-")[0]] = record(folder / name)
            (folder / "index.json").write_text(json.dumps(manifest))

    damaged(old, tmp_path / "copy", change)


def test_models_are_loaded_only_by_the_upgrade(old, tmp_path):
    shutil.copytree(old, tmp_path / "copy")
    with pytest.raises(FileNotFoundError, match="holds no index"):
        ImageIndex(tmp_path / "copy")
