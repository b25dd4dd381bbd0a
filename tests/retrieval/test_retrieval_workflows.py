"""Retrievers in the company of scikit-learn and joblib: pipelines, searches, processes, files, memmaps."""

import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer

from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


@pytest.fixture(scope="module")
def objects():
    """Descriptors of 12 objects, 8 noisy views each."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 8)
    X = rng.normal(size=(12, 16))[y] + 1.2 * rng.normal(size=(96, 16))
    return X.astype(np.float32), y


def as_regions(X):
    """Three regions per row, as a pooler might give."""
    return [np.stack([row, np.roll(row, 1), -row]) for row in X]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_expansion_and_metric(objects, n_jobs):
    X, y = objects
    pipeline = Pipeline(
        [("normalizer", Normalizer()), ("retriever", QueryExpansion(NearestNeighborsRetriever()))]
    )
    grid = {
        "retriever__n_expand": [0, 3],
        "retriever__alpha": [0.0, 3.0],
        "retriever__retriever__metric": ["cosine", "manhattan"],
    }
    search = GridSearchCV(pipeline, grid, cv=StratifiedKFold(3), n_jobs=n_jobs, error_score="raise").fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert scores.shape == (8,)
    assert np.isfinite(scores).all()
    by_hand = clone(pipeline).set_params(retriever__n_expand=0)
    assert cross_val_score(by_hand, X, y, cv=StratifiedKFold(3)).mean() == pytest.approx(scores[0], abs=1e-12)
    # Expanding with views of the same object helps, alpha means nothing when nothing is expanded.
    params = search.cv_results_["params"]
    found = {tuple(p[key] for key in sorted(p)): score for p, score in zip(params, scores)}
    assert found[0.0, 3, "cosine"] > found[0.0, 0, "cosine"]
    assert found[0.0, 0, "cosine"] == found[3.0, 0, "cosine"]
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    assert search.predict(X[:2]).shape == (2, 96)


def test_region_sets_in_a_pipeline_with_two_processes(objects):
    X, y = objects
    pipeline = make_pipeline(FunctionTransformer(as_regions), QueryExpansion(NearestNeighborsRetriever()))
    assert "queryexpansion__retriever__metric" in pipeline.get_params()
    grid = {"queryexpansion__n_expand": [0, 2], "queryexpansion__include_query": [False]}
    search = GridSearchCV(pipeline, grid, cv=StratifiedKFold(2), n_jobs=2, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_pipeline_scores_with_weights(objects):
    X, y = objects
    pipeline = make_pipeline(PCA(8), NearestNeighborsRetriever()).fit(X, y)
    first = np.zeros(96)
    first[0] = 1
    weighted = pipeline.score(X, y, sample_weight=first)
    assert weighted == pytest.approx(pipeline.score(X[:1], y[:1]), abs=1e-12)
    assert weighted != pytest.approx(pipeline.score(X, y))


ESTIMATORS = [
    NearestNeighborsRetriever(9),
    NearestNeighborsRetriever(9, metric="manhattan"),
    QueryExpansion(NearestNeighborsRetriever(9, metric="euclidean"), 4, alpha=2.0),
    QueryExpansion(QueryExpansion(NearestNeighborsRetriever(9))),
]


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_pickle_and_joblib_are_bit_equal(objects, tmp_path, estimator, regions):
    X, y = objects
    X = as_regions(X) if regions else X
    fitted = clone(estimator).fit(X, y)
    expected = fitted.kneighbors(X[:11])
    joblib.dump(fitted, tmp_path / "retriever.joblib")
    copies = [pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "retriever.joblib")]
    copies.append(joblib.load(tmp_path / "retriever.joblib", mmap_mode="r"))
    for copy in copies:
        for found, same in zip(copy.kneighbors(X[:11]), expected):
            assert_array_equal(found, same)
        assert copy.score(X, y) == fitted.score(X, y)
    # What was read through a memory map can still grow and shrink.
    grown = copies[-1].partial_fit(X[:2], y[:2]).remove([0])
    assert grown.n_samples_fit_ == 97


def test_a_new_process_finds_the_same(objects, tmp_path):
    X, y = objects
    pipeline = make_pipeline(PCA(8), QueryExpansion(NearestNeighborsRetriever(9), 3)).fit(X, y)
    joblib.dump((pipeline, X), tmp_path / "pipeline.joblib")
    code = (
        "import joblib, numpy, sys\n"
        "pipeline, X = joblib.load(sys.argv[1])\n"
        "numpy.savez(sys.argv[2], *pipeline[-1].kneighbors(pipeline[:-1].transform(X)))\n"
    )
    files = [str(tmp_path / "pipeline.joblib"), str(tmp_path / "found.npz")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    found = np.load(files[1])
    for name, same in zip(found.files, pipeline[-1].kneighbors(pipeline[:-1].transform(X))):
        assert_array_equal(found[name], same)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_read_only_memmaps(objects, tmp_path, estimator):
    X, y = objects
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert not mapped.flags.writeable
    expected = clone(estimator).fit(X, y)
    fitted = clone(estimator).fit(mapped, y)
    for found, same in zip(fitted.kneighbors(mapped), expected.kneighbors(X)):
        assert_array_equal(found, same)
    assert_array_equal(fitted.kneighbors()[1], expected.kneighbors()[1])
    assert fitted.score(mapped, y) == expected.score(X, y)
    fitted.partial_fit(mapped, y)
    regions = [row[None] for row in mapped]
    assert_array_equal(clone(estimator).fit(regions).predict(regions), expected.predict(X))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_inputs_are_never_written_to(objects, estimator):
    X, y = (array.copy() for array in objects)
    fitted = clone(estimator).fit(X, y)
    fitted.kneighbors(X)
    fitted.score(X, y)
    fitted.partial_fit(X, y).remove([3])
    assert_array_equal(X, objects[0])
    assert_array_equal(y, objects[1])


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_columns_of_data_frames_are_compared(objects, estimator):
    X, _ = objects
    frame = pd.DataFrame(X, columns=[f"axis {i}" for i in range(16)])
    fitted = clone(estimator).fit(frame)
    assert_array_equal(fitted.feature_names_in_, frame.columns)
    assert_array_equal(fitted.predict(frame), clone(estimator).fit(X).predict(X))
    assert fitted.kneighbors()[1].shape == (96, 9)  # the gallery itself has no names to miss
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame.rename(columns={"axis 3": "axis of evil"}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        fitted.predict(X)
