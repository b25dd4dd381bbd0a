"""Sum pooling, SPoC, MAC and CroW: golden values and their special cases."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.maps import golden_map, make_map, make_signed_map

from skretrieval.pooling import CroWPooler, MACPooler, SPoCPooler, SumPooler


def pool(pooler, feature_map):
    return pooler.fit_transform([feature_map])[0]


@pytest.mark.parametrize(
    ("pooler", "expected"),
    [
        (SumPooler(), [121, 134, 90, 134]),
        (SPoCPooler(), [14.44839, 14.014396, 12.819581, 17.010408]),
        (SPoCPooler(center_prior=False), [121, 134, 90, 134]),
        (MACPooler(), [7, 7, 6, 7]),
    ],
    ids=["sum", "spoc", "spoc-no_prior", "mac"],
)
def test_golden(pooler, expected):
    assert_allclose(pool(pooler, golden_map()), expected, rtol=0, atol=6e-7)
    assert_allclose(pool(pooler, golden_map().astype(np.float32)), expected, rtol=2e-4)


def test_golden_crow():
    # printed without the eps = 1e-6 of the channel weight, which moves the sixth digit
    expected = [70.488597, 60.952242, 46.163198, 76.313045]
    assert_allclose(pool(CroWPooler(), golden_map()), expected, rtol=2e-6)


@pytest.mark.parametrize("pooler", [SumPooler, SPoCPooler, MACPooler])
def test_signed_maps_pass_through(pooler):
    reference = {SumPooler: ref.sum_pool, SPoCPooler: ref.spoc, MACPooler: ref.mac}[pooler]
    feature_map = make_signed_map(5, 6, 8, seed=1) - 0.5
    assert_allclose(
        pool(pooler(rectify=False), feature_map), reference(feature_map, rectify=False), rtol=1e-8
    )
    assert_allclose(pool(pooler(), feature_map), reference(feature_map), rtol=1e-8, atol=1e-12)
    assert (pool(pooler(rectify=False), -np.abs(feature_map)) < 0).all()


def test_crow_refuses_signed_maps():
    signed = make_signed_map(5, 6, 8, seed=1)
    with pytest.raises(ValueError, match=r"(?i)\b1\b.*negative|negative.*\b1\b"):
        CroWPooler(rectify=False).fit_transform([np.abs(signed), signed])
    assert_allclose(pool(CroWPooler(rectify=False), np.abs(signed)), ref.crow(np.abs(signed)), rtol=1e-8)


def test_maximum_is_exact():
    feature_map = make_map(5, 9, 7, seed=2).astype(np.float32)
    assert_array_equal(pool(MACPooler(), feature_map), feature_map.max(axis=(1, 2)))


def test_maximum_near_the_largest_float():
    """The sum of these is infinite; the map is not."""
    feature_map = np.full((2, 4, 4), 3e38, dtype=np.float32)
    assert_array_equal(pool(MACPooler(), feature_map), feature_map[:, 0, 0])


def test_prior_peaks_at_the_half_cell_centre():
    """One response per channel: the descriptor is the prior itself."""
    for height, width in [(4, 6), (5, 5), (1, 1), (1, 2), (3, 14)]:
        cells = np.eye(height * width).reshape(-1, height, width)
        prior = pool(SPoCPooler(), cells).reshape(height, width)
        assert_allclose(prior, prior[::-1, ::-1], rtol=1e-12)
        sigma = min(height, width) / 6
        i, j = np.unravel_index(prior.argmax(), prior.shape)
        squared = (i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2
        assert_allclose(prior.max(), np.exp(-squared / (2 * sigma**2)), rtol=1e-12)


def test_crow_on_an_all_equal_map():
    # Q = 1 for every channel: log K times c N^(3/4)
    expected = np.full(6, 0.3 * 35 * 35**-0.25 * np.log(6))
    assert_allclose(pool(CroWPooler(), np.full((6, 5, 7), 0.3)), expected, rtol=1e-8)


def test_crow_on_a_single_cell():
    # the channels with a response share the weight log(K')
    cell = np.array([0.0, 2.0, 0.0, 1.0, 5.0]).reshape(5, 1, 1)
    assert_allclose(pool(CroWPooler(), cell), cell.ravel() * np.log(3), rtol=1e-5)


def test_crow_weighs_rare_channels_up():
    feature_map = np.zeros((2, 4, 4))
    feature_map[0] = 1.0
    feature_map[1, 2, 2] = 16.0
    common, rare = pool(CroWPooler(), feature_map) / (feature_map * ref.crow_spatial(feature_map)).sum(
        axis=(1, 2)
    )
    assert common == pytest.approx(np.log(17 / 16), rel=1e-4)
    assert rare == pytest.approx(np.log(17), rel=1e-4)


@pytest.mark.parametrize(
    "pooler",
    [SumPooler(rectify="yes"), SPoCPooler(center_prior="no"), MACPooler(rectify=None), CroWPooler(rectify=2)],
    ids=lambda pooler: type(pooler).__name__,
)
def test_parameters_out_of_range(pooler):
    with pytest.raises(ValueError, match=r"rectify|center_prior"):
        pooler.fit([golden_map()])
