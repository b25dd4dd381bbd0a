"""Photographs that are in the fit set and in the test set."""

import os
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from skretrieval.extraction import ConvKernelExtractor, ImageCrop
from skretrieval.model_selection import warn_if_overlapping


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for i in range(5):
        found.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)).save(found[-1])
    return found


def pixels(path):
    return np.asarray(Image.open(path))


def overlap(fit, test, **params):
    """The pairs, and the message (None without a warning)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pairs = warn_if_overlapping(fit, test, **params)
    assert len(caught) == bool(len(pairs))
    return pairs.tolist(), str(caught[0].message) if caught else None


def test_the_same_file_and_a_copy_of_it(paths, tmp_path):
    copy = shutil.copy(paths[1], tmp_path / "holiday.png")
    pairs, message = overlap(paths[:3], [str(paths[4]), copy, paths[2]], fit_name="whitening set")
    assert pairs == [[1, 1], [2, 2]]
    assert "2 of 3 test images are in the whitening set of 3" in message
    assert "holiday.png" in message
    assert str(paths[1]) in message


def test_nothing_in_common(paths):
    pairs = warn_if_overlapping(paths[:3], paths[3:])  # a warning would be an error here
    assert pairs.shape == (0, 2)


def test_crops_count_as_their_photograph(paths):
    query = ImageCrop(paths[3], (0, 0, 5, 5))
    assert overlap(paths, [query])[0] == [[0, 3]]
    assert overlap([query], [paths[3]])[0] == [[0, 0]]
    assert overlap([ImageCrop(str(paths[3]), (5, 5, 9, 9))], [query])[0] == [[0, 0]]
    assert overlap([pixels(paths[3])], [query])[0] == [[0, 0]]
    assert overlap(paths[:3], [query])[0] == []


def test_pixels_are_compared_with_files(paths):
    array, picture = pixels(paths[2]), Image.open(paths[4])
    assert overlap(paths, [array, picture, array // 2])[0] == [[0, 2], [1, 4]]
    assert overlap(np.stack([pixels(path) for path in paths]), paths)[0] == [[i, i] for i in range(5)]
    # the same number of bytes in another shape is another photograph
    assert overlap([array], [array.reshape(15, 12, 3)])[0] == []


def test_first_image_of_the_fit_set(paths):
    assert overlap([paths[1], paths[0], paths[0]], [paths[0]])[0] == [[0, 1]]


def test_lazy_maps_maps_and_descriptors(paths):
    maps = ConvKernelExtractor(n_channels=(8, 8), image_size=12, random_state=0).fit_transform(paths)
    assert overlap(maps[:3], maps[2:])[0] == [[0, 2]]
    assert overlap(list(maps)[:3], list(maps)[2:])[0] == [[0, 2]]
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    X[0, 0] = 0.0
    other = X[[5, 0]].astype(np.float64)
    other[1, 0] = -0.0
    assert overlap(X, other)[0] == [[0, 5], [1, 0]]
    assert overlap(X, other + 1e-9)[0] == []


def test_errors(paths, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Entry 1 .*gone\.jpg"):
        warn_if_overlapping(paths, [paths[0], tmp_path / "gone.jpg"])
    with pytest.raises(ValueError, match="0 images"):
        warn_if_overlapping(paths, [])
    with pytest.raises(ValueError, match="photographs and the other arrays"):
        warn_if_overlapping(paths, np.ones((2, 3)))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    assert overlap([broken], [broken])[0] == [[0, 0]]  # files are not decoded
    with pytest.raises(ValueError, match=r"Entry 0 .*broken\.jpg"):
        warn_if_overlapping([broken], [pixels(paths[0])])


def test_files_are_only_read(paths):
    for path in paths:
        os.chmod(path, 0o444)
    assert len(overlap(paths, paths)[0]) == 5
