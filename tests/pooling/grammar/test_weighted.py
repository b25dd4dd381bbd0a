"""The grammar: every published spec made of terms, and specs nobody has published."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from references import pooling as ref
from references.maps import golden_map, make_map, make_ragged, make_signed_map
from references.terms import activation_norm_weights, scda_mask
from sklearn.base import clone

from skretrieval.pooling import (
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SumPooler,
    WeightedPooler,
)

SHAPES = [(1, 1), (2, 5), (3, 14), (5, 15), (7, 7)]

#: the reference of every term
SPATIAL = {
    None: lambda x: np.ones(x.shape[1:]),
    "center_prior": lambda x: ref.spoc(np.eye(x[0].size).reshape(-1, *x.shape[1:])).reshape(x.shape[1:]),
    "response": lambda x: ref.crow_spatial(x) ** 2,
    "crow": ref.crow_spatial,
    "saliency": ref.sjw_spatial_weights,
    "activation_norm": activation_norm_weights,
    "scda": scda_mask,
}
CHANNEL = {
    None: lambda x: np.ones(len(x)),
    "sparsity": lambda x: ref.idf([np.count_nonzero(channel) / channel.size for channel in x], 1e-6),
    "sparsity_deviation": ref.sjw_channel_weights,
}
REGIONS = {"whole": lambda x: [x], "rmac": lambda x: ref.regions_of(x, 3)}
REDUCE = {"sum": np.sum, "mean": np.mean, "max": np.max, "power_mean": lambda cells: ref.power_mean(cells, 3)}


def spec_by_hand(feature_map, spatial, channel, regions, reduce, region_norm):
    """channel_k * SUM over regions of normalise(REDUCE over cells of spatial * x), the norm outside the weight."""
    feature_map = ref.as_map(feature_map)
    weights = CHANNEL[channel](feature_map)
    total = np.zeros(len(feature_map))
    for region in REGIONS[regions](feature_map * SPATIAL[spatial](feature_map)):
        value = weights * np.array([REDUCE[reduce](values) for values in region])
        total += ref.l2(value) if region_norm == "l2" else value
    return total


@pytest.mark.parametrize(
    ("spatial", "channel", "regions", "reduce", "region_norm"),
    list(product(SPATIAL, CHANNEL, REGIONS, REDUCE, [None, "l2"])),
)
def test_every_spec(spatial, channel, regions, reduce, region_norm):
    terms = {
        "spatial": spatial,
        "channel": channel,
        "regions": regions,
        "reduce": reduce,
        "region_norm": region_norm,
    }
    maps = make_ragged(4, SHAPES, seed=40)
    pooler = WeightedPooler(**terms).fit(maps)
    expected = np.stack([spec_by_hand(feature_map, **terms) for feature_map in maps])
    assert_allclose(pooler.transform(maps), expected, rtol=1e-8, atol=1e-12)
    single = pooler.transform([feature_map.astype(np.float32) for feature_map in maps])
    assert single.dtype == np.float32
    # float32 cannot hold the prior at the far ends of the 3x14 map (3e-38), which the l2 of a region would blow up
    rows = [0, 1, 3, 4] if spatial == "center_prior" and region_norm else slice(None)
    assert_allclose(single[rows], expected[rows], rtol=2e-4, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("terms", "preset"),
    [
        ({}, SumPooler()),
        ({"spatial": "center_prior"}, SPoCPooler()),
        ({"reduce": "max"}, MACPooler()),
        ({"reduce": "power_mean"}, GeMPooler()),
        ({"reduce": "power_mean", "reduce_params": {"p": 5.5}}, GeMPooler(p=5.5)),
        ({"spatial": "crow", "channel": "sparsity"}, CroWPooler()),
        ({"regions": "rmac", "reduce": "max", "region_norm": "l2"}, RMACPooler()),
        ({"regions": "rmac", "reduce": "power_mean"}, GRMACPooler()),
        (
            {
                "regions": "rmac",
                "reduce": "power_mean",
                "region_params": {"n_levels": 2, "include_global": True},
            },
            GRMACPooler(n_levels=2, include_global=True),
        ),
        ({"spatial": "saliency", "channel": "sparsity_deviation"}, SJWPooler()),
        (
            {
                "spatial": "saliency",
                "channel": "sparsity_deviation",
                "spatial_params": {"rho": 7.0, "n_channels": 1.0, "saliency_norm": "l2", "eps": 1e-3},
                "channel_params": {"eps": 1e-3},
            },
            SJWPooler(rho=7.0, n_channels=1.0, saliency_norm="l2", eps=1e-3),
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else type(value).__name__,
)
def test_presets_are_specs(terms, preset):
    maps = make_ragged(5, SHAPES, seed=60)
    expected = clone(preset).fit_transform(maps)
    assert_allclose(WeightedPooler(**terms).fit_transform(maps), expected, rtol=1e-12, atol=1e-13)


def test_spec_of_region_integration():
    """Region integration (Liao et al. 2022) without whitening; the channel weight is a function of the user."""

    def count_sparsity(maps, spatial):
        counts = (maps > 0).sum(dim=(2, 3)).to(maps.dtype)
        return torch.log(counts.sum(dim=1, keepdim=True) / (1 + counts))

    pooler = WeightedPooler(
        spatial="crow",
        channel=count_sparsity,
        regions="rmac",
        region_norm="l2",
        region_params={"include_global": True},
    )
    actual = pooler.fit_transform([golden_map()])[0]
    assert_allclose(actual, [11.252687, 9.677661, 7.90558, 12.157081], rtol=0, atol=6e-7)
    feature_map = make_map(5, 9, 12, seed=1)
    assert_allclose(pooler.fit_transform([feature_map])[0], ref.region_integration(feature_map), rtol=1e-8)


def test_functions_of_a_user():
    def by_row(maps):
        return torch.arange(1.0, maps.shape[2] + 1, dtype=maps.dtype)[None, :, None].expand(
            1, -1, maps.shape[3]
        )

    def by_energy(maps, spatial):
        return (maps * spatial[:, None]).square().sum(dim=(2, 3))

    def median(maps, boxes, spatial):
        return (maps * spatial[:, None]).flatten(2).median(dim=2).values[:, None]

    maps = np.stack([make_map(3, 4, 5, seed=seed, density=1.0) for seed in range(3)])
    weighted = maps * np.arange(1.0, 5)[:, None]
    actual = WeightedPooler(spatial=by_row, channel=by_energy).fit_transform(maps)
    assert_allclose(actual, (weighted**2).sum(axis=(2, 3)) * weighted.sum(axis=(2, 3)))
    odd = maps[:, :, :3]
    actual = WeightedPooler(spatial=by_row, reduce=median).fit_transform(odd)
    assert_allclose(actual, np.median((odd * np.arange(1.0, 4)[:, None]).reshape(3, 3, -1), axis=2))


@pytest.mark.parametrize("kind", ["spatial", "channel"])
@pytest.mark.parametrize(
    "answer",
    [lambda maps, *_: maps, lambda maps, *_: maps[:, 0, 0, 0], lambda maps, *_: 1.0],
    ids=["4d", "1d", "scalar"],
)
def test_functions_that_return_the_wrong_shape(kind, answer):
    with pytest.raises(ValueError, match=kind):
        WeightedPooler(**{kind: answer}).fit_transform([golden_map()])


@pytest.mark.parametrize(
    "terms",
    [
        {"spatial": "crow"},
        {"spatial": "saliency"},
        {"spatial": "response"},
        {"channel": "sparsity"},
        {"channel": "sparsity_deviation"},
        {"reduce": "power_mean", "reduce_params": {"p": 2.5}},
    ],
    ids=str,
)
def test_words_that_refuse_signed_maps(terms):
    signed = make_signed_map(3, 4, 5, seed=1)
    with pytest.raises(ValueError, match=r"(?i)\b1\b.*negative|negative.*\b1\b"):
        WeightedPooler(rectify=False, **terms).fit_transform([np.abs(signed), signed])
    WeightedPooler(rectify=False, **terms).fit_transform([np.abs(signed)])


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "power_mean"])
@pytest.mark.parametrize("regions", ["whole", "rmac"])
@pytest.mark.parametrize("region_norm", [None, "l2"])
def test_words_that_pass_signed_maps_through(reduce, regions, region_norm):
    signed = make_signed_map(3, 6, 8, seed=1)
    total = np.zeros(3)
    for region in REGIONS[regions](signed):
        value = np.array([REDUCE[reduce](values) for values in region])
        total += ref.l2(value) if region_norm else value
    pooler = WeightedPooler(regions=regions, reduce=reduce, region_norm=region_norm, rectify=False)
    assert_allclose(pooler.fit_transform([signed])[0], total, rtol=1e-8)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"spatial": "nonsense"}, "spatial"),
        ({"channel": "nonsense"}, "channel"),
        ({"regions": None}, "regions"),
        ({"reduce": "median"}, "reduce"),
        ({"region_norm": "l1"}, "region_norm"),
        ({"spatial_params": {"rho": 1.0}}, "rho"),
        ({"spatial": "crow", "spatial_params": {"rho": 1.0}}, "rho"),
        ({"reduce": "max", "reduce_params": {"p": 1.0}}, "p"),
        ({"reduce_params": [1]}, "reduce_params"),
        ({"reduce": "power_mean", "reduce_params": {"p": -1.0}}, "p"),
        ({"reduce": "power_mean", "reduce_params": {"p": 0}}, "p"),
        ({"regions": "rmac", "region_params": {"n_levels": 0}}, "n_levels"),
    ],
    ids=str,
)
def test_bad_parameters(params, match):
    with pytest.raises((ValueError, TypeError), match=match):
        WeightedPooler(**params).fit([golden_map()])


def whitened(region_vectors, n_components=None):
    """R-MAC with PCA-whitening fitted on all non-zero regions (divisor n - 1), l2 per region, sum: up to signs."""
    rows = np.concatenate([vectors[vectors.any(axis=1)] for vectors in region_vectors])
    mean = rows.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(rows, rowvar=False))
    kept = values > values.max() * max(rows.shape) * np.finfo(float).eps
    values, axes = values[kept][::-1], axes[:, kept][:, ::-1]
    values, axes = values[:n_components], axes[:, :n_components]
    return np.stack(
        [
            sum((ref.l2((axes.T @ (vector - mean)) / np.sqrt(values)) for vector in vectors if vector.any()),
                start=np.zeros(len(values)))
            for vectors in region_vectors
        ]
    )  # fmt: skip


@pytest.mark.parametrize("n_components", [None, 3])
@pytest.mark.parametrize("pooler", [RMACPooler(whiten=True), WeightedPooler(spatial="crow", channel="sparsity",
                         regions="rmac", region_norm="l2", whiten=True)], ids=["rmac", "weighted"])  # fmt: skip
def test_whitened_regions(pooler, n_components):
    maps = [
        *make_ragged(6, SHAPES * 3, seed=80),
        np.zeros((6, 4, 5)),
        make_map(6, 9, 9, seed=3, density=0.02),
    ]
    vectors = []
    for feature_map in maps:
        if isinstance(pooler, RMACPooler):
            regions = [region.max(axis=(1, 2)) for region in ref.regions_of(feature_map, 3)]
        else:
            weights = CHANNEL["sparsity"](feature_map) if feature_map.any() else np.zeros(6)
            regions = [
                weights * region.sum(axis=(1, 2))
                for region in ref.regions_of(feature_map * ref.crow_spatial(feature_map), 3)
            ]
        vectors.append(np.stack([ref.l2(region) for region in regions]))
    expected = whitened(vectors, n_components)
    fitted = clone(pooler).set_params(n_components=n_components).fit(maps)
    actual = fitted.transform(maps)
    assert actual.shape == expected.shape == (len(maps), n_components or 6)
    assert len(fitted.get_feature_names_out()) == actual.shape[1]
    signs = np.sign((actual * expected).sum(axis=0))
    assert_allclose(actual * signs, expected, rtol=1e-8, atol=1e-9)
    assert not actual[-2].any()  # the zero map: no regions, and not minus the whitened mean


def test_whitening_of_regions_needs_regions():
    with pytest.raises(ValueError, match=r"(?i)region"):
        RMACPooler(whiten=True).fit([np.zeros((3, 4, 4))])
    with pytest.warns(UserWarning, match="rank"):
        pooler = RMACPooler(whiten=True, n_components=50).fit([make_map(4, 7, 7, seed=1)])
    assert pooler.transform([make_map(4, 7, 7, seed=2)]).shape[1] <= 4
