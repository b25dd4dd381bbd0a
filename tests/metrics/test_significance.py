"""The paired randomisation test against full enumeration, and the standard error."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import sem

from skretrieval.metrics import randomization_test, standard_error


def enumerate_exchanges(first, second, alternative):
    """Share of all assignments of each query's two scores that differ at least as much, in exact arithmetic."""
    observed = sum(first) - sum(second)
    hits = 0
    for exchanged in product([False, True], repeat=len(first)):
        difference = sum(
            b - a if swap else a - b for a, b, swap in zip(first, second, exchanged, strict=True)
        )
        hits += {
            "greater": difference >= observed,
            "less": difference <= observed,
            "two-sided": abs(difference) >= abs(observed),
        }[alternative]
    return hits / 2 ** len(first)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_few_queries_are_enumerated(alternative):
    rng = np.random.default_rng(0)
    for n in [1, 2, 3, 5, 8]:
        for _ in range(6):
            # Integers, so that the loop compares exactly; many ties, also between sums.
            first, second = rng.integers(0, 6, (2, n))
            result = randomization_test(first / 8, second / 8, alternative=alternative)
            assert result.p_value == pytest.approx(
                enumerate_exchanges(first.tolist(), second.tolist(), alternative), abs=1e-12
            )
            assert result.statistic == pytest.approx(np.mean(first / 8) - np.mean(second / 8), abs=1e-15)
            assert result.n_queries == n


def test_random_exchanges_approach_the_enumeration():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 100, (2, 12))
    second += 8
    exact = enumerate_exchanges(first.tolist(), second.tolist(), "two-sided")
    assert randomization_test(first, second).p_value == pytest.approx(exact, abs=1e-12)
    found = randomization_test(first, second, n_permutations=4000, random_state=0).p_value
    assert 0.05 < exact < 0.95
    assert found != exact
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_equal_and_missing_scores():
    rng = np.random.default_rng(2)
    first, second = rng.random((2, 10))
    expected = randomization_test(first, second)
    nan = np.nan
    found = randomization_test([*first, nan, 0.5, nan], [*second, 0.5, nan, nan])
    assert found == expected
    # Ties dilute the mean, but are evidence for neither system.
    ties = np.linspace(0, 1, 30)
    tied = randomization_test([*first, *ties], [*second, *ties])
    assert tied.p_value == expected.p_value
    assert tied.statistic == pytest.approx(expected.statistic * 10 / 40)
    assert tied.n_queries == 40
    assert randomization_test(first, first) == (0.0, 1.0, 10)
    assert randomization_test([0.7], [0.2]) == (pytest.approx(0.5), 1.0, 1)
    assert randomization_test([0.7], [0.2], alternative="greater").p_value == 0.5


def test_many_queries():
    rng = np.random.default_rng(3)
    second = rng.random(70)
    first = np.clip(second + 0.05 + 0.05 * rng.standard_normal(70), 0, 1)
    result = randomization_test(first, second, random_state=0)
    assert result.p_value == pytest.approx(2 / 10001)
    assert randomization_test(first, second, random_state=0) == result
    assert randomization_test(first, second, random_state=np.random.RandomState(0)) == result
    assert randomization_test(second, first, random_state=0).statistic == -result.statistic
    assert randomization_test(first, second, 500, 0, "greater").p_value == pytest.approx(1 / 501)
    assert randomization_test(first, second, 500, 0, "less").p_value == 1.0


def test_p_values_are_uniform_without_a_difference():
    rng = np.random.default_rng(4)
    p = [
        randomization_test(*rng.random((2, 20)), n_permutations=99, random_state=rng.integers(2**31)).p_value
        for _ in range(300)
    ]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 300))
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_errors_of_the_test():
    with pytest.raises(ValueError, match="alternative must be one of"):
        randomization_test([1, 2], [2, 1], alternative="better")
    with pytest.raises(ValueError, match="n_permutations must be at least 1"):
        randomization_test([1, 2], [2, 1], 0)
    with pytest.raises(ValueError, match="scores of 2 queries, but second of 3"):
        randomization_test([1, 2], [2, 1, 0])
    with pytest.raises(ValueError, match="No query has a score of both"):
        randomization_test([np.nan, 1], [1, np.nan])
    with pytest.raises(ValueError, match="second holds infinite scores"):
        randomization_test([0, 1], [1, np.inf])


def test_standard_error():
    scores = np.random.default_rng(0).random(30)
    assert standard_error(scores) == pytest.approx(sem(scores))
    assert standard_error([*scores, np.nan]) == pytest.approx(sem(scores))
    for few in ([], [0.5], [0.5, np.nan]):
        assert np.isnan(standard_error(few))
    with pytest.raises(ValueError, match="infinite"):
        standard_error([0, np.inf])
