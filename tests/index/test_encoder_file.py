"""The encoder in a file of its own."""

import zipfile

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skretrieval import recipes
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.index import IndexDamagedError, load_encoder, save_encoder
from skretrieval.postprocessing import PCAWhitening


def network(**params):
    return ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=48, **params)


def photographs(n=6):
    return list(np.random.default_rng(0).integers(0, 256, (n, 40, 50, 3), dtype=np.uint8))


def test_what_is_read_describes_as_what_was_written(tmp_path):
    pipeline = recipes.spoc(extractor=network(), whitening=PCAWhitening(shrinkage=0.3))
    path = save_encoder(pipeline, tmp_path / "encoder.skops")
    read, digest = load_encoder(path)
    assert [name for name, _ in read.steps] == [name for name, _ in pipeline.steps]
    assert read["whitening"].shrinkage == 0.3
    expected = pipeline.fit(photographs())[:-1].transform(photographs())
    np.testing.assert_array_equal(read.fit(photographs())[:-1].transform(photographs()), expected)
    assert load_encoder(save_encoder(read, tmp_path / "again.skops"))[1] == digest


def test_what_was_fitted_is_not_written(tmp_path):
    pipeline = recipes.gem(extractor=network(), whitening=None)
    unfitted = save_encoder(pipeline, tmp_path / "unfitted.skops")
    fitted = save_encoder(pipeline.fit(photographs()), tmp_path / "fitted.skops")
    assert load_encoder(unfitted)[1] == load_encoder(fitted)[1]
    assert zipfile.is_zipfile(fitted)
    assert fitted.stat().st_size < 50_000


def test_a_pipeline_without_a_retriever_gets_one(tmp_path):
    pipeline = Pipeline(recipes.gem(extractor=network(), whitening=None).steps[:-1])
    assert hasattr(load_encoder(save_encoder(pipeline, tmp_path / "encoder.skops"))[0][-1], "kneighbors")


def test_types_of_others_must_be_named(tmp_path):
    steps = recipes.gem(extractor=network(), whitening=None).steps
    pipeline = Pipeline([*steps[:-1], ("mine", FunctionTransformer(zipfile.is_zipfile)), steps[-1]])
    path = save_encoder(pipeline, tmp_path / "encoder.skops")
    with pytest.raises(ValueError, match=r"holds types that are not trusted: zipfile\.is_zipfile"):
        load_encoder(path)
    assert load_encoder(path, trust=["zipfile.is_zipfile"])[0]["mine"].func is zipfile.is_zipfile


def test_errors(tmp_path):
    with pytest.raises(TypeError, match="must be a Pipeline, got str"):
        save_encoder("gem", tmp_path / "encoder.skops")
    with pytest.raises(FileNotFoundError, match="No such file"):
        load_encoder(tmp_path / "encoder.skops")
    (tmp_path / "encoder.skops").write_bytes(b"nothing")
    with pytest.raises(IndexDamagedError, match=r"encoder\.skops is damaged"):
        load_encoder(tmp_path / "encoder.skops")
