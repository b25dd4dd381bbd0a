"""Digits of exact search: zero rows, offsets, small distances, many dimensions, bounds of coarse scores."""

import numpy as np
import pytest
from fixtures.distances import METRICS
from fixtures.exact_search import data, prepared

from skretrieval._linalg import unit_rows
from skretrieval.retrieval._search import _scorer
from skretrieval.retrieval._search._exact import make_scorer, search

pytestmark = pytest.mark.usefixtures("gallery_kind")


def test_zero_vectors_have_cosine_distance_one():
    G = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [0.0, 0.0], [1.0, -1.0]])
    queries = np.array([[2.0, 2.0], [0.0, 0.0]])
    for k in (5, 1):
        distances, indices = search(
            prepared(queries, "cosine"), prepared(np.repeat(G, 4, axis=0), "cosine"), k
        )
        assert indices[0, 0] == 4
        assert indices[1, 0] == 0
        np.testing.assert_array_equal(distances[1], np.ones(k))
    full = search(prepared(queries, "cosine"), prepared(G, "cosine"), 5)
    np.testing.assert_allclose(full[0][0], [0, 1, 1, 1, 2], atol=1e-15)
    np.testing.assert_array_equal(full[1], [[1, 0, 3, 4, 2], [0, 1, 2, 3, 4]])


def test_unit_rows_are_rounded_once_and_alike_everywhere(slow):
    rng = np.random.default_rng(19)
    rows = np.concatenate([rng.normal(size=(3, 1001)), np.zeros((1, 1001))]).astype(np.float32)
    which = rng.integers(0, 4, size=2500)
    found = unit_rows(rows[which])
    np.testing.assert_array_equal(found, unit_rows(rows)[which])
    expected = np.array([slow.l2(row.astype(np.float64)) for row in rows])
    # Correctly rounded, but where the float64 value is a tie within its own error.
    wrong = unit_rows(rows) != expected.astype(np.float32)
    assert wrong.mean() < 1e-3


@pytest.mark.parametrize("k", [2, 60])
def test_scale_does_not_matter_for_the_cosine(k):
    Q, G = data(9, n=60, d=8, dtype=np.float32)
    expected = search(prepared(Q, "cosine"), prepared(G, "cosine"), k)
    # Powers of two, so that the rows keep their digits; the squares would over- or underflow in float32.
    for factor in (2.0**-100, 2.0**100):
        factor = np.float32(factor)
        found = search(prepared(Q * factor, "cosine"), prepared(G * factor, "cosine"), k)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], atol=1e-7)


@pytest.mark.parametrize("k", [2, 40])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_a_common_offset_costs_no_digits(slow, metric, k):
    Q, G = data(10)
    Q, G = Q + 1e6, G + 1e6
    found = search(prepared(Q, metric), prepared(G, metric), k, metric=metric)
    slow.assert_ranking(found, slow.distances(Q, G, metric), k, 1e-13)


@pytest.mark.parametrize("k", [2, 40])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_small_distances_keep_their_digits(slow, metric, k):
    Q, G = data(11)
    G[:7] = Q + 1e-9 * np.random.default_rng(12).normal(size=Q.shape)
    found = search(prepared(Q, metric), prepared(G, metric), k, metric=metric)
    expected = slow.distances(Q, G, metric)
    np.testing.assert_array_equal(found[1][:, 0], np.arange(7))
    np.testing.assert_allclose(found[0][:, 0], np.diag(expected), rtol=1e-12)


def test_many_dimensions_are_multiplied_in_float64(slow):
    # The bound of a float32 product of 9,000 numbers is too weak; the same neighbours must come out.
    Q, G = data(13, n=24, m=2, d=9000, dtype=np.float32)
    for metric in METRICS:
        scorer = make_scorer(metric, prepared(Q, metric), prepared(G, metric))
        assert scorer.coarse(0, 24).dtype == np.float64
        found = search(prepared(Q, metric), prepared(G, metric), 2, metric=metric)
        slow.assert_ranking(found, slow.distances(Q, G, metric), 2, 3e-6)


@pytest.mark.parametrize("kind", ["rows", "far gallery", "unlike regions"])
@pytest.mark.parametrize("metric", METRICS)
def test_coarse_scores_stay_within_their_bound(metric, kind):
    # The proof that no neighbour is missed rests on it: what is exact never falls below the loosened score.
    Q, G = data(14, n=500, m=20, d=700, dtype=np.float32)
    G += np.float32(3)
    if kind == "far gallery":
        Q = G.mean(axis=0) + np.float32(1e-3) * Q
        G[100:] *= np.float32(1e3)  # after the rows by which the gallery is centred
    elif kind == "unlike regions":
        Q = [np.stack([row * np.float32(1e3), G[0] + np.float32(0.5)]) for row in Q]
    queries, gallery = prepared(Q, metric), prepared(G, metric)
    scorer = make_scorer(metric, queries, gallery)
    coarse = scorer.coarse(0, 500).astype(np.float64)
    query, item = (part.ravel() for part in np.indices((20, 500)))
    exact = scorer.pairs(query, item).reshape(20, 500)
    fine = scorer.fine(0, 500)
    slack = np.stack([column - scorer.loosen(column) for column in coarse.T], axis=1)
    assert (slack > 0).all()
    assert (np.abs(coarse - exact) <= slack / 2).all()
    error, near = scorer.fine_error()
    assert (np.abs(fine - exact) <= error).all()
    assert error.shape == near.shape == (20, 1)


@pytest.mark.parametrize("regions", [False, True])
def test_euclidean_bound_is_about_centred_rows(monkeypatch, make_regions, regions):
    # However far from the origin, and by the largest row of query and gallery.
    monkeypatch.setattr(_scorer, "_SMALL_GALLERY", 0)
    Q = make_regions(5, 6, seed=17) if regions else data(17)[0]
    G = data(18)[1]
    near = make_scorer("euclidean", prepared(Q, "euclidean"), prepared(G, "euclidean"))
    far = make_scorer(
        "euclidean",
        prepared([item + 1e6 for item in Q] if regions else Q + 1e6, "euclidean"),
        prepared(G + 1e6, "euclidean"),
    )
    for scorer in (near, far):
        scorer.coarse(0, 40)
    np.testing.assert_allclose(far.fine_error()[0], near.fine_error()[0], rtol=1e-6)
    centred = G - G.mean(axis=0)
    items = Q if regions else Q[:, None]
    largest = [max(((row - G.mean(axis=0)) ** 2).sum() for row in item) for item in items]
    scale = np.array(largest) + (centred**2).sum(axis=1).max()
    np.testing.assert_allclose(near.fine_error()[0].ravel() / scale, (6 + 16) * 2.0**-52, rtol=1e-9)
