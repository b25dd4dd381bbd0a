"""Power means over the whole map and over the regions of the grid: GeM and GR-MAC."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import pooling as ref
from references.maps import golden_map, make_map, make_signed_map

from skretrieval.pooling import GeMPooler, GRMACPooler, MACPooler

BOTH = pytest.mark.parametrize(
    ("pooler", "reference"), [(GeMPooler, ref.gem), (GRMACPooler, ref.grmac)], ids=["gem", "grmac"]
)


@pytest.mark.parametrize(
    ("pooler", "expected"),
    [
        (GeMPooler(), [4.286687, 4.187276, 3.369332, 4.454969]),
        (GeMPooler(p=math.inf), [7, 7, 6, 7]),
        (GRMACPooler(), [84.584174, 82.41878, 68.453477, 87.930632]),
        (GRMACPooler(region_norm="l2"), [10.358686, 10.101389, 8.394065, 10.785884]),
        (GRMACPooler(p=math.inf, region_norm="l2"), [10.493293, 10.175501, 8.725071, 10.409685]),
    ],
    ids=["gem", "gem-inf", "grmac", "grmac-l2", "grmac-inf-l2"],
)
def test_golden(pooler, expected):
    assert_allclose(pooler.fit_transform([golden_map()])[0], expected, rtol=0, atol=6e-7)
    assert_allclose(pooler.fit_transform([golden_map().astype(np.float32)])[0], expected, rtol=2e-4)


@BOTH
@pytest.mark.parametrize("p", [9.0, 20.0, 64.0, 300.0])
def test_large_powers_neither_overflow_nor_vanish(pooler, reference, p):
    feature_map = make_map(3, 5, 6, seed=1)
    feature_map *= np.array([1e-4, 1.0, 1e4])[:, None, None]
    feature_map = feature_map.astype(np.float32)  # 1e4^20 is beyond float32, 1e-4^20 below it
    expected = reference(feature_map, p=p)
    assert_allclose(pooler(p=p).fit_transform([feature_map])[0], expected, rtol=2e-4)
    assert_allclose(pooler(p=p).fit_transform([feature_map.astype(np.float64)])[0], expected, rtol=1e-8)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-15, 1e-13, 1e13, 1e15])
def test_cubes_of_extreme_responses(pooler, reference, dtype, scale):
    feature_map = (make_map(3, 5, 6, seed=1) * scale).astype(dtype)
    actual = pooler().fit_transform([feature_map])[0]
    assert_allclose(actual, reference(feature_map), rtol=2e-4)


@BOTH
@pytest.mark.parametrize("p", [1, 2, 3, 4, 5.0, 9, 12, math.inf])
def test_signed_maps_with_an_integer_power(pooler, reference, p):
    feature_map = make_signed_map(3, 6, 8, seed=2)
    actual = pooler(p=p, rectify=False).fit_transform([feature_map])[0]
    assert_allclose(actual, reference(feature_map, p=p, rectify=False), rtol=1e-8)


@BOTH
@pytest.mark.parametrize("p", [1.5, 2.7, 3.5, 10.5])
def test_signed_maps_have_no_fractional_power(pooler, reference, p):
    feature_map = make_signed_map(3, 4, 4, seed=2)
    with pytest.raises(ValueError, match=r"(?i)\b1\b.*negative|negative.*\b1\b"):
        pooler(p=p, rectify=False).fit_transform([np.abs(feature_map), feature_map])
    actual = pooler(p=p, rectify=False).fit_transform([np.abs(feature_map)])[0]
    assert_allclose(actual, reference(np.abs(feature_map), p=p), rtol=1e-8)


@BOTH
@pytest.mark.parametrize("p", [0.0, 0.5, -1.0, -math.inf, math.nan, "max", None])
def test_power_out_of_range(pooler, reference, p):
    with pytest.raises(ValueError, match=r"'?p'?"):
        pooler(p=p).fit([golden_map()])


def test_empty_region_is_zero_not_the_clamp():
    """A clamp at 1e-6 would turn a channel without responses into 1e-6 and an empty region into a unit vector."""
    feature_map = np.zeros((4, 6, 8))
    feature_map[:, :, :2] = 1.0
    assert_allclose(
        GRMACPooler(region_norm="l2").fit_transform([feature_map])[0],
        ref.grmac(feature_map, region_norm="l2"),
    )
    assert GeMPooler().fit_transform([np.zeros((2, 3, 3))]).tolist() == [[0.0, 0.0]]


def test_infinite_power_is_the_maximum_bit_for_bit():
    feature_map = make_signed_map(5, 7, 9, seed=3)
    for rectify in (True, False):
        pooled = GeMPooler(p=math.inf, rectify=rectify).fit_transform([feature_map])
        np.testing.assert_array_equal(pooled, MACPooler(rectify=rectify).fit_transform([feature_map]))


@pytest.mark.parametrize(
    "kwargs", [{"n_levels": 0}, {"n_levels": 2.5}, {"region_norm": "l1"}, {"include_global": "yes"}], ids=str
)
def test_grmac_parameters_out_of_range(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        GRMACPooler(**kwargs).fit([golden_map()])
