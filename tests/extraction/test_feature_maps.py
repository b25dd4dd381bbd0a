"""The lazy sequence: indexing, order, laziness, its way through scikit-learn."""

import pickle
from functools import partial

import numpy as np
import pytest
from references.networks import counting_network
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps, content_digest
from skretrieval.pooling import GeMPooler, MACPooler, SumPooler
from skretrieval.retrieval import NearestNeighborsRetriever


def photographs(n=12, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [(32, 48), (40, 40), (48, 32), (36, 48)]
    return [rng.integers(0, 256, (*sizes[i % 4], 3), dtype=np.uint8) for i in range(n)]


def extractor(**params):
    defaults = {"backbone": counting_network, "image_size": 48, "batch_size": 2, "device": "cpu"}
    return ConvFeatureExtractor(**{**defaults, **params})


@pytest.fixture
def maps():
    return extractor().fit_transform(photographs())


def test_is_a_sequence_of_ragged_maps_in_order(maps):
    assert len(maps) == 12
    assert maps.shape == (12,)
    listed = list(maps)
    assert [entry.shape for entry in listed[:4]] == [(10, 4, 6), (10, 6, 6), (10, 6, 4), (10, 5, 6)]
    for index, image in enumerate(photographs()):
        (alone,) = extractor().fit_transform([image])
        np.testing.assert_allclose(listed[index], alone, atol=1e-6)


def test_is_re_iterable(maps):
    for first, second in zip(maps, maps, strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (slice(2, 9, 3), [2, 5, 8]),
        (slice(None, None, -1), list(range(11, -1, -1))),
        (np.array([7, 0, 7]), [7, 0, 7]),
        ([1, 3], [1, 3]),
        ([], []),
        (np.arange(12) % 5 == 0, [0, 5, 10]),
        ((np.array([4, 2]), Ellipsis), [4, 2]),
    ],
)
def test_subsets_stay_lazy(maps, key, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(tmp_path / "log"))
    subset = maps[key]
    assert isinstance(subset, FeatureMaps)
    assert not (tmp_path / "log").exists()
    listed = list(maps)
    assert len(subset) == len(expected)
    for entry, index in zip(subset, expected, strict=True):
        np.testing.assert_allclose(entry, listed[index], atol=1e-6)


def test_one_entry_runs_one_image(maps, monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(log))
    assert maps[-1].shape == (10, 5, 6)
    assert isinstance(maps[np.int64(3)], np.ndarray)
    assert isinstance(maps[np.array(3)], np.ndarray)
    assert log.read_text().count("image") == 3


@pytest.mark.parametrize("key", [12, -13, (1, 2), (slice(None), 0)])
def test_bad_indices(maps, key):
    with pytest.raises(IndexError):
        maps[key]


def test_scikit_learn_can_count_and_index(maps):
    assert _num_samples(maps) == 12
    assert len(_safe_indexing(maps, np.array([0, 5]))) == 2
    assert len(_safe_indexing(maps, np.arange(12) < 3)) == 3


def test_does_not_pretend_to_be_an_array(maps):
    with pytest.raises(TypeError, match="Give it to a pooler"):
        np.asarray(maps)


def test_pickles_and_gives_equal_maps(maps):
    for first, second in zip(maps, pickle.loads(pickle.dumps(maps)), strict=True):
        assert np.array_equal(first, second)


def test_batches_cover_all_once_in_equal_shapes(maps):
    seen = []
    for indices, tensor in maps.batches():
        assert len(indices) == len(tensor) <= 2
        seen += indices.tolist()
    assert sorted(seen) == list(range(12))


def test_few_batches_wait_however_many_shapes():
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (24 + i, 24 + 2 * i, 3), dtype=np.uint8) for i in range(40)]
    maps = extractor(image_size=None, batch_size=2).fit_transform(images)
    arrived = [int(indices[0]) for indices, _ in maps.batches()]
    assert sorted(arrived) == list(range(40))
    # with every shape different, no image waits for more than 8 batches' worth of others
    assert max(abs(place - index) for place, index in enumerate(arrived)) <= 16
    assert arrived[0] <= 16


def test_a_rare_shape_holds_nobody_up(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(log))
    images = photographs(1) + [np.zeros((30, 48, 3), np.uint8)] * 120
    next(iter(extractor(n_jobs=1).fit_transform(images)))
    assert log.read_text().count("image") <= 24  # 8 batches of 2 behind the first, and those on the way


def test_feature_union_and_pipelines_take_it(maps):
    both = FeatureUnion([("mac", MACPooler()), ("sum", SumPooler())]).fit_transform(maps)
    assert both.shape == (12, 20)
    np.testing.assert_allclose(both[:, :10], MACPooler().fit_transform(maps), atol=1e-6)
    parallel = FeatureUnion([("mac", MACPooler()), ("sum", SumPooler())], n_jobs=2).fit_transform(maps)
    np.testing.assert_allclose(parallel, both, atol=1e-5)


def test_cross_validation_splits_maps_themselves(maps):
    model = make_pipeline(GeMPooler(), Normalizer(), NearestNeighborsRetriever(2))
    y = np.arange(12) % 3
    scores = cross_val_score(model, maps, y, cv=KFold(3))
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def test_grid_search_in_processes_with_cache_runs_the_network_once(tmp_path):
    log = tmp_path / "log"
    network = partial(counting_network, str(log))
    images = photographs(12)
    y = np.arange(12) % 3
    model = Pipeline(
        [
            ("extractor", extractor(backbone=network, memory=str(tmp_path / "cache"))),
            ("pooler", GeMPooler()),
            ("normalizer", Normalizer()),
            ("retriever", NearestNeighborsRetriever(2)),
        ]
    )
    for size in (48, 32):  # fill the cache
        list(model.named_steps["extractor"].set_params(image_size=size).fit_transform(images))
    before = log.read_text().count("image")
    assert before == 24
    grid = {"pooler__p": [1.0, 3.0, 5.0], "extractor__image_size": [32, 48]}
    search = GridSearchCV(model, grid, cv=KFold(3), n_jobs=2, refit=True).fit(images, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert log.read_text().count("image") == before


def test_what_is_known_is_neither_decoded_nor_described(tmp_path, monkeypatch):
    """Photographs in a mapping by content come back with what it holds, the others with maps and digests."""
    log = tmp_path / "log"
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(log))
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (5, 40, 48, 3), dtype=np.uint8))
    extractor = ConvFeatureExtractor(
        counting_network, weights=None, image_size=None, device="cpu", batch_size=2
    )
    maps = extractor.fit(images).transform(images)
    batches = list(maps.batches_beside({}))
    digests = {}
    for batch in batches:
        assert batch.found is None
        digests.update(zip(batch.indices.tolist(), batch.digests, strict=True))
    assert digests == {index: content_digest(image)[0] for index, image in enumerate(images)}
    log.write_text("")
    known = {digests[1]: "one", digests[4]: "four"}
    some = list(maps.batches_beside(known))
    found = {int(batch.indices[0]): batch.found for batch in some if batch.maps is None}
    assert found == {1: "one", 4: "four"}
    assert sorted(np.concatenate([batch.indices for batch in some if batch.maps is not None])) == [0, 2, 3]
    assert log.read_text().count("image") == 3
    assert all(digest is None for batch in maps.batches_beside(None) for digest in batch.digests)
