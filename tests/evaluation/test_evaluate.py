"""Evaluation against plain computations, protocols of every kind."""

import json

import numpy as np
import pytest
from fixtures.evaluation import REVISITED, TRUTH, ranks_by_hand, rows
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Bunch

from skretrieval import metrics, recipes
from skretrieval.datasets import load_image_folder
from skretrieval.evaluation import Evaluation, compare, evaluate
from skretrieval.metrics import leave_one_out_map, standard_error
from skretrieval.postprocessing import PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


@pytest.mark.parametrize("expand", [None, 2])
def test_a_labelled_folder_is_scored_as_leave_one_out(folder, extractor, expand):
    pipeline = recipes.gem(extractor=extractor, whitening=None, expand=expand)
    evaluation = evaluate(pipeline, folder)
    photographs = load_image_folder(folder)
    expected = leave_one_out_map(
        clone(pipeline).fit(photographs.images, photographs.labels), photographs.images, photographs.labels
    )
    figure = evaluation.metrics["map"]
    assert figure["mean"] == pytest.approx(expected, abs=1e-12)
    assert 0.2 < figure["mean"] < 1, "the pictures must not make it trivial"
    assert figure["standard_error"] == standard_error(evaluation.per_query["map"])
    assert figure["n_queries"] == len(evaluation.per_query["map"]) == 12
    assert set(evaluation.metrics) == {"map", "p@1", "p@5", "p@10"}


def test_expansion_leaves_out_the_item_itself_where_told_to(folder, extractor):
    pipeline = recipes.mac(extractor=extractor, whitening=None)
    index = QueryExpansion(NearestNeighborsRetriever(), 2, exclude_self=True)
    pipeline.set_params(retriever=index)
    photographs = load_image_folder(folder)
    fitted = clone(pipeline).fit(photographs.images, photographs.labels)
    expected = leave_one_out_map(fitted, photographs.images, photographs.labels)
    assert evaluate(pipeline, folder).metrics["map"]["mean"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("protocol", ["oxford", "revisited"])
@pytest.mark.parametrize("block", [2**22, 1])
def test_queries_outside_the_gallery(protocol, block, monkeypatch):
    from skretrieval.evaluation import _rank

    monkeypatch.setattr(_rank, "_BLOCK", block)
    truth = {"oxford": TRUTH, "revisited": REVISITED}[protocol]
    gallery, queries = rows(), rows(2, seed=1)
    data = Bunch(
        images=gallery, queries=queries, query_indices=None, ground_truth=truth, protocol=protocol, name="x"
    )
    evaluation = evaluate(make_pipeline(NearestNeighborsRetriever()), data)
    expected = metrics.evaluate_rankings(ranks_by_hand(queries, gallery), truth, protocol, kappas=(1, 5, 10))
    for level, figures in expected.items():
        name, prefix = ("map", "") if protocol == "oxford" else (f"{level}_map", f"{level}_")
        assert evaluation.metrics[name]["mean"] == figures["score"]
        assert evaluation.metrics[name]["n_queries"] == figures["n_queries"]
        np.testing.assert_array_equal(evaluation.per_query[name], figures["per_query"])
        for kappa, precision in zip((1, 5, 10), figures["precision_at"], strict=True):
            assert evaluation.metrics[f"{prefix}p@{kappa}"]["mean"] == pytest.approx(precision, abs=1e-15)


def test_holidays_and_ukbench_query_with_gallery_images():
    gallery = rows()
    own = np.array([0, 4, 8])
    truth = [{"positives": np.array([index + 1, index + 2]), "junk": np.array([index])} for index in own]
    data = Bunch(
        images=gallery, queries=gallery[own], query_indices=own, ground_truth=truth, protocol="holidays"
    )
    found = evaluate(make_pipeline(NearestNeighborsRetriever()), data)
    expected = metrics.evaluate_rankings(ranks_by_hand(gallery[own], gallery), truth, "labels")["map"]
    np.testing.assert_array_equal(found.per_query["map"], expected["per_query"])
    without = np.delete(np.arange(20), own)
    truth = [{"positives": np.searchsorted(without, entry["positives"]), "junk": []} for entry in truth]
    data = Bunch(
        images=gallery[without],
        queries=gallery[own],
        query_indices=None,
        ground_truth=truth,
        protocol="holidays",
    )
    found = evaluate(make_pipeline(NearestNeighborsRetriever()), data)
    expected = metrics.evaluate_rankings(ranks_by_hand(gallery[own], gallery[without]), truth, "labels")[
        "map"
    ]
    np.testing.assert_array_equal(found.per_query["map"], expected["per_query"])

    for queries, own in (("all", np.arange(20)), ("first", np.arange(0, 20, 4))):
        truth = [{"positives": np.arange(4) + index // 4 * 4} for index in own]
        data = Bunch(
            images=gallery, queries=gallery[own], query_indices=own, ground_truth=truth, protocol="ukbench"
        )
        found = evaluate(make_pipeline(NearestNeighborsRetriever()), data)
        expected = metrics.evaluate_ukbench(ranks_by_hand(gallery[own], gallery), queries=queries)
        assert found.metrics["ns"]["mean"] == expected["score"]
        np.testing.assert_array_equal(found.per_query["ns"], expected["per_query"])


def test_distractors_join_the_gallery_and_are_nobodys_positives():
    gallery, queries, more = rows(), rows(2, seed=1), rows(15, seed=2)
    data = Bunch(
        images=gallery, queries=queries, query_indices=None, ground_truth=TRUTH, protocol="oxford", name="x"
    )
    distractors = Bunch(images=more, protocol="distractors", name="noise")
    evaluation = evaluate(make_pipeline(NearestNeighborsRetriever()), data, distractors=[distractors])
    ranks = ranks_by_hand(queries, np.concatenate([gallery, more]))
    assert (
        evaluation.metrics["map"]["mean"] == metrics.evaluate_rankings(ranks, TRUTH, "oxford")["map"]["score"]
    )
    assert evaluation.record["dataset"]["n_images"] == 35
    assert evaluation.record["distractors"][0]["n_images"] == 15


def test_the_better_one_is_marked_only_if_it_is_significant():
    labels = np.repeat(np.arange(10), 4)
    rng = np.random.default_rng(0)
    data = Bunch(images=np.eye(10)[labels] + 0.35 * rng.normal(size=(40, 10)), labels=labels)
    flat = Pipeline([("w", PCAWhitening(2)), ("r", NearestNeighborsRetriever())])
    near = Pipeline([("r", NearestNeighborsRetriever(metric="euclidean"))])
    full = Pipeline([("r", NearestNeighborsRetriever())])
    clear = compare({"flat": flat, "full": full}, data)
    assert clear.best("map") == "full"
    assert clear.p_values("map")["flat", "full"] < 0.01
    assert "*" in clear.table()[2][1]
    assert "*" not in clear.table()[1][1]
    close = compare({"near": near, "full": full, "same": clone(full)}, data)
    assert close.best("map") is None
    assert "*" not in "".join(map("".join, close.table()))


def test_collections_without_a_positive_say_so(tmp_path):
    gallery, queries = rows(), rows(2, seed=1)
    truth = [{"easy": [], "hard": [5], "junk": []}, {"easy": [], "hard": [3], "junk": [1]}]
    data = Bunch(images=gallery, queries=queries, query_indices=None, protocol="revisited", name="x")
    pipelines = {"cosine": Pipeline([("r", NearestNeighborsRetriever())])}
    pipelines["euclidean"] = Pipeline([("r", NearestNeighborsRetriever(metric="euclidean"))])
    found = compare(pipelines, Bunch(**data, ground_truth=truth))
    assert np.isnan(found.p_values("easy_map")["cosine", "euclidean"])
    assert 0 < found.p_values("hard_map")["cosine", "euclidean"] <= 1
    assert found.best("easy_map") is None
    assert "easy_map: no query has a positive in the gallery" in str(found)
    assert "nan" not in str(found)
    written = json.loads(found.to_json(tmp_path / "two.json"), parse_constant=pytest.fail)
    assert written["p_values"]["easy_map"] == [["cosine", "euclidean", None]]
    truth = [{"easy": [], "hard": [], "junk": [5]}] * 2
    one = evaluate(pipelines["cosine"], Bunch(**data, ground_truth=truth))
    assert "easy_map, medium_map, hard_map: no query has a positive in the gallery" in str(one)
    back = Evaluation(json.loads(one.to_json())["evaluations"][0])
    assert str(back) == str(one)
    assert back.differences(one) == []


def test_precisions_deeper_than_the_gallery_are_not_shown():
    labels = np.arange(9) // 3
    pipeline = make_pipeline(NearestNeighborsRetriever())
    found = evaluate(pipeline, Bunch(images=rows(9), labels=labels), protocol_params={"kappas": [1, 9, 10]})
    assert str(found).splitlines()[1].split() == ["method", "map", "p@1", "p@9"]
    assert "p@10" in found.metrics


def test_photographs_that_cannot_be_read_are_reported(make_folder, extractor):
    folder = make_folder()
    broken = folder / "a" / "00.png"
    broken.write_bytes(broken.read_bytes()[:60])
    pipeline = recipes.mac(extractor=extractor, whitening=None)
    with pytest.raises(ValueError, match=r"00\.png"):
        evaluate(pipeline, folder)
    pipeline.set_params(extractor__on_error="warn")
    with pytest.warns(UserWarning, match="1 of 12 images could not be read"):
        evaluation = evaluate(pipeline, folder)
    ((place, why),) = evaluation.record["failed"]["gallery"].items()
    assert place == "0"
    assert str(broken) in why
