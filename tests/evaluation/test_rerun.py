"""What a result file holds, and that it can be done again to the digit."""

import json
import shutil
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from references.networks import CountingNetwork, counting_network
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils import Bunch

from skretrieval import recipes
from skretrieval.evaluation import Comparison, Evaluation, compare, evaluate, rerun
from skretrieval.evaluation._plain import NotPlainError, from_plain, to_plain
from skretrieval.evaluation._workspace import Workspace
from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor, PatchNetwork
from skretrieval.postprocessing import PCAWhitening
from skretrieval.retrieval import NearestNeighborsRetriever

TRUSTED = ["references.networks.counting_network"]


@pytest.fixture
def network(tmp_path):
    """A small network of torchvision with its weights in a file."""
    path = tmp_path / "weights.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torchvision.models.squeezenet1_1(weights=None)
    torch.save(module.state_dict(), path)
    return ConvFeatureExtractor("squeezenet1_1", weights=str(path), image_size=72, device="cpu"), path


def test_a_result_reruns_to_the_digit(tmp_path, folder, other_folder, network):
    extractor, weights = network
    pipelines = {
        "gsw": recipes.gsw(extractor=extractor, n_components=5, expand=2),
        "vlad": recipes.vlad(extractor=extractor, n_clusters=4, n_components=6),
    }
    first = compare(
        pipelines,
        folder,
        whitening_set=other_folder,
        memory=tmp_path / "cache",
        protocol_params={"kappas": [1, 3]},
    )
    path = tmp_path / "result.json"
    first.to_json(path)
    again = rerun(path)
    assert isinstance(again, Comparison)
    for old, new in zip(first, again, strict=True):
        assert old.differences(new) == []
        assert old.metrics == new.metrics
        np.testing.assert_array_equal(old.per_query["map"], new.per_query["map"])
    written = json.loads(path.read_text())["evaluations"][0]
    assert Evaluation(written).differences(again[0]) == []
    assert set(written["metrics"]) == {"map", "p@1", "p@3"}

    moved, elsewhere = tmp_path / "moved.pth", tmp_path / "elsewhere"
    shutil.move(weights, moved)
    shutil.copytree(folder, elsewhere)
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        rerun(path)
    once_more = rerun(path, weights=moved, dataset=elsewhere)
    assert first[0].differences(once_more[0]) == []


def test_a_result_says_everything(folder, other_folder, network, tmp_path):
    extractor, weights = network
    evaluation = evaluate(recipes.crow(extractor=extractor), folder, whitening_set=other_folder, name="CroW")
    record = json.loads(evaluation.to_json(tmp_path / "one.json"))["evaluations"][0]
    assert record["name"] == "CroW"
    steps = from_plain(record["pipeline"]["steps"])
    assert list(steps.named_steps) == list(recipes.crow().named_steps)
    assert steps.named_steps["extractor"].weights == str(weights)
    assert {"python", "numpy", "torch", "torchvision", "sklearn", "skretrieval"} <= set(record["versions"])
    assert record["device"] == "cpu"
    assert record["dtype"] == "float32"
    assert len(record["weights_fingerprint"]) == 32
    assert record["dataset"]["n_images"] == record["dataset"]["n_queries"] == 12
    assert record["dataset"]["source"] == {"folder": str(folder)}
    assert len(record["dataset"]["hash"]) == 32
    assert record["dataset"]["hash"] != record["whitening_set"]["hash"]
    assert len(record["per_query"]["map"]) == 12
    assert record["metrics"]["map"]["n_queries"] == 12
    text = str(evaluation)
    assert "things: 12 images, 12 queries" in text
    assert (
        f"{evaluation.metrics['map']['mean']:.4f} ± {evaluation.metrics['map']['standard_error']:.4f}" in text
    )


def test_other_photographs_or_weights_are_refused(tmp_path, make_folder, network):
    extractor, weights = network
    folder = make_folder()
    path = tmp_path / "result.json"
    evaluate(recipes.mac(extractor=extractor, whitening=None), folder).to_json(path)
    state = torch.load(weights, weights_only=True)
    name = next(iter(state))
    torch.save({**state, name: state[name] + 0.1}, tmp_path / "others.pth")
    with pytest.raises(ValueError, match="weights are others"):
        rerun(path, weights=tmp_path / "others.pth")
    (folder / "c" / "extra.png").write_bytes((folder / "a" / "00.png").read_bytes())
    with pytest.raises(ValueError, match="photographs or the ground truth of copy are others"):
        rerun(path)


def test_photographs_of_the_same_names_and_sizes_are_others(tmp_path, make_folder, network):
    """Uncompressed pictures of one shape have files of one size."""
    folder = make_folder()
    for path in sorted(folder.rglob("*.png")):
        Image.open(path).resize((72, 54)).save(path.with_suffix(".bmp"))
        path.unlink()
    pipeline = recipes.mac(extractor=network[0], whitening=None)
    path = tmp_path / "result.json"
    first = evaluate(pipeline, folder)
    first.to_json(path)
    others = shutil.copytree(folder, tmp_path / "others")
    pictures = sorted(others.rglob("*.bmp"))
    for one, two in pairwise(pictures):  # each shows what the next one showed
        one.write_bytes(two.read_bytes())
    with pytest.raises(ValueError, match="photographs or the ground truth of others are others"):
        rerun(path, dataset=others)
    workspace = Workspace()
    both = [evaluate(pipeline, place, workspace=workspace) for place in (folder, others)]
    assert both[0].differences(first) == []
    assert both[1].differences(evaluate(pipeline, others)) == []
    assert both[0].metrics["map"] != both[1].metrics["map"]

    assert rerun(path).differences(first) == []
    shutil.copy(pictures[0], folder / pictures[0].relative_to(others))  # in the same process
    with pytest.raises(ValueError, match="are others than those of the result"):
        rerun(path)


def test_a_workspace_tells_of_the_folder_that_was_asked_for(make_folder, tmp_path, extractor):
    folder = make_folder()
    (folder / "a" / "00.png").write_bytes(b"nothing")
    copy = shutil.copytree(folder, tmp_path / "second")
    pipeline = recipes.mac(extractor=extractor, whitening=None).set_params(extractor__on_error="warn")
    workspace = Workspace()
    with pytest.warns(UserWarning, match="could not be read"):
        found = [evaluate(pipeline, place, workspace=workspace) for place in (folder, copy)]
    assert found[0].record["dataset"]["hash"] == found[1].record["dataset"]["hash"]
    for one, place in zip(found, (folder, copy), strict=True):
        assert str(place / "a" / "00.png") in one.record["failed"]["gallery"]["0"]


def test_what_was_given_from_memory_must_be_given_again():
    labels = np.arange(12) % 3
    data = Bunch(images=np.random.default_rng(0).normal(size=(12, 5)), labels=labels)
    first = evaluate(make_pipeline(Normalizer(), NearestNeighborsRetriever()), data)
    with pytest.raises(ValueError, match="given from memory"):
        rerun(first)
    assert first.differences(rerun(first, dataset=data)) == []
    changed = Bunch(images=data.images + 1e-9, labels=labels)
    with pytest.raises(ValueError, match="are others"):
        rerun(first, dataset=changed)


def test_what_was_learned_before_is_no_setting():
    data = Bunch(images=np.random.default_rng(0).normal(size=(12, 5)), labels=np.arange(12) % 3)
    frozen = FrozenEstimator(PCAWhitening(2).fit(data.images))
    result = evaluate(make_pipeline(frozen, NearestNeighborsRetriever()), data)
    assert result.record["dimension"] == 2
    with pytest.raises(ValueError, match="cannot be rerun: a FrozenEstimator"):
        rerun(result, dataset=data)


def test_a_file_names_only_what_is_trusted(folder, extractor, tmp_path):
    path = tmp_path / "result.json"
    first = evaluate(recipes.mac(extractor=extractor, whitening=None), folder)
    first.to_json(path)
    with pytest.raises(ValueError, match=r"references\.networks\.counting_network is not of skretrieval"):
        rerun(path)
    assert first.differences(rerun(path, trusted=TRUSTED)) == []
    for name in ("os.system", "builtins.eval", "sklearn.os.system", "sklearn.utils._testing.check_output"):
        for plain in (
            {"estimator": name, "params": {}},
            {"partial": {"name": name}, "args": [], "keywords": {}},
        ):
            with pytest.raises(ValueError, match=r"is not of|cannot be found"):
                from_plain(plain)
    with pytest.raises(ValueError, match=r"no estimator"):
        from_plain({"estimator": "skretrieval.metrics.recall_at_k", "params": {}})


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.datasets.fetch_file",
        "sklearn.datasets.load_files",
        "sklearn.datasets.dump_svmlight_file",
        "sklearn.utils.estimator_html_repr",
        "skretrieval.datasets.load_image_folder",
        "skretrieval.datasets.fetch_oxford5k",
        "skretrieval.evaluation.rerun",
        "skretrieval.evaluation.reproduce",
        "skretrieval.cli.app",
        "skretrieval.cli.__main__.app",
        "skretrieval.inspection.results_page",
        "skretrieval.extraction._backbones.build_module",
    ],
)
def test_a_file_calls_no_function_that_reads_or_writes_files(name):
    with pytest.raises(ValueError, match="name it in `trusted`"):
        from_plain({"partial": {"name": name}, "args": [], "keywords": {}})
    with pytest.raises(ValueError, match="name it in `trusted`"):
        from_plain({"name": name})


def test_a_hostile_file_writes_nothing(tmp_path, folder, extractor):
    """A function of scikit-learn that copies files would be called as the network is built."""
    path = tmp_path / "result.json"
    evaluate(recipes.mac(extractor=extractor, whitening=None), folder).to_json(path)
    source, place = tmp_path / "payload", tmp_path / "victim"
    source.write_text("anything")
    arguments = [source.as_uri(), str(place)]
    hostile = {"partial": {"name": "sklearn.datasets.fetch_file"}, "args": arguments, "keywords": {}}
    content = json.loads(path.read_text())
    steps = content["evaluations"][0]["pipeline"]["steps"]["params"]["steps"]
    steps[0]["tuple"][1]["params"]["backbone"] = hostile
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"fetch_file .* name it in `trusted`"):
        rerun(path)
    assert not place.exists()


def test_a_file_does_not_say_where_collections_come_from(folder, extractor, tmp_path):
    record = evaluate(recipes.mac(extractor=extractor, whitening=None), folder).record
    for options in ({"mirrors": "http://127.0.0.1:9/"}, {"data_home": str(tmp_path)}):
        record["dataset"]["source"] = {"name": "oxford5k", "options": options}
        with pytest.raises(ValueError, match=f"{next(iter(options))} cannot come from a result"):
            rerun(Evaluation(record), download=True, trusted=TRUSTED)


def test_a_file_does_not_say_where_maps_are_kept(tmp_path):
    plain = to_plain(ConvKernelExtractor(random_state=0))
    plain["params"]["memory"] = str(tmp_path / "anywhere")
    with pytest.raises(ValueError, match="memory cannot come from a file"):
        from_plain(plain)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no JSON"),
        ("[]", "no result"),
        ('{"format": "other"}', "no result"),
        ('{"format": "skretrieval evaluation", "format_version": 9}', "version 9"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        rerun(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        rerun(tmp_path / "nothing.json")


VALUES = [
    None,
    True,
    3,
    0.1,
    float("inf"),
    "text",
    [1, (2, [3.5])],
    {"a": {"b": (1,)}},
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.float32(0.5),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back(value):
    back = from_plain(json.loads(json.dumps(to_plain(value), allow_nan=False)))
    np.testing.assert_equal(back, value)
    assert type(back) is type(value) or isinstance(value, np.generic)
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype


@pytest.mark.parametrize("name", sorted(recipes.__all__))
def test_every_recipe_comes_back(name):
    pipeline = getattr(recipes, name)(n_neighbors=7)
    back = from_plain(json.loads(json.dumps(to_plain(pipeline), allow_nan=False)))
    assert isinstance(back, Pipeline)
    assert repr(back.get_params()) == repr(pipeline.get_params())


def test_factories_come_back():
    network = partial(PatchNetwork, "squeezenet1_1", layer="flatten", patches=(None, (64, 32)))
    back = from_plain(json.loads(json.dumps(to_plain(network))))
    assert (back.func, back.args, back.keywords) == (network.func, network.args, network.keywords)
    assert from_plain(to_plain(counting_network), trusted=TRUSTED) is counting_network
    kernel = ConvKernelExtractor(random_state=0, memory="somewhere", verbose=True)
    back = from_plain(to_plain(kernel))
    assert back.memory is None
    assert back.random_state == 0


@pytest.mark.parametrize("value", [object(), np.random.RandomState(0), CountingNetwork(), lambda: 0, {1: 2}])
def test_what_is_no_setting(value):
    with pytest.raises(NotPlainError):
        to_plain(value)
