"""Containers that scikit-learn is asked for, everywhere: tables become them, maps and region sets do not."""

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone

from skretrieval import pooling, recipes
from skretrieval.extraction import ConvKernelExtractor
from skretrieval.postprocessing import PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion

IMAGES = [
    np.repeat(
        np.repeat(np.random.default_rng(i // 2).integers(40, 216, (6, 8, 3), dtype=np.uint8), 8, 0), 8, 1
    )
    for i in range(8)
]
MAPS = np.random.default_rng(0).random((6, 4, 5, 6)).astype("f4")
POOLERS = {
    "sum": pooling.SumPooler(),
    "gem": pooling.GeMPooler(),
    "grmac": pooling.GRMACPooler(),
    "sjw": pooling.SJWPooler(),
    "regions": pooling.PoolerFusion(
        [("a", pooling.SumPooler()), ("b", pooling.GeMPooler())], combine="regions"
    ),
    "words": pooling.BoWPooler(2, n_local=None, random_state=0),
    "vlad": pooling.VLADPooler(n_clusters=2, n_local=None, random_state=0),
}


def extractor():
    return ConvKernelExtractor((8, 16), image_size=64, n_patches=500, random_state=0, device="cpu")


def same(found, wanted, container):
    if isinstance(wanted, list):
        assert isinstance(found, list)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    elif sparse.issparse(wanted):
        np.testing.assert_array_equal(found.toarray(), wanted.toarray())
    else:
        assert type(found).__module__.startswith(container)
        np.testing.assert_array_equal(found.to_numpy(), wanted)


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("name", sorted(POOLERS))
def test_poolers_give_the_container(name, container):
    pytest.importorskip(container)
    wanted = clone(POOLERS[name]).fit_transform(MAPS)
    with sklearn.config_context(transform_output=container):
        same(clone(POOLERS[name]).fit_transform(MAPS), wanted, container)
    if not sparse.issparse(wanted):  # who asks this very step for a container is told that it gives none
        same(clone(POOLERS[name]).set_output(transform=container).fit_transform(MAPS), wanted, container)


@pytest.mark.parametrize("expand", [False, True])
def test_retrievers_take_and_give_containers(expand):
    pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(12, 4))
    retriever = NearestNeighborsRetriever(3)
    retriever = QueryExpansion(retriever, n_expand=2) if expand else retriever
    wanted = clone(retriever).fit(X).predict(X)
    with sklearn.config_context(transform_output="pandas"):
        whitening = PCAWhitening(n_components=3).fit(X)
        assert type(whitening.transform(X)).__name__ == "DataFrame"
        np.testing.assert_array_equal(clone(retriever).fit(X).predict(X), wanted)
        graphs = [clone(retriever).fit(X).transform(X), clone(retriever).fit_transform(X)]
    graphs.append(clone(retriever).set_output(transform="pandas").fit(X).transform(X))
    for graph in graphs:  # sparse, which no container holds
        assert (graph.shape, graph.nnz) == ((12, 12), 36)


@pytest.mark.parametrize("how", ["set_config", "set_output"])
@pytest.mark.parametrize("name", ["gsw", "grmac", "gem", "sjw", "rmac", "crow"])
def test_recipes_rank_alike_with_tables_inside(name, how):
    pytest.importorskip("pandas")
    model = getattr(recipes, name)(extractor=extractor(), whitening="pca", n_components=3, n_neighbors=4)
    wanted = clone(model).fit(IMAGES).predict(IMAGES)
    if how == "set_output":
        found = clone(model).set_output(transform="pandas").fit(IMAGES).predict(IMAGES)
    else:
        with sklearn.config_context(transform_output="pandas"):
            found = clone(model).fit(IMAGES).predict(IMAGES)
    np.testing.assert_array_equal(found, wanted)
