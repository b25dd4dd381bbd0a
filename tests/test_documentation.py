"""Every public name has a page in the API reference, and estimators link to theirs."""

import importlib.util
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import skretrieval
from skretrieval._doc_link import DOCUMENTATION
from skretrieval.datasets import make_feature_maps
from skretrieval.evaluation import papers
from skretrieval.extraction import ConvKernelExtractor
from skretrieval.pooling import GeMPooler, MACPooler, PoolerFusion
from skretrieval.retrieval import NearestNeighborsRetriever
from skretrieval.utils import all_estimators

DOCS = Path(__file__).parents[1] / "docs"
NEEDED = {
    "poolers": [("mac", MACPooler())],
    "pooler": MACPooler(),
    "retriever": NearestNeighborsRetriever(),
}


def extension(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


API = extension("api_pages")
DOCUMENTED = API.documented()


def public_packages():
    names = [found.name for found in pkgutil.iter_modules(skretrieval.__path__) if found.name[0] != "_"]
    modules = [import_module(f"skretrieval.{name}") for name in names]
    return [module for module in modules if getattr(module, "__all__", ())]


def instance(cls):
    needed = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
    ]
    return cls(**{name: NEEDED[name] for name in needed})


@pytest.mark.parametrize("module", public_packages(), ids=lambda module: module.__name__)
def test_every_public_name_has_a_page(module):
    for name in module.__all__:
        full = f"{module.__name__}.{name}"
        if inspect.ismodule(getattr(module, name)):
            assert any(page.startswith(f"{full}.") for page in DOCUMENTED), full
        else:
            assert DOCUMENTED.count(full) == 1, full


def test_every_registered_term_has_a_page():
    pooling = import_module("skretrieval.pooling")
    registries = {
        "channel": pooling.channel.CHANNEL,
        "reductions": pooling.reductions.REDUCTIONS,
        "regions": pooling.regions.REGIONS,
        "spatial": pooling.spatial.SPATIAL,
    }
    for module, registry in registries.items():
        for function in registry.values():
            if function.__name__[0] != "_":
                assert f"skretrieval.pooling.{module}.{function.__name__}" in DOCUMENTED


def test_packages_stand_in_the_order_of_the_data():
    names = [module.__name__.rpartition(".")[2] for module in API.public_packages()]
    stages = ["extraction", "pooling", "postprocessing", "retrieval", "metrics"]
    assert names[: len(stages)] == stages
    assert set(names) == {module.__name__.rpartition(".")[2] for module in public_packages()}


def test_a_package_page_lists_its_names(tmp_path):
    API.write_pages(tmp_path)
    page = (tmp_path / "skretrieval.postprocessing.rst").read_text()
    assert "   PCAWhitening\n" in page
    assert ":toctree: generated" in page
    assert "   skretrieval.postprocessing\n" in (tmp_path / "index.rst").read_text()


def test_pages_that_stay_are_not_written_again(tmp_path):
    API.write_pages(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    API.write_pages(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_inherited_methods_are_told_from_our_own():
    members = API.own_members("skretrieval.retrieval.QueryExpansion")
    assert "kneighbors" in members["methods"]
    assert "get_params" in members["inherited"]
    assert "get_params" not in members["methods"]


def public_classes():
    modules = [*public_packages(), papers]
    found = {name: getattr(module, name) for module in modules for name in module.__all__}
    return [one for one in found.values() if inspect.isclass(one) and not issubclass(one, Exception)]


@pytest.mark.parametrize("cls", public_classes(), ids=lambda cls: cls.__name__)
def test_every_class_says_what_threads_may_do(cls):
    _, _, notes = inspect.getdoc(cls).partition("\nNotes\n-----\n")
    notes = re.split(r"\n\n\w+\n---", notes)[0]
    assert len(re.findall(r"^Threads: ", notes, re.MULTILINE)) == 1


@pytest.mark.parametrize(("name", "cls"), all_estimators())
def test_the_html_of_an_estimator_links_to_its_page(name, cls):
    html = instance(cls)._repr_html_()
    package = ".".join(cls.__module__.split(".")[:2])
    assert f'{DOCUMENTATION}/api/generated/{package}.{name}.html"' in html
    assert f"{package}.{name}" in DOCUMENTED


@pytest.mark.parametrize(("name", "cls"), all_estimators())
def test_the_attributes_of_an_estimator_can_be_listed(name, cls):
    # scikit-learn asks for each of them when it draws a fitted estimator: an error there hides the diagram
    assert "get_params" in dir(instance(cls))


def test_a_fitted_pipeline_draws_its_fused_poolers():
    from sklearn.pipeline import make_pipeline

    maps, _ = make_feature_maps(4, 8, random_state=0)
    fusion = PoolerFusion([("mac", MACPooler()), ("gem", GeMPooler())])
    model = make_pipeline(fusion, NearestNeighborsRetriever(2)).fit(maps)
    assert "/skretrieval.pooling.PoolerFusion.html" in model._repr_html_()


def test_a_subclass_of_a_user_links_nowhere():
    class Own(GeMPooler):
        pass

    assert DOCUMENTATION not in Own()._repr_html_()


def test_the_parts_of_a_pipeline_link_to_their_pages():
    from sklearn.pipeline import make_pipeline

    html = make_pipeline(ConvKernelExtractor(), GeMPooler(), NearestNeighborsRetriever())._repr_html_()
    for page in (
        "extraction.ConvKernelExtractor",
        "pooling.GeMPooler",
        "retrieval.NearestNeighborsRetriever",
    ):
        assert f"/skretrieval.{page}.html" in html


def test_included_files_of_the_root_keep_links_that_lead_on(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nSource = "https://example.org/code"\n')
    (tmp_path / "CONTRIBUTING.md").write_text(
        "[a](docs/guide.md#saving) [b](LICENSE) [c](CHANGELOG.md) [d](https://example.org) [e](#here)\n"
    )
    page = extension("root_files").included("```{include} ../CONTRIBUTING.md\n```\n", tmp_path)
    assert page.split() == [
        "[a](guide.md#saving)",
        "[b](https://example.org/code/blob/main/LICENSE)",
        "[c](changelog.md)",
        "[d](https://example.org)",
        "[e](#here)",
    ]


def test_dictionaries_of_texts_are_written_out():
    assert set(API.entries_of("skretrieval.evaluation.PAPERS")) == {"S000", "S001", "S002", "S003", "S004"}
    assert API.entries_of("skretrieval.cli.app") == {}
