"""Indexes whose photographs have a descriptor for each of their parts."""

import json

import numpy as np
import pytest
from fixtures.indexes import draw, pipeline, update
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.pipeline import Pipeline

from skretrieval.extraction import ConvFeatureExtractor, read_image
from skretrieval.index import ImageIndex, _update
from skretrieval.pooling import RegionSetPooler
from skretrieval.postprocessing import PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever


def region_pipeline(whitened=False):
    model = pipeline(whitened, RegionSetPooler(n_levels=2))
    model.named_steps["extractor"].set_params(image_size=128)
    return model


@pytest.fixture
def index(made, tmp_path):
    """Two whitened descriptors of quarters, so that a crop of a quarter is found."""
    found = ImageIndex.create(tmp_path / "regions", region_pipeline())
    update(found, made / "photographs")
    return found


def test_a_crop_finds_the_whole_and_where_in_it(tmp_path, photographs):
    """The lower right quarter of one photograph is red, as nothing else is."""
    Image.new("RGB", (24, 20), "red").save(tmp_path / "part.png")
    whole = read_image(photographs / "b" / "04.png").copy()
    whole.paste("red", (24, 20, 48, 40))
    whole.save(photographs / "b" / "04.png")
    model = region_pipeline().set_params(extractor__layers="features.1")  # a cell sees little beyond itself
    index = ImageIndex.create(tmp_path / "index", model)
    update(index, photographs)
    results = index.search(tmp_path / "part.png", 3)
    assert results.names[0] == "b/04.png"
    assert results.boxes[0] == pytest.approx((24, 20, 48, 40), abs=0.5)  # borders lie between cells
    assert json.loads(results.to_json())["results"][0]["box"] == list(results.boxes[0])
    assert results.to_frame()["box"][0] == results.boxes[0]


def test_boxes_are_those_of_the_regions_that_match(index, made):
    """Against the Pipeline in memory."""
    paths = sorted((made / "photographs").rglob("*.png"))
    model = region_pipeline().fit(paths)
    sets = model.transform(paths)
    retriever = NearestNeighborsRetriever().fit(sets)
    distances, items = retriever.kneighbors(sets[5:6], n_neighbors=4)
    pairs = retriever.matched_regions(sets[5:6], items)
    assert pairs.shape == (1, 4, 2)
    for item, distance, (own, other) in zip(items[0], distances[0], pairs[0], strict=True):
        rows = sets[5][own], sets[item][other]
        cosine = rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
        assert_allclose(1 - cosine, distance, atol=1e-5)
    results = index.search(paths[5], 4)
    assert results.paths == [str(paths[item]) for item in items[0]]
    shape = model.named_steps["extractor"].transform(paths[:1])[0].shape[1:]
    boxes = model.named_steps["pooler"].boxes(shape, (48, 40))
    assert results.boxes == [tuple(boxes[other]) for other in pairs[0, :, 1]]


def test_photographs_with_one_descriptor_have_no_boxes(made):
    assert ImageIndex(made / "plain").search(made / "photographs" / "a" / "00.png", 3).boxes == [None] * 3


def test_regions_in_whitened_rows_and_conditions(made, tmp_path):
    index = ImageIndex.create(tmp_path / "whitened", region_pipeline(whitened=True))
    update(index, made / "photographs")
    query = made / "photographs" / "b" / "01.png"
    assert index.search(query, 1).boxes == [(0.0, 0.0, 48.0, 40.0)]
    chosen = index.search(query, 12, where="label = 'c'")
    assert set(chosen.labels) == {"c"}
    assert all(box is not None for box in chosen.boxes)
    report = index.info()
    assert report["n_rows"] == 12 * 5
    assert report["n_bytes_per_image"] == pytest.approx(report["n_bytes"] / 12)


def test_interrupted_updates_keep_whole_sets(made, tmp_path, monkeypatch):
    monkeypatch.setattr(_update, "_BATCH_SIZES", (2, 2))
    index = ImageIndex.create(tmp_path / "interrupted", region_pipeline())
    reports = index.update(made / "photographs", batch_size=1, device="cpu")
    for report in reports:
        if report.done >= 4:
            break
    reports.close()
    assert index.info()["n_rows"] == 5 * len(index)
    assert 0 < len(index) < 12
    update(index, made / "photographs")
    assert index.info()["n_rows"] == 60
    draw(tmp_path / "new" / "x.png", 77)
    assert index.search(tmp_path / "new" / "x.png", 12).boxes.count(None) == 0


def test_the_matched_part_is_drawn(index, made, tmp_path):
    results = index.search(made / "photographs" / "b" / "04.png", 2, box=(24, 20, 48, 40))
    page = results.save_html(tmp_path / "page.html").read_text("utf-8")
    assert page.count('class="part"') == 2
    assert page.count('class="box"') == 1


def test_whitening_of_regions_takes_them_all():
    """A hundred and fifty regions of thirty photographs bear the axes that thirty descriptors do not."""
    maps = list(np.random.default_rng(0).random((30, 40, 6, 6)))
    model = Pipeline([("pooler", RegionSetPooler(n_levels=2)), ("whitening", PCAWhitening(35))])
    assert {rows.shape for rows in model.fit_transform(maps)} == {(5, 35)}


def test_maps_of_any_network_have_boxes(tmp_path, made):
    """A size that is scaled down before the network sees it."""
    draw(tmp_path / "photographs" / "large.png", 3, (300, 200))
    extractor = ConvFeatureExtractor(
        "squeezenet1_1", weights=None, random_state=0, image_size=128, device="cpu"
    )
    model = Pipeline([("extractor", extractor), ("pooler", RegionSetPooler(n_levels=2))])
    index = ImageIndex.create(tmp_path / "index", model)
    update(index, tmp_path / "photographs")
    assert index.search(tmp_path / "photographs" / "large.png").boxes == [(0.0, 0.0, 300.0, 200.0)]
