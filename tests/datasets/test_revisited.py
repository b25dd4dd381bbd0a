"""The revisited benchmark, in small, from a real server."""

import pytest
from fixtures.published import names

from skretrieval.datasets import (
    fetch_oxford5k,
    fetch_roxford5k,
    fetch_rparis6k,
)


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
