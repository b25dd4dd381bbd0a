"""What a pipeline learns, it learns on other photographs than those it searches."""

import shutil
import warnings

import numpy as np
import pytest
from fixtures.evaluation import TRUTH, ranks_by_hand, rows
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils import Bunch

from skretrieval import metrics, recipes
from skretrieval.datasets import load_image_folder
from skretrieval.evaluation import compare, evaluate
from skretrieval.pooling import RMACPooler
from skretrieval.postprocessing import (
    DatabaseAugmentation,
    LearnedWhitening,
    PCAWhitening,
    WhiteningWarning,
)
from skretrieval.retrieval import NearestNeighborsRetriever


def test_whitening_is_learned_elsewhere_and_search_is_here(folder, other_folder, extractor):
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


def test_photographs_both_learned_from_and_tested_on_are_told(folder, make_folder, extractor, other_folder):
    there = make_folder("there", n=9, start=500)
    shutil.copy(folder / "b" / "04.png", there / "a" / "again.png")
    pipelines = {
        "a": recipes.gem(extractor=extractor, n_components=3),
        "b": recipes.mac(extractor=extractor, n_components=3),
    }
    with pytest.warns(UserWarning, match=r"1 of 12 test images are in the whitening set of 10") as told:
        found = compare(pipelines, folder, whitening_set=there)
    assert sum("test images are in" in str(one.message) for one in told) == 1
    assert found["a"].record["overlap"] == found["b"].record["overlap"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", WhiteningWarning)
        assert evaluate(pipelines["a"], folder, whitening_set=other_folder).record["overlap"] == 0
