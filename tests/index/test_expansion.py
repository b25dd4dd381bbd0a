"""Query expansion learns from the photographs that are in the index, and from no others."""

import numpy as np
import pytest
from fixtures.indexes import draw, pipeline, update
from sklearn.pipeline import Pipeline

from skretrieval.index import ImageIndex
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


def expanding(whitened, metric="cosine"):
    retriever = QueryExpansion(NearestNeighborsRetriever(metric=metric), n_expand=13)
    return Pipeline([*pipeline(whitened).steps, ("retriever", retriever)])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("gone", ["removed", "changed"])
def test_removed_photographs_expand_no_query(tmp_path, photographs, gone, metric):
    twin = draw(photographs / "twin.png", 1, size=(60, 40))
    index = ImageIndex.create(tmp_path / "index", expanding(whitened=False, metric=metric))
    update(index, photographs)
    query = photographs / "b" / "01.png"
    index.search(query)
    if gone == "removed":
        twin.unlink()
    else:
        draw(twin, 77)
    update(index, photographs)
    assert index.info()["n_unused_rows"] == 1
    fresh = ImageIndex.create(tmp_path / "fresh", expanding(whitened=False, metric=metric))
    update(fresh, photographs)
    for where in (None, "path != 'a/00.png'"):
        found, expected = (own.search(query, n_neighbors=20, where=where) for own in (index, fresh))
        assert found.names == expected.names
        np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-5)
