"""Galleries that grow and shrink, and labels of some of their items."""

import numpy as np
import pytest
from fixtures.distances import METRICS
from numpy.testing import assert_array_equal

from skretrieval.retrieval import NearestNeighborsRetriever


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
