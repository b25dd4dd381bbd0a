"""What is kept of the published data sets, and what is asked for again."""

import os

import pytest
from fixtures.published import FETCHERS

import skretrieval.datasets as datasets
from skretrieval.datasets import _registry as registry
from skretrieval.datasets import (
    fetch_oxford5k,
    fetch_roxford5k,
)


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
