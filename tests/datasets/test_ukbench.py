"""UKBench, in small, from a real server."""

import pytest
from fixtures.published import names

from skretrieval.datasets import (
    fetch_ukbench,
)


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
