"""Write the API reference: a page per package, and a page for every name in its ``__all__``.

The packages stand in the order of the data. Nothing here needs Sphinx except :func:`setup`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

#: Packages and what their page is called, in the order of the data.
PACKAGES = {
    "extraction": "Photographs to feature maps",
    "pooling": "Feature maps to descriptors",
    "postprocessing": "Descriptors to better descriptors",
    "retrieval": "Descriptors to ranked neighbours",
    "metrics": "Rankings to scores",
    "datasets": "Data sets",
    "model_selection": "Choosing parameters",
    "recipes": "Published methods as Pipelines",
    "evaluation": "Pipelines under published protocols",
    "inspection": "Looking at what a stage does",
    "index": "A folder of photographs as an index",
    "serve": "An index as a page and a REST API",
    "cli": "The command line",
    "utils": "Finding the estimators",
}
GENERATED = "generated"


def public_packages() -> list[ModuleType]:
    """Return the packages that have public names, in the order of the data."""
    root = Path(import_module("skretrieval").__file__).parent
    there = [name for name in PACKAGES if (root / name / "__init__.py").is_file()]
    modules = [import_module(f"skretrieval.{name}") for name in there]
    return [module for module in modules if getattr(module, "__all__", ())]


def own_functions(module: ModuleType) -> list[str]:
    """Return the public functions that a module defines, in the order of the file."""
    names = [
        name
        for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
    ]
    return sorted(names, key=lambda name: inspect.getsourcelines(getattr(module, name))[1])


def sections(package: ModuleType) -> Iterator[tuple[str, str, list[str]]]:
    """Yield heading, text and names of the tables on a package's page.

    A name that is a module (a registry of the grammar's terms) has a table of its own, of its functions.
    """
    kinds: dict[str, list[str]] = {"Classes": [], "Functions": [], "Data": []}
    modules = {}
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.ismodule(thing):
            modules[name] = thing
        elif inspect.isclass(thing):
            kinds["Classes"].append(name)
        else:
            kinds["Functions" if inspect.isroutine(thing) else "Data"].append(name)
    for heading, names in kinds.items():
        if names:
            yield heading, "", names
    for name, module in modules.items():
        yield name, inspect.getdoc(module) or "", [f"{name}.{own}" for own in own_functions(module)]


def documented() -> list[str]:
    """Return the full name of everything that has a page of its own."""
    return [
        f"{package.__name__}.{name}"
        for package in public_packages()
        for _, _, names in sections(package)
        for name in names
    ]


def package_page(package: ModuleType) -> str:
    """Return the reStructuredText of a package's page."""
    title = PACKAGES[package.__name__.rpartition(".")[2]]
    heading = f"{title}: ``{package.__name__}``"
    lines = [heading, "=" * len(heading), "", inspect.getdoc(package) or "", ""]
    lines += [f".. currentmodule:: {package.__name__}", ""]
    for name, text, names in sections(package):
        lines += [name, "-" * len(name), "", text, "", ".. autosummary::", f"   :toctree: {GENERATED}", ""]
        lines += [f"   {entry}" for entry in names]
        lines += [""]
    return "\n".join(lines)


def index_page(packages: list[ModuleType]) -> str:
    """Return the reStructuredText of the page that leads to the packages."""
    lines = ["API reference", "=============", ""]
    lines += [
        "Every public name, in the order of the data: photographs, feature maps, descriptors, rankings, scores."
    ]
    lines += ["", ".. toctree::", "   :maxdepth: 1", ""]
    return "\n".join([*lines, *(f"   {package.__name__}" for package in packages), ""])


def write_pages(folder: Path) -> None:
    """Write the pages that differ from what lies there, so that nothing else is built again."""
    packages = public_packages()
    pages = {"index": index_page(packages)} | {
        package.__name__: package_page(package) for package in packages
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def own_members(fullname: str) -> dict[str, list[str]]:
    """Split the public members of a class: ``ours`` (to be documented) and ``sklearn`` (named only), attributes apart.

    Parameters
    ----------
    fullname : str
        Package and class.

    Returns
    -------
    members : dict of lists of str
        ``methods``, ``properties``: ours; ``inherited``: methods defined by other packages.
    """
    package, _, name = fullname.rpartition(".")
    cls = getattr(import_module(package), name)
    found: dict[str, list[str]] = {"methods": [], "properties": [], "inherited": []}
    for member in dir(cls):
        if member.startswith("_"):
            continue
        thing = inspect.getattr_static(cls, member)
        if isinstance(thing, property):
            kind, function = "properties", thing.fget
        else:
            kind, function = "methods", inspect.unwrap(getattr(cls, member))
            if not callable(function):
                continue
        ours = (getattr(function, "__module__", None) or "").startswith("skretrieval")
        if ours:
            found[kind].append(member)
        elif kind == "methods" and (getattr(function, "__module__", None) or "").startswith("sklearn"):
            found["inherited"].append(member)
    return found


def type_of(fullname: str) -> str:
    """Return the name of the type of a public value that is neither a class nor a function."""
    return type(_value(fullname)).__name__


def entries_of(fullname: str) -> dict[str, str]:
    """Return what a public dictionary of texts holds, nothing of any other value."""
    value = _value(fullname)
    texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return dict(value) if texts else {}


def _value(fullname: str) -> Any:
    package, _, name = fullname.rpartition(".")
    return getattr(import_module(package), name)


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx looks for its sources."""
    app.connect("config-inited", lambda app, config: write_pages(Path(app.srcdir) / "api"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
