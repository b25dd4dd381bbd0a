"""What must hold for any feature map: symmetries, scales and bounds."""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from references.maps import make_map
from references.pooling import rmac_grid
from sklearn.base import clone

from skretrieval.pooling import GeMPooler, GRMACPooler, MACPooler, RMACPooler, SJWPooler, SumPooler

quick = settings(max_examples=15, deadline=None, derandomize=True)

feature_maps = st.builds(
    make_map,
    n_channels=st.integers(1, 7),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    seed=st.integers(0, 2**16),
    density=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
EQUIVARIANT = {"sum", "weighted", "spoc", "mac", "gem", "crow", "grmac"}  # f(a x) = a f(x)
INVARIANT = {"rmac", "region_integration", "square_sum_rmac"}  # f(a x) = f(x)
WITHOUT_POSITIONS = {"sum", "weighted", "mac", "gem", "crow", "sjw"}
WITHOUT_GRID = WITHOUT_POSITIONS | {"spoc", "adaptive_gaussian"}


def pool(case, *maps):
    return clone(case.pooler).fit_transform(list(maps))


def close(actual, expected, rtol=1e-9):
    assert_allclose(actual, expected, rtol=rtol, atol=1e-10 * max(1.0, np.abs(expected).max()))


@quick
@given(feature_map=feature_maps, log_scale=st.integers(-10, 10))
def test_scale(case, feature_map, log_scale):
    scale = 2.0**log_scale
    plain, scaled = pool(case, feature_map, scale * feature_map)
    if case.name in EQUIVARIANT:
        close(scaled, scale * plain)
    elif case.name in INVARIANT:
        close(scaled, plain)
    else:  # the eps of the channel weight is absolute: only nearly equivariant (SJW, eChannel) or invariant (GSW)
        factor = 1.0 if case.name == "gsw" else scale
        assume(log_scale >= -4)
        assert_allclose(scaled, factor * plain, rtol=1e-2, atol=1e-3 * factor * np.abs(plain).max())


@quick
@given(feature_map=feature_maps, data=st.data())
def test_channel_order(case, feature_map, data):
    order = data.draw(st.permutations(range(len(feature_map))))
    if case.name in {"sjw", "gsw"}:  # equal deviations are told apart by the index, so keep them out
        deviation = feature_map.std(axis=(1, 2))
        assume(len(set(deviation)) == len(deviation))
    plain, permuted = pool(case, feature_map, feature_map[list(order)])
    close(permuted, plain[list(order)])


@quick
@given(feature_map=feature_maps)
def test_transposed_photograph(case, feature_map):
    close(*pool(case, feature_map, feature_map.transpose(0, 2, 1)))


def windows(case, height, width):
    """Windows of the pooler as (top, left, side), sorted."""
    if case.name != "square_sum_rmac":
        return sorted(rmac_grid(height, width, 3))
    sides = [-(-2 * min(height, width) // (level + 1)) for level in (1, 2, 3)]
    return sorted(
        (top, left, side)
        for side in sides
        for top in range(0, height - side + 1, max(1, 2 * side // 5))
        for left in range(0, width - side + 1, max(1, 2 * side // 5))
    )


@quick
@given(feature_map=feature_maps)
def test_mirrored_photograph(case, feature_map):
    _, height, width = feature_map.shape
    grid = windows(case, height, width)
    mirrored_grid = sorted((top, width - side - left, side) for top, left, side in grid)
    assume(case.name in WITHOUT_GRID or grid == mirrored_grid)  # the floor in the grid is not symmetric
    close(*pool(case, feature_map, feature_map[:, :, ::-1]))


@quick
@given(feature_map=feature_maps, seed=st.integers(0, 99))
def test_shuffled_cells(case, feature_map, seed):
    if case.name not in WITHOUT_POSITIONS:
        return
    flat = feature_map.reshape(len(feature_map), -1)
    shuffled = flat[:, np.random.default_rng(seed).permutation(flat.shape[1])].reshape(feature_map.shape)
    close(*pool(case, feature_map, shuffled))


@quick
@given(
    maps=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=9),
    seed=st.integers(0, 99),
)
def test_order_of_the_list(case, maps, seed):
    maps = [make_map(3, *shape, seed=seed + t) for t, shape in enumerate(maps)]
    order = np.random.default_rng(seed).permutation(len(maps))
    together = pool(case, *maps)
    close(pool(case, *[maps[t] for t in order]), together[order])


@quick
@given(feature_map=feature_maps)
def test_descriptors_are_finite_and_not_negative(case, feature_map):
    if (
        case.name == "region_integration"
    ):  # its log(sum_h N_h / (1 + N_k)) is negative for the only live channel
        assume(np.count_nonzero(feature_map.any(axis=(1, 2))) != 1)
    descriptor = pool(case, feature_map)
    assert np.isfinite(descriptor).all()
    assert (descriptor >= -1e-12).all()


@quick
@given(feature_map=feature_maps, dead=st.data())
def test_dead_channel_stays_dead(case, feature_map, dead):
    channel = dead.draw(st.integers(0, len(feature_map) - 1))
    feature_map[channel] = 0
    assert pool(case, feature_map)[0, channel] == 0


@quick
@given(feature_map=feature_maps)
def test_rectified_equals_cut_off_by_hand(case, feature_map):
    signed = feature_map - 0.4
    close(*pool(case, signed, np.maximum(signed, 0)))


@quick
@given(feature_map=feature_maps, powers=st.lists(st.floats(1, 40), min_size=2, max_size=2).map(sorted))
def test_power_means_grow_with_p(feature_map, powers):
    low, high = (GeMPooler(p=p).fit_transform([feature_map])[0] for p in powers)
    largest = MACPooler().fit_transform([feature_map])[0]
    assert (low <= high * (1 + 1e-9)).all()
    assert (high <= largest * (1 + 1e-9)).all()
    close(
        GeMPooler(p=1.0).fit_transform([feature_map]) * feature_map[0].size,
        SumPooler().fit_transform([feature_map]),
    )


@quick
@given(feature_map=feature_maps)
def test_first_level_of_a_square_map_is_the_whole_map(feature_map):
    side = min(feature_map.shape[1:])
    square = feature_map[:, :side, :side]
    close(GRMACPooler(n_levels=1).fit_transform([square]), GeMPooler().fit_transform([square]))
    largest = MACPooler().fit_transform([square])
    norm = np.linalg.norm(largest)
    close(RMACPooler(n_levels=1).fit_transform([square]), largest / norm if norm else largest)


@quick
@given(feature_map=feature_maps)
def test_rmac_is_grmac_at_its_limit(feature_map):
    limit = GRMACPooler(p=math.inf, region_norm="l2").fit_transform([feature_map])
    close(limit, RMACPooler().fit_transform([feature_map]))


@quick
@given(feature_map=feature_maps)
def test_saliency_is_linear_in_rho(feature_map):
    at = {rho: SJWPooler(rho=rho).fit_transform([feature_map]) for rho in (0.0, 1.0, 10.0)}
    close(at[10.0] - at[0.0], 10 * (at[1.0] - at[0.0]), rtol=1e-7)
