"""Indexes of networks of other libraries: written without code, read without the network's folder."""

import shutil

import joblib
import numpy as np
import pytest
from fixtures.networks_of_today import hf_folder, network, three_shapes
from PIL import Image

from skretrieval import recipes
from skretrieval.index import ImageIndex
from skretrieval.pooling import keep_signs


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photographs"
    path.mkdir()
    for number, image in enumerate(three_shapes() * 2):
        Image.fromarray(image // (1 + number % 4)).save(path / f"{number}.png")
    return path


def test_a_network_of_timm_in_an_index(folder, tmp_path):
    encoder = recipes.spoc(
        extractor=network("timm:tf_efficientnet_lite0", weights="DEFAULT", layers=3), whitening=None
    )
    index = ImageIndex.create(tmp_path / "index", keep_signs(encoder))
    assert index.info()["settings"]["weights_licence"] == "apache-2.0"
    list(index.update(folder))
    found = ImageIndex(tmp_path / "index").search(folder / "2.png", n_neighbors=3)
    assert found.paths[0].endswith("2.png")
    assert found.similarities[0] > 0.999


def test_a_network_of_transformers_in_an_index(folder, tmp_path):
    name = hf_folder(tmp_path / "net", licence="mit")
    encoder = recipes.gem(
        extractor=network(name, weights="DEFAULT", tokens="patch", normalization=[0.5, 0.2]), whitening=None
    )
    index = ImageIndex.create(tmp_path / "index", keep_signs(encoder))
    assert index.info()["settings"]["weights_licence"] == "mit"
    list(index.update(folder))
    shutil.rmtree(tmp_path / "net")
    found = ImageIndex(tmp_path / "index").search(folder / "1.png", n_neighbors=2)
    assert found.paths[0].endswith("1.png")


def test_networks_cross_processes():
    extractor = network("timm:test_vit", tokens="patch+cls").fit(three_shapes())
    wanted = extractor.transform(three_shapes())[0]
    jobs = (joblib.delayed(_first)(extractor) for _ in range(2))
    for found in joblib.Parallel(n_jobs=2)(jobs):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def _first(extractor):
    return extractor.transform(three_shapes())[0]
