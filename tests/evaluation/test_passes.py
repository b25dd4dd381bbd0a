"""How often evaluation takes a photograph through a network, and what remains of its maps."""

import numpy as np
import pytest
from fixtures.evaluation import ranks_by_hand
from references.networks import counting_network
from sklearn.base import clone
from sklearn.utils import Bunch

from skretrieval import metrics, recipes
from skretrieval.datasets import load_image_folder
from skretrieval.evaluation import compare, evaluate
from skretrieval.extraction import ConvFeatureExtractor, ImageCrop
from skretrieval.pooling import RegionalSecondOrderPooler
from skretrieval.retrieval import NearestNeighborsRetriever


def test_queries_are_crops_with_parameters_of_their_own(folder, extractor):
    photographs = load_image_folder(folder)
    boxes = [(4, 4, 48, 50), (0, 8, 50, 54)]
    queries = [ImageCrop(photographs.images[i], box) for i, box in zip((0, 5), boxes, strict=True)]
    truth = [{"good": [0, 1], "ok": [], "junk": [3]}, {"good": [5], "ok": [4], "junk": []}]
    data = Bunch(
        images=photographs.images,
        queries=queries,
        query_indices=[0, 5],
        ground_truth=truth,
        protocol="oxford",
        name="x",
    )
    pipeline = recipes.regional_second_order(extractor=extractor, n_local=4, n_components=5)
    whole = {"pooler__regions": "whole"}
    found = evaluate(pipeline, data, query_params=whole)
    maps = clone(extractor).fit(photographs.images)
    pooler = RegionalSecondOrderPooler(n_local=4, n_components=5).fit(maps.transform(photographs.images))
    gallery = pooler.transform(maps.transform(photographs.images))
    asked = pooler.set_params(regions="whole").transform(maps.transform(queries))
    assert all(len(regions) == 1 for regions in asked)
    ranks = NearestNeighborsRetriever().fit(gallery).kneighbors(asked, 12, return_distance=False)
    np.testing.assert_array_equal(
        found.per_query["map"], metrics.evaluate_rankings(ranks, truth, "oxford")["map"]["per_query"]
    )
    assert found.pipeline.named_steps["pooler"].estimator.regions == "all"
    uncropped = evaluate(recipes.mac(extractor=extractor, whitening=None), data, crop_queries=False)
    rows_ = clone(recipes.mac(extractor=extractor, whitening=None))[:-1].fit_transform(photographs.images)
    expected = metrics.evaluate_rankings(ranks_by_hand(rows_[[0, 5]], rows_), truth, "oxford")["map"]
    np.testing.assert_array_equal(uncropped.per_query["map"], expected["per_query"])
    with pytest.raises(ValueError, match="pooler__colour"):
        evaluate(pipeline, data, query_params={"pooler__colour": "red"})


def test_each_photograph_goes_through_the_network_once(folder, log):
    extractor = ConvFeatureExtractor(counting_network, weights=None, image_size=72, device="cpu")
    pipelines = {
        "gsw": recipes.gsw(extractor=extractor, whitening=None),
        "grmac": recipes.grmac(extractor=extractor, n_components=3),
        "rmac": recipes.rmac(extractor=extractor),
        "expanded": recipes.gsw(extractor=extractor, whitening=None, expand=2),
    }
    found = compare(pipelines, folder, fit_on="gallery")
    assert log() == 12
    assert [evaluation.name for evaluation in found] == list(pipelines)
    assert str(found["expanded"].metrics) != str(found["gsw"].metrics)
    alone = evaluate(pipelines["grmac"], folder, fit_on="gallery")
    assert not alone.differences(found["grmac"])


POOLERS_THAT_LEARN = {
    "codebook": lambda extractor: recipes.vlad(extractor=extractor, n_clusters=3, whitening=None),
    "axes": lambda extractor: recipes.rmac(extractor=extractor),
    "regions": lambda extractor: recipes.region_integration(extractor=extractor),
    "selection": lambda extractor: recipes.regional_second_order(
        extractor=extractor, n_local=4, n_components=5
    ),
}


@pytest.mark.parametrize("pooler", POOLERS_THAT_LEARN)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_pipeline_takes_each_photograph_through_a_network_once(
    pooler, elsewhere, folder, other_folder, extractor, log
):
    pipeline = POOLERS_THAT_LEARN[pooler](extractor)
    where = {"whitening_set": other_folder} if elsewhere else {"fit_on": "gallery"}
    found = evaluate(pipeline, folder, **where)
    assert log() == (30 if elsewhere else 12)
    assert found.pipeline.named_steps["extractor"].memory is None
    assert found.record["overlap"] == (0 if elsewhere else None)


def test_queries_with_own_parameters_are_not_extracted_again(folder, extractor, log):
    pipeline = recipes.gem(extractor=extractor, n_components=4)
    usual = evaluate(pipeline, folder, fit_on="gallery")
    before = log()
    pooled = evaluate(pipeline, folder, fit_on="gallery", query_params={"pooler__p": 5})
    assert pooled.metrics["map"] != usual.metrics["map"]
    whitened = evaluate(pipeline, folder, fit_on="gallery", query_params={"normalizer__norm": "max"})
    assert whitened.record["options"]["dict"]["query_params"]["dict"] == {"normalizer__norm": "max"}
    assert log() == before + 2 * 12
    assert pooled.pipeline.named_steps["extractor"].memory is None


def test_no_temporary_place_of_the_maps_is_left_in_the_result(folder, extractor, tmp_path):
    pipelines = {p: recipes.gem(extractor=extractor, whitening=None).set_params(pooler__p=p) for p in (2, 3)}
    for one in compare(pipelines, folder):
        assert one.pipeline.named_steps["extractor"].memory is None
    extractor.set_params(memory=str(tmp_path / "own"))
    own = {name: clone(pipeline).set_params(extractor=extractor) for name, pipeline in pipelines.items()}
    for one in compare(own, folder):
        assert one.pipeline.named_steps["extractor"].memory == str(tmp_path / "own")
