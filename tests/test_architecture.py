"""Imports run one way, in the order of the data; modules stay short; the public surface is documented."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import skretrieval
from skretrieval.utils import all_estimators

ROOT = Path(skretrieval.__file__).parent
ORDER = [
    "utils",
    "extraction",
    "pooling",
    "postprocessing",
    "retrieval",
    "metrics",
    "datasets",
    "model_selection",
]
ON_TOP = ["recipes", "inspection", "evaluation", "index", "cli"]
SHARED = ["_cache", "_doc_link", "_linalg", "_region_sets"]
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def imported_stages(path):
    """The sub-packages that a module imports when it is imported (not inside functions)."""
    tree = ast.parse((ROOT / path).read_text())
    package = ["skretrieval", *path.parent.parts]
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
        for name in names:
            if name[0] == "skretrieval" and len(name) > 1:
                yield name[1]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_stage_never_imports_a_later_one(path):
    stage = path.parts[0].removesuffix(".py")
    imported = set(imported_stages(path)) - {stage}
    if stage in ORDER:
        allowed = set(ORDER[: ORDER.index(stage)]) - {"utils"} | {*SHARED, "_version"}
        if stage == "datasets":
            allowed = {"extraction"}  # only for ImageCrop
        if stage == "model_selection":
            allowed = {"extraction", "metrics", "datasets"}  # it takes whatever pipeline it is given
        if stage == "utils":
            allowed = set()
        assert imported <= allowed, imported - allowed
    else:
        assert stage in [*ON_TOP, "__init__", "__main__", *SHARED, "_version"]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_stay_short(path):
    assert len((ROOT / path).read_text().splitlines()) <= 420


@pytest.mark.parametrize("package", [*ORDER[1:], "inspection", "evaluation"])
def test_public_names_exist_and_have_docstrings(package):
    module = import_module(f"skretrieval.{package}")
    assert module.__all__
    for name in module.__all__:
        thing = getattr(module, name)
        assert inspect.getdoc(thing), name


@pytest.mark.parametrize(("name", "estimator"), all_estimators())
def test_every_parameter_and_fitted_attribute_is_documented(name, estimator):
    text = inspect.getdoc(estimator)
    parameters = list(inspect.signature(estimator).parameters)
    section = text.partition("Parameters\n----------")[2].partition("\n----")[0]
    for parameter in parameters:
        assert parameter in section, f"{name}: parameter {parameter} is not documented"
    assert "Examples\n--------" in text, f"{name} has no example"
    assert set(estimator._parameter_constraints) >= set(parameters), (
        f"{name}: parameters without constraints: {set(parameters) - set(estimator._parameter_constraints)}"
    )
