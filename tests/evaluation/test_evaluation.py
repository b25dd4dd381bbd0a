"""Evaluation against plain computations, protocols of every kind, whitening elsewhere."""

import json
import shutil
import warnings

import numpy as np
import pytest
from references.networks import counting_network
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils import Bunch

from skretrieval import metrics, recipes
from skretrieval.datasets import load_image_folder
from skretrieval.evaluation import Evaluation, compare, evaluate
from skretrieval.extraction import ConvFeatureExtractor, ImageCrop
from skretrieval.metrics import leave_one_out_map, standard_error
from skretrieval.pooling import RegionalSecondOrderPooler, RMACPooler
from skretrieval.postprocessing import DatabaseAugmentation, LearnedWhitening, PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


def ranks_by_hand(queries, gallery):
    """Rank by cosine, the lower index first among equals."""
    unit = [
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (np.float64(queries), np.float64(gallery))
    ]
    return np.argsort(-(unit[0] @ unit[1].T).round(9), axis=1, kind="stable")


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


def test_expansion_leaves_out_the_item_itself_where_it_is_told_to(folder, extractor):
    pipeline = recipes.mac(extractor=extractor, whitening=None)
    index = QueryExpansion(NearestNeighborsRetriever(), 2, exclude_self=True)
    pipeline.set_params(retriever=index)
    photographs = load_image_folder(folder)
    fitted = clone(pipeline).fit(photographs.images, photographs.labels)
    expected = leave_one_out_map(fitted, photographs.images, photographs.labels)
    assert evaluate(pipeline, folder).metrics["map"]["mean"] == pytest.approx(expected, abs=1e-12)


def rows(n=20, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


TRUTH = [
    {"good": np.array([1, 4]), "ok": np.array([7]), "junk": np.array([2])},
    {"good": np.array([9]), "ok": np.array([], dtype=int), "junk": np.array([0, 3])},
]
REVISITED = [
    {"easy": np.array([1, 4]), "hard": np.array([7]), "junk": np.array([2])},
    {"easy": np.array([], dtype=int), "hard": np.array([5]), "junk": np.array([], dtype=int)},
]


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


def test_whitening_is_learned_elsewhere_and_the_gallery_searched_here(folder, other_folder, extractor):
    pipeline = recipes.gem(extractor=extractor, n_components=4)
    evaluation = evaluate(pipeline, folder, whitening_set=other_folder)
    here, there = load_image_folder(folder), load_image_folder(other_folder)
    steps = clone(pipeline)[:-1].fit(there.images)
    descriptors = steps.transform(here.images)
    truth = metrics.ground_truth_from_labels(here.labels)
    expected = metrics.evaluate_rankings(ranks_by_hand(descriptors, descriptors), truth, "labels")["map"]
    np.testing.assert_allclose(evaluation.per_query["map"], expected["per_query"])
    assert evaluation.record["whitening_set"]["name"] == "others"
    assert evaluation.record["dimension"] == 4
    fitted = evaluation.pipeline
    assert isinstance(fitted.named_steps["whitening"], FrozenEstimator)
    np.testing.assert_allclose(fitted[:-1].transform(here.images), descriptors, atol=1e-6)
    again = fitted.fit(there.images)  # another gallery, the same axes
    np.testing.assert_allclose(again[:-1].transform(here.images), descriptors, atol=1e-6)
    assert again.predict(here.images[:1]).max() >= 12


def test_poolers_that_learn_do_it_on_the_whitening_set(folder, other_folder, extractor):
    here, there = load_image_folder(folder), load_image_folder(other_folder)
    evaluation = evaluate(recipes.rmac(extractor=extractor), folder, whitening_set=other_folder)
    maps = clone(extractor).fit(there.images).transform(there.images)
    pooler = RMACPooler(whiten=True).fit(maps)
    descriptors = pooler.transform(clone(extractor).fit(here.images).transform(here.images))
    np.testing.assert_allclose(
        evaluation.pipeline.named_steps["pooler"].transform(
            evaluation.pipeline.named_steps["extractor"].transform(here.images)
        ),
        descriptors,
        atol=1e-6,
    )


def test_labels_of_the_gallery_never_teach(folder, other_folder, extractor):
    pipeline = recipes.gem(extractor=extractor, whitening="learned")
    with pytest.raises((TypeError, ValueError), match=r"y|pairs|labels"):
        evaluate(pipeline, folder)
    supervised = evaluate(pipeline, folder, whitening_set=other_folder)
    there = load_image_folder(other_folder)
    raw = clone(pipeline)[:3].fit(there.images).transform(there.images)
    expected = LearnedWhitening().fit(raw, there.labels)
    np.testing.assert_allclose(
        supervised.pipeline.named_steps["whitening"].transform(raw), expected.transform(raw), atol=1e-6
    )


def test_whitening_learns_from_pairs(folder, other_folder, extractor):
    pipeline = recipes.gem(extractor=extractor, whitening="learned", n_components=3)
    pairs = (np.arange(15), np.arange(3, 18))
    evaluation = evaluate(pipeline, folder, whitening_set=other_folder, whitening_pairs=pairs)
    there = load_image_folder(other_folder)
    raw = clone(pipeline)[:3].fit(there.images).transform(there.images)
    expected = LearnedWhitening(3).fit(raw, pairs=pairs).transform(raw)
    np.testing.assert_allclose(
        evaluation.pipeline.named_steps["whitening"].transform(raw), expected, atol=1e-6
    )
    with pytest.raises(ValueError, match="no step learns from pairs"):
        evaluate(recipes.gem(extractor=extractor), folder, whitening_set=other_folder, whitening_pairs=pairs)
    with pytest.raises(ValueError, match="whitening_set"):
        evaluate(pipeline, folder, whitening_pairs=pairs)


def test_published_ground_truth_groups_what_to_learn_from():
    from skretrieval.evaluation._photo_set import load_photo_set

    truth = [*TRUTH, {"good": np.array([4]), "ok": np.array([11]), "junk": np.array([], dtype=int)}]
    data = Bunch(
        images=rows(), queries=rows(3), query_indices=[1, 9, 11], ground_truth=truth, protocol="oxford"
    )
    groups = load_photo_set(data).groups()
    assert len({groups[i] for i in (1, 4, 7, 11)}) == 1
    assert groups[9] not in (-1, groups[1])
    assert set(groups[[0, 2, 3, 5]]) == {-1}


def test_the_gallery_is_augmented_by_itself(other_folder, folder):
    gallery, queries, elsewhere = rows(), rows(2, seed=1), rows(30, seed=3)
    data = Bunch(
        images=gallery, queries=queries, query_indices=None, ground_truth=TRUTH, protocol="oxford", name="x"
    )
    learn = Bunch(images=elsewhere, protocol="distractors", name="y")
    steps = [("w", PCAWhitening(4)), ("n", Normalizer()), ("dba", DatabaseAugmentation(2))]
    found = evaluate(
        Pipeline([*steps, ("retriever", NearestNeighborsRetriever())]), data, whitening_set=learn
    )
    whitened = PCAWhitening(4).fit(elsewhere).transform
    database = DatabaseAugmentation(2).fit_transform(Normalizer().transform(whitened(gallery)))
    ranks = ranks_by_hand(whitened(queries), database)
    assert found.metrics["map"]["mean"] == metrics.evaluate_rankings(ranks, TRUTH, "oxford")["map"]["score"]


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
    found = compare(pipelines, folder)
    assert log() == 12
    assert [evaluation.name for evaluation in found] == list(pipelines)
    assert str(found["expanded"].metrics) != str(found["gsw"].metrics)
    alone = evaluate(pipelines["grmac"], folder)
    assert not alone.differences(found["grmac"])


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
def test_one_pipeline_takes_each_photograph_through_the_network_once(
    pooler, elsewhere, folder, other_folder, extractor, log
):
    pipeline = POOLERS_THAT_LEARN[pooler](extractor)
    found = evaluate(pipeline, folder, whitening_set=other_folder if elsewhere else None)
    assert log() == (30 if elsewhere else 12)
    assert found.pipeline.named_steps["extractor"].memory is None
    assert found.record["overlap"] == (0 if elsewhere else None)


def test_queries_with_parameters_of_their_own_are_not_extracted_again(folder, extractor, log):
    pipeline = recipes.gem(extractor=extractor, n_components=4)
    usual = evaluate(pipeline, folder)
    before = log()
    pooled = evaluate(pipeline, folder, query_params={"pooler__p": 5})
    assert pooled.metrics["map"] != usual.metrics["map"]
    whitened = evaluate(pipeline, folder, query_params={"normalizer__norm": "max"})
    assert whitened.record["options"]["dict"]["query_params"]["dict"] == {"normalizer__norm": "max"}
    assert log() == before + 2 * 12
    assert pooled.pipeline.named_steps["extractor"].memory is None


def test_a_temporary_place_of_the_maps_is_not_left_in_what_is_returned(folder, extractor, tmp_path):
    pipelines = {p: recipes.gem(extractor=extractor, whitening=None).set_params(pooler__p=p) for p in (2, 3)}
    for one in compare(pipelines, folder):
        assert one.pipeline.named_steps["extractor"].memory is None
    extractor.set_params(memory=str(tmp_path / "own"))
    own = {name: clone(pipeline).set_params(extractor=extractor) for name, pipeline in pipelines.items()}
    for one in compare(own, folder):
        assert one.pipeline.named_steps["extractor"].memory == str(tmp_path / "own")


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


def test_what_cannot_be_evaluated(folder, tmp_path, extractor, make_folder):
    pipeline = recipes.mac(extractor=extractor, whitening=None)
    with pytest.raises(TypeError, match="retriever"):
        evaluate(pipeline[:-1], folder)
    with pytest.raises(ValueError, match="neither a folder nor one of"):
        evaluate(pipeline, "oxford6k")
    with pytest.raises(ValueError, match="no sibling of 'things'"):
        evaluate(pipeline, folder, whitening_set="sibling")
    with pytest.raises(ValueError, match="options"):
        evaluate(pipeline, folder, options={"upright": True})
    with pytest.raises(OSError, match="oxbuild_images"):
        evaluate(pipeline, "oxford5k", data_home=tmp_path)
    with pytest.raises(OSError, match="paris"):
        evaluate(pipeline, folder, whitening_set="paris6k", data_home=tmp_path)
    loose = make_folder("loose", n=3)
    (loose / "a" / "00.png").rename(tmp_path / "one.png")
    (tmp_path / "alone").mkdir()
    (tmp_path / "one.png").rename(tmp_path / "alone" / "one.png")
    with pytest.raises(ValueError, match="neither queries nor labels"):
        evaluate(pipeline, tmp_path / "alone")


def test_a_table_gives_queries_and_boxes(folder, extractor):
    table = folder.parent / "roles.csv"
    lines = ["path,label,role,box", "things/a/00.png,a,query,4 4 50 50"]
    lines += [f"things/{'abc'[i % 3]}/{i:02d}.png,{'abc'[i % 3]},gallery," for i in range(1, 12)]
    table.write_text("\n".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate(recipes.mac(extractor=extractor, whitening=None), f"folder:{table}")
    assert evaluation.record["dataset"]["n_queries"] == 1
    assert evaluation.record["dataset"]["n_images"] == 11
    assert evaluation.record["dataset"]["source"] == {"folder": str(table)}


def test_photographs_that_are_learned_from_and_tested_on_are_told(
    folder, make_folder, extractor, other_folder
):
    there = make_folder("there", n=9, start=500)
    shutil.copy(folder / "b" / "04.png", there / "a" / "again.png")
    pipelines = {
        "a": recipes.gem(extractor=extractor, n_components=3),
        "b": recipes.mac(extractor=extractor, n_components=3),
    }
    with pytest.warns(UserWarning, match=r"1 of 12 test images are in the whitening set of 10") as told:
        found = compare(pipelines, folder, whitening_set=there)
    assert len(told) == 1
    assert found["a"].record["overlap"] == found["b"].record["overlap"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(pipelines["a"], folder, whitening_set=other_folder).record["overlap"] == 0
