"""Re-ranking against one plain search of the same queries, its named baseline.

70 queries; clustered float32 unit vectors: 5,000 x 512 for k-reciprocal, 100,000 x 2048 for SuperGlobal.
"""

from functools import cache

import numpy as np
import pytest

from skretrieval.retrieval import KReciprocalReranker, NearestNeighborsRetriever, SuperGlobalReranker

N_QUERIES, PER_CLUSTER = 70, 50
CASES = {
    "k-reciprocal, 5,000 x 512": (KReciprocalReranker, 5_000, 512),
    "SuperGlobal, 100,000 x 2048": (SuperGlobalReranker, 100_000, 2048),
}


@cache
def searches(name):
    """Plain search, re-ranked search, queries."""
    kind, n, d = CASES[name]
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n // PER_CLUSTER, d), dtype=np.float32)
    X = centres[rng.integers(len(centres), size=n + N_QUERIES)]
    X += rng.standard_normal(X.shape, dtype=np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    plain = NearestNeighborsRetriever()
    return plain.fit(X[:n]), kind(plain).fit(X[:n]), X[n:]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("which", ["plain search", "re-ranked"])
def test_rerank(benchmark, name, which):
    plain, reranked, queries = searches(name)
    benchmark.group = name
    benchmark(plain.predict if which == "plain search" else reranked.predict, queries)
