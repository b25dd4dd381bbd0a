"""The scorer that searches inside the fold."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from skretrieval.metrics import average_precision, leave_one_out_map
from skretrieval.postprocessing import DatabaseAugmentation, LearnedWhitening, PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion, _label_ranks


def objects(n_objects=8, n_views=4, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_objects), n_views)
    X = rng.normal(size=(n_objects, 10))[y] + noise * rng.normal(size=(len(y), 10))
    order = rng.permutation(len(y))
    return X[order], y[order]


def brute_force(descriptors, y, distance):
    """One query after the other, by sorting distances; labels of -1 neither ask nor answer."""
    scores = []
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        ranking = sorted(others, key=lambda j: distance(descriptors[i], descriptors[j]))
        positives = [j for j in others if y[j] == y[i] != -1]
        if positives:
            scores.append(average_precision(ranking, positives))
    return np.mean(scores)


def cosine(a, b):
    return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def euclidean(a, b):
    return np.linalg.norm(a - b)


@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(seed):
    X, y = objects(seed=seed)
    expected = brute_force(X, y, cosine)
    assert 0.3 < expected < 0.99
    retrievers = [
        NearestNeighbors(metric="cosine"),
        NearestNeighborsRetriever(metric="cosine"),
        NearestNeighborsRetriever(n_neighbors=3),
    ]
    for retriever in retrievers:
        assert leave_one_out_map(retriever.fit(X[:5]), X, y) == pytest.approx(expected, abs=1e-12)
        pipeline = make_pipeline(StandardScaler(with_mean=False, with_std=False), retriever).fit(X[:5])
        assert leave_one_out_map(pipeline, X, y) == pytest.approx(expected, abs=1e-12)
    assert leave_one_out_map(make_pipeline(NearestNeighbors()).fit(X), X, y) == pytest.approx(
        brute_force(X, y, euclidean), abs=1e-12
    )
    # A transformer is searched by cosine.
    assert leave_one_out_map(Normalizer(), X, y) == pytest.approx(expected, abs=1e-12)
    assert leave_one_out_map(make_pipeline(Normalizer(), "passthrough"), X, y) == pytest.approx(
        expected, abs=1e-12
    )


def test_the_fitted_steps_embed_and_the_gallery_of_fit_is_not_searched():
    X, y = objects(noise=2.0)
    train, test = y < 4, y >= 4
    pipeline = make_pipeline(PCA(3), NearestNeighbors()).fit(X[train])
    gallery = pipeline[-1]._fit_X.copy()
    expected = brute_force(pipeline[0].transform(X[test]), y[test], euclidean)
    assert leave_one_out_map(pipeline, X[test], y[test]) == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(pipeline[-1]._fit_X, gallery)
    assert expected != pytest.approx(brute_force(X[test], y[test], euclidean), abs=1e-3)


def test_nested_pipelines_and_searches():
    X, y = objects()
    flat = make_pipeline(Normalizer(), PCA(5), NearestNeighbors()).fit(X)
    nested = make_pipeline(Normalizer(), make_pipeline(PCA(5), NearestNeighbors())).fit(X)
    assert leave_one_out_map(nested, X, y) == leave_one_out_map(flat, X, y)
    search = GridSearchCV(
        clone(flat), {"pca__n_components": [5]}, scoring=leave_one_out_map, cv=GroupKFold(2)
    )
    search.fit(X, y, groups=y)
    assert leave_one_out_map(search, X, y) == leave_one_out_map(search.best_estimator_, X, y)


def test_query_expansion_is_part_of_the_search():
    X, y = objects(noise=0.6)
    plain = NearestNeighborsRetriever().fit(X)
    expanded = QueryExpansion(NearestNeighborsRetriever(), n_expand=3).fit(X)
    neighbors = expanded.kneighbors(n_neighbors=len(X) - 1, return_distance=False)
    expected = np.mean(
        [
            average_precision(row, np.flatnonzero((y == y[i]) & (np.arange(len(y)) != i)))
            for i, row in enumerate(neighbors)
        ]
    )
    found = leave_one_out_map(make_pipeline(Normalizer(), expanded).fit(X), X, y)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found != leave_one_out_map(plain, X, y)


@pytest.mark.parametrize("last", [NearestNeighborsRetriever(), "passthrough"], ids=str)
def test_database_augmentation_works_on_the_fold(last):
    """As an unseen image a row would pass through unchanged, and the step would seem to do nothing."""
    X, y = objects()
    augmentation = DatabaseAugmentation(2)
    pipeline = make_pipeline(Normalizer(), augmentation, last).fit(X[::-1] + 1)
    expected = brute_force(clone(augmentation).fit_transform(X), y, cosine)
    assert leave_one_out_map(pipeline, X, y) == pytest.approx(expected, abs=1e-12)
    assert expected > brute_force(X, y, cosine) + 0.01
    if last == "passthrough":
        assert leave_one_out_map(augmentation, X, y) == pytest.approx(expected, abs=1e-12)


def test_singletons_and_distractors():
    X, y = objects()
    y = y.copy()
    y[y == 7] = -1
    y[np.flatnonzero(y == 6)[1:]] = -1  # one image of object 6 is left
    expected = brute_force(X, y, euclidean)
    estimator = NearestNeighbors().fit(X)
    assert leave_one_out_map(estimator, X, y) == pytest.approx(expected, abs=1e-12)
    # Distractors take places in the rankings.
    assert leave_one_out_map(estimator, X[y != -1], y[y != -1]) > expected
    # Every distractor an object of its own is the same.
    alone = np.where(y == -1, 100 + np.arange(len(y)), y)
    assert leave_one_out_map(estimator, X, alone) == pytest.approx(expected, abs=1e-12)
    names = np.array([f"object {label}" for label in alone])
    assert leave_one_out_map(estimator, X, names) == pytest.approx(expected, abs=1e-12)


def test_duplicates_do_not_hide_the_query_itself():
    """Images equal to the query may come before it in a ranking; it is the query that is left out."""
    X = np.repeat(np.eye(3), 3, axis=0)
    y = np.repeat([0, 1, 2], 3)
    for retriever in (NearestNeighbors(), NearestNeighborsRetriever()):
        assert leave_one_out_map(retriever.fit(X), X, y) == 1.0


@pytest.mark.parametrize("kind", ["plain", "regions", "expansion", "without itself"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ranks_counted_and_read_from_rankings(monkeypatch, metric, kind):
    X, y = objects(n_objects=40, noise=1.5)
    X[1::9], y[2::11] = X[::9][: len(X[1::9])], -1  # duplicates, and distractors
    retriever = NearestNeighborsRetriever(metric=metric)
    if kind == "regions":
        X = list(X.reshape(-1, 2, 5))
    elif kind != "plain":
        retriever = QueryExpansion(retriever, 3, exclude_self=kind == "without itself")
    rankings = []
    search = type(retriever)._search

    def count(self, queries, n_neighbors, own=None):
        rankings.append(n_neighbors)
        return search(self, queries, n_neighbors, own)

    monkeypatch.setattr(type(retriever), "_search", count)
    scores = []
    for share in (0, 10**9):
        rankings.clear()
        monkeypatch.setattr(_label_ranks, "_COUNTED_SHARE", share)
        scores.append(leave_one_out_map(retriever.fit(X), X, y))
        assert (len(y) in rankings) == (share > 0)
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)
    assert 0.02 < scores[0] < 0.95


def test_nothing_to_score():
    X, y = objects()
    for labels in (np.arange(len(y)), np.full(len(y), -1)):
        with pytest.warns(UndefinedMetricWarning, match="No label occurs twice among the 32 images"):
            assert np.isnan(leave_one_out_map(NearestNeighbors().fit(X), X, labels))
    with pytest.warns(UndefinedMetricWarning, match="No label occurs twice among the 1 images"):
        assert np.isnan(leave_one_out_map(NearestNeighbors().fit(X), X[:1], y[:1]))


def test_cross_validation_by_groups():
    X, y = objects(n_objects=12)
    pipeline = make_pipeline(Normalizer(), NearestNeighborsRetriever())
    scores = cross_val_score(pipeline, X, y, groups=y, cv=GroupKFold(3), scoring=leave_one_out_map)
    expected = [brute_force(X[test], y[test], cosine) for _, test in GroupKFold(3).split(X, y, groups=y)]
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    # What it is for: no image of the fold has a positive in the training fold.
    np.testing.assert_array_equal(
        cross_val_score(
            pipeline, X, y, groups=y, cv=GroupKFold(3), error_score="raise", scoring=train_gallery_map
        ),
        0,
    )


def train_gallery_map(estimator, X, y):
    with pytest.warns(UndefinedMetricWarning):
        return np.nan_to_num(estimator.score(X, y))


def test_folds_that_separate_the_images_of_an_object_give_nan():
    X = np.random.default_rng(0).normal(size=(8, 3))
    y = np.tile(np.arange(4), 2)
    with pytest.warns(UndefinedMetricWarning, match="GroupKFold with groups=y"):
        scores = cross_val_score(NearestNeighbors(), X, y, cv=KFold(2), scoring=leave_one_out_map)
    assert np.all(np.isnan(scores))


def test_grid_search_over_supervised_steps_in_two_processes():
    rng = np.random.default_rng(0)
    X, y = objects(n_objects=24, noise=0.2)
    X = X + rng.normal(size=(len(X), 1)) * 3 * rng.normal(size=(1, 10))  # one strong nuisance direction
    pipeline = make_pipeline(Normalizer(), PCAWhitening(), Normalizer(), NearestNeighborsRetriever())
    search = GridSearchCV(
        pipeline,
        {"pcawhitening": [LearnedWhitening(), PCAWhitening(), "passthrough"]},
        scoring=leave_one_out_map,
        cv=GroupKFold(3),
        n_jobs=2,
    ).fit(X, y, groups=y)
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] > scores[2] + 0.1
    assert isinstance(search.best_estimator_[1], LearnedWhitening)
    assert search.score(X, y) == leave_one_out_map(search, X, y)


class ReturnsItself(NearestNeighbors):
    """Breaks the contract: with X=None an image is among its own neighbours."""

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        return super().kneighbors(self._fit_X, n_neighbors, return_distance)


def test_errors():
    X, y = objects()
    with pytest.raises(ValueError, match="There are 32 images, but y has 31 labels"):
        leave_one_out_map(NearestNeighbors().fit(X), X, y[:-1])
    with pytest.raises(TypeError, match="DummyClassifier has neither kneighbors nor transform"):
        leave_one_out_map(make_pipeline(DummyClassifier()).fit(X, y)[-1], X, y)
    with pytest.raises(TypeError, match="DummyClassifier has neither kneighbors nor transform"):
        leave_one_out_map(make_pipeline(Normalizer(), DummyClassifier()).fit(X, y), X, y)
    with pytest.raises(ValueError, match="returned a query as its own neighbour"):
        leave_one_out_map(ReturnsItself().fit(X), X, y)


def test_sparse_descriptors_score_as_dense_ones():
    """What BoWPooler yields by itself, without a retriever behind it."""
    y = np.repeat(np.arange(5), 3)
    X = np.random.default_rng(0).random((15, 8)) + 2 * np.eye(8)[y]
    X[X < 0.5] = 0
    dense = leave_one_out_map(FunctionTransformer().fit(X), X, y)
    assert dense > 0.5
    assert leave_one_out_map(FunctionTransformer(csr_matrix).fit(X), X, y) == dense
