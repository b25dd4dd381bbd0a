"""INRIA Holidays, in small, from a real server; photographs turned upright."""

import os

import numpy as np
import pytest
from fixtures.published import names
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from skretrieval.datasets import (
    fetch_holidays,
)
from skretrieval.datasets._holidays import with_orientation
from skretrieval.metrics import evaluate_holidays


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
