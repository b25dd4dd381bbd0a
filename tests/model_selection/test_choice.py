"""When the default is left, and when it stays."""

import numpy as np
import pytest

from skretrieval.model_selection import choose_setting, mates_of, mates_of_given

N_OBJECTS, N_SHOTS = 14, 4


def similar(noise, seed, n=N_OBJECTS * N_SHOTS):
    """Similarities of photographs of objects that a network sees through noise."""
    rng = np.random.default_rng(seed)
    objects = np.random.default_rng(0).normal(size=(N_OBJECTS, 16))
    rows = np.repeat(objects, N_SHOTS, axis=0)[:n] + noise * rng.normal(size=(n, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def all_pairs(n_objects):
    return np.array(
        [
            (N_SHOTS * o + a, N_SHOTS * o + b)
            for o in range(n_objects)
            for a in range(N_SHOTS)
            for b in range(a + 1, N_SHOTS)
        ]
    )


SETTINGS = {"default": similar(2.0, 1), "better": similar(0.5, 2), "worse": similar(6.0, 3)}


def choose(pairs, settings=SETTINGS, n=N_OBJECTS * N_SHOTS, **params):
    mates = mates_of_given(pairs, n) if params.get("source") == "given" else mates_of(pairs, n)
    return choose_setting(settings.__getitem__, settings, "default", mates, **params)


@pytest.mark.parametrize("source", ["verified", "given"])
def test_a_clear_gain_on_enough_objects_is_taken(source):
    choice = choose(all_pairs(N_OBJECTS), source=source)
    assert choice.chosen == "better"
    assert choice.p_value < 0.01
    assert choice.scores["better"] > choice.scores["default"] > choice.scores["worse"]
    assert (choice.n_groups, choice.coverage) == (N_OBJECTS, 1.0)
    assert "better than the default" in choice.reason


def test_few_objects_change_nothing():
    choice = choose(all_pairs(9), source="given")
    assert choice.chosen == "default"
    assert "9 objects, at least 10" in choice.reason


def test_pairs_of_few_photographs_change_nothing():
    pairs = np.array([(N_SHOTS * o, N_SHOTS * o + 1) for o in range(13)])
    choice = choose(pairs)
    assert choice.coverage == 26 / 56
    assert choice.chosen == "default"
    assert "46% of the photographs" in choice.reason
    assert choose(pairs, source="given").chosen == "better"


def test_a_gain_that_may_be_chance_is_not_taken():
    settings = {"default": similar(1.0, 4), **{f"alike {i}": similar(1.0, 10 + i) for i in range(5)}}
    choice = choose(all_pairs(N_OBJECTS), settings)
    assert choice.chosen == "default"
    assert choice.p_value > 0.01 or choice.scores["default"] == max(choice.scores.values())


def test_a_small_gain_is_not_taken():
    """Significant, as each object gains, but of mates that the default finds nearly all."""
    better = similar(0.1, 8)
    slightly_worse = better.copy()
    for first in range(
        0, 56, N_SHOTS
    ):  # one mate of one photograph of each object comes behind four strangers
        strangers = np.sort(np.delete(better[first], np.arange(first, first + N_SHOTS)))[::-1]
        slightly_worse[first, first + 3] = strangers[3:5].mean()
    choice = choose(all_pairs(N_OBJECTS), {"default": slightly_worse, "better": better})
    assert choice.p_value < 0.01
    assert choice.chosen == "default"
    assert "hardly better, 1.000 against 0.985" in choice.reason


def test_what_the_default_does_for_the_others_weighs():
    """A setting that finds the verified mates and nothing else of what the default finds."""
    good = similar(0.3, 5)
    n_verified = 8 * N_SHOTS
    narrow = np.random.default_rng(6).random(good.shape)
    narrow[:n_verified, :n_verified] = similar(0.1, 7)[:n_verified, :n_verified] + 2
    settings = {"default": good, "narrow": narrow}
    choice = choose(all_pairs(8), settings)
    assert choice.scores["narrow"] < choice.scores["default"]
    assert choice.chosen == "default"


def test_without_pairs_the_default_stays():
    choice = choose(np.zeros((0, 2), np.int64))
    assert choice.chosen == "default"
    assert "0 verified pairs of 0 objects" in choice.reason
    assert choice.scores == {}


def test_only_those_asked_for_a_mate_count():
    asked = np.arange(0, 56, 4)
    choice = choose(all_pairs(N_OBJECTS), asked=asked)
    assert choice.coverage == 1.0
    assert choice.n_groups == N_OBJECTS


def test_an_unknown_default_is_an_error():
    mates = mates_of(all_pairs(3), 56)
    with pytest.raises(ValueError, match="'other' is none of the 3 settings"):
        choose_setting(SETTINGS.__getitem__, SETTINGS, "other", mates)
