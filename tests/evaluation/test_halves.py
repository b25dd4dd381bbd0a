"""What is scored is not what was learned from, unless that is asked for."""

import json

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils import Bunch

from skretrieval.evaluation import compare, evaluate, rerun
from skretrieval.metrics import leave_one_out_map
from skretrieval.pooling import MACPooler, RMACPooler
from skretrieval.postprocessing import LearnedWhitening, PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever

LABELS = np.repeat(np.arange(8), 4)


def collection(labels=LABELS, d=6, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(labels.max() + 1, d))
    return Bunch(images=centers[labels] + 0.7 * rng.normal(size=(len(labels), d)), labels=labels)


def pipeline(whitening):
    steps = [("normalizer", Normalizer()), ("whitening", whitening), ("unit", Normalizer())]
    return Pipeline([*steps, ("retriever", NearestNeighborsRetriever())])


def by_hand(steps, data, labelled=False):
    """Fit on the objects of even and of odd number, and score the others."""
    first, scores = np.isin(data.labels, np.unique(data.labels)[::2]), []
    for here in (first, ~first):
        fitted = steps[:-1].fit(data.images[~here], data.labels[~here] if labelled else None)
        rows = fitted.transform(data.images[here])
        scores.append(leave_one_out_map(steps[-1], rows, data.labels[here]))
    return np.average(scores, weights=[first.sum(), (~first).sum()])


@pytest.mark.parametrize("whitening", [PCAWhitening(3), PCAWhitening(shrinkage="size"), LearnedWhitening()])
def test_halves_are_the_default_where_a_step_learns(whitening):
    data = collection()
    found = evaluate(pipeline(whitening), data, name="x")
    expected = by_hand(pipeline(whitening), data, labelled=isinstance(whitening, LearnedWhitening))
    assert found.metrics["map"]["mean"] == pytest.approx(expected, abs=1e-12)
    bare = found.record["unwhitened"]["map"]["mean"]
    assert bare == pytest.approx(by_hand(pipeline("passthrough"), data), abs=1e-12)
    assert found.record["fitted_on"]["how"] == found.record["options"]["dict"]["fit_on"] == "halves"
    assert found.metrics["map"]["n_queries"] == len(found.per_query["map"]) == 32
    line = str(found).splitlines()[-1]
    assert line.startswith(
        "x: whitening fitted on one half of the objects, the other half scored, both ways;"
    )
    assert f"without whitening map is {bare:.4f} on the same halves" in line


def test_a_result_on_halves_reruns_to_the_digit(tmp_path):
    data = collection()
    first = evaluate(pipeline(LearnedWhitening()), data)
    first.to_json(tmp_path / "result.json")
    again = rerun(tmp_path / "result.json", dataset=data)
    assert again.differences(first) == []
    assert again.record["unwhitened"] == first.record["unwhitened"]
    content = json.loads((tmp_path / "result.json").read_text())
    (record,) = content["evaluations"]
    assert record["fitted_on"]["steps"] == ["whitening"]
    del record["options"]["dict"]["fit_on"]  # as written before there was a choice
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="learns from labels"):
        rerun(tmp_path / "result.json", dataset=data)


def test_the_gallery_can_be_asked_for_and_is_told():
    data = collection()
    found = evaluate(pipeline(PCAWhitening(3)), data, fit_on="gallery", name="x")
    rows = pipeline(PCAWhitening(3))[:-1].fit_transform(data.images)
    expected = leave_one_out_map(NearestNeighborsRetriever(), rows, data.labels)
    assert found.metrics["map"]["mean"] == pytest.approx(expected, abs=1e-12)
    assert str(found).endswith("x: whitening fitted on the photographs that are scored: the figure flatters")
    plain = evaluate(pipeline("passthrough"), data)
    assert plain.record["fitted_on"] == {"how": "gallery", "steps": [], "told": None}
    with pytest.raises(ValueError, match="learns from labels"):
        evaluate(pipeline(LearnedWhitening()), data, fit_on="gallery")


@pytest.mark.parametrize("fit_on", [None, "halves"])
def test_too_few_objects_for_halves_are_refused(fit_on):
    data = collection(np.repeat(np.arange(3), 4))
    with pytest.raises(ValueError, match=r"four labels.*--whitening-set FOLDER.*--fit-on gallery") as caught:
        evaluate(pipeline(PCAWhitening(3)), data, fit_on=fit_on)
    assert str(caught.value).endswith(".")
    assert evaluate(pipeline("passthrough"), data).metrics["map"]["n_queries"] == 12


def test_mistakes_in_fit_on_are_told():
    data = collection()
    with pytest.raises(ValueError, match="fit_on must be one of gallery, halves or None, got 'thirds'"):
        evaluate(pipeline(PCAWhitening(3)), data, fit_on="thirds")
    with pytest.raises(ValueError, match="give one of them"):
        evaluate(pipeline(PCAWhitening(3)), data, fit_on="halves", whitening_set=collection(seed=1))


def test_pipelines_are_compared_on_the_same_halves():
    data = collection()
    found = compare({"plain": pipeline("passthrough"), "pca": pipeline(PCAWhitening(3))}, data)
    assert {one.record["fitted_on"]["how"] for one in found} == {"halves"}
    assert found["plain"].metrics["map"] == found["pca"].record["unwhitened"]["map"]
    assert str(found).count("both ways") == 2


def test_poolers_that_learn_are_fitted_on_halves():
    maps = np.abs(np.random.default_rng(0).normal(size=(len(LABELS), 5, 6, 6)))
    data = Bunch(images=list(maps), labels=LABELS)

    def steps(pooler):
        return Pipeline(
            [("extractor", "passthrough"), ("pooler", pooler), ("retriever", NearestNeighborsRetriever())]
        )

    found = evaluate(steps(RMACPooler(whiten=True)), data)
    assert found.record["fitted_on"]["steps"] == ["pooler"]
    plain = evaluate(steps(RMACPooler()), data, fit_on="halves")
    assert found.record["unwhitened"] == plain.metrics
    assert evaluate(steps(MACPooler()), data).record["fitted_on"]["how"] == "gallery"


def test_distractors_join_each_half():
    data = collection()
    noise = Bunch(images=collection(seed=5).images[:10], protocol="distractors", name="noise")
    found = evaluate(pipeline(PCAWhitening(3)), data, distractors=[noise])
    assert found.record["dataset"]["n_images"] == 42
    assert found.metrics["map"]["mean"] <= evaluate(pipeline(PCAWhitening(3)), data).metrics["map"]["mean"]
