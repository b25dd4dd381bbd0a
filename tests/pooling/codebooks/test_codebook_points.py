"""Codebook poolers that take only the local descriptors of salient cells."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from pooling.codebook_cases import CASES, N_CHANNELS, training_maps
from references import codebooks as ref
from references.maps import make_map, make_ragged
from references.networks import counting_network, two_layer_network
from scipy import ndimage
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps, ImageCrop
from skretrieval.pooling import BoWPooler, LayerwisePooler, PoolerFusion, VLADPooler
from skretrieval.pooling._grammar._salient_points import hessian_points

#: each pooler once; the second bag of words does not enlarge its maps
NAMES = ["bow", "bow-plain", "vlad", "vlad-local", "fisher", "t_embedding", "t_embedding-sum", "netvlad"]


@pytest.fixture(
    scope="module", params=[case for case in CASES if case.name in NAMES], ids=lambda case: case.name
)
def case(request):
    return request.param


def enlarged(pooler, feature_map):
    return ref.upsampled(np.maximum(feature_map, 0), getattr(pooler, "upsample", 1))


def strongest_cells(feature_map, n):
    """1 in the n cells of largest sum over the positive activations and in those that tie with the last."""
    response = np.maximum(feature_map, 0).sum(axis=0)
    threshold = sorted(response.ravel())[-min(n, response.size)]
    return response >= threshold * (1 - 1e-10)


def described(case, pooler, masked):
    """Reference descriptor of a map whose cells outside the mask are zero: zero cells are no descriptors."""
    reference = case.reference(pooler)
    if "upsample" in reference.keywords:  # the map has been enlarged before it was masked
        reference.keywords["upsample"] = 1
    return reference(masked)


@pytest.mark.parametrize("n_points", [1, 4, 20, 4000])
def test_cells_of_largest_response(case, n_points):
    maps = training_maps()
    pooler = clone(case.pooler).fit(maps).set_params(points="grid", n_points=n_points)
    ragged = [*make_ragged(N_CHANNELS, [(1, 1), (2, 5), (3, 14), (7, 7)], seed=20), *maps[:2]]
    large = [enlarged(pooler, feature_map) for feature_map in ragged]
    expected = [described(case, pooler, own * strongest_cells(own, n_points)) for own in large]
    assert_allclose(pooler.transform(ragged), expected, rtol=1e-8, atol=1e-12)
    everything = clone(case.pooler).fit(maps).transform(ragged)
    assert np.allclose(everything, expected) == (n_points == 4000)


def test_the_codebook_is_learned_from_the_same_cells(case):
    maps = training_maps()
    fitted = clone(case.pooler).set_params(points="grid", n_points=20).fit(maps)
    if getattr(case.pooler, "upsample", 1) > 1:
        with pytest.raises(ValueError, match="n_samples=5"):
            clone(case.pooler).set_params(points="grid", n_points=1, n_clusters=100).fit(maps)
        return
    masked = [feature_map * strongest_cells(feature_map, 20) for feature_map in maps]
    on_masked = clone(case.pooler).fit(masked)
    assert_allclose(fitted.transform(maps), on_masked.transform(masked), rtol=1e-10, atol=1e-12)


def test_ties_are_all_taken():
    constant = np.full((N_CHANNELS, 3, 4), 0.7)
    tied = make_map(N_CHANNELS, 4, 5, seed=1, density=1.0)
    tied[:, 2, 3] = 5 * tied[:, 2, 3]
    tied[:, 0, 1] = tied[::-1, 2, 3]  # another descriptor with the same sum
    pooler = BoWPooler(7, upsample=1, n_local=None, random_state=0, sparse_output=False).fit(training_maps())
    strongest = np.zeros((4, 5))
    strongest[[2, 0], [3, 1]] = 1
    expected = pooler.transform([constant, tied * strongest])
    one = pooler.set_params(points="grid", n_points=1)
    assert_allclose(one.transform([constant, tied]), expected)


def test_batches_do_not_matter(case, monkeypatch):
    """Images of a batch that keep different numbers of cells."""
    maps = np.stack([make_map(N_CHANNELS, 4, 5, seed=seed, density=0.3) for seed in range(7)])
    maps[2] = 1.0  # all cells tie
    maps[3] = 0
    pooler = clone(case.pooler).set_params(points="grid", n_points=3).fit(training_maps())
    together = pooler.transform(maps)
    alone = np.concatenate([pooler.transform(maps[index : index + 1]) for index in range(7)])
    assert_allclose(together, alone, rtol=1e-10, atol=1e-13)
    assert not together[3].any()
    monkeypatch.setattr("skretrieval.pooling._codebooks._base.BLOCK_NUMBERS", 1000)
    assert_allclose(pooler.transform(maps), together, rtol=1e-10, atol=1e-13)


def test_signed_maps_are_ranked_by_their_positive_activations():
    maps = [feature_map - 0.4 for feature_map in training_maps()]
    pooler = VLADPooler(3, random_state=0, rectify=False).fit(maps)
    expected = pooler.transform([own * strongest_cells(own, 4) for own in maps])
    assert_allclose(pooler.set_params(points="grid", n_points=4).transform(maps), expected, rtol=1e-10)


def test_single_precision():
    maps = training_maps(np.float32)
    pooler = VLADPooler(3, points="grid", n_points=5, random_state=0).fit(maps)
    assert pooler.transform(maps).dtype == np.float32
    masked = [own * strongest_cells(own, 5) for own in maps]
    assert_allclose(
        pooler.transform(maps), pooler.set_params(points="all").transform(masked), rtol=1e-5, atol=1e-6
    )


# ---------------------------------------------------------------------------------------------------------------------
# Detections in photographs


@pytest.fixture(scope="module")
def photographs():
    """Noise of several grains: blobs of several sizes."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(6):
        size = (72, 96) if index % 2 else (96, 80)
        noise = ndimage.gaussian_filter(rng.standard_normal((*size, 3)), (2 + index / 2, 2 + index / 2, 0))
        images.append(np.uint8(np.clip(128 + 55 * noise / noise.std(), 0, 255)))
    return images


@pytest.fixture(scope="module")
def extractor(photographs):
    return ConvFeatureExtractor(
        counting_network, weights=None, image_size=96, batch_size=2, device="cpu"
    ).fit(photographs)


def cells_hit(image, response, n_points):
    """Cells with a detection among the n_points of largest response, which is that of the map resized bilinearly."""
    height, width = response.shape
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32) / 255
    points = hessian_points(grey)
    assert len(points) > 8
    x, y = points[:, 0] * width / grey.shape[1], points[:, 1] * height / grey.shape[0]
    at = ndimage.map_coordinates(response.astype(float), [y - 0.5, x - 0.5], order=1, mode="nearest")
    chosen = np.argsort(-at)[:n_points]
    assert len(chosen) == len(at) or np.sort(at)[-n_points - 1] < at[chosen].min()  # no tie at the threshold
    mask = np.zeros((height, width), dtype=bool)
    for i, j in zip(y[chosen].astype(int), x[chosen].astype(int), strict=True):
        mask[i, j] = True
    return mask


@pytest.mark.parametrize("n_points", [5, 4000])
def test_cells_hit_by_detections(case, extractor, photographs, n_points):
    lazy = extractor.transform(photographs)
    pooler = clone(case.pooler).set_params(points="hessian", n_points=n_points, n_clusters=3).fit(lazy)
    actual = pooler.transform(lazy)
    expected = []
    for image, feature_map in zip(photographs, lazy, strict=True):
        large = enlarged(pooler, feature_map)
        mask = cells_hit(image, large.sum(axis=0), n_points)
        assert 0 < mask.sum() < mask.size
        expected.append(described(case, pooler, large * mask))
    assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)
    assert not np.allclose(actual, clone(pooler).set_params(points="all").fit(lazy).transform(lazy))
    order = [4, 1]
    assert_allclose(pooler.transform(lazy[order]), actual[order], rtol=1e-3, atol=1e-4)
    pipeline = make_pipeline(clone(extractor), clone(pooler))
    assert_allclose(pipeline.fit_transform(photographs), actual, rtol=1e-3, atol=1e-4)


def vlad(**params):
    return VLADPooler(3, points="hessian", random_state=0, **params)


def test_boxes_and_threads(extractor, photographs):
    lazy = extractor.transform(photographs)
    pooler = vlad().fit(lazy)
    whole = ImageCrop(np.pad(photographs[0], [(7, 3), (5, 9), (0, 0)]), (5, 7, 85, 103))
    threaded = clone(extractor).set_params(n_jobs=2).transform([whole, *photographs[1:]])
    assert_allclose(pooler.transform(threaded), pooler.transform(lazy), rtol=1e-3, atol=1e-4)


def test_without_detections_the_cells_of_the_map_are_taken(extractor, photographs):
    plain = np.full((96, 96, 3), 90, dtype=np.uint8)
    lazy = extractor.transform([*photographs, plain])
    pooler = vlad(n_points=6).fit(lazy)
    by_grid = clone(pooler).set_params(points="grid").fit(lazy)
    by_grid.cluster_centers_ = pooler.cluster_centers_
    assert pooler.transform(lazy)[-1].any()
    assert_allclose(pooler.transform(lazy)[-1], by_grid.transform(lazy)[-1], rtol=1e-4)


def test_a_photograph_that_cannot_be_read(extractor, photographs, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    warning = clone(extractor).set_params(on_error="warn").fit(photographs)
    lazy = warning.transform([str(tmp_path / "broken.jpg"), *photographs])
    with pytest.warns(UserWarning, match="could not be read"):
        descriptors = vlad().fit_transform(lazy)
    assert not descriptors[0].any()
    assert_allclose(np.linalg.norm(descriptors[1:], axis=1), 1, rtol=1e-5)


def test_inside_other_poolers(extractor, photographs):
    lazy = extractor.transform(photographs)
    alone = vlad().fit_transform(lazy)
    assert_allclose(PoolerFusion([("vlad", vlad())]).fit_transform(lazy), alone, rtol=1e-4, atol=1e-6)
    two = ConvFeatureExtractor(two_layer_network, weights=None, image_size=96).fit_transform(photographs)
    both = LayerwisePooler(vlad()).fit_transform(two)
    assert_allclose(
        both[:, -alone.shape[1] :], alone, rtol=1e-3, atol=1e-4
    )  # the second is the other network's
    arrays = list(two)
    with pytest.raises(ValueError, match=r"hessian.*FeatureMaps.*list"):
        LayerwisePooler(vlad()).fit(arrays)


def test_maps_in_memory_have_no_photographs(extractor, photographs):
    arrays = list(extractor.transform(photographs))
    with pytest.raises(ValueError, match=r"hessian.*FeatureMaps.*list"):
        vlad().fit(arrays)
    for pooler in (vlad(), BoWPooler(3, points="hessian", random_state=0)):
        with pytest.raises(ValueError, match=r"hessian.*FeatureMaps.*maps in memory"):
            pooler.fit(extractor.transform(photographs)).transform(arrays)


def test_the_missing_extra_is_named_before_any_work(extractor, photographs, monkeypatch):
    lazy = extractor.transform(photographs)
    pooler = vlad()
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(FeatureMaps, "head", lambda self: self[:1])
    with pytest.raises(ImportError, match=r"scikit-retrieval\[photos\]"):
        pooler.fit(lazy)


@pytest.mark.parametrize("params", [{"points": "corners"}, {"n_points": 0}, {"points": None}])
def test_bad_parameters(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        VLADPooler(2, **params).fit(training_maps())
