"""The examples run as a user runs them."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.feature_extraction import create_feature_extractor

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command):
    # the package may be run from its sources, without having been installed
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def module(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@pytest.mark.slow
def test_search_photographs(tmp_path):
    printed = run(EXAMPLES / "search_photographs.py", tmp_path / "page.html")
    assert float(printed.split("mAP ")[1].split()[0]) > 0.8
    assert "<html" in (tmp_path / "page.html").read_text()


def test_compare_poolers():
    scores = [float(line.split()[0]) for line in run(EXAMPLES / "compare_poolers.py").splitlines()]
    assert len(scores) == 15
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.6


def test_weights_and_regions():
    assert run(EXAMPLES / "weights_and_regions.py").startswith("4 maps, the first of (64, ")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_begins_with_a_title(path):
    first, second = ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()[:2]
    assert second == "=" * len(first)


def test_vision_transformer_tokens():
    lines = run(EXAMPLES / "vision_transformer_tokens.py", "--image-size", "160").splitlines()
    assert lines[0].endswith("maps of (128, 10, 10)")
    scores = {name: float(score) for score, name in (line[4:].split("  ") for line in lines[1:])}
    assert len(scores) == 3
    assert scores["GeM with signs, p = 3"] > 0.6  # 0.22 by chance; random weights


def test_tokens_lie_where_their_patches_are():
    example = module("vision_transformer_tokens")
    torch.manual_seed(0)
    network = example.small_transformer().eval()
    images = torch.randn(2, 3, 160, 160)
    tapped = create_feature_extractor(network.transformer, ["encoder"], suppress_diff_warning=True).eval()
    with torch.no_grad():
        maps, tokens = network(images), tapped(images)["encoder"]
        assert network(torch.randn(1, 3, 90, 120)).shape == (1, 128, 10, 10)
    assert maps.shape == (2, 128, 10, 10)
    expected = tokens[:, 1:].reshape(2, 10, 10, 128).permute(0, 3, 1, 2)  # without the class token
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)


def test_tokens_see_the_normalisation_of_their_weights():
    example = module("vision_transformer_tokens")

    class Pixels(example.TokenMaps):
        def encode(self, images):
            return images.flatten(2).transpose(1, 2)

    pixels = torch.rand(1, 3, 4, 6)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in example.IMAGENET)
    half = (0.5, 0.5, 0.5)
    seen = Pixels(torch.nn.Identity(), 1, mean=half, std=half)((pixels - mean) / std)
    np.testing.assert_allclose(seen, (pixels - 0.5) / 0.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_has_a_test(path):
    assert path.stem in Path(__file__).read_text()
