"""`skretrieval index`: what changed is described, everything else stays, and nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from skretrieval.index import ImageIndex, _update

RANDOM = ["--extractor", "squeezenet1_1", "--weights", "random"]


def content(index):
    """The rank of every photograph for every photograph, with similarities, by name."""
    opened = ImageIndex(index)
    folder = Path(opened.info()["folder"])
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*.png")}
    found = {}
    for name, file in sorted(files.items()):
        if name in opened.skipped():
            continue
        results = opened.search(str(file), len(opened))
        found[name] = dict(zip(results.names, results.similarities, strict=True))
    return found


def assert_as_fresh(index, photographs, run, tmp_path, options):
    """Compare an updated index with one made anew."""
    fresh = tmp_path / "fresh"
    run("index", photographs, "--out", fresh, "--no-progress", *options)
    updated, new = content(index), content(fresh)
    assert updated.keys() == new.keys()
    for name, similarities in new.items():
        assert updated[name] == pytest.approx(similarities, abs=1e-5)


def test_unchanged_folder_is_left_alone(index, photographs, run):
    before = ImageIndex(index).info()
    assert "12 images (12 unchanged)" in run("index", photographs, "--out", index, "--no-progress")
    after = ImageIndex(index).info()
    assert (before["generation"], before["n_rows"]) == (after["generation"], after["n_rows"])


def test_only_what_changed_is_described(tmp_path, index, photographs, run, draw_photograph, network_options):
    draw_photograph(photographs / "a" / "new.png", 50)
    draw_photograph(photographs / "b" / "01.png", 51)
    (photographs / "c" / "02.png").unlink()
    (photographs / "a" / "00.png").rename(photographs / "c" / "moved.png")
    os.utime(photographs / "c" / "05.png", (1, 1))
    output = run("index", photographs, "--out", index, "--no-progress")
    assert "12 images (2 described, 9 unchanged, 1 moved, 1 removed)" in output
    assert_as_fresh(index, photographs, run, tmp_path, network_options)
    results = ImageIndex(index).search(str(photographs / "c" / "moved.png"), 1)
    assert (results.names, results.labels) == (["c/moved.png"], ["c"])
    assert "12 images (12 unchanged)" in run("index", photographs, "--out", index, "--no-progress")


def test_copies_are_described_once(index, photographs, run):
    shutil.copy(photographs / "a" / "00.png", photographs / "b" / "copy.png")
    os.link(photographs / "a" / "00.png", photographs / "c" / "link.png")
    assert "14 images (12 unchanged, 2 copies)" in run("index", photographs, "--out", index, "--no-progress")
    found = ImageIndex(index).search(str(photographs / "a" / "00.png"), 3)
    assert found.names == ["a/00.png", "b/copy.png", "c/link.png"]
    assert ImageIndex(index).info()["n_rows"] == 12


def test_an_edit_that_keeps_size_and_name_is_seen(index, photographs, run):
    file = photographs / "a" / "00.png"
    with Image.open(file) as image:
        size = image.size
    file.unlink()
    Image.new("RGB", size, (10, 20, 30)).save(file)
    before = file.stat()
    run("index", photographs, "--out", index, "--no-progress")
    Image.new("RGB", size, (30, 20, 10)).save(file)
    os.utime(file, (before.st_mtime - 1000, before.st_mtime - 1000))  # a date that is older
    assert file.stat().st_size == before.st_size
    assert "1 described, 11 unchanged" in run("index", photographs, "--out", index, "--no-progress")


def test_removal_alone(index, photographs, run):
    shutil.rmtree(photographs / "b")
    assert "8 images (8 unchanged, 4 removed)" in run("index", photographs, "--out", index, "--no-progress")
    assert set(ImageIndex(index).search(1, 12).labels) == {"a", "c"}


def test_what_cannot_be_opened_for_now_stays(index, photographs, run, monkeypatch):
    os.utime(photographs / "a" / "00.png", (1, 1))

    def read_file(path):
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(_update, "read_file", read_file)
        output = run("index", photographs, "--out", index, "--no-progress")
    assert "12 images (12 unchanged)" in output
    assert f"Cannot look at {photographs}/a/00.png: Permission denied" in output
    assert len(ImageIndex(index)) == 12


def test_removing_more_than_half_asks_for_yes(index, photographs, run):
    shutil.rmtree(photographs / "b")
    shutil.rmtree(photographs / "c")
    output = run("index", photographs, "--out", index, "--no-progress", fails=True)
    assert "8 of 12 photographs of the index are gone" in output
    assert "--yes" in output
    assert len(ImageIndex(index)) == 12
    assert "4 images (4 unchanged, 8 removed)" in run(
        "index", photographs, "--out", index, "--no-progress", "--yes"
    )


def test_a_missing_or_empty_folder_removes_nothing(index, photographs, run):
    shutil.move(photographs, f"{photographs}.away")
    assert "Nothing was changed" in run("index", photographs, "--out", index, "--yes", fails=True)
    photographs.mkdir()
    assert "holds no photographs" in run("index", photographs, "--out", index, "--yes", fails=True)
    assert len(ImageIndex(index)) == 12


def test_dry_run_changes_nothing(tmp_path, index, photographs, run, draw_photograph):
    draw_photograph(photographs / "a" / "new.png", 50)
    (photographs / "c" / "02.png").unlink()
    output = run("index", photographs, "--out", index, "--dry-run")
    assert "1 to be read, 11 unchanged, 1 gone" in output
    assert len(ImageIndex(index)) == 12
    assert "11 unchanged, 1 removed" in run("index", photographs, "--out", index, "--no-progress")


def test_what_is_excluded_leaves_the_index_and_is_remembered(index, photographs, run):
    output = run("index", photographs, "--out", index, "--no-progress", "--exclude", "b")
    assert "8 images (8 unchanged, 4 removed)" in output
    assert "8 images (8 unchanged)" in run("index", photographs, "--out", index, "--no-progress")
    assert ", b" in next(line for line in run("info", index).splitlines() if line.startswith("Left out"))


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


def test_what_is_no_photograph_is_counted_by_suffix(photographs, index, run):
    (photographs / "clip.mov").write_bytes(b"no photograph")
    (photographs / "a" / "clip.mov").write_bytes(b"no photograph")
    (photographs / "notes").write_text("nor this")
    output = run("index", photographs, "--out", index, "--no-progress")
    assert "2 .mov, 1 without suffix not read" in output


def test_odd_files_stop_nothing(photographs, index, run):
    os.mkfifo(photographs / "pipe.jpg")
    (photographs / "loop.jpg").symlink_to("loop.jpg")
    (photographs / "gone.jpg").symlink_to("nowhere.jpg")
    (photographs / "a" / "up").symlink_to(photographs)
    output = run("index", photographs, "--out", index, "--no-progress")
    assert "12 images (12 unchanged)" in output
    for words in (
        "pipe.jpg: a named pipe",
        "gone.jpg: a link to nothing",
        "a/up: a loop of links",
        "loop.jpg",
    ):
        assert words in output


def test_folders_without_an_image(tmp_path, run, network_options):
    folder = tmp_path / "folder"
    assert "cannot be looked at" in run("index", folder, "--out", tmp_path / "index", fails=True)
    folder.mkdir()
    assert "holds no photographs" in run("index", folder, "--out", tmp_path / "index", fails=True)
    (folder / "a.png").write_bytes(b"no image")
    output = run("index", folder, "--out", tmp_path / "other", *network_options, fails=True)
    assert "None of the 1 photographs" in output


def test_names_that_are_no_text(tmp_path, run, draw_photograph, network_options):
    folder = tmp_path / "photographs"
    folder.mkdir()
    names = [os.fsdecode(b"\xff\xfe.png"), "line\nbreak.png", "\x1b[31mred.png"]
    try:
        for number, name in enumerate(names):
            draw_photograph(folder / name, number)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    draw_photograph(folder / "grün & <blau>.png", 9)
    index, page = tmp_path / "index", tmp_path / "page.html"
    run("index", folder, "--out", index, "--no-progress", *network_options)
    output = run("search", index, folder / "grün & <blau>.png", "--html", page)
    assert output.count(".png") == 4
    assert "\x1b" not in output
    assert "line\\nbreak.png" in output
    html = page.read_text(encoding="utf-8")
    assert "grün &amp; &lt;blau&gt;.png" in html
    assert html.count("data:image/jpeg") == 5
    assert ImageIndex(index).search(str(folder / names[1]), 1).paths == [str(folder / names[1])]
    assert "4 images (4 unchanged)" in run("index", folder, "--out", index, "--no-progress")


def test_other_options_need_a_rebuild(index, photographs, run):
    output = run("index", photographs, "--out", index, "--recipe", "mac", "--size", 64, fails=True)
    assert "made with recipe=grmac (asked for: mac)" in output
    assert "size" not in output
    assert "--rebuild" in output
    run("index", photographs, "--out", index, "--recipe", "mac", "--rebuild", *RANDOM, "--size", 80)
    settings = ImageIndex(index).info()["settings"]
    assert (settings["recipe"], settings["size"]) == ("mac", 80)
    assert len(ImageIndex(index)) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "magic"], "unknown recipe 'magic'; there are adaptive_gaussian, anyloc, bow_cnn"),
        (["--whitening", "bleach"], "whitening must be none, pca or learned"),
        (
            ["--extractor", "kernel", "--weights", "random"],
            "weights are for networks; the kernel extractor learns",
        ),
        (["--extractor", "vgg161"], "vgg161"),
        (["--extractor", "squeezenet1_1", "--weights", "gone.pth"], "gone.pth"),
        (["--recipe", "ms_rmac"], "wants several layers or resolutions"),
    ],
)
def test_bad_options_leave_nothing_in_the_way(tmp_path, photographs, run, network_options, options, message):
    assert message in run("index", photographs, "--out", tmp_path / "index", *options, fails=True)
    run("index", photographs, "--out", tmp_path / "index", "--rebuild", "--no-progress", *network_options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without CUDA")
def test_a_device_that_is_missing_skips_no_photograph(tmp_path, photographs, index, run, draw_photograph):
    """A fault of the set-up is no fault of the photographs, when an index is made and when it grows."""
    draw_photograph(photographs / "a" / "new.png", 77)
    assert "no CUDA device" in run("index", photographs, "--out", index, "--device", "cuda", fails=True)
    assert "1 described, 12 unchanged" in run("index", photographs, "--out", index, "--no-progress")
    fresh = tmp_path / "fresh"
    assert "no CUDA device" in run(
        "index", photographs, "--out", fresh, *RANDOM, "--device", "cuda", fails=True
    )
    assert "13 images (13 described)" in run("index", photographs, "--out", fresh, "--no-progress")


def test_learned_whitening_needs_labels(tmp_path, run, draw_photograph, network_options):
    for number in range(3):
        draw_photograph(tmp_path / "flat" / f"{number}.png", number)
    command = ("index", tmp_path / "flat", "--out", tmp_path / "index", "--whitening", "learned")
    assert "labels" in run(*command, *network_options, fails=True)


def test_a_moved_folder(tmp_path, index, photographs, run):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photographs, elsewhere)
    output = run("index", elsewhere, "--out", index, fails=True)
    assert f"index of {photographs}, not of {elsewhere}" in output
    assert "--folder-moved" in output
    shutil.rmtree(photographs)
    assert "12 images (12 unchanged)" in run(
        "index", elsewhere, "--out", index, "--folder-moved", "--no-progress"
    )
    assert ImageIndex(index).search(1, 1).paths[0].startswith(str(elsewhere))


def test_a_folder_that_is_no_index_is_left_alone(tmp_path, photographs, run, network_options):
    (tmp_path / "mine" / "pending").mkdir(parents=True)
    (tmp_path / "mine" / "pending" / "letter.txt").write_text("mine")
    for out in (tmp_path / "mine", photographs):
        assert "holds other things" in run("index", photographs, "--out", out, *network_options, fails=True)
    assert (tmp_path / "mine" / "pending" / "letter.txt").read_text() == "mine"
    assert not (photographs / "index.sqlite").exists()


def test_a_second_writer_is_told_who_holds_the_index(index, photographs, run):
    updates = ImageIndex(index).update(photographs)
    next(updates)
    try:
        output = run("index", photographs, "--out", index, "--no-progress", fails=True)
        assert f"process {os.getpid()}" in output
    finally:
        updates.close()
    assert "12 images (12 unchanged)" in run("index", photographs, "--out", index, "--no-progress")


# ------------------------------------------------------------------------------------------------ interruption
def test_interrupted_work_goes_on(tmp_path, photographs, run, network_options, monkeypatch):
    index = tmp_path / "index"
    describe = _update.Update._describe

    def describe_and_stop(self, *args):
        describe(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_update.Update, "_describe", describe_and_stop)
        output = run("index", photographs, "--out", index, "--no-progress", *network_options, fails=True)
    assert "the same command goes on from there" in output
    assert len(ImageIndex(index)) == 8
    (photographs / "a" / "00.png").unlink()  # described, but gone since
    (photographs / "a" / "03.png").write_bytes(b"described, but no image any more")
    output = run("index", photographs, "--out", index, "--no-progress", *network_options)
    assert "4 described" in output
    assert "1 removed, 1 skipped" in output
    assert "a/03.png" not in content(index)
    assert_as_fresh(index, photographs, run, tmp_path, network_options)


def test_work_survives_sigkill(tmp_path, run, draw_photograph):
    folder, index = tmp_path / "photographs", tmp_path / "index"
    for number in range(64):
        draw_photograph(folder / f"{number:02d}.png", number, (400, 300))
    options = [*RANDOM, "--size", "400", "--device", "cpu"]
    command = [sys.executable, "-m", "skretrieval.cli", "index", str(folder), "--out", str(index), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline, n_done = time.monotonic() + 120, 0
    while n_done == 0:
        assert process.poll() is None, "indexing ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
        try:
            n_done = len(ImageIndex(index))
        except (FileNotFoundError, ValueError):  # not begun yet
            continue
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    n_done = len(ImageIndex(index))
    assert 8 <= n_done < 64, "the machine was too fast: nothing was interrupted"
    output = run("index", folder, "--out", index, "--no-progress", *options)
    assert f"64 images ({64 - n_done} described, {n_done} unchanged)" in output
    assert_as_fresh(index, folder, run, tmp_path, options)
