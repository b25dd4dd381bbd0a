import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from skretrieval.datasets import _samples, load_sample_photographs


def test_photographs_are_there_and_readable():
    pytest.importorskip("skimage", reason="the sample photographs need the extra photos")
    photographs = load_sample_photographs()
    assert len(photographs.images) == len(photographs.titles) == len(photographs.labels) == 15
    assert len(set(photographs.images)) == 15
    for path in photographs.images:
        with Image.open(path) as image:
            assert max(image.size) >= 300
            image.verify()
    np.testing.assert_array_equal(photographs.target_names[photographs.target], photographs.labels)
    names, counts = np.unique(photographs.labels, return_counts=True)
    assert names[counts == 2].tolist() == ["motorcycle"]
    assert counts.max() == 2


def test_nothing_is_imported_or_downloaded():
    pytest.importorskip("skimage", reason="the sample photographs need the extra photos")
    code = (
        "import sys\n"
        "from skretrieval.datasets import load_sample_photographs\n"
        "load_sample_photographs()\n"
        "assert 'skimage' not in sys.modules and 'pooch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(
        _samples, "find_spec", lambda name: None if name == "skimage" else importlib.util.find_spec(name)
    )
    with pytest.raises(ImportError, match=r"scikit-retrieval\[photos\]"):
        load_sample_photographs()


def test_a_file_that_is_gone_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(_samples, "_package_folder", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"skimage doesn't carry data/astronaut.png"):
        load_sample_photographs()
