"""Models on disk: bit-equal when read, and nothing in them runs."""

import os

import numpy as np
import pytest
import skops.io
from fixtures.indexes import pipeline, update
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skretrieval._io import hash_bytes
from skretrieval.index import ImageIndex, IndexDamagedError
from skretrieval.index._models import load_model, model_bytes, read_model, write_weights
from skretrieval.index._table import open_engine


class Own(BaseEstimator):
    """A type of somebody's own."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


def test_a_fitted_pipeline_is_read_bit_equal(made, tmp_path):
    files = [str(file) for file in sorted((made / "photographs").rglob("*.png"))]
    fitted = pipeline(whitened=True).fit(files)
    content, weights = model_bytes(fitted)
    for digest, tensors in weights.items():
        (tmp_path / f"weights-{digest}.safetensors").write_bytes(tensors)
    loaded = load_model(content, tmp_path)
    np.testing.assert_array_equal(loaded.transform(files), fitted.transform(files))


@pytest.mark.parametrize("step", [Own(), FunctionTransformer(os.system)])
def test_types_and_functions_of_others_are_refused_by_name(tmp_path, step):
    content = skops.io.dumps(Pipeline([("step", step)]))
    names = skops.io.get_untrusted_types(data=content)
    with pytest.raises(ValueError, match="holds types that are not trusted") as error:
        load_model(content, tmp_path)
    assert all(name in str(error.value) for name in names)
    if isinstance(step, Own):
        assert isinstance(load_model(content, tmp_path, trust=names).steps[0][1], Own)


def test_a_model_does_not_say_from_where_is_read(tmp_path):
    inner = pipeline()
    inner.set_params(memory=str(tmp_path / "evil"), extractor__memory=str(tmp_path / "evil"))
    outer = Pipeline([("inner", inner), ("end", "passthrough")], memory=str(tmp_path / "evil"))
    loaded = load_model(skops.io.dumps(outer), tmp_path)
    found = {key: value for key, value in loaded.get_params().items() if key.rpartition("__")[2] == "memory"}
    assert len(found) == 3
    assert set(found.values()) == {None}


@pytest.mark.parametrize("content", [b"", b"PK", b"no model", b"\0" * 100])
def test_what_is_no_model_is_damaged(tmp_path, content):
    with pytest.raises(IndexDamagedError, match="is damaged"):
        load_model(content, tmp_path)


@pytest.mark.parametrize("thing", [Own(), [1], {"a": 1}])
def test_a_model_that_is_no_pipeline_is_damaged(tmp_path, thing):
    content = skops.io.dumps(thing)
    with pytest.raises(IndexDamagedError, match="cannot be loaded"):
        load_model(content, tmp_path, trust=skops.io.get_untrusted_types(data=content))


def test_a_model_of_another_content_is_refused(plain):
    (file,) = plain.glob("encoder-*.skops")
    other = skops.io.dumps(Pipeline([("step", FunctionTransformer(None))]))
    file.write_bytes(other)
    with pytest.raises(IndexDamagedError, match="has changed since it was written"):
        read_model(plain, file.name)
    for name in (f"encoder-{hash_bytes(other)}.skops", "../x", "", "model-x.skops"):
        with pytest.raises(IndexDamagedError):
            read_model(plain, name)


def test_weights_of_another_digest_are_refused(plain, query):
    (file,) = plain.glob("weights-*")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(IndexDamagedError, match=r"weights-.* has changed since it was written"):
        ImageIndex(plain).search(query)


def test_indexes_share_one_file_of_weights(tmp_path, made):
    for name in ("one", "two"):
        update(ImageIndex.create(tmp_path / name, pipeline()), made / "photographs")
    (one,), (two,) = ((tmp_path / name).glob("weights-*") for name in ("one", "two"))
    assert one.samefile(two)


def test_weights_that_a_kill_cut_short_are_written_again(plain):
    (file,) = plain.glob("weights-*")
    content, digest = file.read_bytes(), file.stem.split("-")[1]
    file.unlink()
    file.write_bytes(content[:100])
    write_weights(open_engine(plain, write=True), plain, digest, content)
    assert file.read_bytes() == content
