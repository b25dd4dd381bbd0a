"""Terms of the grammar beyond the papers' poolers: what the comparison with the references does not show."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import terms
from references.maps import make_map, make_signed_map
from torch.nn import functional

from skretrieval.pooling import GeMPooler, WeightedPooler
from skretrieval.pooling._grammar._reductions import mirrored
from skretrieval.pooling._grammar._spatial import activation_norm, scda


def picture(*rows):
    """A map of one channel from a drawing: '#' is 9, '.' is 1."""
    return torch.tensor([[[9.0 if letter == "#" else 1.0 for letter in row] for row in rows]])


def drawn(mask):
    return ["".join(".#"[int(value)] for value in row) for row in mask]


def test_scda_takes_the_largest_part():
    (mask,) = scda(picture("##..#", "...##", "#..##", "#....")[None])
    assert drawn(mask) == ["....#", "...##", "...##", "....."]


def test_scda_of_parts_of_equal_size_takes_the_first_row_by_row():
    (mask,) = scda(picture("...##", "##...", "##...", "...##")[None])
    assert drawn(mask) == [".....", "##...", "##...", "....."]
    (mask,) = scda(picture("....#", "##..#", ".....", "##...")[None])
    assert drawn(mask) == ["....#", "....#", ".....", "....."]


def test_scda_corners_connect_only_when_asked():
    maps = picture("#...#", ".#..#", "..#..", ".....")[None]
    assert drawn(scda(maps)[0]) == ["....#", "....#", ".....", "....."]
    assert drawn(scda(maps, connectivity=8)[0]) == ["#....", ".#...", "..#..", "....."]
    with pytest.raises(ValueError, match="connectivity must be 4 or 8, got 6"):
        WeightedPooler("scda", spatial_params={"connectivity": 6}).fit([maps[0].numpy()])


def test_scda_of_many_maps_is_that_of_each():
    """Parts at the same place in maps that follow one another do not grow together."""
    maps = torch.from_numpy(np.stack([make_map(1, 6, 7, seed=seed, density=0.6) for seed in range(20)]))
    together = scda(maps)
    for one, mask in zip(maps, together, strict=True):
        assert_array_equal(scda(one[None])[0], mask)
        assert_array_equal(mask, terms.scda_mask(one.numpy()))
    assert not torch.equal(together, (maps[:, 0] > maps[:, 0].mean(dim=(1, 2), keepdim=True)).double())


@pytest.mark.parametrize("value", [0.0, 0.1, 3e30, -2.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (24, 31)])
def test_scda_keeps_a_constant_map(value, shape):
    assert bool((scda(torch.full((2, 130, *shape), value)) == 1).all())


def test_scda_of_signed_maps_follows_the_sums():
    signed = torch.from_numpy(make_signed_map(5, 6, 8, seed=3))[None] - 2
    assert_array_equal(scda(signed)[0], terms.scda_mask(signed[0].numpy()))


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e-14, 1e-10, 1.0, 1e10, 1e14, 1e20, 1e36])
def test_activation_norm_of_any_scale(scale):
    maps = torch.from_numpy(make_signed_map(4, 3, 5)).float() * scale
    expected = terms.activation_norm_weights(maps.double().numpy())
    if not 1e-11 < scale < 1e11:  # weights times activations would leave float32: relative to the largest
        expected = expected / expected.max()
    # beside others in a batch
    batch = torch.stack([maps, torch.zeros_like(maps), torch.ones_like(maps)])
    weights = activation_norm(batch)
    assert_allclose(weights[0], expected, rtol=1e-5)
    assert_array_equal(weights[1], 0)
    assert_allclose(weights[2], 2, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("regions", ["whole", "rmac"])
def test_activation_norm_descriptors_point_as_in_double_precision(regions, scale):
    maps = np.stack([make_map(6, 9, 7, seed=seed) for seed in range(3)]).astype(np.float32)
    maps = np.concatenate([np.float32(scale) * maps, maps])
    pooler = WeightedPooler("activation_norm", regions=regions)
    single, double = (
        pooler.fit_transform(maps.astype(dtype)).astype(np.float64) for dtype in (np.float32, np.float64)
    )
    single, double = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (single, double))
    assert_allclose(single, double, rtol=2e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Power means


def signed(p, **params):
    return WeightedPooler(reduce="signed_power_mean", reduce_params={"p": p}, **{"rectify": False, **params})


@pytest.mark.parametrize("reduce", ["signed_power_mean", "regional_power_mean"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("p", [2.5, 30.0])
@pytest.mark.parametrize("regions", ["whole", "rmac"])
def test_nothing_overflows(reduce, scale, p, regions):
    feature_map = make_map(4, 6, 9).astype(np.float32)
    params = {"p": p} if reduce == "signed_power_mean" else {"p": p, "region_p": p}
    pooler = WeightedPooler(reduce=reduce, reduce_params=params, regions=regions)
    plain = pooler.fit_transform([feature_map])
    assert plain.dtype == np.float32
    scaled = pooler.fit_transform([feature_map * np.float32(scale)])
    assert_allclose(scaled / np.float32(scale), plain, rtol=1e-4)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 4.6, 11])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_signed_power_mean_is_odd_and_gem_for_what_is_not_negative(p, dtype):
    signed_map = make_signed_map(20, 6, 8, seed=1).astype(dtype)
    plain, negated = signed(p).fit_transform([signed_map, -signed_map])
    assert plain.dtype == dtype
    rtol = 1e-10 if dtype == np.float64 else 1e-5
    assert_allclose(negated, -plain, rtol=rtol)
    assert (plain < 0).any()
    assert (plain > 0).any()
    rectified = signed(p, rectify=True).fit_transform([signed_map])
    assert_allclose(rectified, GeMPooler(p).fit_transform([signed_map]), rtol=rtol)


@pytest.mark.parametrize("p", [1.5, 3, 20.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_signs_that_cancel_leave_nothing(p, dtype):
    half = make_signed_map(3, 5, 6, seed=2).astype(dtype)
    cancelling = np.concatenate([half, -half[:, ::-1, ::-1]], axis=2)
    for scale in (1, 1e12):
        assert not signed(p).fit_transform([cancelling * dtype(scale)]).any()


@pytest.mark.parametrize("p", [0.5, 0, np.inf, np.nan])
def test_exponents_that_the_signed_power_mean_refuses(p):
    with pytest.raises(ValueError, match="p must be finite and at least 1"):
        signed(p).fit([make_signed_map(2, 3, 3)])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"p": 0.5}, "p must be at least 1"),
        ({"region_p": 0.5}, "region_p must be at least 1"),
        ({"window": 4}, "window must be an odd number"),
        ({"window": 0}, "window must be an odd number"),
        ({"size": 5}, "size"),
    ],
    ids=str,
)
def test_bad_regional_parameters(params, match):
    with pytest.raises((ValueError, TypeError), match=match):
        WeightedPooler(reduce="regional_power_mean", reduce_params=params).fit([make_map(2, 3, 3)])


@pytest.mark.parametrize("params", [{}, {"p": 3}, {"region_p": 3}], ids=str)
def test_regional_power_mean_refuses_roots_of_negative_numbers(params):
    pooler = WeightedPooler(reduce="regional_power_mean", reduce_params=params, rectify=False)
    with pytest.raises(ValueError, match="Entry 1: negative"):
        pooler.fit_transform([make_map(3, 4, 5), make_signed_map(3, 4, 5)])
    whole = WeightedPooler(reduce="regional_power_mean", reduce_params={"p": 3, "region_p": 1}, rectify=False)
    assert np.isfinite(whole.fit_transform([make_signed_map(3, 4, 5)])).all()


def test_regional_power_mean_is_that_of_the_paper():
    """The paper's form: mirrored, divided by the root of the window's cells, p-norm pooling, mean with itself."""
    maps = torch.from_numpy(np.stack([make_map(6, 9, 12, seed=seed) for seed in range(2)]))
    mirrored_maps = functional.pad(maps / 25 ** (1 / 2.5), (2, 2, 2, 2), mode="reflect")
    mixed = 0.5 * functional.lp_pool2d(mirrored_maps, 2.5, 5, stride=1) + 0.5 * maps
    expected = mixed.pow(4.6).mean(dim=(2, 3)).pow(1 / 4.6)
    assert_allclose(WeightedPooler(reduce="regional_power_mean").fit_transform(maps), expected, rtol=1e-10)


@pytest.mark.parametrize("margin", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_mirrored_is_numpys_reflection(size, margin):
    assert_array_equal(mirrored(size, margin), np.pad(np.arange(size), margin, mode="reflect"))


def test_regional_power_mean_of_a_constant_map_is_the_constant():
    for shape in [(1, 1), (1, 4), (2, 2), (8, 5)]:
        maps = np.full((1, 3, *shape), 0.7)
        assert_allclose(WeightedPooler(reduce="regional_power_mean").fit_transform(maps), 0.7, rtol=1e-12)
