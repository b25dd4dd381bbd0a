"""Hashes of what comes, archives and pickles of strangers, and states between."""

import multiprocessing
import os

import pytest

from skretrieval.datasets import _registry as registry
from skretrieval.datasets import (
    fetch_oxford5k,
    fetch_roxford5k,
)

# hashes


def test_the_first_download_pins_the_hash(oxford, make, options, server):
    fetch_roxford5k(**options)
    root = options["data_home"] / "oxbuildings"
    (root / "gnd_roxford5k.pkl").unlink()
    server.files["gnd_roxford5k.pkl"] = make.revisited(list(oxford)[::-1])
    options["n_retries"] = 0
    with pytest.raises(
        OSError, match=r"SHA-256 of gnd_roxford5k\.pkl is [0-9a-f]{64}, expected [0-9a-f]{64}"
    ):
        fetch_roxford5k(**options)
    assert not (root / "gnd_roxford5k.pkl").exists()


def test_a_changed_ground_truth_is_noticed(oxford, make, options, offline):
    fetch_roxford5k(**options)
    path = options["data_home"] / "oxbuildings" / "gnd_roxford5k.pkl"
    path.write_bytes(make.revisited(list(oxford)[::-1]))
    for kwargs in (options, offline):
        with pytest.raises(
            OSError, match=r"gnd_roxford5k\.pkl has the SHA-256 .* written down in .*manifest\.json"
        ):
            fetch_roxford5k(**kwargs)


def test_a_published_hash_counts_more_than_any(oxford, options, monkeypatch, server):
    gnd = registry.RemoteFile("gnd_roxford5k.pkl", (), sha256="0" * 64)
    dataset = registry.DataSet("roxford5k", "oxbuildings", (registry.ROXFORD5K.pieces[0], gnd), "")
    monkeypatch.setattr("skretrieval.datasets._revisited.ROXFORD5K", dataset)
    with pytest.raises(OSError, match=f"expected {'0' * 64}"):
        fetch_roxford5k(**options)


def test_a_damaged_manifest_is_said(oxford, options):
    fetch_roxford5k(**options)
    manifest = options["data_home"] / "oxbuildings" / "manifest.json"
    for content in ("", "[]", '{"files": 3}'):
        manifest.write_text(content)
        with pytest.raises(OSError, match=r"manifest\.json is damaged; delete it"):
            fetch_roxford5k(**options)


# archives and pickles of strangers, through the public functions


def test_a_hostile_archive_is_refused_and_not_kept(oxford, make, options, server):
    good = server.files["oxbuild_images-v1.tgz"]
    server.files["oxbuild_images-v1.tgz"] = make.tar_gz([("../../escaped.jpg", b"evil")])
    with pytest.raises(ValueError, match=r"'\.\./\.\./escaped\.jpg' leads out of the folder"):
        fetch_oxford5k(**options)
    assert not list(options["data_home"].parent.rglob("escaped.jpg"))
    server.files["oxbuild_images-v1.tgz"] = good
    assert len(fetch_oxford5k(**options).images) == 10  # its hash was not pinned


def test_a_damaged_archive_is_not_pinned(oxford, options, server):
    good = server.files["oxbuild_images-v1.tgz"]
    server.files["oxbuild_images-v1.tgz"] = good[: len(good) // 2]
    with pytest.raises(OSError, match=r"oxbuild_images-v1\.tgz is damaged"):
        fetch_oxford5k(**options)
    server.files["oxbuild_images-v1.tgz"] = good
    assert len(fetch_oxford5k(**options).images) == 10


def test_a_damaged_archive_put_there_by_hand_stays(oxford, options, offline, server):
    root = options["data_home"] / "oxbuildings"
    root.mkdir(parents=True)
    (root / "oxbuild_images-v1.tgz").write_bytes(server.files["oxbuild_images-v1.tgz"][:500])
    (root / "gt_files_170407.tgz").write_bytes(server.files["gt_files_170407.tgz"])
    with pytest.raises(OSError, match="is damaged"):
        fetch_oxford5k(progress=False, **offline)
    assert (root / "oxbuild_images-v1.tgz").is_file()


def test_a_hostile_ground_truth_is_refused(oxford, options, server, tmp_path):
    server.files["gnd_roxford5k.pkl"] = b"cposix\nsystem\n(S'touch %s'\ntR." % os.fsencode(tmp_path / "ran")
    with pytest.raises(ValueError, match=r"it names the global posix\.system"):
        fetch_roxford5k(**options)
    assert not (tmp_path / "ran").exists()


# states between


def test_an_interrupted_extraction_is_done_again(oxford, options, monkeypatch, server):
    replace = os.replace

    def interrupted(source, target):
        if str(target).endswith("oxbuild_images-v1"):
            raise KeyboardInterrupt
        return replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_oxford5k(**options)
    monkeypatch.setattr(os, "replace", replace)
    root = options["data_home"] / "oxbuildings"
    assert (root / ".oxbuild_images-v1.partial").is_dir()
    assert len(fetch_oxford5k(**options).images) == 10
    assert not (root / ".oxbuild_images-v1.partial").exists()
    assert len(server.asked("oxbuild_images-v1.tgz")) == 1


def test_a_file_in_place_of_the_data_home(options):
    options["data_home"].write_text("")
    with pytest.raises(OSError, match="home"):
        fetch_oxford5k(**options)


def test_photographs_that_have_vanished(oxford, paris, options):
    root = options["data_home"] / "oxbuildings"
    fetch_roxford5k(**options)
    fetch_oxford5k(**options)
    (root / "oxbuild_images-v1" / "all_souls_000000.jpg").unlink()
    with pytest.raises(ValueError, match="1 of the 8 photographs of roxford5k are missing, all_souls_000000"):
        fetch_roxford5k(**options)
    with pytest.raises(ValueError, match=r"all_souls_1_good\.txt are missing, all_souls_000000"):
        fetch_oxford5k(**options)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("oxc1_all_souls_000001 1 2 3", "must hold a name and four numbers"),
        ("oxc1_all_souls_000001 1 2 3 x", "must hold a name and four numbers"),
        ("", "must hold a name and four numbers"),
        ("oxc1_all_souls_000001 500 500 600 600", "lies outside its 64x48 pixels"),
        ("oxc1_all_souls_000001 30 2 10 40", "lies outside"),
        (
            "oxc1_christ_church_000001 1 2 30 40",
            "photograph christ_church_000001 of the query all_souls_1 is missing",
        ),
    ],
)
def test_queries_that_cannot_be_used(oxford, options, line, why):
    fetch_oxford5k(**options)
    query = options["data_home"] / "oxbuildings" / "gt_files_170407" / "all_souls_1_query.txt"
    query.write_text(line)
    with pytest.raises(ValueError, match=why):
        fetch_oxford5k(**options)


def fetch_and_tell(answer, options):
    data = fetch_oxford5k(**options)
    answer.write_text(f"{len(data.images)} {len(data.queries)}")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_processes_fetch_once(oxford, options, server, tmp_path):
    server.delays["oxbuild_images-v1.tgz"] = 0.5  # the other comes while this one is at it
    answers = [tmp_path / name for name in ("first", "second")]
    fork = multiprocessing.get_context("fork")  # the others would import torch twice, for seconds
    processes = [fork.Process(target=fetch_and_tell, args=(answer, options)) for answer in answers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [answer.read_text() for answer in answers] == ["10 4", "10 4"]
    assert len(server.asked("oxbuild_images-v1.tgz")) == 1
    assert len(server.asked("gt_files_170407.tgz")) == 1
