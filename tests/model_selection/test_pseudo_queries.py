"""Tuning without labels."""

import pickle

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer

from skretrieval.datasets import load_sample_photographs, make_photo_views
from skretrieval.extraction import ConvKernelExtractor, FeatureMaps, ImageCrop
from skretrieval.extraction._base import BaseExtractor
from skretrieval.metrics import average_precision
from skretrieval.model_selection import (
    GalleryQuerySplit,
    PseudoQueryScorer,
    WholeGallerySplit,
    make_pseudo_queries,
)
from skretrieval.pooling import GeMPooler, SumPooler
from skretrieval.postprocessing import DatabaseAugmentation, PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 5, 6, 3), dtype=np.uint8)
    return np.kron(small, np.ones((1, 8, 8, 1), dtype=np.uint8))


def objects(n=30, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(n // 3, 8))[np.arange(n) // 3] + 0.3 * rng.normal(size=(n, 8))
    sources = rng.integers(n, size=20)
    return gallery, gallery[sources] + noise * rng.normal(size=(20, 8)), sources


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("n_relevant", [1, 2, 5, 100])
def test_equals_brute_force(n_relevant):
    gallery, queries, sources = objects()
    expected = []
    for query, source in zip(queries, sources, strict=True):
        others = [j for j in range(len(gallery)) if j != source]
        nearest = sorted(others, key=lambda j: -cosine(gallery[j], gallery[source]))[: n_relevant - 1]
        ranking = sorted(range(len(gallery)), key=lambda j: -cosine(gallery[j], query))
        expected.append(average_precision(ranking, [source, *nearest]))
    scorer = PseudoQueryScorer(queries, sources, n_relevant=n_relevant)
    for retriever in (NearestNeighborsRetriever(), NearestNeighbors(metric="cosine")):
        assert scorer(retriever.fit(gallery), gallery) == pytest.approx(np.mean(expected), abs=1e-12)
    assert (np.mean(expected) < 0.95) == (n_relevant < 100)


def test_with_one_right_answer_it_is_the_score_of_the_retriever():
    gallery, queries, sources = objects()
    model = make_pipeline(Normalizer(), NearestNeighborsRetriever()).fit(gallery, np.arange(len(gallery)))
    scorer = PseudoQueryScorer(queries, sources, n_relevant=1)
    assert scorer(model, gallery) == pytest.approx(model.score(queries, sources), abs=1e-12)


def test_blocks_of_queries(monkeypatch):
    gallery, queries, sources = objects()
    model = NearestNeighborsRetriever().fit(gallery)
    scorer = PseudoQueryScorer(queries, sources)
    whole = scorer(model, gallery)
    monkeypatch.setattr("skretrieval.model_selection._pseudo_queries._RANKED", 3 * len(gallery))
    assert scorer(model, gallery) == whole


def test_another_photograph_of_the_object_is_no_mistake():
    """Items 0 and 1 are one object; the query of 0 lies nearer to 1."""
    gallery = np.array([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    model = NearestNeighborsRetriever().fit(gallery)
    query = [[1.0, 0.2, 0.0]]
    assert PseudoQueryScorer(query, [0], n_relevant=1)(model, gallery) == 0.25
    assert PseudoQueryScorer(query, [0], n_relevant=2)(model, gallery) == 1.0


def test_steps_of_the_pipeline():
    gallery, queries, sources = objects()
    scorer = PseudoQueryScorer(queries, sources)
    flat = make_pipeline(Normalizer(), PCAWhitening(4), Normalizer(), NearestNeighborsRetriever()).fit(
        gallery
    )
    embedded = flat[:-1].transform(queries)
    expected = PseudoQueryScorer(embedded, sources)(flat[-1], gallery)
    assert scorer(flat, gallery) == expected
    nested = make_pipeline(
        Normalizer(), make_pipeline(PCAWhitening(4), Normalizer(), NearestNeighborsRetriever())
    )
    assert scorer(nested.fit(gallery), gallery) == expected
    # augmentation is for the gallery: queries pass through as they are
    augmented = make_pipeline(DatabaseAugmentation(2), NearestNeighborsRetriever()).fit(gallery)
    assert scorer(augmented, gallery) == scorer(augmented[-1], gallery)
    expanded = QueryExpansion(NearestNeighborsRetriever(), 2).fit(gallery)
    assert 0 < scorer(expanded, gallery) != scorer(NearestNeighborsRetriever().fit(gallery), gallery)


def test_grid_search_without_labels_chooses_and_refits_on_the_gallery():
    """A nuisance direction that only the views show: dividing by the variance of the gallery blows it up."""
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(60, 10)) * [3, 3, 3, 3, 3, 3, 3, 3, 3, 0.1]
    sources = np.arange(60)
    queries = gallery + rng.normal(size=(60, 10)) * 0.8
    model = Pipeline([("whitening", PCAWhitening()), ("retriever", NearestNeighborsRetriever())])
    search = GridSearchCV(
        model,
        {"whitening__power": [0.0, 0.25, 0.5, 1.0]},
        cv=WholeGallerySplit(),
        scoring=PseudoQueryScorer(queries, sources, n_relevant=1),
    ).fit(gallery)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"whitening__power": 0.0}
    assert (np.diff(scores) < 0).all()
    assert search.best_estimator_[-1].n_samples_fit_ == 60
    assert search.score(gallery) == scores[0]
    assert search.predict(queries).shape == (60, 60)


def test_pipelines_from_photographs_extract_each_view_once(photographs, tmp_path, monkeypatch):
    queries = make_pseudo_queries(photographs, random_state=0)
    passed = []
    forward = BaseExtractor._forward

    def counted(self, per_size):
        passed.append(sum(len(arrays) for arrays in per_size))
        return forward(self, per_size)

    extractor = ConvKernelExtractor(n_channels=(8, 16), image_size=32, random_state=0, memory=str(tmp_path))
    model = Pipeline(
        [("extractor", extractor), ("pooler", GeMPooler()), ("retriever", NearestNeighborsRetriever())]
    )
    monkeypatch.setattr(BaseExtractor, "_forward", counted)
    search = GridSearchCV(
        model,
        {"pooler__p": [1.0, 2.0, 5.0]},
        cv=WholeGallerySplit(),
        scoring=PseudoQueryScorer(queries.images, queries.sources),
        refit=False,
        error_score="raise",
    ).fit(photographs)
    assert sum(passed) <= len(photographs) + len(queries.images) + 1  # one to look at the channels
    assert len(np.unique(search.cv_results_["mean_test_score"])) > 1


def test_cached_maps_are_read_once_per_candidate(photographs, monkeypatch):
    queries = make_pseudo_queries(photographs, n_views=2, random_state=0)
    extractor = ConvKernelExtractor(n_channels=(8, 16), image_size=32, random_state=0)
    maps = extractor.fit_transform(photographs)
    views = extractor.transform(queries.images)
    read = []
    batches = FeatureMaps.batches_beside

    def counted(self, *known):
        read.append(len(self))
        return batches(self, *known)

    monkeypatch.setattr(FeatureMaps, "batches_beside", counted)
    search = GridSearchCV(
        make_pipeline(GeMPooler(), NearestNeighborsRetriever()),
        {"gempooler__p": [1.0, 2.0, 5.0, 9.0]},
        cv=WholeGallerySplit(),
        scoring=PseudoQueryScorer(views, queries.sources),
        refit=False,
    ).fit(maps)
    assert sum(read) == 4 * (len(maps) + len(views))
    listed = GridSearchCV(
        search.estimator,
        search.param_grid,
        cv=WholeGallerySplit(),
        scoring=PseudoQueryScorer(list(views), queries.sources),
        refit=False,
    ).fit(list(maps))
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], listed.cv_results_["mean_test_score"], rtol=1e-6
    )


def test_queries_that_do_not_fit_the_gallery():
    gallery, queries, sources = objects()
    model = NearestNeighborsRetriever()
    scorer = PseudoQueryScorer(queries, sources)
    for cv in (KFold(2), KFold(3)):
        with pytest.raises(ValueError, match=r"cv=WholeGallerySplit\(\)"):
            cross_val_score(model, gallery, cv=cv, scoring=scorer, error_score="raise")
    with pytest.raises(ValueError, match="There are 20 queries, but 19 sources"):
        PseudoQueryScorer(queries, sources[1:])(model.fit(gallery), gallery)
    for bad in ([], [-1] * 20, [0.5] * 20, ["a"] * 20):
        with pytest.raises(ValueError, match="sources must be indices"):
            PseudoQueryScorer(queries, bad)(model.fit(gallery), gallery)
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="n_relevant must be an integer"):
            PseudoQueryScorer(queries, sources, n_relevant=bad)(model.fit(gallery), gallery)
    with pytest.raises(TypeError, match="Normalizer finds no neighbours"):
        scorer(make_pipeline(Normalizer()).fit(gallery), gallery)


def test_the_scorer_can_be_sent_and_shown():
    gallery, queries, sources = objects()
    scorer = PseudoQueryScorer(queries, sources, n_relevant=3)
    model = NearestNeighborsRetriever().fit(gallery)
    assert pickle.loads(pickle.dumps(scorer))(model, gallery) == scorer(model, gallery)
    assert repr(scorer) == "PseudoQueryScorer(20 queries, n_relevant=3)"


def test_views_and_their_sources(photographs):
    queries = make_pseudo_queries(photographs, n_views=2, random_state=0)
    assert queries.sources.tolist() == np.repeat(np.arange(8), 2).tolist()
    assert len(queries.images) == len(queries.changes) == 16
    assert all(change.startswith("backdrop") for change in queries.changes)
    again = make_pseudo_queries(photographs, n_views=2, random_state=0)
    other = make_pseudo_queries(photographs, n_views=2, random_state=1)
    assert queries.changes == again.changes != other.changes


def test_some_photographs_of_a_large_gallery(photographs):
    queries = make_pseudo_queries(photographs, 2, n_images=3, kinds=["jpeg"], strength=0.0, random_state=0)
    assert len(np.unique(queries.sources)) == 3
    assert (np.diff(queries.sources) >= 0).all()
    for view, source in zip(queries.images, queries.sources, strict=True):
        distances = [np.abs(view.astype(float) - photograph).mean() for photograph in photographs]
        assert np.argmin(distances) == source
    assert len(make_pseudo_queries(photographs, n_images=99, random_state=0).images) == 8


def test_backdrops_are_other_photographs(photographs):
    flat = [np.full((60, 80, 3), level, dtype=np.uint8) for level in (20, 120, 220)]
    views = make_photo_views(flat, 3, kinds=["backdrop"], strength=1.0, random_state=0)
    for view, source in zip(views.images, views.labels, strict=True):
        levels = set(np.unique(view // 10 * 10).tolist()) & {20, 120, 220}
        assert 20 + 100 * source in levels
        assert len(levels) >= 2
        own = np.mean(np.abs(view.astype(int) - (20 + 100 * source)) < 3)
        assert 0.05 < own < 0.60
    weak = make_photo_views(flat, 1, kinds=["backdrop"], strength=0.0, random_state=0).images
    np.testing.assert_array_equal(weak, flat)
    with pytest.raises(ValueError, match="needs at least 2 photographs"):
        make_photo_views(flat[:1], kinds=["backdrop"])
    crop = ImageCrop(photographs[0], (0, 0, 30, 30))
    tiny = np.zeros((2, 2, 3), dtype=np.uint8)
    mixed = make_photo_views(
        [crop, tiny, photographs[1]], 2, kinds=["backdrop"], strength=1.0, random_state=0
    )
    assert [view.shape[:2] for view in mixed.images] == [(30, 30)] * 2 + [(2, 2)] * 2 + [(40, 48)] * 2


def test_bad_photographs_are_named(photographs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        make_pseudo_queries([*photographs, tmp_path / "gone.jpg"])
    for params in ({"n_images": 0}, {"n_views": 0}, {"strength": 2.0}, {"image_size": 0}, {"kinds": ["fog"]}):
        with pytest.raises(ValueError, match=next(iter(params))):
            make_pseudo_queries(photographs, **params)
    large = np.zeros((50, 2000, 3), dtype=np.uint8)
    assert make_pseudo_queries([large, photographs[0]], kinds=["blur"]).images[0].shape == (26, 1024, 3)


def test_real_photographs_rank_a_good_pooler_above_a_blind_one():
    """Scene labels of views agree with the choice that needs no labels."""
    scenes = load_sample_photographs().images[:6]
    gallery = make_photo_views(scenes, 3, image_size=120, random_state=1)
    extractor = ConvKernelExtractor(n_channels=(16, 32), image_size=64, random_state=0)
    maps = list(extractor.fit_transform(gallery.images))
    queries = make_pseudo_queries(
        gallery.images, kinds=["crop", "warp", "relight"], strength=0.7, random_state=0
    )
    model = Pipeline([("pooler", SumPooler()), ("retriever", NearestNeighborsRetriever())])
    # the last one looks at hardly more than one cell
    grid = {"pooler": [SumPooler(), GeMPooler(p=2.0), GeMPooler(p=60.0)]}
    scorer = PseudoQueryScorer(list(extractor.transform(queries.images)), queries.sources, n_relevant=3)
    chosen = GridSearchCV(model, grid, cv=WholeGallerySplit(), scoring=scorer).fit(maps)
    true = GridSearchCV(model, grid, cv=GalleryQuerySplit(3, random_state=0)).fit(maps, gallery.labels)
    scores, maps = (search.cv_results_["mean_test_score"] for search in (chosen, true))
    assert np.argmin(scores) == np.argmin(maps) == 2
    assert maps[chosen.best_index_] > maps[2] + 0.05
