"""`skretrieval index`: what changed is described, everything else is kept."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from skretrieval import recipes
from skretrieval.extraction import ConvFeatureExtractor, ImageCrop
from skretrieval.index import ImageIndex, _pending
from skretrieval.index import _image_index as _index


def content(index):
    """Paths and arrays of an index."""
    manifest = _index.read_manifest(index)
    paths = [image.path for image in _index.read_images(index, manifest)]
    return paths, *(np.array(_index.read_array(index, manifest, kind)) for kind in ("descriptors", "gallery"))


def assert_as_fresh(index, photographs, run, tmp_path, options):
    """Compare an updated index with one made anew."""
    fresh = tmp_path / "fresh"
    run("index", photographs, "--out", fresh, "--no-progress", *options)
    for updated, new in zip(content(index), content(fresh), strict=True):
        if isinstance(updated, list):
            assert updated == new
        else:
            # raw descriptors have the scale of the activations
            np.testing.assert_allclose(updated, new, rtol=1e-4, atol=1e-6 * np.abs(new).max())


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ([], lambda extractor: recipes.grmac(extractor=extractor, whitening=None)),
        (
            ["--recipe", "rmac", "--whitening", "pca", "--expand", "2"],
            lambda extractor: recipes.rmac(extractor=extractor, whitening="pca", expand=2),
        ),
        pytest.param(
            ["--recipe", "crow", "--whitening", "learned"],
            lambda extractor: recipes.crow(extractor=extractor, whitening="learned"),
            marks=pytest.mark.filterwarnings("ignore:The scatter of the same-label pairs is singular"),
        ),
    ],
)
def test_search_equals_the_python_pipeline(tmp_path, photographs, run, network_options, options, recipe):
    index = tmp_path / "index"
    run("index", photographs, "--out", index, "--no-progress", *network_options, *options)
    loaded = ImageIndex(index)
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=64)
    pipeline = recipe(extractor).fit(loaded.files, loaded.labels)
    queries = [loaded.files[0], loaded.files[7], ImageCrop(loaded.files[3], (5, 10, 50, 45))]
    distances, indices = loaded.search(queries, 12)
    expected = pipeline.steps[-1][1].kneighbors(pipeline[:-1].transform(queries), n_neighbors=12)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-4, atol=2e-6)


def test_unchanged_folder_is_left_alone(index, photographs, run):
    before = {file.name: file.stat().st_mtime_ns for file in index.iterdir()}
    assert "12 images (12 unchanged)" in run("index", photographs, "--out", index, "--no-progress")
    assert {file.name: file.stat().st_mtime_ns for file in index.iterdir()} == before | {
        ".lock": (index / ".lock").stat().st_mtime_ns
    }


def test_only_what_changed_is_described(tmp_path, index, photographs, run, draw_photograph, network_options):
    draw_photograph(photographs / "a" / "new.png", 50)
    draw_photograph(photographs / "b" / "01.png", 51)
    (photographs / "c" / "02.png").unlink()
    (photographs / "a" / "00.png").rename(photographs / "c" / "moved.png")
    os.utime(photographs / "c" / "05.png", (1, 1))
    output = run("index", photographs, "--out", index, "--no-progress")
    assert "12 images (2 described, 9 unchanged, 1 moved, 1 removed)" in output
    assert_as_fresh(index, photographs, run, tmp_path, network_options)
    moved = next(image for image in ImageIndex(index).images if image.path == "c/moved.png")
    assert moved.label == "c"
    assert "12 images (12 unchanged)" in run("index", photographs, "--out", index, "--no-progress")


def test_an_edit_that_keeps_size_and_name_is_seen(index, photographs, run):
    file = photographs / "a" / "00.png"
    with Image.open(file) as image:
        size = image.size
    file.unlink()
    image = Image.new("RGB", size, (10, 20, 30))
    image.save(file)
    before = file.stat()
    run("index", photographs, "--out", index, "--no-progress")
    Image.new("RGB", size, (30, 20, 10)).save(file)
    assert file.stat().st_size == before.st_size
    assert "1 described, 11 unchanged" in run("index", photographs, "--out", index, "--no-progress")


def test_removal_alone(index, photographs, run):
    shutil.rmtree(photographs / "b")
    assert "8 images (8 unchanged, 4 removed)" in run("index", photographs, "--out", index, "--no-progress")
    assert {image.label for image in ImageIndex(index).images} == {"a", "c"}


@pytest.fixture
def unreadable(photographs):
    """Files that look like images and aren't, by name."""
    good = (photographs / "a" / "00.png").read_bytes()
    (photographs / "a" / "empty.png").write_bytes(b"")
    (photographs / "b" / "truncated.png").write_bytes(good[: len(good) // 2])
    (photographs / "b" / "text.jpg").write_text("no image")
    Image.new("RGB", (1, 1)).save(photographs / "c" / "pixel.png")
    # Readable, but too thin for the network: this spoils the batch it is in.
    Image.new("RGB", (400, 3), (9, 80, 200)).save(photographs / "c" / "thin.png")
    return ["a/empty.png", "b/text.jpg", "b/truncated.png", "c/pixel.png", "c/thin.png"]


def test_unreadable_files_are_skipped_and_listed(tmp_path, photographs, unreadable, run, network_options):
    index = tmp_path / "index"
    output = run("index", photographs, "--out", index, "--no-progress", *network_options)
    assert "12 images (12 described, 5 skipped)" in output
    for text in (output, run("info", index)):
        listed = [line.split()[1].rstrip(":") for line in text.splitlines() if line.startswith("Skipped")]
        assert listed == unreadable
    assert "a/empty.png: not an image file, or an empty one" in output
    assert "c/pixel.png: cannot be read as an image: 1x1 pixels" in output
    assert "c/thin.png: 64x1 pixels after resizing are too few for the network" in output
    # They are tried again, and nothing else is.
    assert "12 images (12 unchanged, 5 skipped)" in run("index", photographs, "--out", index, "--no-progress")
    for path in unreadable:
        (photographs / path).unlink()
    assert "12 images (12 unchanged)" in run("index", photographs, "--out", index, "--no-progress")
    assert "Skipped" not in run("info", index)
    assert_as_fresh(index, photographs, run, tmp_path, network_options)


def test_folders_without_an_image(tmp_path, run, network_options):
    folder = tmp_path / "folder"
    assert "no such folder" in run("index", folder, "--out", tmp_path / "index", fails=True)
    folder.mkdir()
    assert "no images in" in run("index", folder, "--out", tmp_path / "index", fails=True)
    assert not (tmp_path / "index").exists()
    (folder / "a.png").write_bytes(b"no image")
    output = run("index", folder, "--out", tmp_path / "index", *network_options, fails=True)
    assert "none of the 1 images" in output
    assert "can be read" in output


def test_names_that_are_no_text(tmp_path, run, draw_photograph, network_options):
    folder = tmp_path / "photographs"
    folder.mkdir()
    try:
        draw_photograph(folder / os.fsdecode(b"\xff\xfe.png"), 0)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    draw_photograph(folder / "grün & <blau>.png", 1)
    index, page = tmp_path / "index", tmp_path / "page.html"
    run("index", folder, "--out", index, "--no-progress", *network_options)
    output = run("search", index, folder / "grün & <blau>.png", "--html", page)
    assert output.count(".png") == 2
    html = page.read_text(encoding="utf-8")
    assert "grün &amp; &lt;blau&gt;.png" in html
    assert html.count("data:image/jpeg") == 3
    assert "2 images (2 unchanged)" in run("index", folder, "--out", index, "--no-progress")


def test_other_options_need_a_rebuild(index, photographs, run):
    output = run("index", photographs, "--out", index, "--recipe", "mac", "--size", 64, fails=True)
    assert "made with recipe=grmac (asked for: mac)" in output
    assert "size" not in output
    assert "--rebuild" in output
    run(
        "index",
        photographs,
        "--out",
        index,
        "--recipe",
        "mac",
        "--rebuild",
        "--extractor",
        "squeezenet1_1",
        "--weights",
        "random",
        "--size",
        80,
    )
    manifest = _index.read_manifest(index)
    assert (manifest["settings"]["recipe"], manifest["settings"]["size"]) == ("mac", 80)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "magic"], "unknown recipe 'magic'; there are adaptive_gaussian, bow_cnn, crow"),
        (["--whitening", "bleach"], "whitening must be none, pca or learned"),
        (["--extractor", "kernel", "--weights", "random"], "weights are for torchvision networks"),
        (["--extractor", "vgg161"], "vgg161"),
        (["--extractor", "squeezenet1_1", "--weights", "gone.pth"], "gone.pth"),
        (["--recipe", "ms_rmac"], "wants several layers or resolutions"),
    ],
)
def test_bad_options_leave_nothing_in_the_way(tmp_path, photographs, run, network_options, options, message):
    assert message in run("index", photographs, "--out", tmp_path / "index", *options, fails=True)
    run("index", photographs, "--out", tmp_path / "index", "--no-progress", *network_options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without CUDA")
def test_a_device_that_is_missing_skips_no_photograph(tmp_path, photographs, index, run, draw_photograph):
    """A fault of the set-up is no fault of the photographs, when an index is made and when it grows."""
    draw_photograph(photographs / "a" / "new.png", 77)
    assert "no CUDA device" in run("index", photographs, "--out", index, "--device", "cuda", fails=True)
    assert "12 unchanged, 1 described" in run("index", photographs, "--out", index, "--no-progress").replace(
        "1 described, 12 unchanged", "12 unchanged, 1 described"
    )
    fresh = tmp_path / "fresh"
    options = ["--extractor", "squeezenet1_1", "--weights", "random", "--device", "cuda"]
    assert "no CUDA device" in run("index", photographs, "--out", fresh, *options, fails=True)
    assert not fresh.exists() or not any(fresh.glob("pending/front*"))


def test_photographs_too_small_for_the_network_do_not_stop_the_whitening(
    tmp_path, photographs, run, draw_photograph
):
    draw_photograph(photographs / "a" / "strip.png", 5, (640, 20))
    options = [
        "--extractor",
        "squeezenet1_1",
        "--weights",
        "random",
        "--recipe",
        "rmac",
        "--whitening",
        "pca",
    ]
    output = run("index", photographs, "--out", tmp_path / "index", "--no-progress", "--size", "64", *options)
    assert "12 described, 1 skipped" in output
    assert "a/strip.png: 64x2 pixels after resizing are too few for the network" in output


def test_learned_whitening_needs_labels(tmp_path, run, draw_photograph, network_options):
    for number in range(3):
        draw_photograph(tmp_path / "flat" / f"{number}.png", number)
    command = ("index", tmp_path / "flat", "--out", tmp_path / "index", "--whitening", "learned")
    assert "needs labels" in run(*command, *network_options, fails=True)


def test_a_moved_folder(tmp_path, index, photographs, run):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photographs, elsewhere)
    output = run("index", elsewhere, "--out", index, fails=True)
    assert f"is the index of {photographs}, not of {elsewhere}" in output
    assert "--folder-moved" in output
    shutil.rmtree(photographs)
    assert "12 images (12 unchanged)" in run(
        "index", elsewhere, "--out", index, "--folder-moved", "--no-progress"
    )
    assert ImageIndex(index).files[0] == str(elsewhere / "a" / "00.png")


def test_the_sample_bounds_what_is_learned_from(tmp_path, photographs, run, network_options):
    output = run("index", photographs, "--out", tmp_path / "index", "--sample", 5, *network_options)
    assert "Setting up from 5 photographs" in output
    assert "12 images (12 described)" in output


def test_how_it_ran_is_not_kept(tmp_path, photographs, run, network_options):
    run(
        "index",
        photographs,
        "--out",
        tmp_path / "index",
        "--device",
        "cpu",
        "--batch-size",
        3,
        *network_options,
    )
    extractor = ImageIndex(tmp_path / "index").pipeline.named_steps["extractor"]
    assert (extractor.device, extractor.batch_size, extractor.on_error) == ("auto", 8, "raise")


# ------------------------------------------------------------------------------------------------ interruption
def test_interrupted_work_goes_on(tmp_path, photographs, run, network_options, monkeypatch):
    index = tmp_path / "index"
    add = _pending.Pending.add

    def add_and_stop(self, *args):
        add(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_pending.Pending, "add", add_and_stop)
        output = run("index", photographs, "--out", index, "--no-progress", *network_options, fails=True)
    assert "the same command goes on from there" in output
    assert "Interrupted work: 8 images" in run("info", index)
    assert "holds no index" in run("search", index, photographs / "a" / "00.png", fails=True)
    assert "interrupted work with other options" in run(
        "index", photographs, "--out", index, "--recipe", "mac", fails=True
    )
    (photographs / "a" / "00.png").unlink()  # described, but gone since
    output = run("index", photographs, "--out", index, "--no-progress", *network_options)
    assert "11 images (4 described, 7 finished before an interruption)" in output
    assert not (index / "pending").exists()
    assert_as_fresh(index, photographs, run, tmp_path, network_options)


def test_what_became_unreadable_after_an_interruption_is_skipped(
    tmp_path, photographs, run, network_options, monkeypatch
):
    index = tmp_path / "index"
    add = _pending.Pending.add

    def add_and_stop(self, *args):
        add(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_pending.Pending, "add", add_and_stop)
        run("index", photographs, "--out", index, "--no-progress", *network_options, fails=True)
    (photographs / "a" / "00.png").write_bytes(b"described, but no image any more")
    output = run("index", photographs, "--out", index, "--no-progress", *network_options)
    assert "11 images (4 described, 7 finished before an interruption" in output
    assert "a/00.png" not in content(index)[0]
    assert_as_fresh(index, photographs, run, tmp_path, network_options)


def test_rebuild_discards_interrupted_work_with_other_options(
    tmp_path, photographs, run, network_options, monkeypatch
):
    index = tmp_path / "index"
    add = _pending.Pending.add

    def add_and_stop(self, *args):
        add(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_pending.Pending, "add", add_and_stop)
        run("index", photographs, "--out", index, "--no-progress", *network_options, fails=True)
    output = run("index", photographs, "--out", index, "--recipe", "mac", "--rebuild", *network_options)
    assert "12 images (12 described)" in output


def test_damaged_interrupted_work_is_named(tmp_path, photographs, run, network_options, monkeypatch):
    index = tmp_path / "index"
    add = _pending.Pending.add

    def add_and_stop(self, *args):
        add(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_pending.Pending, "add", add_and_stop)
        run("index", photographs, "--out", index, "--no-progress", *network_options, fails=True)
    shard = index / "pending" / "000001.npy"
    shard.write_bytes(shard.read_bytes()[:50])
    output = run("index", photographs, "--out", index, "--no-progress", *network_options, fails=True)
    assert "000001.json or its .npy is damaged" in output
    shard.unlink()
    shard.with_suffix(".json").unlink()
    assert "12 images (12 described)" in run(
        "index", photographs, "--out", index, "--no-progress", *network_options
    )


def test_work_survives_sigkill(tmp_path, run, draw_photograph):
    folder, index = tmp_path / "photographs", tmp_path / "index"
    for number in range(64):
        draw_photograph(folder / f"{number:02d}.png", number, (400, 300))
    options = ["--extractor", "squeezenet1_1", "--weights", "random", "--size", "400", "--device", "cpu"]
    command = [sys.executable, "-m", "skretrieval.cli", "index", str(folder), "--out", str(index), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = index / "pending" / "000001.json"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert process.poll() is None, "indexing ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (index / "index.json").exists(), "the machine was too fast: nothing was interrupted"
    n_done = sum(len(json.loads(file.read_text())["images"]) for file in (index / "pending").glob("0*.json"))
    assert 8 <= n_done < 64
    output = run("index", folder, "--out", index, "--no-progress", *options)
    assert f"64 images ({64 - n_done} described, {n_done} finished before an interruption)" in output
    assert_as_fresh(index, folder, run, tmp_path, options)
