"""Splits into galleries and queries."""

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, check_cv, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from skretrieval.datasets import make_feature_maps
from skretrieval.extraction import ConvKernelExtractor
from skretrieval.model_selection import GalleryQuerySplit, WholeGallerySplit
from skretrieval.pooling import GeMPooler, SumPooler
from skretrieval.retrieval import NearestNeighborsRetriever

LABELS = {
    "integers": np.array([3, 3, 3, 3, 5, 5, 8, -1, -1, 5, 3, -1, 9, 9]),
    "strings": np.array(["a", "b", "a", "c", "b", "a", "d", "d", "d", "d", "a"]),
    "alone": np.repeat([1, 2, 3], [1, 1, 6]),
}


def check_folds(y, folds):
    """What must hold for every fold; returns how often each image queries."""
    asked = np.zeros(len(y), dtype=int)
    for gallery, queries in folds:
        assert len(queries)
        np.testing.assert_array_equal(np.sort(np.concatenate([gallery, queries])), np.arange(len(y)))
        np.testing.assert_array_equal(gallery, np.sort(gallery))
        assert np.isin(y[queries], y[gallery]).all()
        asked[queries] += 1
    counts = {label: np.sum(y == label) for label in np.unique(y)}
    never = np.array([counts[label] == 1 or str(label) == "-1" for label in y])
    assert not asked[never].any()
    return asked, never


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("n_splits", [2, 3, 5])
def test_every_image_queries_once(name, n_splits):
    y = LABELS[name]
    splitter = GalleryQuerySplit(n_splits, random_state=0)
    folds = list(splitter.split(y, y))
    assert len(folds) == splitter.get_n_splits() == n_splits
    asked, never = check_folds(y, folds)
    assert (asked[~never] == 1).all()
    sizes = [len(queries) for _, queries in folds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("q", [1, 2, 100])
@pytest.mark.parametrize("n_splits", [1, 4])
def test_queries_per_label(name, q, n_splits):
    y = LABELS[name]
    folds = list(GalleryQuerySplit(n_splits, n_queries_per_label=q, random_state=0).split(None, y))
    _, never = check_folds(y, folds)
    for label in np.unique(y[~never]):
        size = np.sum(y == label)
        for _, queries in folds:
            assert np.sum(y[queries] == label) == min(q, size - 1)


def test_images_take_turns():
    y = np.repeat([0, 1], [4, 3])
    folds = list(GalleryQuerySplit(12, n_queries_per_label=1, random_state=1).split(y, y))
    asked, _ = check_folds(y, folds)
    np.testing.assert_array_equal(asked, np.repeat([3, 4], [4, 3]))
    first = np.concatenate([queries for _, queries in folds[:4]])
    assert len(np.unique(first[y[first] == 0])) == 4


def test_groups_stay_together():
    y = np.repeat([0, 1, 2, -1], [8, 4, 4, 3])
    shot = np.concatenate([[0, 0, 1, 1, 1, 2, 2, 2], [3, 3, 4, 4], [5, 5, 5, 5], [0, 6, 6]])
    for q in (None, 1):
        folds = list(GalleryQuerySplit(2, n_queries_per_label=q, random_state=0).split(y, y, shot))
        asked = np.zeros(len(y), dtype=int)
        for gallery, queries in folds:
            asked[queries] += 1
            assert not set(shot[gallery][y[gallery] >= 0]) & set(shot[queries])
            assert np.isin(y[queries], y[gallery]).all()
        assert not asked[y == 2].any()  # one shot: its photographs have no positive besides near-duplicates
        assert not asked[y == -1].any()
        assert asked[y == 1].all()
    # Without groups the only shot of label 2 queries itself.
    assert any(2 in y[queries] for _, queries in GalleryQuerySplit(2).split(y, y))


def test_random_state():
    y = np.repeat(np.arange(5), 6)

    def queries(seed):
        return [q.tolist() for _, q in GalleryQuerySplit(3, random_state=seed).split(y, y)]

    splitter = GalleryQuerySplit(3, random_state=0)
    assert [q.tolist() for _, q in splitter.split(y, y)] == [q.tolist() for _, q in splitter.split(y, y)]
    assert queries(0) == queries(0) != queries(1)
    assert queries(np.random.RandomState(0)) == queries(0)


def test_errors():
    y = np.repeat([0, 1], [2, 3])
    with pytest.raises(ValueError, match="give y"):
        next(GalleryQuerySplit().split(y))
    with pytest.raises(ValueError, match="There are 4 images, but y has 5 labels"):
        next(GalleryQuerySplit().split(y[:4], y))
    with pytest.raises(ValueError, match="n_splits=6 is larger than the 5 photographs"):
        next(GalleryQuerySplit(6).split(y, y))
    with pytest.raises(ValueError, match="n_splits must be at least 2"):
        next(GalleryQuerySplit(1).split(y, y))
    for labels in (np.arange(4), np.full(4, -1), np.array(["a", "b"])):
        with pytest.raises(ValueError, match=f"None of the labels of {len(labels)} photographs"):
            next(GalleryQuerySplit().split(labels, labels))
    with pytest.raises(ValueError, match="inconsistent"):
        next(GalleryQuerySplit().split(y, y, [0]))
    for bad in (0, -1, 2.5, True, "3"):
        with pytest.raises(ValueError, match="n_splits must be an integer"):
            next(GalleryQuerySplit(bad).split(y, y))
        with pytest.raises(ValueError, match="n_queries_per_label must be an integer"):
            next(GalleryQuerySplit(n_queries_per_label=bad).split(y, y))


def test_is_a_splitter_of_scikit_learn():
    splitter = GalleryQuerySplit(3, random_state=0)
    assert check_cv(splitter) is splitter
    copy = clone(splitter, safe=False)
    y = LABELS["integers"]
    for ours, theirs in zip(splitter.split(y, y), copy.split(y, y), strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert repr(splitter) == "GalleryQuerySplit(n_queries_per_label=None, n_splits=3, random_state=0)"
    assert WholeGallerySplit().get_n_splits() == 1
    ((train, test),) = WholeGallerySplit().split(np.zeros((4, 2)))
    np.testing.assert_array_equal(train, test)


def test_own_score_is_right():
    """The mean of a grid search is the mAP that hand-made galleries and queries give."""
    maps, y = make_feature_maps(n_samples=40, n_classes=8, clutter=2.0, random_state=0)
    y = np.where(y == 7, -1, y)
    splitter = GalleryQuerySplit(4, random_state=0)
    model = Pipeline([("pooler", GeMPooler()), ("retriever", NearestNeighborsRetriever())])
    search = GridSearchCV(model, {"pooler__p": [1.0, 4.0]}, cv=splitter, n_jobs=2).fit(maps, y)
    for p, found in zip([1.0, 4.0], search.cv_results_["mean_test_score"], strict=True):
        descriptors = GeMPooler(p).fit_transform(maps)
        expected = [
            NearestNeighborsRetriever().fit(descriptors[g], y[g]).score(descriptors[q], y[q])
            for g, q in splitter.split(maps, y)
        ]
        assert found == pytest.approx(np.mean(expected), abs=1e-12)
        assert 0.2 < found < 0.999
    assert search.best_estimator_[-1].n_samples_fit_ == len(maps)


def test_paths_and_lazy_maps(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(6):
        small = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for j in range(2):
            paths.append(str(tmp_path / f"{i}-{j}.png"))
            Image.fromarray(np.roll(small, j, axis=1)).save(paths[-1])
    y = [f"object {i // 2}" for i in range(12)]
    extractor = ConvKernelExtractor(n_channels=(16, 16), image_size=32, random_state=0)
    cv = GalleryQuerySplit(2, random_state=0)
    model = make_pipeline(extractor, SumPooler(), NearestNeighborsRetriever())
    from_paths = cross_val_score(model, paths, y, cv=cv)
    expected = []
    for gallery, queries in cv.split(paths, y):
        model.fit([paths[i] for i in gallery], [y[i] for i in gallery])
        expected.append(model.score([paths[i] for i in queries], [y[i] for i in queries]))
    np.testing.assert_array_equal(from_paths, expected)
    maps = extractor.fit_transform(paths)
    lazy, listed = (cross_val_score(model[1:], X, y, cv=cv) for X in (maps, list(maps)))
    np.testing.assert_allclose(lazy, listed, rtol=1e-12)
    assert min(*from_paths, *lazy) > 0.3


def test_groups_reach_the_splitter_by_metadata_routing():
    maps, y = make_feature_maps(n_samples=24, n_classes=4, random_state=0)
    shot = np.arange(24) // 8
    model = make_pipeline(SumPooler(), NearestNeighborsRetriever())
    cv = GalleryQuerySplit(3, random_state=0)
    plain = cross_val_score(model, maps, y, groups=shot, cv=cv)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = cross_val_score(model, maps, y, params={"groups": shot}, cv=cv)
    np.testing.assert_array_equal(plain, routed)
    assert not np.array_equal(plain, cross_val_score(model, maps, y, cv=cv))
