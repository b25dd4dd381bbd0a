"""Searches for gallery items: what is left out, what wrappers know, and the ranks of a label."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion, _label_ranks

KINDS = ["plain", "regions", "expansion", "without itself", "nested"]


def make(kind, seed=0):
    """A fitted retriever and the gallery it was fitted to, with duplicates and distractors."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(90, 6)), rng.integers(0, 12, 90)
    X[1::9], y[2::11] = X[::9], -1
    retriever = NearestNeighborsRetriever(5)
    if kind == "regions":
        X = list(X.reshape(90, 2, 3))
    elif kind != "plain":
        retriever = QueryExpansion(retriever, 3, exclude_self=kind != "expansion")
        if kind == "nested":
            retriever = QueryExpansion(retriever, 2)
    return retriever.fit(X, y), X, y


def some(X, items):
    return [X[i] for i in items] if isinstance(X, list) else X[items]


def ranks_by_hand(retriever, X, items, y, labels, *, leave_out):
    """Ranks of the label, read from whole rankings with `own`, one query after the other."""
    ranking = retriever.search(X, len(labels), own=items)[1]
    found = []
    for query, (row, own, label) in enumerate(zip(ranking, items, y)):
        row = [item for item in row if not leave_out or item != own]
        found += [(query, rank) for rank, item in enumerate(row) if labels[item] == label != -1]
    return np.array(found).reshape(-1, 2).T


@pytest.mark.parametrize("kind", KINDS)
def test_without_keywords_it_is_kneighbors(kind):
    retriever, X, _ = make(kind)
    for given in (None, some(X, [0, 5, 7])):
        for found, expected in zip(retriever.search(given, 4), retriever.kneighbors(given, 4)):
            assert_array_equal(found, expected)
    assert retriever.search(X)[1].shape == (90, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_excluded_items_are_left_out(kind):
    retriever, X, _ = make(kind)
    items = np.array([0, 1, 9, 44, 20, 89])
    queries = some(X, items)
    known = items.copy()
    known[4] = -1
    distances, indices = retriever.search(queries, 89, exclude=known)
    whole = retriever.search(queries, 90, own=known)
    for query, item in enumerate(known):
        keep = whole[1][query] != item
        assert_array_equal(indices[query], whole[1][query][keep][:89])
        assert_allclose(distances[query], whole[0][query][keep][:89], atol=1e-14)
    assert_array_equal(retriever.search(queries, 3, exclude=known)[1], indices[:, :3])
    # Nothing is excluded: the whole gallery may be asked for.
    assert retriever.search(queries, 90, exclude=np.full(6, -1))[1].shape == (6, 90)


def test_gallery_items_as_queries_know_what_they_are():
    retriever, X, _ = make("without itself")
    everyone = np.arange(90)
    for found, expected in zip(retriever.search(None, 7), retriever.search(X, 7, exclude=everyone)):
        assert_array_equal(found, expected)
    own = retriever.search(None, 90, own=everyone)[1]
    assert_array_equal(own, retriever.search(X, 90, own=everyone)[1])
    assert (np.sort(own) == everyone).all()


def test_only_a_wrapper_that_leaves_itself_out_uses_own():
    wrong = (np.arange(6) + 40) % 90
    for kind in ("plain", "expansion"):
        retriever, X, _ = make(kind)
        for found, expected in zip(retriever.search(X[:6], 8, own=wrong), retriever.search(X[:6], 8)):
            assert_array_equal(found, expected)
    for kind in ("without itself", "nested"):
        retriever, X, _ = make(kind)
        # What has distance zero is the query itself, of two such items the first, unless one is told.
        first = np.array([0, 0, 2, 3, 4, 5])
        untold = retriever.search(X[:6], 8)
        for found, expected in zip(retriever.search(X[:6], 8, own=first), untold):
            assert_array_equal(found, expected)
        told = retriever.search(X[:6], 8, own=np.full(6, -1))[0]
        assert not np.array_equal(told, untold[0])


@pytest.mark.parametrize("share", [0, 10**9])  # counted, and read from rankings
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_of_a_label(monkeypatch, kind, share):
    monkeypatch.setattr(_label_ranks, "_COUNTED_SHARE", share)
    retriever, X, labels = make(kind)
    items = np.array([0, 2, 9, 10, 44, 20, 89, 13])
    y = labels[items]
    y[-1] = labels[14]  # not the label of the item itself
    queries, known = some(X, items), items.copy()
    known[3] = -1
    for name, leave_out in (("own", False), ("exclude", True)):
        query, ranks = retriever.ranks_of_label(queries, y, **{name: known})
        expected = ranks_by_hand(retriever, queries, known, y, labels, leave_out=leave_out)
        assert_array_equal([query, ranks], expected)
        assert 10 < len(ranks) < 200
    # The gallery itself.
    query, ranks = retriever.ranks_of_label()
    everyone = np.arange(90)
    assert_array_equal([query, ranks], ranks_by_hand(retriever, X, everyone, labels, labels, leave_out=True))
    names = np.array([f"object {label}" for label in labels])
    retriever.fit(X, names)
    kept = labels != -1
    found = retriever.ranks_of_label(some(X, np.flatnonzero(kept)), names[kept], exclude=everyone[kept])
    assert_array_equal(np.flatnonzero(kept)[found[0]], query)
    assert_array_equal(found[1], ranks)


def test_a_label_that_nobody_else_has():
    retriever = NearestNeighborsRetriever().fit(np.eye(3), [0, 1, 1])
    assert_array_equal(retriever.ranks_of_label(), [[1, 2], [1, 1]])
    query, ranks = retriever.ranks_of_label(np.eye(3), [7, -1, 8])
    assert query.shape == ranks.shape == (0,)
    assert query.dtype == ranks.dtype == np.intp


def test_errors():
    retriever, X, y = make("without itself")
    with pytest.raises(NotFittedError):
        NearestNeighborsRetriever().search(X)
    with pytest.raises(ValueError, match=r"Give exclude or own, not both"):
        retriever.search(X[:2], exclude=[0, 1], own=[0, 1])
    with pytest.raises(
        ValueError, match=r"exclude must hold one integer for each of 2 queries, got .* \(3,\)\."
    ):
        retriever.search(X[:2], exclude=[0, 1, 2])
    with pytest.raises(
        ValueError, match=r"own must hold one integer for each of 2 queries, got an array of float64"
    ):
        retriever.search(X[:2], own=[0.0, 1.0])
    for bad in (90, -2):
        with pytest.raises(
            IndexError, match=rf"Query 1: item {bad} of exclude is outside the gallery of 90 items"
        ):
            retriever.search(X[:2], exclude=[0, bad])
    with pytest.raises(
        ValueError, match=r"n_neighbors=90 is larger than the gallery of 90 item\(s\), of which 89"
    ):
        retriever.search(X[:2], 90, exclude=[0, 1])
    with pytest.raises(ValueError, match=r"ranks_of_label needs y, the labels of the queries"):
        retriever.ranks_of_label(X[:2])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        retriever.ranks_of_label(X[:2], y[:3])
    with pytest.raises(ValueError, match=r"ranks_of_label needs the labels of the gallery: fit with y\."):
        NearestNeighborsRetriever().fit(X).ranks_of_label()
