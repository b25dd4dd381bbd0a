"""The index on disk: what it holds, and what happens when it is damaged."""

import errno
import json
import os

import filelock
import joblib
import numpy as np
import pytest

from skretrieval.index import ImageIndex, IndexedImage, _update, _writing
from skretrieval.index import _image_index as _index


def rewrite_manifest(index, **changes):
    file = index / "index.json"
    manifest = json.loads(file.read_text())
    manifest.update(changes)
    file.write_text(json.dumps(manifest))


def test_index_is_a_folder_of_plain_files(index_copy, shared_photographs):
    manifest = json.loads((index_copy / "index.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["folder"] == str(shared_photographs)
    assert manifest["settings"]["extractor"] == "squeezenet1_1"
    assert {"skretrieval", "torch", "scikit-learn", "python"} <= manifest["versions"].keys()
    names = {record["name"] for record in manifest["files"].values()}
    assert names | {"index.json", ".lock"} == set(os.listdir(index_copy))
    table = json.loads((index_copy / manifest["files"]["images"]["name"]).read_text())["images"]
    assert [row["path"] for row in table] == sorted(row["path"] for row in table)
    assert {row["label"] for row in table} == {"a", "b", "c"}
    descriptors = np.load(index_copy / manifest["files"]["descriptors"]["name"])
    gallery = np.load(index_copy / manifest["files"]["gallery"]["name"])
    assert descriptors.shape == gallery.shape == (12, 512)
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, rtol=1e-5)
    assert list(joblib.load(index_copy / manifest["files"]["front"]["name"]).named_steps) == [
        "extractor",
        "pooler",
    ]


KINDS = ["images", "gallery", "front", "search"]


@pytest.mark.parametrize("kind", [*KINDS, "descriptors"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_file_is_named(index_copy, shared_photographs, run, kind, damage):
    name = json.loads((index_copy / "index.json").read_text())["files"][kind]["name"]
    file = index_copy / name
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        file.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    else:
        file.unlink()
    query = shared_photographs / "a" / "00.png"
    expected = {"truncated": "bytes instead of", "changed": "has changed", "missing": "is missing"}[damage]
    # Search needs all but the raw descriptors; info checks every file.
    commands = [("info", index_copy)] + ([("search", index_copy, query)] if kind in KINDS else [])
    for command in commands:
        output = run(*command, fails=True)
        assert str(file) in output
        assert expected in output
        assert "--rebuild" in output


def test_a_rebuild_mends_a_damaged_index(index_copy, shared_photographs, network_options, run):
    (index_copy / "index.json").write_text("{")
    (index_copy / "gallery-1.npy").unlink()
    run("index", shared_photographs, "--out", index_copy, "--rebuild", "--no-progress", *network_options)
    assert "  1      1.0000" in run("search", index_copy, shared_photographs / "a" / "00.png")
    assert not list(index_copy.glob("*-1.*")), "what is left of the damaged one must go"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other", "format_version": 1}', "{}"])
def test_a_damaged_manifest_is_named(index_copy, shared_photographs, run, content):
    (index_copy / "index.json").write_text(content)
    for command in [
        ("info", index_copy),
        ("search", index_copy, shared_photographs / "a" / "00.png"),
        ("index", shared_photographs, "--out", index_copy),
    ]:
        output = run(*command, fails=True)
        assert f"{index_copy / 'index.json'} is damaged" in output
        assert "--rebuild" in output


def test_a_manifest_that_lacks_a_part_is_damaged(index_copy, run):
    manifest = json.loads((index_copy / "index.json").read_text())
    del manifest["files"]["gallery"]
    (index_copy / "index.json").write_text(json.dumps(manifest))
    assert "doesn't describe the file 'gallery'" in run("search", index_copy, __file__, fails=True)
    del manifest["folder"]
    (index_copy / "index.json").write_text(json.dumps(manifest))
    assert "it lacks ['folder']" in run("info", index_copy, fails=True)


def test_a_newer_format_says_what_to_do(index_copy, shared_photographs, run):
    rewrite_manifest(index_copy, format_version=2, versions={"skretrieval": "9.1"})
    for command in [
        ("info", index_copy),
        ("search", index_copy, shared_photographs / "a" / "00.png"),
        ("index", shared_photographs, "--out", index_copy),
    ]:
        output = run(*command, fails=True)
        assert "format version 2" in output
        assert "reads up to 1" in output
        assert "skretrieval 9.1: upgrade" in output


def test_a_model_that_cannot_be_loaded_names_the_versions(index_copy, shared_photographs, run):
    manifest = json.loads((index_copy / "index.json").read_text())
    record = _writing.write_file(index_copy / "front-1.joblib", lambda stream: stream.write(b"no pickle"))
    manifest["files"]["front"] = record
    manifest["versions"]["scikit-learn"] = "0.1"
    (index_copy / "index.json").write_text(json.dumps(manifest))
    output = run("search", index_copy, shared_photographs / "a" / "00.png", fails=True)
    assert "front-1.joblib cannot be loaded" in output
    assert "scikit-learn 0.1" in output
    assert f"skretrieval index {shared_photographs} --out {index_copy} --rebuild" in output


def test_no_index_there(tmp_path, run):
    output = run("info", tmp_path, fails=True)
    assert "holds no index" in output
    assert f"skretrieval index FOLDER --out {tmp_path}" in output


def test_an_interrupted_write_leaves_the_old_index(index, photographs, run, draw_photograph, monkeypatch):
    before = run("search", index, photographs / "a" / "00.png")
    draw_photograph(photographs / "a" / "new.png", 99)

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_writing, "write_model", fail)  # after the arrays are written, before index.json
        run("index", photographs, "--out", index, "--no-progress", fails=True)
    assert (index / "descriptors-2.npy").exists()
    (index / ".gallery-2.npy.tmp").write_bytes(b"as a killed process leaves it")
    assert run("search", index, photographs / "a" / "00.png") == before
    output = run("index", photographs, "--out", index, "--no-progress")
    assert "13 images (1 finished before an interruption, 12 unchanged)" in output
    names = {record["name"] for record in _index.read_manifest(index)["files"].values()}
    assert names | {"index.json", ".lock"} == set(os.listdir(index)), "leftovers must go"


def test_attempts_to_write_do_not_pile_up(index, photographs, run, draw_photograph, monkeypatch):
    draw_photograph(photographs / "a" / "new.png", 99)
    write_blocks = _update.write_blocks

    def fail(file, n_rows, blocks):
        if file.name.startswith("gallery"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_blocks(file, n_rows, blocks)

    before = run("search", index, photographs / "a" / "00.png")
    with monkeypatch.context() as patch:
        patch.setattr(_update, "write_blocks", fail)
        for _ in range(3):
            run("index", photographs, "--out", index, "--no-progress", fails=True)
    assert len(list(index.glob("descriptors-*.npy"))) == 2  # that of the index, and of the last attempt
    assert run("search", index, photographs / "a" / "00.png") == before
    assert "13 images" in run("index", photographs, "--out", index, "--no-progress")


def test_a_model_without_a_parameter_of_this_release_names_the_versions(index_copy, shared_photographs, run):
    manifest = json.loads((index_copy / "index.json").read_text())
    front = joblib.load(index_copy / "front-1.joblib")
    del front.steps[0][1].memory_dtype  # as an earlier release has written it
    manifest["files"]["front"] = _writing.write_model(index_copy / "front-1.joblib", front)
    (index_copy / "index.json").write_text(json.dumps(manifest))
    output = run("search", index_copy, shared_photographs / "a" / "00.png", fails=True)
    assert "front-1.joblib cannot be loaded" in output
    assert "--rebuild" in output


def test_one_writer_at_a_time(index_copy, shared_photographs, run):
    with filelock.FileLock(index_copy / ".lock"):
        assert "another process is writing" in run(
            "index", shared_photographs, "--out", index_copy, fails=True
        )


def test_a_folder_that_is_no_index_is_left_alone(tmp_path, photographs, run):
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    assert "holds no index" in run("index", photographs, "--out", other, fails=True)
    assert os.listdir(other) == ["letter.txt"]


def test_region_sets_keep_their_rows():
    images = [
        IndexedImage(f"{number}.png", 1, 1, "", n_regions=count) for number, count in enumerate([2, 1, 3])
    ]
    array = np.arange(12.0).reshape(6, 2)
    sets = _index.split_regions(array, images)
    assert [len(rows) for rows in sets] == [2, 1, 3]
    np.testing.assert_array_equal(np.concatenate(sets), array)


def test_image_index_from_python(index_copy, shared_photographs):
    loaded = ImageIndex(index_copy)
    assert len(loaded.files) == 12
    assert loaded.label_of(shared_photographs / "b" / "01.png") == "b"
    assert loaded.label_of("/elsewhere/b/01.png") is None
    distances, indices = loaded.search([loaded.files[4], loaded.files[7]], n_neighbors=50)
    assert indices.shape == distances.shape == (2, 12)
    assert indices[:, 0].tolist() == [4, 7]
    assert loaded.pipeline.score(loaded.files, loaded.labels) > 0
