"""VLAD by hand, and NetVLAD, which is VLAD with soft assignment."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import codebooks as ref
from references.maps import make_map, make_ragged

from skretrieval.pooling import NetVLADPooler, VLADPooler
from skretrieval.pooling._codebooks._local_descriptors import local_descriptors


@pytest.fixture(scope="module")
def maps():
    return make_ragged(5, [(6, 7), (5, 5), (6, 7), (3, 9)], seed=100)


def fixed(pooler, centers):
    """A fitted pooler with centres of our choice."""
    pooler.set_params(n_clusters=len(centers)).fit([make_map(len(centers[0]), 6, 6)])
    pooler.cluster_centers_ = np.array(centers)
    return pooler


def test_vlad_by_hand():
    centers = [[1.0, 0.0], [0.0, 0.5]]
    # cells (3, 4) -> (0.6, 0.8), nearest (0, 0.5): residual (0.6, 0.3); (0, 7) -> (0, 1): (0, 0.5); (5, 0) is the first
    # centre itself: nothing
    feature_map = np.array([[[3.0, 0.0, 5.0]], [[4.0, 7.0, 0.0]]])
    raw = fixed(VLADPooler(power=1, intra_norm=False, random_state=0), centers).transform([feature_map])
    assert_allclose(raw, [np.array([0, 0, 0.6, 0.8]) / 1.0], atol=1e-15)
    rooted = fixed(VLADPooler(intra_norm=False, random_state=0), centers).transform([feature_map])
    assert_allclose(rooted, [np.sqrt([0, 0, 0.6, 0.8]) / np.sqrt(1.4)], atol=1e-15)


def test_intra_normalisation_by_hand():
    centers = [[1.0, 0.0], [0.0, 1.0]]
    feature_map = np.array(
        [[[4.0, 3.0, 3.0]], [[3.0, 4.0, 4.0]]]
    )  # residuals (-.2, .6) once and (.6, -.2) twice
    expected = np.array([-1, 3, 3, -1]) / np.sqrt(20)
    actual = fixed(VLADPooler(power=1, random_state=0), centers).transform([feature_map])
    assert_allclose(actual, [expected])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "pooler", [VLADPooler(3, random_state=0), NetVLADPooler(3, random_state=0)], ids=repr
)
def test_descriptors_on_a_centre_leave_no_noise(pooler, dtype):
    """Rounding of the centre must not become a unit vector by intra-normalisation."""
    directions = np.array([[3.0, 1.0, 2.0], [0.1, 5.0, 0.3], [0.7, 0.2, 9.0]], dtype=dtype)
    maps = [np.ascontiguousarray(np.broadcast_to(d[:, None, None], (3, 4, 5))) for d in directions]
    actual = pooler.fit(maps).transform(maps)
    if isinstance(pooler, VLADPooler):
        assert not actual.any()
    else:  # the other centres are a hundredth or less away in weight, but not nothing
        assert np.isfinite(actual).all()
        nearest = [ref.nearest(d / np.linalg.norm(d), pooler.cluster_centers_) for d in directions]
        for row, c in zip(actual.reshape(3, 3, 3), nearest, strict=True):
            assert not row[c].any()


def test_alpha(maps):
    pooler = NetVLADPooler(4, random_state=0).fit(maps)
    descriptors = [x for feature_map in maps for x in ref.local_descriptors(feature_map)]
    assert_allclose(pooler.alpha_, ref.netvlad_alpha(descriptors, pooler.cluster_centers_), rtol=1e-9)


def test_alpha_in_blocks(maps, monkeypatch):
    expected = NetVLADPooler(4, random_state=0).fit(maps).alpha_
    monkeypatch.setattr("skretrieval.pooling._codebooks._netvlad.BLOCK_NUMBERS", 40)
    assert_allclose(NetVLADPooler(4, random_state=0).fit(maps).alpha_, expected, rtol=1e-12)


def test_sharp_netvlad_is_vlad(maps):
    """Where the softmax is a maximum, the two are the same sums."""
    vlad = VLADPooler(4, power=1, random_state=0).fit(maps)
    netvlad = NetVLADPooler(4, random_state=0).fit(maps)
    assert_allclose(netvlad.cluster_centers_, vlad.cluster_centers_)
    assert not np.allclose(netvlad.transform(maps), vlad.transform(maps), atol=1e-3)
    netvlad.alpha_ = 1e7
    assert_allclose(netvlad.transform(maps), vlad.transform(maps), atol=1e-6)


def test_one_centre(maps):
    """All weigh one: the sum of descriptors less n times the centre, whatever alpha."""
    pooler = NetVLADPooler(1, random_state=0).fit(maps)
    assert pooler.alpha_ == 0
    cells = ref.local_descriptors(maps[0])
    total = np.sum(cells, axis=0) - len(cells) * pooler.cluster_centers_[0]
    assert_allclose(pooler.transform(maps[:1]), [total / np.linalg.norm(total)], rtol=1e-9)
    assert_allclose(
        VLADPooler(1, power=1, random_state=0).fit(maps).transform(maps[:1]), [total / np.linalg.norm(total)]
    )


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_alpha_where_no_gap_tells_centres_apart():
    pooler = NetVLADPooler(2, random_state=0).fit(np.ones((2, 3, 4, 4)))
    assert pooler.alpha_ == 0
    assert np.isfinite(pooler.transform([make_map(3, 4, 4)])).all()


def test_centres_are_those_of_k_means(maps):
    """Every centre is the mean of the descriptors it is nearest to."""
    import torch

    pooler = VLADPooler(4, random_state=0).fit(maps)
    cells = np.concatenate([local_descriptors(torch.from_numpy(m)[None])[0][0].numpy() for m in maps])
    cells = cells[cells.any(axis=1)]
    words = np.array([ref.nearest(x, pooler.cluster_centers_) for x in cells])
    means = [cells[words == c].mean(axis=0) for c in range(4)]
    assert_allclose(pooler.cluster_centers_, means, atol=1e-8)
