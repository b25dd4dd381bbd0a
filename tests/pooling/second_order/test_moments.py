"""Second moments, matrix logarithms and their vectors against loops and scipy's logarithm."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import second_order as ref
from references.maps import make_map, special_maps

from skretrieval.pooling._grammar._channel import sparsity
from skretrieval.pooling._grammar._spatial import response
from skretrieval.pooling._second_order import _moments as so


def axes_of(n_local, n_channels, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n_channels, n_local)))[0].T.copy()


def masks_of(n_regions, height, width, seed=0):
    """Regions of all sizes, one empty, the whole last."""
    rng = np.random.default_rng(seed)
    masks = rng.random((n_regions, height, width)) < np.linspace(0, 0.9, n_regions)[:, None, None]
    masks[-1] = True
    return masks


def pooled(maps, masks, axes, dtype=torch.float64, **how):
    maps = torch.tensor(np.stack(maps), dtype=dtype).clamp_min(0)
    masks = torch.tensor(np.stack(masks)).flatten(2)
    local = so.local_descriptors(maps, sparsity(maps), torch.tensor(axes))
    assert local.dtype == dtype
    return so.second_order(local, response(maps).flatten(1).double(), masks, **how).numpy()


HOW = [
    {},
    {"reg": 1e-1},
    {"offdiag_scale": 2**0.5},
    {"offdiag_scale": 0.0},
    {"trace_normalize": True},
    {"reg": 1e-2, "offdiag_scale": 0.5, "trace_normalize": True},
]


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 14), (7, 7), (9, 5)], ids=str)
def test_against_loops(shape, how):
    maps = [make_map(8, *shape, seed=seed) for seed in range(3)]
    masks = [masks_of(6, *shape, seed=seed) for seed in range(3)]
    axes = axes_of(6, 8)
    expected = [
        [ref.second_order(m, own, axes, **how) for own in of_image] for m, of_image in zip(maps, masks)
    ]
    assert_allclose(pooled(maps, masks, axes, **how), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("how", HOW, ids=str)
def test_single_precision_maps(how):
    """The moments are float64 whatever the maps: 2e-4 of the length of the (unit) vector, in practice 1e-6."""
    maps = [make_map(8, 9, 5, seed=seed).astype(np.float32) for seed in range(3)]
    masks = [masks_of(6, 9, 5, seed=seed) for seed in range(3)]
    axes = axes_of(6, 8)
    expected = [
        [ref.second_order(m, own, axes, **how) for own in of_image] for m, of_image in zip(maps, masks)
    ]
    actual = pooled(maps, masks, axes, torch.float32, **how)
    assert np.abs(actual - expected).max() < 1e-5


def test_single_precision_at_the_sizes_of_the_paper():
    """128 dimensions, regions on both sides of 128 cells, activations over several orders of magnitude."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.uniform(-2, 1, (160, 1, 1))
    maps = np.stack([make_map(160, 12, 16, seed=seed, density=0.3) * scale for seed in range(2)]).astype(
        np.float32
    )
    masks = np.stack([masks_of(5, 12, 16, seed=seed) for seed in range(2)])
    axes = axes_of(128, 160)
    single, double = (pooled(maps, masks, axes, dtype) for dtype in (torch.float32, torch.float64))
    assert np.linalg.norm(single - double, axis=2).max() < 2e-4
    assert np.linalg.norm(double, axis=2)[:, 1:] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", sorted(set(special_maps()) - {"all_equal_large", "one_channel"}))
def test_special_maps(kind):
    feature_map = special_maps()[kind]
    masks = masks_of(4, *feature_map.shape[1:], seed=2)
    axes = axes_of(4, 5)
    expected = [ref.second_order(feature_map, own, axes) for own in masks]
    assert_allclose(pooled([feature_map], [masks], axes)[0], expected, rtol=1e-8, atol=1e-9)


def test_regions_without_response_are_zero():
    feature_map = make_map(4, 5, 6, seed=0)
    feature_map[:, :2] = 0
    masks = np.zeros((3, 5, 6), bool)
    masks[1, :2] = True
    masks[2] = True
    vectors = pooled([feature_map, np.zeros((4, 5, 6))], [masks, masks], axes_of(3, 4))
    assert not vectors[0, :2].any()
    assert not vectors[1].any()
    assert np.linalg.norm(vectors[0, 2]) == pytest.approx(1.0)


def test_response_that_the_axes_do_not_see_is_zero():
    feature_map = np.zeros((3, 4, 4))
    feature_map[0, 1:, 1:] = 1.0
    feature_map[1, 0, 0] = 1.0
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 1:, 1:] = True
    vectors = pooled([feature_map], [masks], np.eye(3)[1:])
    assert not vectors.any()


# ---------------------------------------------------------------------------------------------------------------------
# The logarithm


def logs_of(factors, reg=1e-3, trace_normalize=False):
    logs, alive = so.regularised_log(torch.tensor(factors), reg, trace_normalize)
    return logs.numpy(), alive.numpy()


@pytest.mark.parametrize("rank", [1, 3, 7, 12])
@pytest.mark.parametrize("n", [1, 4, 11, 12, 13, 40])
def test_both_routes_against_scipy(n, rank):
    rng = np.random.default_rng(n + rank)
    factors = (rng.normal(size=(2, n, rank)) @ rng.normal(size=(2, rank, 12))) * [[[1.0]], [[3.0]]]
    logs, alive = logs_of(factors)
    assert alive.all()
    for own, log in zip(factors, logs, strict=True):
        moment = own.T @ own
        expected = ref.matrix_log(moment + 1e-3 * np.trace(moment) / 12 * np.eye(12))
        assert_allclose(log, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("n", [3, 7])
def test_rows_of_zeros_change_nothing(n):
    """What fills up a batch; with 5 rows more the second route is taken."""
    factors = np.random.default_rng(0).normal(size=(1, n, 8))
    filled = np.concatenate([factors, np.zeros((1, 5, 8))], axis=1)
    assert_allclose(logs_of(filled)[0], logs_of(factors)[0], atol=1e-11)


@pytest.mark.parametrize("n", [4, 20])
@pytest.mark.parametrize("scale", [1e-90, 1e-12, 2.0, 1e12, 1e90])
def test_scale_adds_to_the_diagonal(n, scale):
    """log(s^2 G) = log G + 2 log(s) I: why maps must keep their scale, unless the trace is divided out."""
    factors = np.random.default_rng(1).normal(size=(1, n, 8))
    plain, scaled = logs_of(factors)[0], logs_of(factors * scale)[0]
    assert_allclose(scaled, plain + 2 * np.log(scale) * np.eye(8), rtol=1e-9, atol=1e-9)
    assert_allclose(logs_of(factors * scale, 1e-3, True)[0], logs_of(factors, 1e-3, True)[0], atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("trace_normalize", [False, True])
def test_extreme_activations(scale, trace_normalize):
    """Squares of float32 maps neither vanish nor overflow."""
    feature_map = make_map(6, 4, 5, seed=1)
    masks, axes = np.ones((1, 4, 5), bool), axes_of(4, 6)
    actual = pooled([feature_map * scale], [masks], axes, torch.float32, trace_normalize=trace_normalize)[
        0, 0
    ]
    moment = ref.second_moment(feature_map, masks[0], axes)
    log = ref.matrix_log(moment + 1e-3 * np.trace(moment) / 4 * np.eye(4))
    log += (-np.log(np.trace(moment)) if trace_normalize else 2 * np.log(scale)) * np.eye(4)
    expected = log[np.triu_indices(4)]
    assert_allclose(actual, expected / np.linalg.norm(expected), atol=1e-5)


def test_zero_matrices_are_told():
    factors = np.zeros((2, 3, 4))
    factors[1, 0, 0] = 1.0
    logs, alive = logs_of(factors)
    assert alive.tolist() == [False, True]
    assert np.isfinite(logs).all()


# ---------------------------------------------------------------------------------------------------------------------
# The vector and the other functions


def test_vector_is_the_upper_triangle_row_by_row():
    matrix = torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    assert so.vectorize(matrix).tolist() == [1, 2, 3, 4, 5, 6]
    assert so.vectorize(torch.stack([matrix, -matrix])).shape == (2, 6)
    assert so.vectorize(matrix, 10).tolist() == [1, 20, 30, 4, 50, 6]


def test_root_two_makes_dot_products_those_of_matrices():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 5))
    a, b = a + a.T, b + b.T
    vectors = so.vectorize(torch.tensor(np.stack([a, b])), 2**0.5).numpy()
    assert vectors.dtype == np.float64
    assert vectors[0] @ vectors[1] == pytest.approx((a * b).sum(), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_order(dtype):
    maps = torch.tensor(np.stack([make_map(5, 6, 7, seed=seed) for seed in range(2)]), dtype=dtype)
    masks = np.stack([masks_of(4, 6, 7, seed=seed) for seed in range(2)])
    flat = torch.tensor(masks).flatten(2)
    plain = so.region_sums(maps, sparsity(maps), flat)
    weighted = so.region_sums(maps, sparsity(maps), flat * response(maps).flatten(1)[:, None])
    assert plain.dtype == weighted.dtype == dtype
    rtol = 1e-8 if dtype == torch.float64 else 2e-4
    for actual, of_alpha in ((plain, False), (weighted, True)):
        expected = [
            [ref.first_order(m, own, of_alpha) for own in of_image]
            for m, of_image in zip(maps.numpy(), masks)
        ]
        assert_allclose(actual.numpy(), expected, rtol=rtol, atol=1e-12)
    assert not plain[:, 0].any()  # the empty region


def test_local_descriptors_are_not_centred():
    feature_map = torch.tensor(make_map(5, 3, 4, seed=0))[None]
    axes = torch.tensor(axes_of(3, 5))
    local = so.local_descriptors(feature_map, sparsity(feature_map), axes)[0].numpy()
    beta = ref.channel_weights(feature_map[0].numpy())
    for p in range(12):
        assert_allclose(local[p], axes.numpy() @ (beta * feature_map[0].flatten(1)[:, p].numpy()), rtol=1e-10)


def test_images_do_not_mix():
    maps = [make_map(6, 5, 8, seed=seed) * 10.0**seed for seed in range(4)]
    masks = [masks_of(5, 5, 8, seed=seed) for seed in range(4)]
    axes = axes_of(5, 6)
    together = pooled(maps, masks, axes)
    for feature_map, own, expected in zip(maps, masks, together, strict=True):
        assert_allclose(pooled([feature_map], [own], axes)[0], expected, rtol=1e-9, atol=1e-11)


def test_inputs_are_not_written():
    factors = torch.tensor(np.random.default_rng(0).normal(size=(2, 5, 4)))
    before = factors.clone()
    so.regularised_log(factors, 1e-3)
    assert_array_equal(factors, before)
