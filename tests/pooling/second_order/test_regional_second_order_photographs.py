"""Regional second-order pooling of lazy maps, and of points detected in photographs."""

import sys

import numpy as np
import pytest
from fixtures.second_order import assert_same_sets, pooler
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import FeatureMaps, ImageCrop
from skretrieval.retrieval import NearestNeighborsRetriever


def test_lazy_maps_are_their_arrays(extractor, photographs):
    lazy = extractor.transform(photographs)
    fitted = pooler(n_components=4).fit(lazy)
    assert_same_sets(fitted.transform(lazy), fitted.transform(list(lazy)), atol=1e-4)
    assert_same_sets(fitted.transform(lazy[[4, 1]]), [fitted.transform(lazy)[k] for k in (4, 1)], atol=1e-4)
    model = make_pipeline(clone(extractor), pooler(n_components=4), NearestNeighborsRetriever(n_neighbors=2))
    assert_array_equal(model.fit(photographs).predict(photographs)[:, 0], np.arange(len(photographs)))


def test_passes_over_lazy_maps(extractor, photographs, monkeypatch):
    lazy = extractor.transform(photographs[:4])
    passes = []
    batches = FeatureMaps.batches

    def counted(self):
        passes.append(len(self))
        return batches(self)

    monkeypatch.setattr(FeatureMaps, "batches", counted)
    # up to 32 regions; a vector has 36 entries with n_local=8, 10 channels in the first order, 3 with n_local=2
    for words, of_fit, of_both in [
        ({"n_local": 8}, 2, 2),
        ({"order": 1}, 1, 2),
        ({"order": 1, "regions": "whole"}, 1, 1),
        ({"n_local": 2}, 2, 3),
    ]:
        model = pooler(**{"n_components": 2, **words})
        passes.clear()
        model.fit(lazy)
        assert len(passes) == of_fit
        passes.clear()
        model.fit_transform(lazy)
        assert len(passes) == of_both


def regions_by_hand(extractor, images, model):
    """Points detected in the photograph as the network saw it, hulls by scipy, cells by the resized coordinates."""
    from scipy.spatial import ConvexHull, Delaunay

    from skretrieval.pooling._grammar._salient_points import hessian_points
    from skretrieval.pooling._second_order._candidate_regions import global_fast_kmeans

    for image, feature_map in zip(images, extractor.transform(images), strict=True):
        upright = image.image if isinstance(image, ImageCrop) else image
        upright = upright if isinstance(upright, Image.Image) else Image.fromarray(upright)
        upright = upright.crop(image.box) if isinstance(image, ImageCrop) else upright
        scale = 96 / max(upright.size)
        size = tuple(round(side * scale) for side in upright.size)
        grey = np.asarray(upright.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
        points = hessian_points(grey)
        assert len(points) >= model.n_min
        labels = global_fast_kmeans(points[None], np.ones((1, len(points)), bool), model.n_clusters)[0]
        _, height, width = feature_map.shape
        i, j = np.indices((height, width))
        centres = np.stack([(j + 0.5) * size[0] / width, (i + 0.5) * size[1] / height], axis=-1).reshape(
            -1, 2
        )
        masks, areas = [], []
        for bits in range(1, 2**model.n_clusters):
            members = points[[bool(bits >> label & 1) for label in labels]]
            mask = Delaunay(members).find_simplex(centres, tol=1e-9) >= 0
            if mask.sum() >= model.min_cells:
                masks.append(mask.reshape(height, width))
                areas.append(ConvexHull(members).volume / (size[0] * size[1]))
        yield masks, areas


def area(polygon):
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_points_detected_in_photographs(extractor, photographs):
    images = [*photographs[:-1], ImageCrop(photographs[0], (10, 5, 110, 85)), Image.fromarray(photographs[1])]
    lazy = extractor.transform(images)
    model = pooler(points="hessian", n_min=8, n_components=4)
    regions = model.regions_of(lazy)
    for own, (masks, areas) in zip(regions, regions_by_hand(extractor, images, model), strict=True):
        assert_array_equal(own.masks[:-1], masks)
        assert_allclose([area(polygon) for polygon in own.polygons], [*areas, 1.0], rtol=1e-9)
    sets = model.fit_transform(lazy)
    assert [len(own) for own in sets] == [len(own.masks) for own in regions]
    assert_same_sets(model.transform(lazy), sets, atol=1e-5)
    assert_same_sets(clone(model).set_params(n_jobs=2).fit_transform(lazy), sets, atol=1e-5)
    assert_same_sets(model.transform(lazy[[3]]), sets[3:4], atol=1e-4)


def test_few_detections_fall_back_to_cells(extractor, photographs):
    """A photograph of one colour has no detections; with n_min beyond all detections, no photograph has enough."""
    lazy = extractor.transform(photographs)
    sizes = [(96, 72), (72, 96), (96, 72), (96, 96), (96, 72), (96, 38), (96, 72), (96, 72)]
    grid = pooler(n_min=10_000).regions_of(lazy)
    detected = pooler(points="hessian", n_min=10_000).regions_of(lazy)
    for of_grid, own, (width, height), feature_map in zip(grid, detected, sizes, lazy, strict=True):
        if width * feature_map.shape[1] == height * feature_map.shape[2]:  # same aspect: the same clusters
            assert_array_equal(own.masks, of_grid.masks)
        assert own.masks[-1].all()
    few = pooler(points="hessian", n_min=8).regions_of(lazy[[7]])[0]
    assert_array_equal(few.masks, pooler(n_min=8).regions_of(lazy[[7]])[0].masks)


def test_unreadable_photographs_keep_the_whole(extractor, photographs, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    warning = clone(extractor).set_params(on_error="warn").fit(photographs)
    lazy = warning.transform([*photographs[:6], str(tmp_path / "broken.jpg")])
    with pytest.warns(UserWarning, match="could not be read"):
        sets = pooler(points="hessian", n_min=8, n_components=4).fit_transform(lazy)
    assert sets[-1].shape == (1, 4)
    assert not sets[-1].any()


def test_maps_in_memory_have_no_photographs(maps, extractor, photographs):
    model = pooler(points="hessian")
    for method in ("fit", "fit_transform", "regions_of"):
        with pytest.raises(ValueError, match=r"hessian.*FeatureMaps.*list"):
            getattr(model, method)(maps)
    fitted = pooler(points="hessian", n_min=8, n_components=4).fit(extractor.transform(photographs))
    arrays = list(extractor.transform(photographs[:2]))
    with pytest.raises(ValueError, match=r"hessian.*FeatureMaps"):
        fitted.transform(arrays)
    assert len(fitted.set_params(regions="whole").transform(arrays)) == 2  # the whole needs no points


def test_the_missing_extra_is_named_before_any_work(extractor, photographs, monkeypatch):
    lazy = extractor.transform(photographs)
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(FeatureMaps, "batches", lambda self: pytest.fail("the network ran"))
    with pytest.raises(ImportError, match=r"scikit-retrieval\[photos\]"):
        pooler(points="hessian").fit(lazy)
