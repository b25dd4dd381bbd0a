"""Oxford5k and Paris6k, in small, from a real server."""

import numpy as np
from fixtures.published import names
from PIL import Image

from skretrieval.datasets import (
    fetch_oxford5k,
    fetch_paris6k,
)
from skretrieval.extraction import ImageCrop


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
