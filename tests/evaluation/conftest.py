import numpy as np
import pytest
from PIL import Image
from references.networks import counting_network

from skretrieval.extraction import ConvFeatureExtractor


def draw_folder(folder, n=12, start=0):
    """Draw pictures of three labels and two shapes; those of a label share half of their patches."""
    for number in range(n):
        path = folder / "abc"[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        base = np.random.RandomState(start + number % 3).randint(0, 256, size=(6, 8, 3))
        own = np.random.RandomState(100 + start + number).randint(0, 256, size=(6, 8, 3))
        patches = np.where(own[..., :1] % 2, base, own).astype(np.uint8)
        size = [(72, 54), (54, 72)][number // 3 % 2]
        Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Twelve pictures of three labels, not to be changed."""
    return draw_folder(tmp_path_factory.mktemp("evaluation") / "things")


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory):
    """Pictures of other things, to learn from."""
    return draw_folder(tmp_path_factory.mktemp("evaluation") / "others", n=18, start=500)


@pytest.fixture
def make_folder(tmp_path):
    return lambda name="copy", **options: draw_folder(tmp_path / name, **options)


@pytest.fixture
def extractor():
    return ConvFeatureExtractor(counting_network, weights=None, image_size=72, device="cpu")


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Count the pictures that go through the network."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(path))
    return lambda: len(path.read_text().splitlines())
