"""Local descriptors: the columns of a map, and their whitening."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import codebooks as ref
from references.maps import make_map, make_ragged, make_signed_map

from skretrieval.pooling._codebooks._local_descriptors import local_axes, local_descriptors


def columns(feature_map, **kwargs):
    cells, valid = local_descriptors(torch.from_numpy(feature_map)[None], **kwargs)
    return cells[0][valid[0]].numpy()


@pytest.mark.parametrize("upsample", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 5), (5, 4)])
def test_against_reference(shape, upsample):
    feature_map = make_signed_map(3, *shape)
    expected = ref.local_descriptors(feature_map, rectify=False, upsample=upsample)
    assert_allclose(columns(feature_map, upsample=upsample), expected, rtol=1e-10, atol=1e-14)


def test_cells_come_row_by_row():
    feature_map = make_map(4, 3, 5, density=1.0)
    cells, valid = local_descriptors(torch.from_numpy(feature_map)[None])
    assert valid.all()
    column = feature_map[:, 1, 3]
    assert_allclose(cells[0, 1 * 5 + 3].numpy(), column / np.linalg.norm(column), rtol=1e-14)


def test_zero_cells_are_no_descriptors():
    feature_map = make_map(4, 3, 5, density=1.0)
    feature_map[:, 2, 1] = 0
    cells, valid = local_descriptors(torch.from_numpy(feature_map)[None])
    assert_array_equal(np.flatnonzero(~valid[0].numpy()), [2 * 5 + 1])
    assert not cells[0, 11].any()


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 1e36])
@pytest.mark.parametrize("upsample", [1, 2])
def test_no_scale_is_lost(scale, upsample):
    feature_map = make_map(4, 3, 5).astype(np.float32)
    scaled = (feature_map * np.float32(scale)).astype(np.float32)
    expected = columns(feature_map, upsample=upsample)
    assert_allclose(columns(scaled, upsample=upsample), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Whitening


def test_axes_whiten():
    sample = np.concatenate([columns(feature_map) for feature_map in make_ragged(5, [(6, 7), (8, 3)])])
    mean, components, eigenvalues = local_axes(sample, "all")
    whitened = (sample - mean) @ components.T
    assert components.shape == (5, 5)
    assert_allclose(np.cov(whitened.T), np.eye(5), atol=1e-9)
    assert_allclose(eigenvalues, np.linalg.eigvalsh(np.cov(sample.T))[::-1], rtol=1e-9)
    assert_allclose(local_axes(sample, 2).components, components[:2], rtol=1e-9)


def test_axes_beyond_the_rank():
    sample = np.random.default_rng(0).standard_normal((30, 2)) @ [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    with pytest.warns(UserWarning, match="n_local=3 exceeds the rank 2"):
        assert len(local_axes(sample, 3).components) == 2
    assert len(local_axes(sample, "all").components) == 2
    with pytest.raises(
        ValueError, match=r"n_local=None: all local descriptors are equal.*n_samples=5, n_features=3"
    ):
        local_axes(np.ones((5, 3)), "all")
