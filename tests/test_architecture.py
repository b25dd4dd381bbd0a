"""The house: imports run one way, nobody reaches into another package, modules stay short, each thing stands once."""

import ast
import inspect
import re
from functools import cache, lru_cache
from importlib import import_module, resources
from pathlib import Path

import pytest

import skretrieval
from skretrieval.utils import all_estimators

ROOT = Path(skretrieval.__file__).parent
# The stages in the order of the data; each may import what stands before it.
ORDER = ["extraction", "pooling", "postprocessing", "retrieval", "metrics", "datasets", "model_selection"]
# Stages that may import less than that.
NARROW = {
    "datasets": {"extraction"},  # only for ImageCrop
    "model_selection": {"extraction", "metrics", "datasets"},  # it takes whatever pipeline it is given
}
# What stands on the stages, each on those before it.
ON_TOP = ["recipes", "inspection", "evaluation", "index", "serve", "cli"]
# What every package may use. Packages of these names export what is shared in their __init__.
SHARED = {
    "_average_precision",
    "_cache",
    "_doc_link",
    "_geometry",
    "_io",
    "_linalg",
    "_region_sets",
    "_terminal",
    "_version",
}
PUBLIC = [*ORDER, *ON_TOP, "utils"]
MAX_LINES = 400

# Violations that are still to be mended: each must occur, so that the lists only shrink.
# (module, what it imports)
PRIVATE_IMPORTS: set[tuple[str, str]] = set()
# (module, attribute)
PRIVATE_ATTRIBUTES: set[tuple[str, str]] = set()
# module
LONG: set[str] = set()


@lru_cache(maxsize=1)
def sources():
    """Source and syntax tree of every module, under its path in the package."""
    texts = {path.relative_to(ROOT): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}


MODULES = list(sources())


def home(path):
    """The package a module belongs to, or a module at the top itself: ``pooling``, ``_linalg``, ``__init__``."""
    return path.parts[0].removesuffix(".py")


def exports(package):
    """Names that a shared package or module gives to others."""
    path = Path(package, "__init__.py")
    if path not in sources():
        tree = sources()[Path(f"{package}.py")][1]
        return {name for name in defined(tree) if not name.startswith("_")} | {"__version__"}
    for node in sources()[path][1].body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def defined(tree):
    """Names that the statements of a module bind, imports left out."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def imports(path):
    """What a module imports of this package, also inside functions, as (dotted path, names)."""
    package = ["skretrieval", *path.parent.parts]
    for node in ast.walk(sources()[path][1]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "skretrieval":
                    yield alias.name.split("."), []
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            if base[0] == "skretrieval":
                yield base, [alias.name for alias in node.names]


def imported_packages(path):
    """Packages and shared modules that a module imports."""
    for base, names in imports(path):
        yield from [base[1]] if len(base) > 1 else names


def private_imports(path):
    """Imports of another package that go past its public names."""
    own = home(path)
    for base, names in imports(path):
        for module in [base] if len(base) > 1 else [[*base, name] for name in names]:
            package, inner = module[1], module[2:]
            if package in (own, "__version__"):
                continue
            wanted = names if len(base) > 1 else []
            if package in SHARED:
                private = bool(inner) or not set(wanted) <= exports(package)
            else:
                private = any(name.startswith("_") for name in [*inner, *wanted])
            if private:
                yield ".".join(module[1:]), tuple(wanted)


# Private by their names, but given to everybody by scikit-learn and by named tuples.
GIVEN = {"_parameter_constraints", "_n_features_out", "_replace", "_asdict", "_fields"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in GIVEN


@cache
def private_names(package):
    """Private names that a package defines: methods, functions, variables, attributes, parameters, imported modules."""
    names = set()
    for path, (_, tree) in sources().items():
        if home(path) != package:
            continue
        names.add(path.stem)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                names.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return {name for name in names if is_private(name)}


@lru_cache(maxsize=1)
def all_private_names():
    """Private names that some package of ours defines, with the packages."""
    names: dict[str, set[str]] = {}
    for package in {home(path) for path in MODULES}:
        for name in private_names(package):
            names.setdefault(name, set()).add(package)
    return names


def private_attributes(path):
    """Attributes a module reads that only other packages define, for what inherits from a shared mixin, shared ones.

    An attribute of ``self`` may come from a base class: shared packages may give it to everybody.
    """
    own = home(path)
    for node in ast.walk(sources()[path][1]):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr):
            continue
        owners = all_private_names().get(node.attr, set())
        of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        inherited = of_self and owners & SHARED
        if owners and own not in owners and not inherited:
            yield node.attr


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_stage_never_imports_a_later_one(path):
    own = home(path)
    imported = set(imported_packages(path)) - {own, "__version__"}
    if own in SHARED:
        allowed = SHARED
    elif own in ORDER:
        allowed = SHARED | NARROW.get(own, set(ORDER[: ORDER.index(own)]))
    elif own in ON_TOP:
        allowed = SHARED | set(ORDER) | set(ON_TOP[: ON_TOP.index(own)])
    else:
        assert own in ("__init__", "__main__", "utils")
        allowed = {"_version"}
    assert imported <= allowed, imported - allowed


def test_the_imports_of_packages_have_no_cycle():
    needs = {package: set() for package in {home(path) for path in MODULES}}
    for path in MODULES:
        needs[home(path)] |= set(imported_packages(path)) & needs.keys() - {home(path)}
    while free := [package for package, rest in needs.items() if not rest]:
        for package in free:
            del needs[package]
        for rest in needs.values():
            rest -= set(free)
    assert not needs


def test_no_import_of_a_private_module_of_another_package():
    found = {(path.as_posix(), module) for path in MODULES for module, _ in private_imports(path)}
    assert found == PRIVATE_IMPORTS


def test_no_reach_into_private_attributes_of_another_package():
    found = {(path.as_posix(), name) for path in MODULES for name in private_attributes(path)}
    assert found == PRIVATE_ATTRIBUTES


def test_modules_stay_short():
    found = {path.as_posix() for path, (text, _) in sources().items() if len(text.splitlines()) > MAX_LINES}
    assert found == LONG


def occurrences(pattern):
    """Modules in which code, other than text, matches a pattern, with the number of matches."""
    found = {}
    for path, (_, tree) in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Name) and re.fullmatch(pattern, ast.unparse(node)):
                found[path.as_posix()] = found.get(path.as_posix(), 0) + 1
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.fullmatch(pattern, node.value):  # the name of a hash
                    found[path.as_posix()] = found.get(path.as_posix(), 0) + 1
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if re.fullmatch(pattern, f"{node.module}.{alias.name}"):
                        found[path.as_posix()] = found.get(path.as_posix(), 0) + 1
    return found


@pytest.mark.parametrize("pattern", [r"os\.replace", r"(hashlib\.)?blake2b"])
def test_files_are_written_and_hashed_in_one_place(pattern):
    assert occurrences(pattern) == {"_io.py": 1}


# Eigenvectors that are no principal axes, with what they are.
OTHER_EIGENVECTORS = {
    "extraction/_kernel_learning.py",  # a whitening of patches, in float32: with a rank floor of its own
    "pooling/_second_order/_moments.py",  # logarithms of many small matrices at once
    "postprocessing/_learned_whitening.py",  # the generalised problem of two scatters
}


def test_principal_axes_are_computed_in_one_place():
    found = occurrences(r".*\beigh")
    shared = {path for path in found if path.startswith("_linalg/")}
    assert sum(found[path] for path in shared) == 1
    assert found.keys() - shared == OTHER_EIGENVECTORS


@pytest.mark.parametrize("package", [name for name in PUBLIC if (ROOT / name).is_dir()])
def test_public_names_exist_and_have_docstrings(package):
    module = import_module(f"skretrieval.{package}")
    assert module.__all__
    for name in module.__all__:
        thing = getattr(module, name)
        assert inspect.getdoc(thing), name


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=str)
def test_a_package_lists_what_it_gives(path):
    """Folders inside a package give nothing by themselves: what they hold is named where it is used."""
    inside = len(path.parts) > 2
    assert inside or any(
        isinstance(node, ast.Assign) and node.targets[0].id == "__all__" for node in sources()[path][1].body
    )


def test_type_checkers_are_told_that_there_are_types():
    assert resources.files("skretrieval").joinpath("py.typed").is_file()
    configuration = Path(ROOT.parent, "pyproject.toml")
    if configuration.is_file():  # a checkout: what the wheel takes along
        assert '"py.typed"' in configuration.read_text()


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
