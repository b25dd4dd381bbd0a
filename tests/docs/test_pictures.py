"""The script that makes the pictures of the cards runs, with any network, and makes those that are committed."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skretrieval.extraction import ConvFeatureExtractor

pytest.importorskip("skimage")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)  # as where the script runs
        return importlib.import_module("pictures")


@pytest.fixture(scope="module")
def card_pictures(pictures):
    return sys.modules["card_pictures"]


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


def test_windows_are_those_of_the_patch_network(card_pictures):
    assert card_pictures.regions.starts(171, 128, 32) == [0, 32, 43]
    assert card_pictures.regions.starts(256, 128, 32) == [0, 32, 64, 96, 128]
    windows = [(171, 256), (128, 128), (64, 64)]
    counts = [
        len(card_pictures.regions.starts(171, high, 32)) * len(card_pictures.regions.starts(256, wide, 32))
        for high, wide in windows
    ]
    assert sum(counts) == 51  # runs of the network for a photograph of 3:2, as the card says


def test_photographs_shown_are_free_and_come_first(card_pictures):
    scene = card_pictures.Scene(
        ConvFeatureExtractor("squeezenet1_1", weights=None, image_size=64, random_state=0)
    )
    names = [Path(path).stem for path in scene.maps.images]
    assert tuple(names[:3]) == card_pictures.SHOWN == ("coffee", "chelsea", "rocket")
    assert not {"china", "flower"} & set(names)  # of scikit-learn, which ask for attribution
    assert scene.photograph(0).shape == (400, 600, 3)
