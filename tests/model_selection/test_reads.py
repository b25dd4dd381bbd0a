"""How often a search over pooling parameters reads the maps: once for each candidate, whatever the folds."""

from functools import partial

import numpy as np
import pytest
from references.networks import counting_network
from references.reads import counted_reads
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.model_selection import GalleryQuerySplit, PseudoQueryScorer, WholeGallerySplit
from skretrieval.pooling import GeMPooler, PoolerFusion, SJWPooler
from skretrieval.retrieval import NearestNeighborsRetriever

N = 24
EXPONENTS = [1.0, 2.0, 5.0]


def photographs(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40 + 8 * (i % 2), 64, 3), dtype=np.uint8) for i in range(n)]


def extractor(**params):
    return ConvFeatureExtractor(
        **{"backbone": counting_network, "image_size": 64, "device": "cpu", "batch_size": 4, **params}
    )


def search(steps, grid, X, **params):
    labels = np.arange(len(X)) // 4
    model = Pipeline([*steps, ("retriever", NearestNeighborsRetriever(5))])
    found = GridSearchCV(model, grid, refit=False, error_score="raise", **params).fit(X, labels)
    return found.cv_results_["mean_test_score"]


SPLITS = [KFold(4, shuffle=True, random_state=0), GalleryQuerySplit(4, random_state=0)]


@pytest.mark.parametrize("cv", SPLITS, ids=lambda cv: type(cv).__name__)
@pytest.mark.parametrize("keeps", ["descriptors", "both", "maps"])
@pytest.mark.parametrize("start", ["photographs", "maps"])
def test_one_read_of_each_map_per_candidate(tmp_path, cv, keeps, start):
    network = extractor(memory=tmp_path, memory_keeps=keeps)
    maps = network.fit_transform(photographs())
    list(maps)  # the network has run
    steps, X = ([("extractor", network)], photographs()) if start == "photographs" else ([], maps)
    steps = [*steps, ("pooler", GeMPooler())]
    grid = {"pooler__p": EXPONENTS}
    with counted_reads() as read:
        scores = search(steps, grid, X, cv=cv)
    assert sum(read) == len(EXPONENTS) * N * (4 if keeps == "maps" else 1)
    with counted_reads() as read:
        again = search(steps, grid, X, cv=cv)
    assert sum(read) == (sum(read) if keeps == "maps" else 0)
    expected = search([("pooler", GeMPooler())], grid, extractor().fit_transform(photographs()), cv=cv)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert np.array_equal(again, scores)
    assert len(set(scores)) > 1


def test_parameters_of_parts_and_of_later_steps(tmp_path):
    maps = extractor(memory=tmp_path).fit_transform(photographs())
    fusion = PoolerFusion([("gem", GeMPooler()), ("sjw", SJWPooler())])
    grid = {
        "pooler__gem__p": [1.0, 3.0],
        "pooler__weights": [None, [0.6, 0.4]],
        "retriever__metric": ["cosine", "euclidean", "manhattan"],
    }
    with counted_reads() as read:
        search([("pooler", fusion)], grid, maps, cv=KFold(3, shuffle=True, random_state=0))
    assert sum(read) == 4 * N  # the steps after the pooler make no new descriptors


def test_pseudo_queries(tmp_path):
    network = extractor(memory=tmp_path, memory_keeps="descriptors")
    maps, views = network.fit(photographs()).transform(photographs()), network.transform(photographs(seed=1))
    scorer = PseudoQueryScorer(views, np.arange(N), n_relevant=1)
    for reads in (2 * N * len(EXPONENTS), 0):
        with counted_reads() as read:
            search(
                [("pooler", GeMPooler())],
                {"pooler__p": EXPONENTS},
                maps,
                cv=WholeGallerySplit(),
                scoring=scorer,
            )
        assert sum(read) == reads


@pytest.mark.parametrize("start", ["photographs", "maps"])
def test_in_two_processes(tmp_path, start):
    """Two folds of one candidate may describe a photograph at the same moment, four never do."""
    log = tmp_path / "log"
    network = extractor(
        backbone=partial(counting_network, str(log)), memory=str(tmp_path), memory_keeps="descriptors"
    )
    steps, X = [("extractor", network)], photographs()
    if start == "maps":
        steps, X = [], network.fit_transform(photographs())
    steps = [*steps, ("pooler", GeMPooler())]
    params = {"cv": KFold(4), "n_jobs": 2}
    scores = search(steps, {"pooler__p": EXPONENTS}, X, **params)
    read = log.read_text().count("image")
    assert len(EXPONENTS) * N <= read <= 2 * len(EXPONENTS) * N
    again = search(steps, {"pooler__p": EXPONENTS}, X, **params)
    assert log.read_text().count("image") == read
    assert np.array_equal(again, scores)
    np.testing.assert_allclose(scores, search(steps, {"pooler__p": EXPONENTS}, X, cv=KFold(4)), rtol=1e-6)
    assert log.read_text().count("image") == read  # nor does this process
