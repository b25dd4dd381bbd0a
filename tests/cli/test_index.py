"""The index on disk: what it holds, and what happens when it is damaged."""

import errno
import json
import os
import tracemalloc

import filelock
import joblib
import numpy as np
import pytest
from sklearn.base import clone

from skretrieval._linalg import _axes as _linalg
from skretrieval.index import _blocks, _pending, _update
from skretrieval.index import _image_index as _index
from skretrieval.index._blocks import merge, write_blocks
from skretrieval.index._image_index import ImageIndex, IndexedImage
from skretrieval.index._pipeline import make_pipeline, resolve_settings, split_pipeline
from skretrieval.postprocessing import _learned_whitening


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
    record = _index.write_file(index_copy / "front-1.joblib", lambda stream: stream.write(b"no pickle"))
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
        patch.setattr(_index, "write_model", fail)  # after the arrays are written, before index.json
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


def test_a_model_without_a_new_parameter_names_the_versions(index_copy, shared_photographs, run):
    manifest = json.loads((index_copy / "index.json").read_text())
    front = joblib.load(index_copy / "front-1.joblib")
    del front.steps[0][1].memory_dtype  # as an earlier release has written it
    manifest["files"]["front"] = _index.write_model(index_copy / "front-1.joblib", front)
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

    kept = _update._rows(images, array)
    np.testing.assert_array_equal(merged([kept["0.png"], kept["2.png"]]), array[[0, 1, 3, 4, 5]])


def merged(items):
    """Merge the rows of some images, which lie where they lie."""
    blocks = list(merge([(item.source, item.start, item.stop) for item in items]))
    places = np.concatenate([places for places, _ in blocks])
    assert sorted(places) == list(range(len(places)))
    return np.concatenate([rows for _, rows in blocks])[np.argsort(places)]


@pytest.mark.parametrize("block", [1, 4, 2**20])
def test_rows_from_several_arrays_and_files_are_merged_in_order(tmp_path, monkeypatch, block):
    monkeypatch.setattr(_blocks, "_BLOCK_ELEMENTS", block)
    first, second = np.arange(6.0).reshape(3, 2), 10 + np.arange(4.0).reshape(2, 2)
    np.save(tmp_path / "second.npy", second)
    known = _update._rows([IndexedImage(name, 1, 1, "") for name in "aeb"], first)
    known |= _update._rows([IndexedImage(name, 1, 1, "") for name in "dc"], tmp_path / "second.npy")
    rows = merged([known[name] for name in sorted(known)])
    np.testing.assert_array_equal(rows, [first[0], first[2], second[1], second[0], first[1]])


def test_blocks_in_any_order_make_the_file_of_the_whole_array(tmp_path):
    array = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    places = [[1, 2, 5], [0, 4, 8], [3, 6, 7]]
    record = write_blocks(tmp_path / "blocks.npy", 9, [(np.array(own), array[own]) for own in places])
    assert record["blake2b"] == _index.write_array(tmp_path / "whole.npy", array)["blake2b"]
    assert sorted(os.listdir(tmp_path)) == ["blocks.npy", "whole.npy"]


@pytest.mark.parametrize("whitening", ["none", "pca", "learned"])
def test_the_arrays_are_never_in_memory(tmp_path, monkeypatch, whitening):
    """From shards to the gallery, a small part of the descriptors at a time."""
    for module in (_blocks, _linalg, _learned_whitening):
        monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 2**14)
    rng = np.random.default_rng(0)
    items, n_shards, n, d = [], 60, 200, 256
    for shard in range(n_shards):
        np.save(tmp_path / f"{shard}.npy", rng.normal(size=(n, d)).astype(np.float32))
        # shard after shard takes every sixtieth place in the order of the paths
        images = [IndexedImage(f"{row * n_shards + shard}", 1, 1, "", f"{row % 50}") for row in range(n)]
        items += _update._rows(images, tmp_path / f"{shard}.npy").values()
    items.sort(key=lambda item: int(item.image.path))
    whole = np.stack([np.load(tmp_path / f"{shard}.npy") for shard in range(n_shards)], axis=1).reshape(-1, d)
    settings = resolve_settings({"recipe": "crow", "whitening": whitening, "extractor": "squeezenet1_1"})
    front, search = split_pipeline(make_pipeline(settings))
    labels = [item.image.label for item in items]
    expected = clone(search[:-1]).fit_transform(whole, labels)
    pending = _pending.Pending(tmp_path)
    pending.begin({}, fresh=True)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    _update._write(tmp_path, tmp_path, items, settings, {}, pending, front, search)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    manifest = _index.read_manifest(tmp_path)
    np.testing.assert_array_equal(_index.read_array(tmp_path, manifest, "descriptors"), whole)
    gallery = _index.read_array(tmp_path, manifest, "gallery")
    np.testing.assert_allclose(gallery, expected, rtol=1e-4, atol=1e-6)
    assert peak < whole.nbytes / 2


def test_image_index_from_python(index_copy, shared_photographs):
    loaded = ImageIndex(index_copy)
    assert len(loaded.files) == 12
    assert loaded.label_of(shared_photographs / "b" / "01.png") == "b"
    assert loaded.label_of("/elsewhere/b/01.png") is None
    distances, indices = loaded.search([loaded.files[4], loaded.files[7]], n_neighbors=50)
    assert indices.shape == distances.shape == (2, 12)
    assert indices[:, 0].tolist() == [4, 7]
    assert loaded.pipeline.score(loaded.files, loaded.labels) > 0


def test_blocks_that_do_not_fit_together_are_refused(tmp_path):
    blocks = [(np.arange(2), np.zeros((2, 3), np.float32)), (np.arange(2, 4), np.zeros((2, 3)))]
    with pytest.raises(ValueError, match="do not form one array"):
        write_blocks(tmp_path / "array.npy", 4, blocks)
    assert not (tmp_path / "array.npy").exists()
