"""Mates: how they are gathered, and how high they rank."""

import numpy as np
import pytest

from skretrieval.model_selection import candidate_pairs, mates_of, mates_of_given
from skretrieval.model_selection._evidence import both_ways, mate_scores


def clique(members):
    return [(a, b) for i, a in enumerate(members) for b in members[i + 1 :]]


def test_groups_are_objects_and_a_stray_pair_joins_nothing():
    pairs = np.array([*clique([0, 1, 2, 3]), *clique([4, 5, 6, 7]), (3, 4), (8, 9)])
    mates = mates_of(pairs, 11)
    assert mates.groups[:4].tolist() == [0] * 4
    assert mates.groups[4:8].tolist() == [4] * 4
    assert mates.groups[8:].tolist() == [8, 8, 10]
    assert (3, 4) not in set(map(tuple, mates.pairs.tolist()))
    assert len(mates.pairs) == len(pairs) - 1
    assert mates.has_mate().tolist() == [True] * 10 + [False]


def test_without_pairs_everybody_is_alone():
    mates = mates_of(np.zeros((0, 2), np.int64), 4)
    assert mates.groups.tolist() == [0, 1, 2, 3]
    assert not mates.has_mate().any()


def test_given_pairs_are_believed_and_chained():
    mates = mates_of_given(np.array([[3, 1], [1, 3], [1, 5], [0, 2]]), 6)
    assert mates.pairs.tolist() == [[0, 2], [1, 3], [1, 5]]
    assert mates.groups.tolist() == [0, 1, 0, 1, 4, 1]


def test_candidates_take_every_setting_in_turn():
    asked = np.array([0, 4])
    first = np.array([[1, 2, 3], [0, 1, 2]])
    second = np.array([[4, 1, 2], [3, 2, 1]])
    assert candidate_pairs([first, second], asked, 2).tolist() == [[0, 1], [0, 4], [3, 4]]
    assert candidate_pairs([first, second], asked, 3).tolist() == [[0, 1], [0, 2], [0, 4], [1, 4], [3, 4]]


def by_hand(similar, wanted, tolerance):
    n = len(similar)
    scores = [[] for _ in range(n)]
    for asking, mate in wanted:
        known = {asking, *(b for a, b in wanted if a == asking)}
        rank = 1.0
        for other in range(n):
            if other not in known:
                rank += similar[asking, other] > similar[asking, mate]
                rank += 0.5 * (similar[asking, other] == similar[asking, mate])
        scores[asking].append(1 - np.log(max(rank, tolerance) / tolerance) / np.log(n / tolerance))
    return np.array([np.mean(one) if one else np.nan for one in scores])


@pytest.mark.parametrize("tolerance", [1, 3])
def test_scores_are_those_counted_by_hand(tolerance):
    rng = np.random.default_rng(0)
    similar = rng.integers(0, 6, (12, 12)).astype(float)  # with ties
    wanted = both_ways(np.array([[0, 1], [0, 5], [7, 9]]))
    np.testing.assert_allclose(mate_scores(similar, wanted, tolerance), by_hand(similar, wanted, tolerance))


def test_other_mates_before_a_mate_cost_nothing():
    similar = np.array([[9, 5, 4, 1.0], [5, 9, 0, 0], [4, 0, 9, 0], [1, 0, 0, 9]])
    assert mate_scores(similar, np.array([[0, 1], [0, 2]]))[0] == 1
    assert mate_scores(similar, np.array([[0, 2]]))[0] < 1


def test_equal_similarities_are_no_success():
    assert mate_scores(np.ones((9, 9)), np.array([[0, 1]]))[0] < 0.4
