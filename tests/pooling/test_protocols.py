"""What poolers tell of themselves: boxes of regions, weights of cells, visual words of cells."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references.maps import make_map, make_ragged
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.utils._param_validation import InvalidParameterError

from skretrieval import pooling
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    BoWPooler,
    CroWPooler,
    EntropyPooler,
    FisherVectorPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    NetVLADPooler,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    TEmbeddingPooler,
    VLADPooler,
    WeightedPooler,
    regions,
    spatial,
)
from skretrieval.pooling._grammar._spec import region_vectors

SHAPES = [(1, 1), (2, 5), (3, 14), (7, 7), (12, 9)]


def halves(height, width):
    return np.array([[0, 0, height, (width + 1) // 2], [0, width // 2, height, width - width // 2]])


# ---------------------------------------------------------------------------------------------------------------------
# Boxes

GRIDS = [
    (RMACPooler(2), {"n_levels": 2}),
    (RMACPooler(include_global=True), {"include_global": True}),
    (GRMACPooler(1, include_global=True), {"n_levels": 1, "include_global": True}),
    (RegionIntegrationPooler(2), {"n_levels": 2, "include_global": True}),
    (EntropyPooler(2), {"n_levels": 2}),
    (WeightedPooler(regions="rmac", region_params={"n_levels": 4}), {"n_levels": 4}),
]


@pytest.mark.parametrize(("pooler", "params"), GRIDS, ids=lambda value: repr(value)[:60])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_boxes_of_grids(pooler, params, shape):
    found = pooler.boxes(shape, (320, 200))
    row, col, high, wide = regions.rmac(*shape, **params).T
    assert_allclose(found[:, [0, 2]], np.stack([col, col + wide], axis=1) * 320 / shape[1], rtol=1e-12)
    assert_allclose(found[:, [1, 3]], np.stack([row, row + high], axis=1) * 200 / shape[0], rtol=1e-12)


def test_whole_maps_are_whole_photographs():
    for pooler in (SumPooler(), GeMPooler(), MACPooler(), SPoCPooler(), CroWPooler(), SJWPooler()):
        assert_array_equal(pooler.boxes((3, 7), (640, 480)), [[0, 0, 640, 480]])
    for pooler in (RMACPooler(include_global=True), RegionIntegrationPooler()):
        assert_array_equal(pooler.boxes((3, 7), (640, 480))[-1], [0, 0, 640, 480])


@pytest.mark.parametrize(
    "pooler",
    [RMACPooler(include_global=True), GRMACPooler(p=np.inf), WeightedPooler(regions=halves, reduce="max")],
    ids=lambda pooler: type(pooler).__name__,
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_box_r_is_that_of_vector_r(pooler, shape):
    height, width = shape
    maps = np.random.default_rng(0).random((1, 4, *shape))
    vectors = region_vectors(torch.from_numpy(maps), replace(pooler._spec(), region_norm=None))[0]
    cut = pooler.boxes(shape, (width, height)).round().astype(int)
    expected = [maps[0, :, top:bottom, left:right].max(axis=(1, 2)) for left, top, right, bottom in cut]
    assert_array_equal(vectors, expected)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_windows_of_square_sum_pooling(ceil_mode):
    found = SquareSumRMACPooler(1, ceil_mode=ceil_mode).boxes((5, 8), (80, 50))
    expected = [[0, 0, 50, 50], [20, 0, 70, 50], [40, 0, 80, 50]]  # of side 5 and stride 2; the last is cut
    assert_array_equal(found, expected if ceil_mode else expected[:2])


def test_boxes_of_sizes_and_parameters_that_make_no_sense():
    for shape in [(0, 3), (3,), (2.5, 3), (3, -1)]:
        with pytest.raises(ValueError, match=r"shape must be \(height, width\), two positive numbers"):
            RMACPooler().boxes(shape, (10, 10))
    for size in [(0, 3), (3,), (3, -1.5)]:
        with pytest.raises(ValueError, match=r"image_size must be \(width, height\), two positive numbers"):
            RMACPooler().boxes((3, 3), size)
    with pytest.raises(InvalidParameterError, match="'n_levels'"):
        RMACPooler(0).boxes((3, 3), (10, 10))
    with pytest.raises(ValueError, match="lies outside a map"):
        WeightedPooler(regions=lambda h, w: np.array([[0, 0, 99, 1]])).boxes((3, 3), (10, 10))
    found = RMACPooler().boxes(np.array([3, 4]), np.array([8, 6]))  # sizes may be of numpy
    assert found.dtype == np.float64


# ---------------------------------------------------------------------------------------------------------------------
# Weights of cells

WEIGHING = [
    SPoCPooler(),
    CroWPooler(),
    SJWPooler(),
    AdaptiveGaussianPooler(),
    RegionIntegrationPooler(whiten=False),
    *(WeightedPooler(term) for term in spatial.SPATIAL),
    WeightedPooler("crow", regions="rmac"),
]


@pytest.mark.parametrize("pooler", WEIGHING, ids=repr)
def test_weights_are_those_of_the_spec(pooler):
    maps = make_ragged(5, SHAPES, seed=3)
    found = pooler.cell_weights(maps)
    assert [weights.shape for weights in found] == SHAPES
    for feature_map, weights in zip(maps, found, strict=True):
        expected = pooler._spec().weights(torch.from_numpy(feature_map)[None])[0][0]
        assert_allclose(weights, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("term", spatial.SPATIAL)
def test_weighted_cells_sum_to_the_descriptor(term):
    maps = make_ragged(5, SHAPES, seed=4)
    pooler = WeightedPooler(term)
    sums = [
        (weights * own).sum(axis=(1, 2)) for weights, own in zip(pooler.cell_weights(maps), maps, strict=True)
    ]
    assert_allclose(pooler.fit_transform(maps), sums, rtol=1e-9, atol=1e-12)


def test_weights_of_maps_in_every_form():
    array = np.random.default_rng(0).random((4, 5, 3, 6), dtype=np.float32)
    expected = CroWPooler().cell_weights(list(array))
    for form in (array, torch.from_numpy(array), tuple(array)):
        found = CroWPooler().cell_weights(form)
        assert found[0].dtype == np.float32
        assert_array_equal(found, expected)
    found[0][:] = 0  # each is a result of its own
    assert found[1].any()
    prior = SPoCPooler().cell_weights(array)
    prior[0][:] = 0
    assert prior[1].any()


def test_weights_of_lazy_maps():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 80, 3), dtype=np.uint8)
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=80)
    maps = extractor.fit_transform(list(images))
    found, expected = CroWPooler().cell_weights(maps), CroWPooler().cell_weights(list(maps))
    for own, other in zip(found, expected, strict=True):
        assert_allclose(own, other, rtol=1e-5)


@pytest.mark.parametrize(
    "pooler",
    [
        SumPooler(),
        GeMPooler(),
        RMACPooler(),
        WeightedPooler(channel="sparsity"),
        SPoCPooler(center_prior=False),
    ],
    ids=repr,
)
def test_poolers_that_weigh_all_cells_alike(pooler):
    with pytest.raises(ValueError, match=rf"{type(pooler).__name__}\(.*\) weighs all cells alike\."):
        pooler.cell_weights(make_ragged(3, SHAPES))


def test_weights_of_bad_maps():
    good = make_map(3, 4, 5)
    with pytest.raises(ValueError, match=r"Entry 1: .*NaN"):
        CroWPooler().cell_weights([good, np.full((3, 2, 2), np.nan)])
    with pytest.raises(ValueError, match="Entry 1: negative activations"):
        CroWPooler(rectify=False).cell_weights([good, -good])
    with pytest.raises(ValueError, match="Entry 0: has 2 channels, but 3 were expected"):
        CroWPooler().fit([good]).cell_weights([good[:2]])
    with pytest.raises(ValueError, match="empty X"):
        CroWPooler().cell_weights([])


@pytest.mark.parametrize("points", ["all", "grid"])
def test_democratic_weights(points):
    maps = make_ragged(6, [(4, 5), (3, 7), (4, 5)], seed=5)
    maps[1][:, 1] = 0
    pooler = TEmbeddingPooler(3, n_local=None, n_drop=0, points=points, n_points=8, random_state=0)
    with pytest.raises(NotFittedError):
        pooler.cell_weights(maps)
    found = pooler.fit(maps).cell_weights(maps)
    assert [weights.shape for weights in found] == [(4, 5), (3, 7), (4, 5)]
    assert not found[1][1].any()
    for weights, feature_map in zip(found, maps, strict=True):
        there = weights > 0
        assert there.sum() == (8 if points == "grid" else (feature_map != 0).any(axis=0).sum())
        if points == "grid":
            response = feature_map.sum(axis=0)
            assert response[there].min() >= response[~there].max()
    with pytest.raises(ValueError, match="weighs all cells alike"):
        pooler.set_params(aggregation="sum").cell_weights(maps)


# ---------------------------------------------------------------------------------------------------------------------
# Visual words

CODEBOOKS = [
    BoWPooler(5, n_local=None, upsample=1, sparse_output=False, random_state=0),
    VLADPooler(5, random_state=0),
    NetVLADPooler(5, random_state=0),
    FisherVectorPooler(3, n_local=None, random_state=0),
]


def unit_columns(feature_map):
    cells = feature_map.reshape(len(feature_map), -1).T
    norms = np.linalg.norm(cells, axis=1, keepdims=True)
    return cells / np.where(norms > 0, norms, 1), norms[:, 0] > 0


def shares_by_hand(pooler, cells):
    if isinstance(pooler, FisherVectorPooler):
        mixture = GaussianMixture(3, covariance_type="diag")
        mixture.weights_, mixture.means_ = pooler.weights_, pooler.means_
        mixture.precisions_cholesky_ = 1 / np.sqrt(pooler.variances_)
        return mixture.predict_proba(cells)
    squares = ((cells[:, None] - pooler.cluster_centers_) ** 2).sum(axis=2)
    if isinstance(pooler, NetVLADPooler):
        return softmax(-pooler.alpha_ * squares, axis=1)
    return np.eye(squares.shape[1])[squares.argmin(axis=1)]


@pytest.mark.parametrize("pooler", CODEBOOKS, ids=lambda pooler: type(pooler).__name__)
def test_words_of_the_cells(pooler):
    maps = make_ragged(6, [(4, 5), (3, 7), (4, 5)], seed=6)
    maps[1][:, 1] = 0
    pooler = clone(pooler).fit(maps)
    words, shares = pooler.assign(maps, return_shares=True)
    assert all(a.tolist() == b.tolist() for a, b in zip(pooler.assign(maps), words, strict=True))
    for feature_map, own, share in zip(maps, words, shares, strict=True):
        cells, valid = unit_columns(feature_map)
        expected = shares_by_hand(pooler, cells)
        assert own.dtype == np.int64
        assert own.shape == share.shape == feature_map.shape[1:]
        assert_array_equal(own.ravel(), np.where(valid, expected.argmax(axis=1), -1))
        assert_allclose(share.ravel(), np.where(valid, expected.max(axis=1), 0), rtol=1e-6)
    assert (words[1][1] == -1).all()


@pytest.mark.parametrize("pooler", CODEBOOKS, ids=lambda pooler: type(pooler).__name__)
def test_only_salient_cells_have_a_word(pooler):
    maps = make_ragged(6, [(4, 5), (3, 7), (4, 5)], seed=6)
    pooler = clone(pooler).set_params(points="grid", n_points=7).fit(maps)
    everywhere = clone(pooler).fit(maps).set_params(points="all").assign(maps)
    for feature_map, own, other in zip(maps, pooler.assign(maps), everywhere, strict=True):
        there = own >= 0
        assert there.sum() == 7
        response = feature_map.sum(axis=0)
        assert response[there].min() >= response[~there].max()
        assert_array_equal(own[there], other[there])


def test_words_of_enlarged_maps_make_the_histogram():
    maps = make_ragged(6, [(4, 5), (3, 7)], seed=6)
    pooler = BoWPooler(5, n_local=None, upsample=3, sparse_output=False, random_state=0).fit(maps)
    words = pooler.assign(maps)
    assert [own.shape for own in words] == [(12, 15), (9, 21)]
    counts = np.stack([np.bincount(own[own >= 0], minlength=5) for own in words])
    assert_allclose(pooler.transform(maps), counts / np.linalg.norm(counts, axis=1, keepdims=True))


def test_words_in_blocks(monkeypatch):
    maps = np.stack([make_map(6, 4, 5, seed=seed) for seed in range(9)])
    pooler = VLADPooler(5, points="grid", n_points=4, random_state=0).fit(maps)
    expected = pooler.assign(maps)
    monkeypatch.setattr("skretrieval.pooling._codebooks._base.BLOCK_NUMBERS", 300)
    assert_array_equal(pooler.assign(maps), expected)


def test_words_that_cannot_be_told():
    maps = make_ragged(6, [(4, 5), (3, 7)], seed=6)
    with pytest.raises(NotFittedError):
        VLADPooler(2).assign(maps)
    pooler = VLADPooler(2, random_state=0).fit(maps)
    with pytest.raises(ValueError, match="Entry 1: has 3 channels, but 6 were expected"):
        pooler.assign([maps[0], maps[1][:3]])
    with pytest.raises(ValueError, match="empty X"):
        pooler.assign([])
    assert not hasattr(TEmbeddingPooler(2), "assign")  # its anchors are no words


# ---------------------------------------------------------------------------------------------------------------------
# Documentation


@pytest.mark.parametrize("method", ["assign", "boxes", "cell_weights"])
def test_every_answer_is_documented(method):
    owners = [kind for name in pooling.__all__ if hasattr(kind := getattr(pooling, name), method)]
    assert len(owners) >= 4
    for kind in owners:
        text = getattr(kind, method).__doc__
        for section in ("Parameters", "Returns", "Raises", "Examples"):
            assert f"{section}\n        ---" in text, f"{kind.__name__}.{method}: {section}"
