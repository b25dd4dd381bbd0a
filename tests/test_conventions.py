"""What holds for the whole tree: names, lengths of modules, floors of requirements, joblib in tests."""

import ast
import atexit
import re
import time
import tomllib
from pathlib import Path

import joblib
import pytest

import skretrieval

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("skretrieval", "tests", "benchmarks", "docs", "examples")
FILES = sorted(
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not {"build", "generated", "auto_examples"} & set(path.relative_to(ROOT).parts)
)
LONGEST_NAME, LONGEST_MODULE = 60, 400


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_module_is_longer_than_400_lines(path):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "tests"], ids=str)
def test_names_of_tests_are_short(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not [name for name in names if name.startswith("test_") and len(name) > LONGEST_NAME]


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "tests"], ids=str)
def test_no_test_module_imports_from_another(path):
    """What two share is in tests/references, tests/fixtures, a conftest or a plain module beside them."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    parts = {part for module in modules for part in module.split(".")}
    assert not [part for part in parts if part.startswith("test_") or part == "conftest"]


# Their argument is the name of a thing, of which the code that catches them makes no message.
NO_MESSAGES = {"NamelessError"}


def ends(message):
    """Yield the ends of a message: literal text, or the field of an f-string in braces. Other expressions have none."""
    if isinstance(message, ast.Constant) and isinstance(message.value, str):
        yield message.value
    elif isinstance(message, ast.JoinedStr):
        last = message.values[-1]
        yield last.value if isinstance(last, ast.Constant) else "{" + ast.unparse(last.value) + "}"
    elif isinstance(message, ast.BinOp):
        yield from ends(message.left if isinstance(message.op, ast.Mod) else message.right)
    elif isinstance(message, ast.IfExp):
        yield from [*ends(message.body), *ends(message.orelse)]


def messages(tree):
    """Yield the messages of errors and warnings, also those that have a name before they are raised."""
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "message":
            yield node.value
        elif isinstance(call, ast.Call) and call.args:
            name = ast.unparse(call.func).rpartition(".")[2]
            raised = (
                isinstance(node, ast.Raise) and "." not in ast.unparse(call.func) and name not in NO_MESSAGES
            )
            if raised or name in ("warn", "warn_caller"):
                yield call.args[0]


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parts[0] == "skretrieval"],
    ids=str,
)
def test_messages_end_with_a_full_stop(path):
    """A message may end in that of the error behind it, which ends with a full stop by the same rule."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = {end: message.lineno for message in messages(tree) for end in ends(message)}
    assert not {end: line for end, line in found.items() if not end.endswith(".") and end != "{error}"}


def test_every_requirement_has_a_floor():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        if not requirement.startswith(project["name"]):
            assert re.search(r">=\d|==\d", requirement), requirement


def linger(number):
    atexit.register(time.sleep, 2)  # ending takes a worker that has imported torch a while on a busy machine
    return number


@pytest.mark.timeout(60)
def test_jobs_survive_the_end_of_an_idle_worker():
    """The settings of pytest let joblib's thread warn of it; as an error the warning ended that thread."""
    with joblib.parallel_config("loky", n_jobs=2, idle_worker_timeout=0.5):
        assert joblib.Parallel()(joblib.delayed(linger)(number) for number in range(2)) == [0, 1]
        time.sleep(1)  # both workers are ending now
        assert joblib.Parallel()(joblib.delayed(abs)(-number) for number in range(4)) == [0, 1, 2, 3]


def test_the_citation_has_the_version_of_the_package():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r'^version: "(.*)"$', text, re.MULTILINE)[1] == skretrieval.__version__
