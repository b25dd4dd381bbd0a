"""Triangulation embedding: its whitening, its weights, its anchors."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import codebooks as ref
from references.maps import make_map, make_ragged
from sklearn.base import clone

from skretrieval.pooling import TEmbeddingPooler
from skretrieval.pooling._codebooks._t_embedding import democratic_weights, directions, summed_directions


@pytest.fixture(scope="module")
def maps():
    return make_ragged(4, [(6, 7), (5, 5), (6, 7), (3, 9)], seed=100)


@pytest.fixture(scope="module")
def cells(maps):
    return np.array([x for feature_map in maps for x in ref.local_descriptors(feature_map)])


def embedded(pooler, cells):
    axes = pooler.embedding_axes_
    rows = np.array([ref.embedding(x, pooler.cluster_centers_, 1e-12) for x in cells])
    return (rows - axes.mean) @ axes.components.T


def test_embedding_is_white_without_the_first_components(maps, cells):
    whole = TEmbeddingPooler(3, n_local=None, n_drop=0, random_state=0).fit(maps)
    assert_allclose(np.cov(embedded(whole, cells).T), np.eye(12), atol=1e-8)
    assert_allclose(embedded(whole, cells).mean(axis=0), 0, atol=1e-9)
    assert (np.diff(whole.embedding_axes_.eigenvalues) <= 0).all()
    dropped = TEmbeddingPooler(3, n_local=None, random_state=0).fit(maps)
    assert_allclose(dropped.embedding_axes_.components, whole.embedding_axes_.components[4:])
    assert_allclose(dropped.embedding_axes_.eigenvalues, whole.embedding_axes_.eigenvalues[4:])
    assert dropped.transform(maps).shape == (4, 3 * 4 - 4)


def test_eigenvalues_of_the_embedding(maps, cells):
    pooler = TEmbeddingPooler(3, n_local=None, n_drop=2, random_state=0).fit(maps)
    rows = np.array([ref.embedding(x, pooler.cluster_centers_, 1e-12) for x in cells])
    expected = np.linalg.eigvalsh(np.cov(rows.T))[::-1][2:]
    assert_allclose(pooler.embedding_axes_.eigenvalues, expected, rtol=1e-7)


def test_whitening_in_blocks(maps, monkeypatch):
    expected = TEmbeddingPooler(3, n_local=None, random_state=0).fit(maps)
    monkeypatch.setattr("skretrieval.pooling._codebooks._t_embedding.BLOCK_NUMBERS", 300)
    pooler = TEmbeddingPooler(3, n_local=None, random_state=0).fit(maps)
    assert_allclose(
        pooler.embedding_axes_.components, expected.embedding_axes_.components, rtol=1e-6, atol=1e-8
    )


def test_size_of_the_result():
    """The paper's 16 * 128 - 128 = 1920, with a quarter of its dimensions."""
    rng = np.random.default_rng(0)
    pooler = TEmbeddingPooler(n_local=32, random_state=0).fit(rng.random((1, 40, 50, 50), dtype=np.float32))
    assert pooler.embedding_axes_.components.shape == (16 * 32 - 32, 16 * 32)


def test_democratic_weights_make_all_contribute_alike(cells):
    phi = torch.from_numpy(np.abs(cells))[None]
    valid = torch.ones(phi.shape[:2], dtype=torch.bool)
    weights = democratic_weights(phi, valid, 200)[0].numpy()
    contributions = weights * (np.abs(cells) @ np.abs(cells).T @ weights)
    assert_allclose(contributions, 1, rtol=1e-6)
    assert weights.std() > 0.01 * weights.mean()


def test_repeats_weigh_as_one():
    """A descriptor that appears many times, against one that appears once: democracy counts kinds."""
    phi = torch.eye(2, dtype=torch.float64)[[0] * 50 + [1]][None]
    weights = democratic_weights(phi, torch.ones(1, 51, dtype=torch.bool), 10)
    assert_allclose((weights[:, None, :] @ phi)[0, 0] ** 2, [50.0, 1.0])  # 7 : 1, where the sum has 50 : 1
    assert_allclose(weights[0, 0], 1 / np.sqrt(50))


def test_democratic_weights_of_cells_that_are_none():
    phi = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 5, 3)))
    valid = torch.tensor([[True, True, False, True, False], [False] * 5])
    weights = democratic_weights(phi, valid, 10)
    assert_array_equal(weights > 0, valid)
    alone = democratic_weights(phi[:1, [0, 1, 3]], torch.ones(1, 3, dtype=torch.bool), 10)
    assert_allclose(weights[0, [0, 1, 3]], alone[0])
    zero = democratic_weights(torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool), 10)
    assert torch.isfinite(zero).all()


def test_sum_without_forming_the_embedding(cells):
    centers = torch.from_numpy(cells[:3] * 0.9)
    rows = torch.from_numpy(cells)[None]
    weights = torch.from_numpy(np.random.default_rng(0).random((1, len(cells))))
    expected = (weights[:, :, None] * directions(rows, centers, 0.0)).sum(dim=1)
    assert_allclose(summed_directions(rows, centers, weights, 0.0), expected, rtol=1e-10, atol=1e-12)


def test_descriptor_on_an_anchor():
    centers = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
    found = directions(torch.tensor([[[0.6, 0.8]]], dtype=torch.float64), centers, 1e-9)[0, 0]
    assert_allclose(found, [0, 0, -0.4 / np.sqrt(0.8), 0.8 / np.sqrt(0.8)])


@pytest.mark.parametrize("aggregation", ["sum", "democratic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maps_that_sit_on_the_anchors(maps, aggregation, dtype):
    pooler = TEmbeddingPooler(3, n_local=None, aggregation=aggregation, random_state=0)
    pooler.fit([feature_map.astype(dtype) for feature_map in maps])
    units = pooler.cluster_centers_ / np.linalg.norm(pooler.cluster_centers_, axis=1, keepdims=True)
    pooler.cluster_centers_ = units.astype(dtype)
    on_anchors = np.ascontiguousarray(units.T[:, None, :]).astype(dtype)
    actual = pooler.transform([on_anchors])
    axes = pooler.embedding_axes_
    expected = ref.t_embedding(
        on_anchors, pooler.cluster_centers_, axes.mean, axes.components, 1e-5, aggregation=aggregation
    )
    assert_allclose(actual[0], expected, rtol=2e-4, atol=1e-6)


def test_both_aggregations_differ(maps):
    democratic = TEmbeddingPooler(3, n_local=None, random_state=0).fit(maps)
    plain = clone(democratic).set_params(aggregation="sum").fit(maps)
    assert_allclose(plain.embedding_axes_.components, democratic.embedding_axes_.components)
    assert not np.allclose(plain.transform(maps), democratic.transform(maps), atol=1e-3)
    # of a single cell both give the same direction
    one = make_map(4, 1, 1, seed=8, density=1.0)
    assert_allclose(plain.transform([one]), democratic.transform([one]), rtol=1e-8, atol=1e-12)


def test_nothing_left_to_describe_with(maps):
    with pytest.raises(ValueError, match=r"varies along 8 axes only, and the first 8 are dropped"):
        TEmbeddingPooler(2, n_local=None, n_drop=8, random_state=0).fit(maps)
    with pytest.raises(ValueError, match=r"n_samples=3, .*varies along 2 axes"):
        TEmbeddingPooler(2, n_local=None, random_state=0).fit([make_map(4, 1, 3, density=1.0)])
