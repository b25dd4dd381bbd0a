"""The retriever's contract: what goes in, what comes out, and what bad input is told."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.neighbors import KNeighborsTransformer, NearestNeighbors

from skretrieval.metrics import leave_one_out_map
from skretrieval.retrieval import NearestNeighborsRetriever

METRICS = ["cosine", "euclidean", "manhattan"]


@pytest.fixture
def gallery():
    return np.random.default_rng(0).normal(size=(30, 5))


@pytest.fixture
def queries():
    return np.random.default_rng(1).normal(size=(4, 5))


def same_state(a, b):
    """Bit-equal fitted attributes."""
    for name in ("gallery_", "region_offsets_", "labels_"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype
            assert_array_equal(left, right)
    assert a.n_samples_fit_ == b.n_samples_fit_
    assert a.n_features_in_ == b.n_features_in_


@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_scikit_learn(gallery, queries, metric):
    ours = NearestNeighborsRetriever(7, metric=metric).fit(gallery)
    theirs = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(gallery)
    for X in (queries, None):
        distances, indices = ours.kneighbors(X)
        expected_distances, expected_indices = theirs.kneighbors(X)
        assert_array_equal(indices, expected_indices)
        assert_allclose(distances, expected_distances, rtol=1e-12, atol=1e-14)
        assert_array_equal(ours.kneighbors(X, return_distance=False), expected_indices)
    distances, indices = ours.kneighbors(queries, n_neighbors=30)
    assert_array_equal(indices, theirs.kneighbors(queries, 30)[1])


@pytest.mark.parametrize("metric", METRICS)
def test_without_x_every_item_queries_the_others(slow, metric):
    # With duplicates the own item need not come first, and with more of them than neighbours not come at all.
    rows = np.random.default_rng(2).normal(size=(5, 3))
    gallery = rows[[0, 1, 0, 2, 0, 0, 3, 4, 1, 0]]
    retriever = NearestNeighborsRetriever(metric=metric).fit(gallery)
    expected = slow.distances(gallery, gallery, metric)
    for k in (1, 2, 9):
        distances, indices = retriever.kneighbors(n_neighbors=k)
        for i, row in enumerate(expected):
            order = [j for j in slow.rank(row) if j != i][:k]
            assert_array_equal(indices[i], order)
            assert_allclose(distances[i], row[order], atol=1e-12)
    assert retriever.kneighbors()[0].shape == (10, 9)


def test_predict_and_transform_say_what_kneighbors_says(gallery, queries):
    retriever = NearestNeighborsRetriever(6).fit(gallery)
    distances, indices = retriever.kneighbors(queries)
    assert_array_equal(retriever.predict(queries), indices)
    graph = retriever.transform(queries)
    assert isinstance(graph, csr_matrix)
    assert graph.shape == (4, 30)
    assert_array_equal(graph.indices.reshape(4, 6), indices)
    assert_array_equal(graph.data.reshape(4, 6), distances)


def test_the_graph_is_that_of_kneighbors_transformer(gallery):
    # That one adds a neighbour, because the query is its own.
    ours = NearestNeighborsRetriever(5, metric="euclidean").fit_transform(gallery)
    theirs = KNeighborsTransformer(n_neighbors=4, algorithm="brute").fit_transform(gallery)
    assert ours.nnz == theirs.nnz == 150
    assert (ours.data == 0).sum() == 30  # the distance to itself is stored
    ours, theirs = ours.toarray(), theirs.toarray()
    others = ~np.eye(30, dtype=bool)
    assert_allclose(ours[others], theirs[others], atol=1e-12)
    # Scikit-learn subtracts squared lengths, whose rounding, of about 1e-15, it takes the root of.
    assert not ours.diagonal().any()
    assert theirs.diagonal().max() < 1e-6


def test_feature_names_of_the_graph(gallery):
    retriever = NearestNeighborsRetriever().fit(gallery)
    names = retriever.get_feature_names_out()
    assert len(names) == 30
    assert names[0] == "nearestneighborsretriever0"
    retriever.remove([0])
    assert len(retriever.get_feature_names_out()) == retriever.transform(gallery).shape[1] == 29


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_precision_is_kept(gallery, metric, dtype):
    X = gallery.astype(dtype)
    retriever = NearestNeighborsRetriever(3, metric=metric).fit(X)
    assert retriever.gallery_.dtype == dtype
    assert retriever.kneighbors(X)[0].dtype == dtype
    assert retriever.transform(X).dtype == dtype
    other = np.float64 if dtype == np.float32 else np.float32
    assert retriever.kneighbors(X.astype(other))[0].dtype == dtype
    assert retriever.partial_fit(X.astype(other)).gallery_.dtype == dtype


def test_gallery_holds_the_rows_as_searched(gallery):
    gallery[3] = 0
    cosine = NearestNeighborsRetriever().fit(gallery)
    lengths = np.ones(30)
    lengths[3] = 0
    assert_allclose(np.linalg.norm(cosine.gallery_, axis=1), lengths)
    assert_array_equal(NearestNeighborsRetriever(metric="manhattan").fit(gallery).gallery_, gallery)


def test_metric_takes_effect_at_fit(gallery, queries):
    retriever = NearestNeighborsRetriever(5).fit(gallery)
    before = retriever.kneighbors(queries)
    retriever.set_params(metric="euclidean")
    assert_array_equal(retriever.kneighbors(queries)[0], before[0])
    assert retriever.fit(gallery).metric_ == "euclidean"
    assert not np.array_equal(retriever.kneighbors(queries)[0], before[0])


# ---------------------------------------------------------------- how many neighbours


def test_untouched_default_is_cut_to_a_small_gallery(gallery, queries):
    retriever = NearestNeighborsRetriever().fit(gallery)
    assert retriever.predict(queries).shape == (4, 30)
    assert retriever.kneighbors()[1].shape == (30, 29)
    large = NearestNeighborsRetriever().fit(np.tile(gallery, (4, 1)))
    assert large.predict(queries).shape == (4, 100)


def test_more_neighbours_than_the_gallery_has(gallery, queries):
    small = NearestNeighborsRetriever(31).fit(gallery)
    for call in (small.predict, small.transform, small.kneighbors):
        with pytest.raises(ValueError, match=r"n_neighbors=31 is larger than the gallery of 30"):
            call(queries)
    fitted = NearestNeighborsRetriever().fit(gallery)
    with pytest.raises(ValueError, match=r"n_neighbors=100 is larger than the gallery of 30"):
        fitted.kneighbors(queries, n_neighbors=100)
    with pytest.raises(ValueError, match=r"n_neighbors=30 is larger than the gallery of 30.*29 besides"):
        fitted.kneighbors(n_neighbors=30)
    with pytest.raises(ValueError, match="0 besides the query"):
        NearestNeighborsRetriever().fit(gallery[:1]).kneighbors()


@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_impossible_numbers_of_neighbours(gallery, queries, k, error):
    with pytest.raises(error, match=f"n_neighbors.*{k}"):
        NearestNeighborsRetriever().fit(gallery).kneighbors(queries, n_neighbors=k)


def test_numpy_integers_are_integers(gallery, queries):
    assert NearestNeighborsRetriever(np.int64(3)).fit(gallery).predict(queries).shape == (4, 3)


# ---------------------------------------------------------------- growing and shrinking


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_partial_fit_is_fit_on_the_whole(gallery, make_regions, metric, labels, regions):
    X = make_regions(30, 5, seed=3) if regions else gallery
    y = np.array(["tower", "bridge", "a longer label"])[np.arange(30) % 3] if labels else None
    whole = NearestNeighborsRetriever(5, metric=metric).fit(X, y)
    grown = NearestNeighborsRetriever(5, metric=metric)
    for part in (slice(0, 4), slice(4, 5), slice(5, 30)):
        assert grown.partial_fit(X[part], None if y is None else y[part]) is grown
    same_state(grown, whole)
    assert_array_equal(grown.predict(X), whole.predict(X))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_remove_is_fit_without_the_rows(gallery, make_regions, metric, regions):
    X = make_regions(30, 5, seed=4) if regions else gallery
    y = np.arange(30) % 4
    gone = [29, 0, 7, 7, 8]
    keep = [i for i in range(30) if i not in gone]
    rest = [X[i] for i in keep] if regions else X[keep]
    expected = NearestNeighborsRetriever(5, metric=metric).fit(rest, y[keep])
    shrunk = NearestNeighborsRetriever(5, metric=metric).fit(X, y)
    assert shrunk.remove(gone) is shrunk
    same_state(shrunk, expected)
    assert_array_equal(shrunk.predict(X), expected.predict(X))
    same_state(shrunk.remove([]), expected)
    same_state(
        shrunk.remove(np.int64(0)), NearestNeighborsRetriever(metric=metric).fit(rest[1:], y[keep][1:])
    )


def test_appending_regions_to_rows_and_rows_to_regions(gallery, make_regions):
    sets = make_regions(6, 5, seed=5)
    rows = [row[None] for row in gallery]
    for first, second in ((gallery, sets), (sets, gallery)):
        mixed = NearestNeighborsRetriever().fit(first).partial_fit(second)
        items = rows + sets if first is gallery else sets + rows
        same_state(mixed, NearestNeighborsRetriever().fit(items))


@pytest.mark.parametrize("index", [30, -1, [0, 99], np.array([[3, 31]])])
def test_removing_what_is_not_there(gallery, index):
    retriever = NearestNeighborsRetriever().fit(gallery)
    bad = max(np.ravel(index), key=abs)
    with pytest.raises(IndexError, match=rf"Index {bad} is outside the gallery of 30 items \(0 to 29\)"):
        retriever.remove(index)
    assert retriever.n_samples_fit_ == 30


def test_removing_everything_or_nonsense(gallery):
    retriever = NearestNeighborsRetriever().fit(gallery)
    with pytest.raises(ValueError, match="all 30 items"):
        retriever.remove(np.arange(30))
    for nonsense in ([0.5], np.ones(30, dtype=bool), ["a"]):
        with pytest.raises(ValueError, match="must be integers"):
            retriever.remove(nonsense)


def test_labels_for_some_items_only(gallery):
    with pytest.raises(ValueError, match=r"has labels, but .* none"):
        NearestNeighborsRetriever().fit(gallery, np.zeros(30)).partial_fit(gallery)
    with pytest.raises(ValueError, match=r"has no labels, but .* some"):
        NearestNeighborsRetriever().fit(gallery).partial_fit(gallery, np.zeros(30))
    with pytest.raises(ValueError, match=r"30.*29|29.*30"):
        NearestNeighborsRetriever().fit(gallery, np.zeros(29))


# ---------------------------------------------------------------- score


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_score_is_the_mean_of_a_hand_loop(slow, gallery, queries, make_regions, metric, strings, regions):
    X = make_regions(30, 5, seed=6) if regions else gallery
    y = np.arange(30) % 4
    wanted = np.array([2, 0, 9, 3])  # nothing in the gallery has label 9
    weights = np.array([1.0, 2.0, 5.0, 0.5])
    if strings:
        names = np.array([f"label {i}" for i in range(10)])
        y, wanted = names[y], names[wanted]
    retriever = NearestNeighborsRetriever(2, metric=metric).fit(X, y)
    expected = slow.distances(queries, X, metric)
    ap = [
        slow.average_precision([y[i] == label for i in slow.rank(row)])
        for row, label in zip(expected, wanted)
    ]
    assert ap[2] == 0
    rest = [0, 1, 3]
    assert retriever.score(queries, wanted) == pytest.approx(np.mean([ap[i] for i in rest]), abs=1e-12)
    weighted = np.average([ap[i] for i in rest], weights=weights[rest])
    assert retriever.score(queries, wanted, sample_weight=weights) == pytest.approx(weighted, abs=1e-12)


def test_score_with_more_queries_than_one_block(gallery):
    # 30 x 2**23 / 30 queries would be one block: a huge gallery is imitated by many queries of a small one.
    rng = np.random.default_rng(7)
    X, y = rng.normal(size=(3000, 2)).astype(np.float32), rng.integers(0, 40, size=3000)
    retriever = NearestNeighborsRetriever().fit(X, y)
    ranking = retriever.kneighbors(X[:2900], 3000, return_distance=False)
    relevant = y[ranking] == y[:2900, None]
    order = np.arange(3000)
    hits = np.cumsum(relevant, axis=1)
    before = np.where(order == 0, 1.0, (hits - relevant) / np.maximum(order, 1))
    ap = (relevant * (before + hits / (order + 1)) / 2).sum(axis=1) / relevant.sum(axis=1)
    assert retriever.score(X[:2900], y[:2900]) == pytest.approx(ap.mean(), abs=1e-12)


@pytest.mark.parametrize("kind", [np.int64, np.float64, object])
def test_distractors_are_searched_and_nothing_else(slow, gallery, queries, kind):
    # Labels -1 push positives down the ranking, but have no positives themselves and are no queries.
    y = np.where(np.arange(30) % 3 == 0, -1, np.arange(30) % 4).astype(kind)
    wanted = np.array([2, -1, 0, 3]).astype(kind)
    retriever = NearestNeighborsRetriever().fit(gallery, y)
    ap = [
        slow.average_precision([y[i] == label for i in slow.rank(row)])
        for row, label in zip(slow.distances(queries, gallery), wanted)
    ]
    assert retriever.score(queries, wanted) == pytest.approx(np.mean([ap[0], ap[2], ap[3]]), abs=1e-12)
    assert retriever.score(queries[[0, 2, 3]], wanted[[0, 2, 3]]) == retriever.score(queries, wanted)
    without = NearestNeighborsRetriever().fit(gallery[y != -1], y[y != -1])
    assert without.score(queries, wanted) > retriever.score(queries, wanted)
    with pytest.warns(UndefinedMetricWarning, match="mAP is undefined"):
        assert np.isnan(retriever.score(queries, np.full(4, -1).astype(kind)))


def test_the_string_of_the_distractor_label_is_a_label(gallery, queries):
    y = np.array(["-1", "tower"])[np.arange(30) % 2]
    retriever = NearestNeighborsRetriever().fit(gallery, y)
    assert 0 < retriever.score(queries, ["-1"] * 4) < 1


def test_leave_one_out_has_the_same_distractors(gallery):
    y = np.where(np.arange(30) % 5 == 0, -1, np.arange(30) % 3)
    everything = NearestNeighborsRetriever().fit(gallery, y).kneighbors(None, 29, return_distance=False)
    relevant = y[everything] == y[:, None]
    kept = [i for i in range(30) if y[i] != -1]
    expected = [
        np.mean([(sum(row[:r]) / r if r else 1) + sum(row[: r + 1]) / (r + 1) for r in np.flatnonzero(row)])
        / 2
        for row in relevant[kept]
    ]
    assert leave_one_out_map(NearestNeighborsRetriever(), gallery, y) == pytest.approx(
        np.mean(expected), abs=1e-12
    )


def test_score_without_labels_or_positives(gallery, queries):
    with pytest.raises(ValueError, match="fit with y"):
        NearestNeighborsRetriever().fit(gallery).score(queries, [0, 0, 0, 0])
    retriever = NearestNeighborsRetriever().fit(gallery, np.arange(30))
    with pytest.warns(UndefinedMetricWarning, match="mAP is undefined"):
        assert np.isnan(retriever.score(queries, [77, 78, 79, 80]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        retriever.score(queries, [0, 0])


# ---------------------------------------------------------------- region sets


@pytest.mark.parametrize("metric", METRICS)
def test_region_sets_as_lists_tuples_and_object_arrays(slow, make_regions, metric):
    X = make_regions(12, 3, seed=8)
    Q = make_regions(3, 3, seed=9)
    retriever = NearestNeighborsRetriever(12, metric=metric).fit(X)
    assert retriever.n_samples_fit_ == 12
    assert retriever.n_features_in_ == 3
    assert_array_equal(np.diff(retriever.region_offsets_), [len(item) for item in X])
    expected = retriever.kneighbors(Q)
    slow.assert_ranking(expected, slow.distances(Q, X, metric), 12, 1e-12)
    objects = np.empty(3, dtype=object)
    objects[:] = Q
    for same in (tuple(Q), objects, [item.tolist() for item in Q]):
        assert_array_equal(retriever.predict(same), expected[1])


def test_one_region_each_is_the_same_as_rows(gallery, queries):
    rows = NearestNeighborsRetriever(9).fit(gallery)
    regions = NearestNeighborsRetriever(9).fit([row[None] for row in gallery])
    for X in (queries, [row[None] for row in queries]):
        for found, expected in zip(regions.kneighbors(X), rows.kneighbors(queries)):
            assert_array_equal(found, expected)


def test_float32_regions_stay_float32(make_regions):
    X = make_regions(9, 4, seed=10, dtype=np.float32)
    assert NearestNeighborsRetriever().fit(X).gallery_.dtype == np.float32
    assert NearestNeighborsRetriever().fit([*X, np.ones((1, 4))]).gallery_.dtype == np.float64


@pytest.mark.parametrize("metric", METRICS)
def test_best_regions_of_every_result(slow, make_regions, metric):
    X, Q = make_regions(9, 4, seed=11), make_regions(5, 4, seed=12)
    retriever = NearestNeighborsRetriever(3, metric=metric).fit(X)
    indices = retriever.predict(Q)
    query_regions, gallery_regions = retriever.best_regions(Q, indices)
    for i, j in np.ndindex(5, 3):
        pair = slow.best_pair(slow_sets(Q[i]), slow_sets(X[indices[i, j]]), metric)[1:]
        assert (query_regions[i, j], gallery_regions[i, j]) == pair
    rows = NearestNeighborsRetriever(2).fit(np.eye(4))
    assert not np.any(rows.best_regions(np.eye(4), rows.predict(np.eye(4))))
    with pytest.raises(ValueError, match=r"shape \(5, k\)"):
        retriever.best_regions(Q, indices[:2])
    with pytest.raises(IndexError, match="Index 9 is outside the gallery of 9"):
        retriever.best_regions(Q, indices * 0 + 9)


def slow_sets(item):
    return np.atleast_2d(item)


# ---------------------------------------------------------------- bad input (design 9)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "kneighbors", "predict", "transform"])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_nan_and_inf_are_named(gallery, make_regions, method, value, name):
    retriever = NearestNeighborsRetriever().fit(gallery)
    bad = gallery.copy()
    bad[[17, 21], 2] = value
    with pytest.raises(ValueError, match=rf"{name}.* in item 17 \(2 row"):
        getattr(retriever, method)(bad)
    regions = make_regions(9, 5, seed=13)
    regions[6] = np.vstack([np.ones((2, 5)), np.full((1, 5), value)])
    with pytest.raises(ValueError, match=rf"{name}.* in item 6, region 2"):
        getattr(retriever, method)(regions)
    with pytest.raises(ValueError, match=rf"{name}.* in item 17"):
        getattr(retriever, method)(bad.astype(np.float32))


def test_large_finite_values_are_no_infinity():
    X = np.full((3, 4), 3e38, dtype=np.float32)
    assert_allclose(NearestNeighborsRetriever().fit(X).gallery_, 0.5)
    with np.errstate(over="ignore"):
        huge = np.full((3, 4), 1e308)
    assert_allclose(NearestNeighborsRetriever().fit(huge).gallery_, 0.5)


@pytest.mark.parametrize("method", ["kneighbors", "predict", "transform", "partial_fit"])
def test_numbers_of_features_that_differ(gallery, make_regions, method):
    retriever = NearestNeighborsRetriever().fit(gallery)
    with pytest.raises(ValueError, match=r"7 features.*5 features"):
        getattr(retriever, method)(np.ones((2, 7)))
    regions = make_regions(4, 5, seed=14)
    regions[2] = np.ones((3, 8))
    with pytest.raises(ValueError, match=r"Item 2 has 8 features.*expecting 5"):
        getattr(retriever, method)(regions)
    with pytest.raises(ValueError, match=r"Item 2 has 8 features, but item 0 has 5"):
        retriever.fit(regions)


def test_wrong_ranks(gallery):
    retriever = NearestNeighborsRetriever().fit(gallery)
    for method in (retriever.fit, retriever.predict):
        with pytest.raises(ValueError, match="2D array, got 1D"):
            method(gallery[0])
        with pytest.raises(ValueError, match="dim 3"):
            method(gallery[None])
        with pytest.raises(ValueError, match=r"Item 1: expected 2 dimensions .* got 1"):
            method([gallery[:2], gallery[0]])
        with pytest.raises(ValueError, match=r"Item 1: expected 2 dimensions .* got 3"):
            method([gallery[:2], gallery[None]])


@pytest.mark.parametrize("method", ["fit", "predict", "kneighbors", "transform", "partial_fit"])
def test_empty_input(gallery, method):
    call = getattr(NearestNeighborsRetriever().fit(gallery), method)
    with pytest.raises(ValueError, match="minimum of 1"):
        call([])
    with pytest.raises(ValueError, match="minimum of 1"):
        call(np.empty((0, 5)))
    with pytest.raises(ValueError, match="Item 1 has 0 regions"):
        call([np.ones((2, 5)), np.empty((0, 5))])


def test_before_fit(gallery):
    retriever = NearestNeighborsRetriever()
    calls = [retriever.kneighbors, lambda: retriever.predict(gallery), lambda: retriever.transform(gallery)]
    calls += [lambda: retriever.remove([0]), lambda: retriever.score(gallery, np.ones(30))]
    for call in calls:
        with pytest.raises(NotFittedError):
            call()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"metric": "hamming"}, "metric"),
        ({"engine": "magic"}, "engine"),
        ({"engine_params": [1]}, "engine_params"),
        (
            {"engine_params": {"blocks": 3, "nprobe": 1}},
            r"Unknown engine_params \['blocks', 'nprobe'\].*block_size",
        ),
        ({"engine_params": {"block_size": 0}}, r"engine_params\['block_size'\].*got 0"),
        ({"engine_params": {"query_block_size": 2.5}}, r"engine_params\['query_block_size'\].*got 2.5"),
    ],
)
def test_bad_parameters(gallery, params, message):
    with pytest.raises(ValueError, match=message):
        NearestNeighborsRetriever(**params).fit(gallery)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 60),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 5),
)
def test_engine_params_change_nothing(n, sizes, metric, seed):
    X = np.random.default_rng(seed).integers(-2, 3, size=(n, 3)).astype(np.float32)
    params = {"block_size": sizes[0], "query_block_size": sizes[1]}
    plain = NearestNeighborsRetriever(metric=metric).fit(X)
    blocked = NearestNeighborsRetriever(metric=metric, engine_params=params).fit(X)
    for k in (1, n - 1):
        assert_array_equal(blocked.kneighbors(None, k)[1], plain.kneighbors(None, k)[1])
        assert_array_equal(blocked.kneighbors(X, k)[1], plain.kneighbors(X, k)[1])


def test_the_docstring_names_every_parameter():
    names = NearestNeighborsRetriever().get_params()
    assert all(
        re.search(rf"^    {name} : ", NearestNeighborsRetriever.__doc__, re.MULTILINE) for name in names
    )
