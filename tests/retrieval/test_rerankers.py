"""Re-rankers against slow references, and what all of them keep."""

import pickle

import numpy as np
import pytest
from references import rerankings
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

from skretrieval.model_selection import PseudoQueryScorer, WholeGallerySplit
from skretrieval.retrieval import (
    DiffusionReranker,
    DiscriminativeQueryExpansion,
    KReciprocalReranker,
    NearestNeighborsRetriever,
    QueryExpansion,
    SuperGlobalReranker,
)

pytestmark = pytest.mark.filterwarnings("ignore:(k|n_refine)=[0-9]+ ")
PLAIN = NearestNeighborsRetriever()
RERANKERS = [
    KReciprocalReranker(PLAIN, 12, k1=4, k2=2),
    SuperGlobalReranker(PLAIN, 12, n_refine=3),
    DiffusionReranker(PLAIN, k=5, k_query=3, alpha=0.9),
    DiffusionReranker(PLAIN, 12, k=5, k_query=3, alpha=0.9),
    DiscriminativeQueryExpansion(PLAIN, 3, n_negative=6),
]
each = pytest.mark.parametrize("reranker", RERANKERS, ids=repr)


def unit(rows):
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def case(seed):
    """Gallery and one query, in clusters, and sometimes with a zero row or a duplicate."""
    rng = np.random.default_rng(seed)
    n, d = rng.integers(1, 25), rng.integers(2, 9)
    rows = rng.normal(size=(3, d))[rng.integers(3, size=n + 1)] + rng.uniform(0.2, 2) * rng.normal(
        size=(n + 1, d)
    )
    if seed % 10 == 3:
        rows[rng.integers(n)] = 0
    if seed % 10 == 7:
        rows[rng.integers(n)] = rows[rng.integers(n)]
    rows = unit(rows)
    return rows[:n], rows[n], rng


def check_ranking(found, first, new, gallery, tolerance):
    """Distances ascend along the ranking, zero rows come last, the rest keeps its order."""
    m = len(new)
    assert sorted(found) == list(range(len(gallery)))
    np.testing.assert_array_equal(found[m:], first[m:])
    place = {item: rank for rank, item in enumerate(first)}
    zero = ~gallery.any(axis=1)
    along = [np.inf if zero[item] else new[place[item]] for item in found[:m]]
    for before, after, a, b in zip(found, found[1:m], along, along[1:], strict=False):
        assert a <= b or a - b < tolerance
        if zero[before] and zero[after]:
            assert place[before] < place[after]


def first_ranking(gallery, query):
    return PLAIN.fit(gallery).predict([query])[0][: len(gallery)]


def ranking_of(reranker, gallery, query):
    return reranker.fit(gallery).kneighbors([query], len(gallery), return_distance=False)[0]


@pytest.mark.parametrize("part", range(4))
def test_rankings_equal_the_references(part):
    for seed in range(250 * part, 250 * (part + 1)):
        gallery, query, rng = case(seed)
        first = first_ranking(gallery, query)
        m, k1, k2 = rng.integers(1, 30), rng.integers(1, 9), rng.integers(1, 5)
        ranked = gallery[first]
        pool = ranked[:m]
        new = rerankings.super_global(query, pool, k1, 0.15)
        check_ranking(
            ranking_of(SuperGlobalReranker(PLAIN, m, n_refine=k1), gallery, query), first, new, gallery, 1e-9
        )
        new = rerankings.k_reciprocal(query, pool, k1, k2, 0.3)
        found = ranking_of(KReciprocalReranker(PLAIN, m, k1=k1, k2=k2), gallery, query)
        check_ranking(found, first, new, gallery, 1e-9)
        new = -rerankings.diffusion(query, gallery[:, None], k1, k2, 0.9, 3.0)[first]
        found = ranking_of(DiffusionReranker(PLAIN, k=k1, k_query=k2, alpha=0.9), gallery, query)
        check_ranking(found, first, new, gallery, 1e-8)


@pytest.mark.parametrize("seed", range(60))
def test_discriminative_expansion_equals_the_reference(seed):
    gallery, query, _ = case(seed)
    first = first_ranking(gallery, query)
    new = rerankings.discriminative(query, gallery[first], 3, 6, 1.0)
    found = ranking_of(DiscriminativeQueryExpansion(PLAIN, 3, n_negative=6), gallery, query)
    check_ranking(found, first, new, gallery, 1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_diffusion_of_region_sets_sums_over_the_regions(seed):
    rng = np.random.default_rng(seed)
    items = [unit(rng.normal(size=(rng.integers(1, 4), 4))) for _ in range(9)]
    query = unit(rng.normal(size=(2, 4)))
    search = DiffusionReranker(PLAIN, k=4, k_query=2, alpha=0.9).fit(items)
    first = search.retriever_.kneighbors([query], 9, return_distance=False)[0]
    new = -rerankings.diffusion(query, items, 4, 2, 0.9, 3.0)[first]
    found = search.kneighbors([query], 9, return_distance=False)[0]
    check_ranking(found, first, new, np.ones((9, 1)), 1e-8)


@pytest.mark.parametrize("reranker", [RERANKERS[0], RERANKERS[1], RERANKERS[4]], ids=repr)
def test_region_sets_are_refused_where_there_is_no_formula(reranker):
    regions = [np.eye(3)[:2], np.eye(3)]
    with pytest.raises(ValueError, match="one descriptor per image, got region sets"):
        reranker.fit(regions)
    with pytest.raises(ValueError, match="one descriptor per query, got region sets"):
        clone(reranker).fit(np.eye(3)).predict(regions)


@each
def test_other_metrics_are_refused(reranker):
    search = clone(reranker).set_params(retriever__metric="euclidean")
    with pytest.raises(ValueError, match="metric='cosine', got 'euclidean'"):
        search.fit(np.eye(3))


@each
def test_a_zero_query_keeps_the_order(reranker):
    gallery, _, _ = case(0)
    query = np.zeros(gallery.shape[1])
    np.testing.assert_array_equal(ranking_of(reranker, gallery, query), np.arange(len(gallery)))


@each
def test_duplicates_keep_the_order_of_the_gallery(reranker):
    rng = np.random.default_rng(0)
    gallery = np.repeat(rng.normal(size=(5, 6)), 3, axis=0)
    for query in rng.normal(size=(20, 6)):
        place = np.argsort(ranking_of(reranker, gallery, query)).reshape(5, 3)
        assert (np.diff(place, axis=1) > 0).all() or "12" in repr(reranker)


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_ascend_and_fewer_neighbours_are_a_prefix(reranker, dtype):
    rng = np.random.default_rng(1)
    gallery, queries = rng.normal(size=(40, 8)).astype(dtype), rng.normal(size=(7, 8)).astype(dtype)
    search = clone(reranker).fit(gallery)
    distances, indices = search.kneighbors(queries, 40)
    assert distances.dtype == dtype
    assert (np.diff(distances, axis=1) >= 0).all()
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(40), (7, 1)))
    np.testing.assert_array_equal(search.kneighbors(queries, 5)[1], indices[:, :5])
    loaded = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(loaded.kneighbors(queries, 40)[0], distances)


@each
def test_appended_and_removed_items_are_as_fitted(reranker):
    rng = np.random.default_rng(2)
    gallery, queries = rng.normal(size=(30, 6)), rng.normal(size=(5, 6))
    search = clone(reranker).partial_fit(gallery[:20]).partial_fit(gallery[20:]).remove([0, 7])
    fitted = clone(reranker).fit(np.delete(gallery, [0, 7], axis=0))
    np.testing.assert_array_equal(search.kneighbors(queries, 28)[1], fitted.kneighbors(queries, 28)[1])


@each
def test_they_nest_and_score(reranker):
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(8), 5)
    gallery = rng.normal(size=(8, 6))[labels] + 0.5 * rng.normal(size=(40, 6))
    for outer in (
        QueryExpansion(reranker, 2),
        KReciprocalReranker(QueryExpansion(reranker, 2), k1=4),
        SuperGlobalReranker(KReciprocalReranker(reranker, k1=4), n_refine=3),
    ):
        search = clone(outer).fit(gallery, labels)
        assert sorted(search.kneighbors(gallery[:1], 40)[1][0]) == list(range(40))
        assert 0.5 < search.score(gallery, labels) <= 1
        assert not (search.kneighbors()[1] == np.arange(40)[:, None]).any()


@each
def test_parameters_are_searched_in_two_processes(reranker):
    rng = np.random.default_rng(4)
    labels = np.tile(np.arange(6), 6)
    gallery = rng.normal(size=(6, 5))[labels] + 0.5 * rng.normal(size=(36, 5))
    name = {"KR": "k1", "SG": "n_refine", "DR": "k", "DQ": "n_positive"}[
        "".join(letter for letter in type(reranker).__name__ if letter.isupper())[:2]
    ]
    search = GridSearchCV(reranker, {name: [2, 4]}, cv=KFold(3, shuffle=True, random_state=0), n_jobs=2)
    assert search.fit(gallery, labels).best_score_ > 0.5


def test_tuning_without_labels_chooses_the_neighbours_of_a_graph():
    rng = np.random.default_rng(5)
    gallery = rng.normal(size=(30, 12)).repeat(5, axis=0) + 0.7 * rng.normal(size=(150, 12))
    sources = rng.integers(150, size=40)
    queries = gallery[sources] + 0.7 * rng.normal(size=(40, 12))
    scorer = PseudoQueryScorer(queries, sources, n_relevant=5)
    grid = {"k": [4, 100], "alpha": [0.9]}
    search = GridSearchCV(
        DiffusionReranker(PLAIN, k_query=3), grid, scoring=scorer, cv=WholeGallerySplit(), refit=False
    ).fit(gallery)
    assert search.best_params_["k"] == 4


@pytest.mark.filterwarnings("error")
def test_diffusion_warns_of_too_many_neighbours():
    rng = np.random.default_rng(6)
    gallery = rng.normal(size=(30, 32)).repeat(5, axis=0) + 0.4 * rng.normal(size=(150, 32))
    DiffusionReranker(PLAIN, k=4).fit(gallery)
    with pytest.warns(UserWarning, match="k=120 links nodes of a median similarity"):
        DiffusionReranker(PLAIN, k=120).fit(gallery)


@pytest.mark.filterwarnings("error")
def test_super_global_warns_of_objects_with_few_photographs():
    gallery, labels = np.random.default_rng(7).normal(size=(20, 4)), np.repeat(np.arange(4), 5)
    SuperGlobalReranker(PLAIN, n_refine=4).fit(gallery, labels)
    with pytest.warns(UserWarning, match="n_refine=9 is more than the 4 other photographs"):
        SuperGlobalReranker(PLAIN).fit(gallery, labels)
