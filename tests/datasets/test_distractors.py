"""The collections of distractors, in small, from a real server."""

import os

import pytest
from fixtures.published import names

from skretrieval.datasets import (
    fetch_flickr100k,
    fetch_revisitop1m,
)


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
