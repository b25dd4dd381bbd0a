"""The score of a retriever: mean average precision over queries, and distractors."""

import numpy as np
import pytest
from fixtures.distances import METRICS
from sklearn.exceptions import UndefinedMetricWarning

from skretrieval.metrics import leave_one_out_map
from skretrieval.retrieval import NearestNeighborsRetriever


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
