"""The script that makes the pictures of the cards runs, with any network, and makes those that are committed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("card_pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_makes_what_is_committed(pictures):
    assert set(pictures.PICTURES) == {path.stem for path in (DOCS / "images").iterdir()}


def test_pictures_of_a_network_without_weights(pictures, tmp_path, capsys):
    names = ["crow", "rmac", "vlad", "class_activation", "regional_second_order", "mop_cnn"]
    options = [
        "--backbone",
        "squeezenet1_1",
        "--weights",
        "none",
        "--size",
        "128",
        "--out",
        str(tmp_path / "new"),
    ]
    pictures.main([*options, "--only", *names])
    assert {path.stem for path in (tmp_path / "new").iterdir()} == set(names)
    assert capsys.readouterr().out.count(".png (") == len(names)
    for name in names:
        with (
            Image.open(tmp_path / "new" / f"{name}.png") as made,
            Image.open(DOCS / "images" / f"{name}.png") as kept,
        ):
            assert made.mode == "P"
            # versions of matplotlib cut the margins a pixel apart
            assert np.abs(np.subtract(made.size, kept.size)).max() <= 2
            assert np.asarray(made.convert("L")).std() > 10


def test_the_same_pictures_twice(pictures, tmp_path):
    options = ["--backbone", "squeezenet1_1", "--weights", "none", "--size", "96", "--only", "netvlad"]
    pictures.main([*options, "--out", str(tmp_path / "one")])
    pictures.main([*options, "--out", str(tmp_path / "two")])
    assert (tmp_path / "one" / "netvlad.png").read_bytes() == (tmp_path / "two" / "netvlad.png").read_bytes()


def test_photographs_shown_are_free_and_come_first(pictures):
    scene = pictures.Scene(
        pictures.ConvFeatureExtractor("squeezenet1_1", weights=None, image_size=64, random_state=0)
    )
    names = [Path(path).stem for path in scene.maps.images]
    assert tuple(names[:3]) == pictures.SHOWN == ("coffee", "chelsea", "rocket")
    assert not {"china", "flower"} & set(names)  # of scikit-learn, which ask for attribution
    assert scene.photograph(0).shape == (400, 600, 3)
