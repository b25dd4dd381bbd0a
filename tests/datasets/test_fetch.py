"""The published data sets, in small, from a real server: what is asked for, what comes, what is kept."""

import multiprocessing
import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

import skretrieval.datasets as datasets
from skretrieval.datasets import _registry as registry
from skretrieval.datasets import (
    fetch_flickr100k,
    fetch_holidays,
    fetch_oxford5k,
    fetch_paris6k,
    fetch_revisitop1m,
    fetch_roxford5k,
    fetch_rparis6k,
    fetch_ukbench,
    get_data_home,
)
from skretrieval.datasets._download import Transfer
from skretrieval.datasets._holidays import with_orientation
from skretrieval.extraction import ConvKernelExtractor, ImageCrop
from skretrieval.metrics import evaluate_holidays

FETCHERS = [name for name in datasets.__all__ if name.startswith("fetch_")]


@pytest.fixture
def options(server, tmp_path):
    return {
        "data_home": tmp_path / "home",
        "mirrors": server.base,
        "progress": False,
        "delay": 0.0,
        "n_retries": 2,
    }


@pytest.fixture
def offline(options):
    return {"data_home": options["data_home"], "download_if_missing": False}


def names(paths):
    return [os.path.basename(path) for path in paths]


def test_oxford5k(oxford, options, server):
    data = fetch_oxford5k(**options)
    assert names(data.images) == sorted(f"{name}.jpg" for name in oxford)
    assert data.query_names == ["all_souls_1", "all_souls_2", "radcliffe_1", "radcliffe_2"]
    assert data.query_indices.tolist() == [1, 2, 6, 7]
    for query, index in zip(data.queries, data.query_indices):
        assert isinstance(query, ImageCrop)
        assert query.image == data.images[index]
        assert query.box == (3.5, 4.25, 60.5, 48.0)  # cut to the photograph of 64x48
    first, second = data.ground_truth[:2]
    assert {grade: list(first[grade]) for grade in first} == {"good": [1, 0], "ok": [3], "junk": [4]}
    assert {grade: list(second[grade]) for grade in second} == {"good": [2, 0], "ok": [3], "junk": []}
    assert all(entry[grade].dtype == np.int64 for entry in data.ground_truth for grade in entry)
    assert (data.protocol, data.name) == ("oxford", "oxford5k")
    assert "Philbin" in data.DESCR
    assert "Licence" in data.DESCR
    assert "Here: 10 gallery images and 4 queries" in data.DESCR
    assert [entry[0] for entry in server.log] == ["oxbuild_images-v1.tgz", "gt_files_170407.tgz"]


def test_paris6k(paris, options):
    data = fetch_paris6k(**options)
    assert names(data.images) == sorted(f"{name}.jpg" for name in paris)
    assert data.query_names == ["defense_1", "defense_2", "louvre_1", "louvre_2", "louvre_3"]
    assert data.query_indices.tolist() == [1, 2, 6, 7, 6]
    assert data.ground_truth[4]["good"].tolist() == [6, 10]
    assert len(data.corrupt) == len(set(data.corrupt)) == 20
    assert "paris_louvre_000136" in data.corrupt


def test_paris6k_without_its_corrupt_members(paris, options):
    data = fetch_paris6k(drop_corrupt=True, **options)
    assert len(data.images) == 10
    for path in data.images:
        with Image.open(path) as image:
            image.load()
    assert data.ground_truth[4]["good"].tolist() == [6]
    assert data.queries[4].image == data.images[data.query_indices[4]]
    assert len(data.corrupt) == 20


@pytest.mark.parametrize("fetch", [fetch_roxford5k, fetch_rparis6k])
def test_revisited(oxford, paris, options, fetch):
    data = fetch(**options)
    photographs = oxford if fetch is fetch_roxford5k else [name for name in paris if "000136" not in name]
    *gallery, first, second = photographs
    assert names(data.images) == [f"{name}.jpg" for name in gallery]
    assert names([query.image for query in data.queries]) == [f"{first}.jpg", f"{second}.jpg"]
    assert [query.box for query in data.queries] == [(1.0, 2.0, 63.0, 47.0), (0.0, 0.0, 64.0, 48.0)]
    assert data.query_indices is None
    assert data.query_names == [first, second]
    assert [{k: v.tolist() for k, v in entry.items()} for entry in data.ground_truth] == [
        {"easy": [0, 2], "hard": [1], "junk": [3, 4]},
        {"easy": [], "hard": [], "junk": [5]},
    ]
    assert data.protocol == "revisited"
    assert data.name == fetch.__name__.removeprefix("fetch_")
    assert "Radenović" in data.DESCR


def test_the_revisited_benchmark_shares_the_photographs(oxford, options, server):
    first = fetch_oxford5k(**options)
    second = fetch_roxford5k(**options)
    assert len(server.asked("oxbuild_images-v1.tgz")) == 1
    assert set(second.images) < set(first.images)


def test_holidays(holidays, options):
    data = fetch_holidays(**options)
    assert names(data.images) == [f"{number}.jpg" for number in sorted(holidays)]
    assert names(data.queries) == ["100000.jpg", "100100.jpg", "149900.jpg"]
    assert data.query_names == ["100000", "100100", "149900"]
    assert data.query_indices.tolist() == [0, 3, 5]
    assert [list(entry["positives"]) for entry in data.ground_truth] == [[1, 2], [4], [6]]
    assert [list(entry["junk"]) for entry in data.ground_truth] == [[0], [3], [5]]
    assert data.protocol == "holidays"
    # Both forms of the protocol take it, and agree with a gallery that never had the queries.
    ranks = np.stack([np.random.default_rng(number).permutation(7) for number in range(3)])
    reduced = fetch_holidays(database="non_queries", **options)
    kept = np.delete(np.arange(7), data.query_indices)
    without = np.stack([np.searchsorted(kept, row[np.isin(row, kept)]) for row in ranks])
    assert_array_equal(
        evaluate_holidays(ranks, data.ground_truth, database="non_queries")["ap"],
        evaluate_holidays(without, reduced.ground_truth)["ap"],
    )
    assert_array_equal(
        evaluate_holidays(ranks, data.ground_truth)["ap"],
        evaluate_holidays(ranks, [{**entry, "junk": []} for entry in data.ground_truth])["ap"],
    )


def test_holidays_without_the_queries_in_the_gallery(holidays, options):
    data = fetch_holidays(database="non_queries", **options)
    assert names(data.images) == ["100001.jpg", "100002.jpg", "100101.jpg", "149901.jpg"]
    assert names(data.queries) == ["100000.jpg", "100100.jpg", "149900.jpg"]
    assert data.query_indices is None
    assert [list(entry["positives"]) for entry in data.ground_truth] == [[0, 1], [2], [3]]
    assert [list(entry["junk"]) for entry in data.ground_truth] == [[], [], []]


def test_holidays_upright(holidays, options, offline):
    lying = fetch_holidays(**options)
    data = fetch_holidays(upright=True, **options)
    assert names(data.images) == names(lying.images)
    assert [list(entry["positives"]) for entry in data.ground_truth] == [[1, 2], [4], [6]]
    turns = {
        "100001.jpg": Image.Transpose.ROTATE_270,
        "100101.jpg": Image.Transpose.ROTATE_90,
    }  # counter-clockwise
    for before, after in zip(lying.images, data.images):
        name = os.path.basename(after)
        with Image.open(before) as stored, Image.open(after) as turned:
            expected = np.asarray(stored.transpose(turns[name]) if name in turns else stored)
            assert_array_equal(np.asarray(ImageOps.exif_transpose(turned)), expected)
        assert (before == after) == (name not in {*turns, "149901.jpg"})
    assert data.name == "holidays_upright"
    assert "MultiGrain" in data.DESCR
    assert fetch_holidays(upright=True, **offline).images == data.images


def test_a_rotation_table_that_is_none(holidays, options, server):
    server.files["holidays-rotate.yaml"] = b'"100001.jpg": 45,\n'
    with pytest.raises(ValueError, match=r"rotate\.yaml, line 1: expected a file and its rotation"):
        fetch_holidays(upright=True, **options)


def test_turning_a_jpeg_keeps_everything_but_its_exif(make):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "A camera"
    stored = make.jpeg(3, exif=exif)
    turned = with_orientation(stored, 8)
    assert turned.endswith(stored[stored.index(b"\xff\xdb") :])  # tables and pixels
    assert b"A camera" not in turned
    for damaged in (b"no JPEG", stored[:40], stored[:2], b"\xff\xd8\xff\xe0\x00\x01"):
        with pytest.raises(ValueError, match="JPEG"):
            with_orientation(damaged, 8)


def test_ukbench(ukbench, options):
    data = fetch_ukbench(**options)
    assert names(data.images) == [f"ukbench{number:05d}.jpg" for number in range(12)]
    assert all("thumbnails" not in path for path in data.images)
    assert data.queries == data.images
    assert data.query_indices.tolist() == list(range(12))
    assert [entry["positives"].tolist() for entry in data.ground_truth][3:5] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    first = fetch_ukbench(queries="first", **options)
    assert first.query_indices.tolist() == [0, 4, 8]
    assert first.query_names == ["ukbench00000", "ukbench00004", "ukbench00008"]
    assert [entry["positives"].tolist() for entry in first.ground_truth][1:] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(first.images) == 12


def test_ukbench_with_a_gap(make, options, server):
    server.files["ukbench.zip"] = make.zipped(
        [(f"full/ukbench{n:05d}.jpg", make.jpeg(n)) for n in (0, 1, 2, 4)]
    )
    with pytest.raises(ValueError, match="without gaps"):
        fetch_ukbench(**options)


def test_flickr100k(flickr, options, server):
    data = fetch_flickr100k(**options)
    assert [path.split("/", -1)[-2:] for path in data.images] == [
        name.split("/")[1:] for name in sorted(flickr)
    ]
    assert len(server.log) == 40
    assert len(fetch_flickr100k(drop_corrupt=True, **options).images) == 39
    assert len(server.log) == 40
    assert data.protocol == "distractors"
    assert len(data.corrupt) == 10


def test_flickr100k_packed_by_somebody_else(make, options, offline, server):
    folder = options["data_home"] / "flickr100k"
    folder.mkdir(parents=True)
    packed = folder / "oxc1_100k.tgz"
    packed.write_bytes(make.tar_gz([("oxc1_100k/cat/cat_000001.jpg", make.jpeg(1))]))
    data = fetch_flickr100k(progress=False, **offline)
    assert names(data.images) == ["cat_000001.jpg"]
    assert packed.exists()  # it was put there by hand, and is not ours to remove


def test_revisitop1m(r1m, options, server):
    data = fetch_revisitop1m(parts=[2, 1], **options)
    assert [path.replace(os.sep, "/").split("/", -1)[-2:] for path in data.images] == [
        n.split("/") for n in r1m
    ]
    assert [entry[0] for entry in server.log] == [
        "revisitop1m.txt",
        "revisitop1m.1.tar.gz",
        "revisitop1m.2.tar.gz",
    ]
    assert names(fetch_revisitop1m(parts=[2], **options).images) == ["b.jpg", "a.jpg"]
    assert data.protocol == "distractors"


def test_revisitop1m_whole(make, r1m, options, server):
    for part in range(3, 101):
        server.files[f"revisitop1m.{part}.tar.gz"] = make.tar_gz([(f"jpg/{part}/z.jpg", b"photograph")])
    data = fetch_revisitop1m(**options)
    assert len(data.images) == 4 + 98
    assert len(server.log) == 101


@pytest.mark.parametrize("parts", [[], [0], [101], [1, -1]])
def test_parts_that_do_not_exist(options, parts):
    with pytest.raises(ValueError, match="parts must be numbers from 1 to 100"):
        fetch_revisitop1m(parts=parts, **options)


def test_what_comes_can_be_described(oxford, options):
    data = fetch_roxford5k(**options)
    extractor = ConvKernelExtractor(image_size=32, random_state=0)
    maps = extractor.fit(data.images).transform(data.queries)
    assert len(list(maps)) == 2


# what is kept, and what is asked for again


def test_nothing_is_fetched_twice(oxford, options, offline, server):
    first = fetch_oxford5k(**options)
    server.log.clear()
    again = fetch_oxford5k(**options)
    without = fetch_oxford5k(**offline)
    assert server.log == []
    assert first.images == again.images == without.images
    root = options["data_home"] / "oxbuildings"
    assert sorted(path.name for path in root.iterdir()) == [
        ".lock",
        "gt_files_170407",
        "manifest.json",
        "oxbuild_images-v1",
    ]


def test_archives_are_kept_on_request(oxford, options):
    fetch_oxford5k(keep_archives=True, **options)
    assert (options["data_home"] / "oxbuildings" / "oxbuild_images-v1.tgz").is_file()


def test_archives_put_there_by_hand_are_used(oxford, options, offline, server):
    root = options["data_home"] / "oxbuildings"
    root.mkdir(parents=True)
    (root / "oxbuild_images.tgz").write_bytes(server.files["oxbuild_images-v1.tgz"])  # as it was called once
    (root / "gt_files_170407.tgz").write_bytes(server.files["gt_files_170407.tgz"])
    data = fetch_oxford5k(progress=False, **offline)
    assert len(data.images) == 10
    assert server.log == []
    assert (root / "oxbuild_images.tgz").is_file()
    assert (root / "gt_files_170407.tgz").is_file()


def test_folders_put_there_by_hand_are_used(oxford, offline, options):
    root = options["data_home"] / "oxbuildings"
    (root / "oxbuild_images-v1" / "jpg").mkdir(parents=True)
    for name, data in oxford.items():
        (root / "oxbuild_images-v1" / "jpg" / f"{name}.jpg").write_bytes(data)
    (root / "gt_files_170407").mkdir()
    for grade in ("query", "good", "ok", "junk"):
        line = "oxc1_all_souls_000001 1 2 30 40" if grade == "query" else ""
        (root / "gt_files_170407" / f"all_souls_1_{grade}.txt").write_text(line)
    root.chmod(0o555)  # nothing needs to be written
    try:
        assert len(fetch_oxford5k(**offline).queries) == 1
    finally:
        root.chmod(0o755)
    assert sorted(os.listdir(root)) == ["gt_files_170407", "oxbuild_images-v1"]


@pytest.mark.parametrize("name", FETCHERS)
def test_missing_offline_lists_every_file(offline, name):
    expected = getattr(registry, name.removeprefix("fetch_").upper())
    with pytest.raises(OSError, match="download_if_missing is False") as caught:
        getattr(datasets, name)(**offline)
    message = str(caught.value)
    files = list(expected.files())
    assert len(files) == {"fetch_flickr100k": 40, "fetch_revisitop1m": 101}.get(name, len(files))
    for file in files:
        assert str(offline["data_home"] / expected.folder / file.name) in message
        assert all(url in message for url in file.urls)
        assert file.size is None or f"{file.size:,} bytes" in message
    assert message.count("SHA-256: not published; the first download pins it") == len(files)
    assert not offline["data_home"].exists()


def test_only_what_is_missing_is_listed_and_fetched(oxford, options, offline, server):
    fetch_oxford5k(**options)
    with pytest.raises(OSError, match="roxford5k is not complete") as caught:
        fetch_roxford5k(**offline)
    assert "gnd_roxford5k.pkl" in str(caught.value)
    assert "oxbuild_images" not in str(caught.value)
    server.log.clear()
    fetch_roxford5k(**options)
    assert [entry[0] for entry in server.log] == ["gnd_roxford5k.pkl"]


def test_failed_downloads_say_what_to_do(oxford, options, server):
    del server.files["gt_files_170407.tgz"]
    options["n_retries"] = 0
    with pytest.raises(
        OSError, match=r"Data set oxford5k: gt_files_170407\.tgz could not be downloaded"
    ) as caught:
        fetch_oxford5k(**options)
    message = str(caught.value)
    assert f"{server.base}/gt_files_170407.tgz: HTTP 404" in message
    assert "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/gt_files_170407.tgz" in message
    assert "Put these files in place and call again:" in message
    assert f"  {options['data_home'] / 'oxbuildings' / 'gt_files_170407.tgz'}\n" in message
    # the photographs, which had arrived, are there for the next call
    server.files["gt_files_170407.tgz"] = b""
    assert len(server.asked("oxbuild_images-v1.tgz")) == 1
    assert f"  {options['data_home'] / 'oxbuildings' / 'oxbuild_images-v1.tgz'}\n" not in message


def test_cut_connections_do_not_matter(oxford, options, server):
    server.cuts["oxbuild_images-v1.tgz"] = [3000, 2000, 0, 5]
    assert len(fetch_oxford5k(**options).images) == 10
    assert server.asked("oxbuild_images-v1.tgz")[1][1] == "bytes=3000-"


def test_mirrors_fall_back(oxford, options, server):
    server.files |= {f"good/{name}": data for name, data in server.files.items()}
    server.files["bad/oxbuild_images-v1.tgz"] = b"<html>gone</html>"
    options["mirrors"] = [f"{server.base}/bad/", f"{server.base}/good/"]
    assert len(fetch_oxford5k(**options).images) == 10
    assert [entry[0] for entry in server.log][:2] == [
        "bad/oxbuild_images-v1.tgz",
        "good/oxbuild_images-v1.tgz",
    ]


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


# options


def test_the_data_home(monkeypatch, tmp_path, oxford, options):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    assert get_data_home() == tmp_path / "me" / "skretrieval_data"
    assert get_data_home("~/photographs") == tmp_path / "me" / "photographs"
    monkeypatch.setenv("SKRETRIEVAL_DATA", str(tmp_path / "elsewhere"))
    assert get_data_home() == tmp_path / "elsewhere"
    del options["data_home"]
    assert fetch_oxford5k(**options).images[0].startswith(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("fetch", "change", "why"),
    [
        (fetch_oxford5k, {"mirrors": "file:///data"}, "A mirror must be an http"),
        (fetch_oxford5k, {"n_retries": -1}, "n_retries must be 0 or more, got -1"),
        (fetch_oxford5k, {"delay": -0.5}, r"delay must be 0 or more seconds, got -0\.5"),
        (fetch_holidays, {"database": "none"}, "database must be 'all' or 'non_queries', got 'none'"),
        (fetch_ukbench, {"queries": "last"}, "queries must be 'all' or 'first', got 'last'"),
    ],
)
def test_options_are_checked(options, fetch, change, why):
    with pytest.raises(ValueError, match=why):
        fetch(**{**options, **change})
    assert not options["data_home"].exists()


@pytest.mark.parametrize("name", FETCHERS)
def test_every_option_is_documented(name):
    fetch = getattr(datasets, name)
    section = fetch.__doc__.partition("Parameters\n")[2].partition("Returns\n")[0]
    for option in fetch.__kwdefaults__:
        assert f"\n    {option} : " in section


@pytest.mark.parametrize(
    "dataset",
    [value for value in vars(registry).values() if isinstance(value, registry.DataSet)],
    ids=lambda d: d.name,
)
def test_the_registry_is_consistent(dataset):
    files = list(dataset.files())
    assert len({file.name for file in files}) == len(files)
    for file in files:
        assert file.urls
        assert all(url.rpartition("/")[2] == file.name for url in file.urls)
        assert all(url.startswith(("http://", "https://", "ftp://")) for url in file.urls)
        assert file.sha256 is None or len(file.sha256) == 64
        assert Transfer(mirrors=("https://mirror/x/",)).urls(file)[0] == f"https://mirror/x/{file.name}"
    assert "SHA-256" in dataset.descr
    assert "Licence" in dataset.descr
