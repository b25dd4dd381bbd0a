import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from skretrieval.cli import app

# A small untrained network: quick, deterministic, and a real one.
OPTIONS = ["--extractor", "squeezenet1_1", "--weights", "random", "--size", "64"]


@pytest.fixture
def network_options():
    return list(OPTIONS)


def draw(path, seed, size=(80, 60)):
    """Save a picture of coloured patches that differs with the seed."""
    patches = np.random.RandomState(seed).randint(0, 256, size=(5, 7, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def draw_photograph():
    return draw


def draw_folder(folder):
    """Draw 12 pictures in 3 sub-folders, of two shapes."""
    for number in range(12):
        draw(folder / "abc"[number % 3] / f"{number:02d}.png", number, [(80, 60), (60, 80)][number % 2])
    return folder


@pytest.fixture
def photographs(tmp_path):
    """A folder of photographs that a test may change."""
    return draw_folder(tmp_path / "photographs")


def run_command(*arguments, fails=False):
    """Run a command in this process; returns what it printed. A failure that isn't expected shows in full."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code != 0) == fails, result.output
    return result.output


@pytest.fixture
def run():
    return run_command


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Photographs and their index, for tests that change neither (or only a copy of the index)."""
    folder = tmp_path_factory.mktemp("shared")
    draw_folder(folder / "photographs")
    run_command("index", folder / "photographs", "--out", folder / "index", "--no-progress", *OPTIONS)
    return folder


@pytest.fixture
def shared_photographs(shared):
    return shared / "photographs"


@pytest.fixture
def shared_index(shared):
    return shared / "index"


@pytest.fixture
def index_copy(tmp_path, shared):
    """A copy of the index of `shared_photographs` that a test may damage."""
    return shutil.copytree(shared / "index", tmp_path / "copy")


@pytest.fixture
def index(tmp_path, photographs, run):
    """The index of `photographs`."""
    path = tmp_path / "index"
    run("index", photographs, "--out", path, "--no-progress", *OPTIONS)
    return path
