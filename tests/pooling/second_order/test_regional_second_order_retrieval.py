"""Region sets of second-order pooling in a retriever, and the regions as boxes of an image."""

from itertools import product

import numpy as np
import pytest
from fixtures.second_order import pooler
from numpy.testing import assert_allclose, assert_array_equal
from references import second_order as ref
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


def test_regions_are_the_rows(maps):
    fitted = pooler().fit(maps)
    for feature_map, own, rows in zip(maps, fitted.regions_of(maps), fitted.transform(maps), strict=True):
        assert len(own.polygons) == len(own.masks) == len(rows)
        masks, polygons = ref.candidate_regions(feature_map)
        assert_array_equal(own.masks, masks)
        for corners, polygon in zip(polygons, own.polygons, strict=True):
            assert_allclose(sorted(map(tuple, polygon)), sorted(corners), atol=1e-12)
            assert polygon.min() >= 0
            assert polygon.max() <= 1


def test_regions_need_no_fit_and_follow_the_parameters(stacked):
    assert all(len(own.masks) == 1 for own in pooler(regions="whole").regions_of(stacked))
    assert max(len(own.masks) for own in pooler(n_clusters=2).regions_of(stacked)) == 4
    with pytest.raises(ValueError, match="n_clusters"):
        pooler(n_clusters=0).regions_of(stacked)


# ---------------------------------------------------------------------------------------------------------------------
# Retrieval


def views(n_objects=6, n_views=4, seed=0):
    """An object of its own channels at another place of each map, on clutter."""
    rng = np.random.default_rng(seed)
    maps, labels = [], []
    for label, _ in product(range(n_objects), range(n_views)):
        height, width = rng.integers(9, 14, 2)
        feature_map = rng.gamma(0.4, 0.6, (16, height, width)) * (rng.random((16, height, width)) < 0.5)
        top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
        patch = np.random.default_rng(100 + label).gamma(0.5, 4.0, (16, 4, 4))
        feature_map[:, top : top + 4, left : left + 4] += patch
        maps.append(feature_map.astype(np.float32))
        labels.append(label)
    return maps, np.array(labels)


def test_region_sets_go_into_a_retriever():
    maps, labels = views()
    model = make_pipeline(pooler(n_min=24), NearestNeighborsRetriever(n_neighbors=4)).fit(maps, labels)
    assert model[-1].region_offsets_[-1] == sum(map(len, model[0].transform(maps)))
    assert model.score(maps, labels) > 0.6
    distances, indices = model[-1].kneighbors(model[0].transform(maps))
    assert_array_equal(indices[:, 0], np.arange(len(maps)))
    assert_allclose(distances[:, 0], 0, atol=1e-6)
    # the paper's queries: only the whole image
    whole = model.set_params(regionalsecondorderpooler__regions="whole")
    assert whole.predict(maps).shape == (len(maps), 4)


def test_query_expansion_of_the_paper():
    maps, labels = views()
    sets = pooler(n_min=24).fit_transform(maps)
    retriever = NearestNeighborsRetriever(n_neighbors=4)
    expanded = QueryExpansion(retriever, n_expand=2, include_query=False).fit(sets, labels)
    assert expanded.predict(sets).shape == (len(maps), 4)
    assert expanded.score(sets, labels) > 0.6


def test_best_matching_region_in_image_coordinates():
    """The pair that best_regions names is the best pair of rows, and regions_of tells where it lies."""
    maps, labels = views()
    model = pooler(n_min=24).fit(maps)
    sets = model.transform(maps)
    retriever = NearestNeighborsRetriever(n_neighbors=3).fit(sets, labels)
    indices = retriever.predict(sets)
    query_regions, gallery_regions = retriever.best_regions(sets, indices)
    regions = model.regions_of(maps)
    for query, row in enumerate(indices):
        for place, item in enumerate(row):
            cosines = sets[query] @ sets[item].T
            mine, other = query_regions[query, place], gallery_regions[query, place]
            assert cosines[mine, other] == pytest.approx(cosines.max(), abs=1e-5)
            polygon, mask = regions[item].polygons[other], regions[item].masks[other]
            height, width = mask.shape
            i, j = np.nonzero(mask)
            low, high = polygon.min(axis=0) * (width, height), polygon.max(axis=0) * (width, height)
            assert low[0] <= j.min() + 0.5 + 1e-9
            assert high[0] >= j.max() + 0.5 - 1e-9
            assert low[1] <= i.min() + 0.5 + 1e-9
            assert high[1] >= i.max() + 0.5 - 1e-9


def test_grid_search_in_two_processes():
    """More than a megabyte, so that joblib hands the workers read-only memory maps."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    maps = rng.gamma(0.5, 1.0, (24, 12, 22, 22))
    maps[np.arange(24), labels] *= 4
    assert maps.nbytes > 1_000_000
    model = make_pipeline(pooler(n_min=50), NearestNeighborsRetriever(n_neighbors=3))
    grid = {"regionalsecondorderpooler__regions": ["all", "whole"]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2, error_score="raise").fit(maps, labels)
    assert search.best_score_ > 0.7
    alone = cross_val_score(search.best_estimator_, maps, labels, cv=2)
    assert_array_equal(cross_val_score(search.best_estimator_, maps, labels, cv=2, n_jobs=2), alone)
