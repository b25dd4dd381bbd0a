"""The arrays of an index, block by block."""

import os
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone

from skretrieval._linalg import _rows as _linalg
from skretrieval.index import IndexedImage, _blocks, _pending, _update, make_pipeline, resolve_settings
from skretrieval.index import _image_index as _index
from skretrieval.index._blocks import merge, write_blocks
from skretrieval.index._changes import rows_of
from skretrieval.index._pipeline import split_pipeline
from skretrieval.index._writing import write_array
from skretrieval.postprocessing import _learned_whitening


def merged(items):
    """Merge the rows of some images, which lie where they lie."""
    blocks = list(merge([(item.source, item.start, item.stop) for item in items]))
    places = np.concatenate([places for places, _ in blocks])
    assert sorted(places) == list(range(len(places)))
    return np.concatenate([rows for _, rows in blocks])[np.argsort(places)]


def test_region_sets_are_merged_image_by_image():
    images = [
        IndexedImage(f"{number}.png", 1, 1, "", n_regions=count) for number, count in enumerate([2, 1, 3])
    ]
    array = np.arange(12.0).reshape(6, 2)
    known = rows_of(images, array)
    np.testing.assert_array_equal(merged([known["0.png"], known["2.png"]]), array[[0, 1, 3, 4, 5]])


@pytest.mark.parametrize("block", [1, 4, 2**20])
def test_rows_from_several_arrays_and_files_are_merged_in_order(tmp_path, monkeypatch, block):
    monkeypatch.setattr(_blocks, "_BLOCK_ELEMENTS", block)
    first, second = np.arange(6.0).reshape(3, 2), 10 + np.arange(4.0).reshape(2, 2)
    np.save(tmp_path / "second.npy", second)
    known = rows_of([IndexedImage(name, 1, 1, "") for name in "aeb"], first)
    known |= rows_of([IndexedImage(name, 1, 1, "") for name in "dc"], tmp_path / "second.npy")
    rows = merged([known[name] for name in sorted(known)])
    np.testing.assert_array_equal(rows, [first[0], first[2], second[1], second[0], first[1]])


def test_blocks_in_any_order_make_the_file_of_the_whole_array(tmp_path):
    array = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    places = [[1, 2, 5], [0, 4, 8], [3, 6, 7]]
    record = write_blocks(tmp_path / "blocks.npy", 9, [(np.array(own), array[own]) for own in places])
    assert record["blake2b"] == write_array(tmp_path / "whole.npy", array)["blake2b"]
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
        items += rows_of(images, tmp_path / f"{shard}.npy").values()
    items.sort(key=lambda item: int(item.image.path))
    whole = np.stack([np.load(tmp_path / f"{shard}.npy") for shard in range(n_shards)], axis=1).reshape(-1, d)
    settings = resolve_settings({"recipe": "crow", "whitening": whitening, "extractor": "squeezenet1_1"})
    encoder, search = split_pipeline(make_pipeline(settings))
    labels = [item.image.label for item in items]
    expected = clone(search[:-1]).fit_transform(whole, labels)
    pending = _pending.Pending(tmp_path)
    pending.begin({}, fresh=True)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    _update._write(tmp_path, tmp_path, items, settings, {}, pending, encoder, search)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    manifest = _index.read_manifest(tmp_path)
    np.testing.assert_array_equal(_index.read_array(tmp_path, manifest, "descriptors"), whole)
    gallery = _index.read_array(tmp_path, manifest, "gallery")
    np.testing.assert_allclose(gallery, expected, rtol=1e-4, atol=1e-6)
    assert peak < whole.nbytes / 2


def test_blocks_that_do_not_fit_together_are_refused(tmp_path):
    blocks = [(np.arange(2), np.zeros((2, 3), np.float32)), (np.arange(2, 4), np.zeros((2, 3)))]
    with pytest.raises(ValueError, match="do not form one array"):
        write_blocks(tmp_path / "array.npy", 4, blocks)
    assert not (tmp_path / "array.npy").exists()
