"""Networks of transformers from folders: maps, what their processors ask for, and what is missing."""

import json
import pickle
import shutil

import numpy as np
import pytest
from fixtures.networks_of_today import hf_folder, network, three_shapes
from sklearn.base import clone

from skretrieval.extraction import ConvFeatureExtractor

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("kind", "multiple", "prefix"),
    [
        ("Dinov2", 14, 1),
        ("Dinov2WithRegisters", 14, 5),
        ("ViT", 8, 1),
        ("ConvNextV2", 32, 0),
        ("SiglipVision", 8, 0),
    ],
)
def test_kinds_give_finite_maps_of_three_shapes(kind, multiple, prefix, tmp_path):
    extractor = network(hf_folder(tmp_path, kind), weights="DEFAULT")
    first = list(extractor.fit_transform(three_shapes()))
    for maps, image in zip(first, three_shapes(), strict=True):
        assert maps.shape[0] == 16
        assert np.isfinite(maps).all()
        assert (maps.shape[1] - maps.shape[2]) * (image.shape[0] - image.shape[1]) >= 0
    net = extractor._network()
    assert net.size_multiple == multiple
    assert net.mean == (0.5, 0.4, 0.3)
    assert net.std == (0.25, 0.25, 0.2)
    assert net.interpolation == "bilinear"
    assert net.module.maps.reader.n_prefix == prefix
    last = clone(extractor).set_params(layers=-1).fit_transform(three_shapes())[0]
    np.testing.assert_allclose(last, first[0], atol=1e-6)
    assert clone(extractor).fit(three_shapes()).fingerprint_ == extractor.fingerprint_


def test_tokens_are_those_of_the_network(tmp_path):
    from transformers import AutoModel

    name = hf_folder(tmp_path)
    extractor = network(name, weights="DEFAULT", tokens="patch+cls", normalization=(0, 1), image_size=56)
    image = np.random.default_rng(1).integers(0, 256, (56, 42, 3), dtype=np.uint8)
    maps, cls = extractor.fit_transform([image])[0]
    import torch

    pixels = torch.tensor(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        tokens = AutoModel.from_pretrained(tmp_path).eval()(pixels).last_hidden_state[0].numpy()
    np.testing.assert_allclose(cls[:, 0, 0], tokens[0], atol=1e-5)
    np.testing.assert_allclose(maps, tokens[5:].T.reshape(16, 4, 3), atol=1e-5)


def test_a_stored_network_needs_no_folder(tmp_path):
    extractor = network(hf_folder(tmp_path / "net"), weights="DEFAULT", tokens="patch+cls").fit(
        three_shapes()
    )
    wanted = extractor.transform(three_shapes())[0]
    kept = pickle.dumps(extractor)
    named = pickle.dumps(extractor.set_params(store_weights=False).fit(three_shapes()))
    shutil.rmtree(tmp_path / "net")
    for found, expected in zip(pickle.loads(kept).transform(three_shapes())[0], wanted, strict=True):
        assert np.array_equal(found, expected)
    with pytest.raises((OSError, ValueError), match="net"):
        pickle.loads(named).transform(three_shapes())


def test_random_weights_follow_random_state(tmp_path):
    name = hf_folder(tmp_path)
    prints = [network(name, random_state=seed).fit(three_shapes()).fingerprint_ for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_weights_of_a_classifier_by_path(tmp_path):
    from transformers import AutoModelForImageClassification

    name = hf_folder(tmp_path / "net", "ViT")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "net")
    model.save_pretrained(tmp_path / "classifier")
    whole = network(name, weights="DEFAULT").fit(three_shapes())
    path = tmp_path / "classifier" / "model.safetensors"
    assert network(name, weights=path).fit(three_shapes()).fingerprint_ == whole.fingerprint_


def test_weights_that_do_not_fit_are_refused(tmp_path):
    import torch

    name = hf_folder(tmp_path / "net")
    torch.save({"nothing": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"do not fit the backbone"):
        network(name, weights=tmp_path / "other.pth").fit(three_shapes())


def test_licences_stand_in_the_folder(tmp_path):
    assert (
        ConvFeatureExtractor(hf_folder(tmp_path / "a", licence="cc-by-4.0")).weights_licence() == "cc-by-4.0"
    )
    assert ConvFeatureExtractor(hf_folder(tmp_path / "b")).weights_licence() is None
    (tmp_path / "b" / "README.md").write_text("---\nlicense: other\nlicense_name: dinov3-license\n---\n")
    assert ConvFeatureExtractor(f"hf:{tmp_path / 'b'}").weights_licence() == "dinov3-license"


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        ConvFeatureExtractor(f"hf:{tmp_path / 'empty'}").fit(three_shapes())
    with pytest.raises(ValueError, match="no such folder, and no name of a model"):
        ConvFeatureExtractor(f"hf:{tmp_path / 'nowhere'}").fit(three_shapes())
    name = hf_folder(tmp_path / "net")
    assert ConvFeatureExtractor(name).missing_weights() is None
    (tmp_path / "net" / "model.safetensors").unlink()
    assert "model.safetensors of" in ConvFeatureExtractor(name).missing_weights()
    with pytest.raises(OSError, match=r"Put config\.json and model\.safetensors into"):
        ConvFeatureExtractor(name).fit(three_shapes())
    with pytest.raises(OSError, match=r"hf download facebook/dinov2-small config\.json"):
        ConvFeatureExtractor("hf:facebook/dinov2-small").fit(three_shapes())


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "nonsense"}', '{"model_type": "bert"}'])
def test_hostile_configurations_are_errors(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((ValueError, OSError)):
        network(f"hf:{tmp_path}").fit_transform(three_shapes())[0]


def test_hostile_processors_are_errors(tmp_path):
    name = hf_folder(tmp_path)
    for values in ({"image_std": [0, 0, 0]}, {"image_mean": ["a"]}, [1]):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
        with pytest.raises(ValueError, match=r"std|mean|preprocessor_config"):
            network(name).fit(three_shapes())
    network(name, normalization=(0.5, 0.5))


def test_code_of_a_model_is_never_run(tmp_path):
    name = hf_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    config["model_type"] = "evil"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ValueError, match="hf:"):
        network(name).fit(three_shapes())
