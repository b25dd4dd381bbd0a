"""Every pooler and every setting against the brute-force float64 reference, on every kind of map."""

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pooling.cases import LEARNED
from references.maps import SHAPES, make_map, make_ragged, special_maps
from sklearn.base import clone


def representable(feature_map):
    """Numbers that float32 holds exactly, so that one reference serves both precisions."""
    return feature_map.astype(np.float32).astype(np.float64)


@cache
def ragged_maps():
    """Maps of every shape; two of a kind interleaved, so that a batch has to be put back in order."""
    maps = make_ragged(5, SHAPES[:-1], seed=20)
    again = [make_map(5, 7, 7, seed=50), make_map(5, 2, 5, seed=51), maps[0] + 0.5]
    return [representable(feature_map) for feature_map in [*maps, *again]]


@cache
def special():
    return {kind: representable(feature_map) for kind, feature_map in special_maps().items()}


def assert_agrees(pooler, maps, expected):
    """1e-8 in float64 and 2e-4 in float32, both relative.

    In float32 an entry that is small by cancellation (the logarithm of almost 1) is measured against the largest of
    its descriptor.
    """
    expected = np.asarray(expected)
    double = clone(pooler).fit_transform(maps)
    assert double.dtype == np.float64
    assert_allclose(double, expected, rtol=1e-8, atol=1e-12)
    single = clone(pooler).fit_transform([feature_map.astype(np.float32) for feature_map in maps])
    assert single.dtype == np.float32
    tolerance = 2e-4 * np.abs(expected) + 1e-6 * np.abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_array_less(np.abs(single - expected) - tolerance, 1e-30)


def test_ragged_list(variant):
    maps = ragged_maps()
    assert_agrees(variant.pooler, maps, [variant.reference(feature_map) for feature_map in maps])


@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
def test_array(case, shape):
    maps = np.stack([representable(make_map(2, *shape, seed=seed)) for seed in range(2)])
    expected = [case.reference(feature_map) for feature_map in maps]
    double = clone(case.pooler).fit_transform(maps)
    assert double.dtype == np.float64
    assert_allclose(double, expected, rtol=1e-8, atol=1e-12)
    single = clone(case.pooler).fit_transform(maps.astype(np.float32))
    assert single.dtype == np.float32
    assert_allclose(single, expected, rtol=2e-4, atol=1e-6 * np.max(expected))


@pytest.mark.parametrize("kind", sorted(special()))
def test_special_maps(case, kind):
    """One map alone, with the papers' settings."""
    feature_map = special()[kind]
    assert_agrees(case.pooler, [feature_map], [case.reference(feature_map)])


def test_special_maps_together(variant):
    """All in one list, where a zero or a huge map must not touch its neighbours, with any settings."""
    maps = [feature_map for kind, feature_map in special().items() if kind != "one_channel"]
    assert_agrees(variant.pooler, maps, [variant.reference(feature_map) for feature_map in maps])


def test_one_channel(variant):
    """log(1) = 0 where the channel weight is an inverse frequency: zero up to the round-off of the logarithm."""
    for shape in [(1, 1), (1, 6), (3, 14), (7, 7)]:
        feature_map = representable(make_map(1, *shape, seed=4))
        expected = variant.reference(feature_map)
        round_off = 4 * feature_map.sum() * max(1.0, getattr(variant.pooler, "rho", 1.0))
        if variant.name == "sjw-none":
            round_off *= 255 * feature_map[0].size ** 2
        for dtype, rtol in [(np.float64, 1e-8), (np.float32, 2e-4)]:
            actual = clone(variant.pooler).fit_transform([feature_map.astype(dtype)])
            assert actual.shape == (1, 1)
            assert_allclose(actual[0], expected, rtol=rtol, atol=np.finfo(dtype).eps * round_off)


@pytest.mark.parametrize(
    "learned", [case for case in LEARNED if case.reference], ids=lambda learned: learned.name
)
def test_what_was_learned_is_applied(learned):
    maps = ragged_maps()
    pooler = learned.make().fit(maps)
    reference = learned.reference(pooler)
    assert_allclose(pooler.transform(maps), [reference(own) for own in maps], rtol=1e-8, atol=1e-12)


def test_many_channels(case):
    """As many channels as a network has: blocks of channels must not change the result."""
    feature_map = make_map(130, 9, 13, seed=8, density=0.2)
    actual = clone(case.pooler).fit_transform([feature_map, feature_map[:, :, ::-1].copy()])
    assert_allclose(actual[0], case.reference(feature_map), rtol=1e-8, atol=1e-12)
