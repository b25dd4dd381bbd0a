"""The cost model: its formulas against what they stand for, and shards against the whole gallery."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from skretrieval.retrieval import NearestNeighborsRetriever

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name):
    """A script of the benchmarks, which imports the modules beside it as Python finds them for a script."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return load("scale_model")


def gallery_with_ties(dtype, n=3000, d=24):
    """Rows of which many occur in several places, some of them in every shard."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, d)).astype(dtype)
    rows[n // 2 : n // 2 + 200] = rows[:200]
    rows[rng.choice(n, 60, replace=False)] = rows[5]
    return rows, np.concatenate([rows[:40], rng.normal(size=(30, d)).astype(dtype)])


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
@pytest.mark.parametrize("limits", [[0, 1500, 3000], [0, 90, 91, 1700, 3000], list(range(0, 3001, 300))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shards_give_the_ranking_of_the_whole(model, metric, limits, dtype):
    rows, queries = gallery_with_ties(dtype)
    k = 80
    expected = NearestNeighborsRetriever(k, metric=metric).fit(rows).kneighbors(queries)
    found = []
    for start, stop in pairwise(limits):
        shard = NearestNeighborsRetriever(metric=metric).fit(rows[start:stop])
        found.append(shard.kneighbors(queries, n_neighbors=min(k, stop - start)))
    distances, indices = model.merge(found, limits[:-1], k)
    np.testing.assert_array_equal(distances, expected[0])
    if dtype == np.float64:
        np.testing.assert_array_equal(indices, expected[1])
    assert model.same_ranking((distances, indices), expected)


def test_a_difference_that_is_no_tie_is_seen(model):
    distances, indices = np.array([[0.1, 0.2, 0.2, 0.3]]), np.array([[4, 1, 2, 3]])
    assert model.same_ranking((distances, indices[:, [0, 2, 1, 3]]), (distances, indices))
    assert not model.same_ranking((distances, indices[:, [1, 0, 2, 3]]), (distances, indices))
    assert not model.same_ranking((distances + 1e-9, indices), (distances, indices))


def test_a_line_goes_through_both_times(model):
    constant, slope = model.line(1000, 0.003, 4000, 0.009)
    assert slope == pytest.approx(2e-6)
    assert model.shards_seconds(1000, 1, constant, slope) == pytest.approx(0.003)
    assert model.shards_seconds(4000, 1, constant, slope) == pytest.approx(0.009)
    assert model.shards_seconds(4000, 3, constant, slope) == pytest.approx(0.009 + 2 * 0.001)
    # Measurements that no search can give: proportional to the second.
    assert model.line(1000, 0.01, 4000, 0.009) == pytest.approx((0, 0.009 / 4000))
    assert model.line(1000, 0.001, 4000, 0.009) == pytest.approx((0, 0.009 / 4000))


def test_an_exact_search_is_bound_by_reading_or_by_products(model):
    n, d, bandwidth, speed = 10**6, 512, 40e9, 200e9
    assert model.exact_seconds(n, d, 1, bandwidth, speed) == pytest.approx(2.048e9 / 40e9)
    assert model.exact_seconds(n, d, 1, bandwidth, speed, itemsize=2) == pytest.approx(1.024e9 / 40e9)
    assert model.exact_seconds(n, d, 1000, bandwidth, speed) == pytest.approx(1.024e12 / 200e9)
    even = model.queries_per_read(bandwidth, speed)
    assert model.exact_seconds(n, d, even, bandwidth, speed) == pytest.approx(2 * n * d * even / speed)
    assert 2 * n * d * even / speed == pytest.approx(model.array_bytes(n, d) / bandwidth)


def test_bytes_are_those_of_real_indexes(model):
    pytest.importorskip("faiss")
    n, d = 2000, 32
    rows = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    for params, expected in [
        ({"index": "hnsw", "M": 16, "ef_construction": 20}, model.hnsw_bytes(n, d, 16)),
        ({"index": "ivfpq", "m": 8, "nbits": 6}, model.ivfpq_bytes(n, d, 8, 6)),
    ]:
        retriever = NearestNeighborsRetriever(engine="faiss", engine_params=params).fit(rows)
        assert retriever._faiss.__getstate__()["_bytes"].nbytes == pytest.approx(expected, rel=0.02)


def test_growth(model):
    assert model.n_cells(10**6) == 2000
    assert model.n_cells(390) == 10
    assert model.ivfpq_seconds(10**7, 0.002, 10**5) == pytest.approx(0.02)
    assert model.hnsw_seconds(10**10, 0.002, 10**5) == pytest.approx(0.004)
    assert model.hnsw_build_seconds(10**10, 1.0, 10**5) == pytest.approx(2 * 10**5)
    # 25 rounds of k-means on 64 rows a cell, then every row once, each against 20,000 cells
    operations = 2 * 64 * 20_000 * (25 * 64 * 20_000 + 10**8)
    assert model.ivfpq_build_operations(10**8, 64) == pytest.approx(operations)
    assert model.machines(2.05e12, 256e9) == 11
    assert model.machines(1, 256e9) == 1
    assert model.sharded_seconds(0.5, 1, 10, 100) == 0.5
    assert model.sharded_seconds(0.5, 10, 1, 100) == pytest.approx(0.5 + 1e-3 + 1e-4)


def test_tables_replace_those_of_the_page():
    scale = load("scale")
    page = "before\n<!-- written by benchmarks/scale.py -->\nold\n<!-- to here -->\nafter\n"
    once = scale.with_tables(page, ["| new \\1 |"])
    assert "old" not in once
    assert once.count("| new \\1 |") == 1
    assert once.endswith("<!-- to here -->\nafter\n")
    assert scale.with_tables(once, ["| new \\1 |"]) == once
    with pytest.raises(ValueError, match="no place for the tables"):
        scale.with_tables("nothing", [])
