"""Maps taken together in blocks: the block must not show in the result."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references.maps import make_map, make_signed_map
from sklearn.base import clone

from skretrieval.pooling import GRMACPooler, PoolerFusion, RegionIntegrationPooler, SJWPooler
from skretrieval.pooling._engine import _base
from skretrieval.pooling._engine._batches import iter_batches
from skretrieval.pooling._grammar._region_whitening import RegionWhitening

SHAPES = [(6, 8)] * 7 + [(5, 5)] * 3
MAP_BYTES = 4 * 6 * 8 * 8


@pytest.fixture
def many():
    """Ten float64 maps of two shapes, every other one signed, one of them zero."""
    maps = [
        (make_signed_map if seed % 2 else make_map)(4, *shape, seed=seed) for seed, shape in enumerate(SHAPES)
    ]
    maps[3] = np.zeros_like(maps[3])
    return maps


@pytest.mark.parametrize("n_together", [0, 1, 2, 3, 100])
def test_blocks_do_not_show(variant, many, n_together, monkeypatch):
    rectified = [np.maximum(one, 0) for one in many]
    expected = clone(variant.pooler).fit_transform(rectified)
    monkeypatch.setattr(_base, "BLOCK_BYTES", n_together * MAP_BYTES)
    assert_allclose(clone(variant.pooler).fit_transform(rectified), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_together", [0, 1, 2, 3, 100])
@pytest.mark.parametrize("kind", [list, np.stack, torch.tensor])
def test_batches_hold_so_many_bytes(kind, n_together):
    maps = [make_map(4, 6, 8, seed=seed) for seed in range(7)]
    X = kind(np.stack(maps)) if kind is torch.tensor else kind(maps)
    batches = [batch for (batch,) in iter_batches(X, None, block_bytes=n_together * MAP_BYTES)]
    step = max(1, n_together)
    assert [len(batch.indices) for batch in batches] == [
        len(range(start, min(start + step, 7))) for start in range(0, 7, step)
    ]
    assert_array_equal(np.concatenate([batch.indices for batch in batches]), range(7))
    assert_array_equal(torch.cat([batch.maps for batch in batches]), np.stack(maps))


def test_rectified_maps_are_made_once_and_only_where_needed():
    (signed,) = next(iter_batches([make_signed_map(4, 6, 8)], None))
    assert signed.rectified is signed.rectified
    assert_array_equal(signed.rectified, signed.maps.relu())
    (positive,) = next(iter_batches([make_map(4, 6, 8)], None))
    assert positive.rectified is positive.maps


def test_parts_of_a_fusion_share_the_rectified_maps(many, monkeypatch):
    gsw = PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())]).fit(many)
    calls = []
    clamp_min = torch.Tensor.clamp_min

    def counted(self, *args):
        if self.ndim == 4:
            calls.append(self.shape)
        return clamp_min(self, *args)

    monkeypatch.setattr(torch.Tensor, "clamp_min", counted)
    gsw.transform([make_signed_map(4, 6, 8)])
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4", "<f8"])
@pytest.mark.parametrize("stacked", [False, True])
def test_byte_orders(dtype, stacked):
    maps = [make_map(4, 6, 8, seed=seed) for seed in range(3)]
    expected = GRMACPooler().fit_transform([one.astype(dtype).astype(dtype[1:]) for one in maps])
    foreign = np.stack(maps).astype(dtype)
    assert_array_equal(GRMACPooler().fit_transform(foreign if stacked else list(foreign)), expected)
    assert_allclose(GRMACPooler().fit_transform([foreign[0]]), expected[:1], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_region_axes_do_not_depend_on_the_blocks(size):
    vectors = torch.from_numpy(np.random.default_rng(0).random((50, 4, 6)) + 5)
    vectors[7] = 0
    whitening = RegionWhitening()
    for block in vectors.split(size):
        whitening.update(block)
    mean, components, variances = whitening.finish(None, 50, 6)
    rows = vectors.flatten(0, 1)[vectors.flatten(0, 1).any(dim=1)].numpy()
    assert_allclose(mean, rows.mean(axis=0))
    assert_allclose(variances, np.linalg.eigvalsh(np.cov(rows.T))[::-1])
    assert_allclose((rows - mean) @ components.T @ components @ (rows - mean).T.mean(axis=1), 0, atol=1e-9)
    assert_allclose(np.cov(((rows - mean) @ components.T).T), np.eye(6), atol=1e-9)


def test_whitening_learns_the_same_from_any_blocks(many, monkeypatch):
    expected = RegionIntegrationPooler(n_components=3).fit(many)
    monkeypatch.setattr(RegionIntegrationPooler, "_learning_bytes", 1)
    actual = RegionIntegrationPooler(n_components=3).fit(many)
    for one, other in zip(actual.region_whitening_, expected.region_whitening_, strict=True):
        assert_allclose(one, other, rtol=1e-9)
