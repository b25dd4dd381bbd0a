"""Exact search against brute force, for every metric, precision, block size and kind of ties."""

import tracemalloc

import numpy as np
import pytest
from fixtures.distances import METRICS
from fixtures.exact_search import TOLERANCE, data, prepared
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skretrieval._linalg import unit_rows
from skretrieval._region_sets import ragged_arange
from skretrieval.retrieval._descriptors import DescriptorSet
from skretrieval.retrieval._search import _exact
from skretrieval.retrieval._search._exact import make_scorer, search

pytestmark = pytest.mark.usefixtures("gallery_kind")

# Above and below the share of the gallery from which the whole of it is ranked.
NEIGHBORS = [1, 4, 5, 31, 40]


def assert_same(found, expected, gallery_kind, metric, k, n_items):
    """Equal indices always, equal distances but in long rankings of large galleries by a product."""
    np.testing.assert_array_equal(found[1], expected[1])
    if gallery_kind == "small" or 8 * k < n_items:
        np.testing.assert_array_equal(found[0], expected[0])
    else:
        tolerance = 100 * np.finfo(expected[0].dtype).eps
        np.testing.assert_allclose(found[0], expected[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("k", NEIGHBORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_equals_brute_force(slow, metric, dtype, k):
    Q, G = data(0, dtype=dtype)
    found = search(prepared(Q, metric), prepared(G, metric), k, metric=metric)
    assert found[0].dtype == dtype
    assert found[1].dtype == np.intp
    expected = slow.distances(Q, G, metric)
    slow.assert_ranking(found, expected, k, TOLERANCE[dtype])
    np.testing.assert_array_equal(found[1], [slow.rank(row)[:k] for row in expected])


@pytest.mark.parametrize("k", NEIGHBORS)
@pytest.mark.parametrize("kinds", ["regions-regions", "rows-regions", "regions-rows"])
@pytest.mark.parametrize("metric", METRICS)
def test_region_sets_equal_loops(slow, make_regions, metric, kinds, k):
    Q, G = data(1)
    query_kind, gallery_kind = kinds.split("-")
    Q = make_regions(7, 6, seed=2) if query_kind == "regions" else Q
    G = make_regions(40, 6, seed=3) if gallery_kind == "regions" else G
    expected = slow.distances(Q, G, metric)
    for block_size, query_block_size in [(None, 1024), (8192, 1024), (5, 3), (1, 1)]:
        found = search(
            prepared(Q, metric),
            prepared(G, metric),
            k,
            metric=metric,
            block_size=block_size,
            query_block_size=query_block_size,
        )
        slow.assert_ranking(found, expected, k, 1e-12)
        np.testing.assert_array_equal(found[1], [slow.rank(row)[:k] for row in expected])


@pytest.mark.parametrize("metric", METRICS)
def test_best_rows_are_the_best_pair(slow, make_regions, metric):
    Q, G = make_regions(4, 5, seed=4), make_regions(6, 5, seed=5)
    Q[0] = np.repeat(Q[0][:1], 3, axis=0)  # equal regions: the first counts
    G[0] = np.repeat(G[0][:1], 2, axis=0)
    query, item = (part.ravel() for part in np.indices((4, 6)))
    queries, gallery = prepared(Q, metric), prepared(G, metric)
    rows = make_scorer(metric, queries, gallery).best_rows(query, item)
    for q, g, query_row, gallery_row in zip(query, item, *rows):
        _, i, j = slow.best_pair(Q[q], G[g], metric)
        assert (query_row - queries.offsets[q], gallery_row - gallery.offsets[g]) == (i, j)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5).flatmap(
        lambda d: arrays(np.float64, st.tuples(st.integers(1, 40), st.just(d)), elements=st.integers(-2, 2))
    ),
    m=st.integers(1, 4),
    k=st.integers(1, 40),
    blocks=st.tuples(st.integers(1, 9), st.integers(1, 3)),
    metric=st.sampled_from(METRICS),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_shape_with_ties_and_zeros(slow, gallery_kind, rows, m, k, blocks, metric, dtype):
    # Small integers: many equal rows, equal distances and zero vectors.
    G = rows.astype(dtype)
    Q, k = G[:m], min(k, len(G))
    queries, gallery = prepared(Q, metric), prepared(G, metric)
    found = search(queries, gallery, k, metric=metric)
    slow.assert_ranking(found, slow.distances(Q, G, metric), k, TOLERANCE[dtype])
    in_blocks = search(queries, gallery, k, metric=metric, block_size=blocks[0], query_block_size=blocks[1])
    assert_same(in_blocks, found, gallery_kind, metric, k, len(G))
    # A shorter answer is the beginning of a longer one, and equal rows keep their order.
    distances, full = search(queries, gallery, len(G), metric=metric)
    assert_same((distances[:, :k], full[:, :k]), found, gallery_kind, metric, len(G), len(G))
    _, group = np.unique(G, axis=0, return_inverse=True)
    for ranking in full:
        for number in range(group.max() + 1):
            members = ranking[group.ravel()[ranking] == number]
            assert (np.diff(members) > 0).all()


@pytest.mark.parametrize("k", [3, 25, 200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_blocks_change_nothing(gallery_kind, metric, dtype, k):
    Q, G = data(6, n=300, m=11, d=33, dtype=dtype)
    G[100:150] = G[:50]
    queries, gallery = prepared(Q, metric), prepared(G, metric)
    distances, indices = search(queries, gallery, k, metric=metric)
    for block_size, query_block_size in [(1, 1), (7, 2), (64, 11), (299, 1), (10**6, 10**6)]:
        found = search(
            queries, gallery, k, metric=metric, block_size=block_size, query_block_size=query_block_size
        )
        assert_same(found, (distances, indices), gallery_kind, metric, k, 300)


@pytest.mark.parametrize("k", [4, 300])
@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_tie_exactly_wherever_they_stand(metric, k):
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(6, 512)).astype(np.float32)
    which = rng.integers(0, 6, size=300)
    G = rows[which]
    distances, indices = search(
        prepared(rows, metric), prepared(G, metric), k, metric=metric, block_size=37, query_block_size=4
    )
    for query, (row, found) in enumerate(zip(distances, indices)):
        np.testing.assert_array_equal(found[:4], np.flatnonzero(which == query)[:4])
        assert (row[:4] == 0).all()
        for a, b in zip(range(k - 1), range(1, k)):
            if which[found[a]] == which[found[b]]:
                assert row[a] == row[b]
                assert found[a] < found[b]


@pytest.mark.parametrize("metric", METRICS)
def test_more_near_ties_than_the_table_of_candidates_holds(metric):
    # 9,000 rows nearer to each other than float32 products can tell: decided exactly, block after block.
    rng = np.random.default_rng(8)
    G = (np.ones(16) + 1e-6 * rng.normal(size=(9000, 16))).astype(np.float32)
    G[4000:4100] = G[50]
    Q = G[[50, 8000]]
    queries, gallery = prepared(Q, metric), prepared(G, metric)
    distances, indices = search(queries, gallery, 5, metric=metric, block_size=3000)
    A, B = queries.rows.astype(np.float64), gallery.rows.astype(np.float64)
    difference = A[:, None] - B
    exact = {
        "cosine": -(A @ B.T) / np.sqrt(np.outer((A**2).sum(1), (B**2).sum(1))),
        "euclidean": (difference**2).sum(axis=2),
        "manhattan": np.abs(difference).sum(axis=2),
    }[metric]
    if metric == "cosine":
        exact = 1 + exact
        np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :5], rtol=0, atol=1e-13)
    else:
        np.testing.assert_array_equal(indices, np.argsort(exact, axis=1, kind="stable")[:, :5])
    np.testing.assert_array_equal(indices[0], [50, 4000, 4001, 4002, 4003])
    assert indices[1, 0] == 8000


def test_identical_gallery_is_ranked_by_index():
    G = np.full((6000, 3), 0.1, dtype=np.float32)
    for metric in METRICS:
        queries, gallery = prepared(G[:2], metric), prepared(G, metric)
        for k in (7, 6000):
            distances, indices = search(queries, gallery, k, metric=metric, block_size=500)
            np.testing.assert_array_equal(indices, np.tile(np.arange(k), (2, 1)))
            assert not distances.any()


@pytest.mark.parametrize("scale", [1.0, 1e-150])
@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("metric", METRICS)
def test_whole_rankings_are_stable_sorts(monkeypatch, metric, threads, scale):
    # Several rows to a thread and several threads; duplicates, and rows that differ in their last digits.
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(_exact, "_SORTED", 6000)
    rng = np.random.default_rng(21)
    G = rng.normal(size=(2500, 8))
    G[1000:1200] = G[:200]
    G[2000:2300] = G[:300] * (1 + 1e-15)
    Q = rng.normal(size=(9, 8))
    Q[0] = G[5]
    queries, gallery = prepared(Q * scale, metric), prepared(G * scale, metric)
    query, item = (part.ravel() for part in np.indices((9, 2500)))
    exact = make_scorer(metric, queries, gallery).pairs(query, item).reshape(9, 2500)
    for k in (2500, 900):
        distances, indices = search(queries, gallery, k, metric=metric)
        np.testing.assert_array_equal(indices, np.argsort(-exact, axis=1, kind="stable")[:, :k])
        assert (np.diff(distances, axis=1) >= 0).all()


def test_memory_is_bounded_by_the_blocks():
    rng = np.random.default_rng(15)
    gallery = prepared(rng.normal(size=(20000, 8)).astype(np.float32), "cosine")
    queries = prepared(rng.normal(size=(1500, 8)).astype(np.float32), "cosine")
    tracemalloc.start()
    try:
        search(queries, gallery, 3, block_size=1024, query_block_size=128)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        distances, indices = search(
            queries.slice(0, 60), gallery, 20000, block_size=1024, query_block_size=128
        )
        full_peak = tracemalloc.get_traced_memory()[1] - distances.nbytes - indices.nbytes
    finally:
        tracemalloc.stop()
    tied = DescriptorSet(np.ones((40000, 4), dtype=np.float32) / 2)
    tracemalloc.start()
    try:
        _, indices = search(tied.slice(0, 64), tied, 3, block_size=1024)
        tied_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(indices, np.tile([0, 1, 2], (64, 1)))
    # Sorting all 64 x 40000 tied candidates at once would take 200 MB.
    assert tied_peak < 50e6
    # The product of all queries with the gallery alone would take 120 MB (float32).
    assert peak < 12e6
    assert full_peak < 12e6


def test_inputs_are_only_read():
    Q, G = data(16)
    for array in (Q, G):
        array.flags.writeable = False
    for metric in METRICS:
        for k in (2, 40):
            search(DescriptorSet(Q), DescriptorSet(G), k, metric=metric)
    unit_rows(Q)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=8))
def test_ragged_arange_concatenates_ranges(runs):
    starts, counts = np.array(runs, dtype=np.intp).reshape(-1, 2).T
    expected = [value for start, count in runs for value in range(start, start + count)]
    assert ragged_arange(starts, counts).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 8))
def test_blocks_of_region_sets_cover_every_item_once(counts, max_rows):
    offsets = np.concatenate([[0], np.cumsum(counts)])
    descriptors = DescriptorSet(np.arange(offsets[-1], dtype=float)[:, None], offsets)
    blocks = list(descriptors.blocks(max_rows))
    assert [item for start, stop in blocks for item in range(start, stop)] == list(range(len(counts)))
    for start, stop in blocks:
        part = descriptors.slice(start, stop)
        assert part.n_items == stop - start
        assert len(part.rows) <= max_rows or part.n_items == 1
        np.testing.assert_array_equal(part.rows, descriptors.take(np.arange(start, stop)).rows)
