"""Photographs come in every container that people have them in, and what cannot be one is refused in a sentence."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from skretrieval.extraction import ConvKernelExtractor, ImageCrop, check_images, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "a").mkdir()
    found = []
    for number, pixels in enumerate(PIXELS):
        found.append(str(tmp_path / "a" / f"{number}.png"))
        Image.fromarray(pixels).save(found[-1])
    return found


class MapStyle(Dataset):
    """A torch data set, whose end is no IndexError."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index % len(self.items)], index


class Streamed(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def stored(paths):
    return [{"image": {"bytes": Path(path).read_bytes(), "path": None}, "label": 0} for path in paths]


CONTAINERS = {
    "list": lambda paths: paths,
    "tuple": tuple,
    "pathlib": lambda paths: [Path(path) for path in paths],
    "array of str": np.array,
    "array of objects": lambda paths: np.array(paths, dtype=object),
    "column of str": lambda paths: np.array(paths)[:, np.newaxis],
    "column of objects": lambda paths: np.array(paths, dtype=object)[:, np.newaxis],
    "column of StringDType": lambda paths: np.array(paths, dtype=np.dtypes.StringDType())[:, np.newaxis],
    "DataFrame": lambda paths: pd.DataFrame({"photo": paths}),
    "DataFrame with a number for a name": lambda paths: pd.DataFrame(paths),
    "Series with an index of its own": lambda paths: pd.Series(paths, index=[7, 5, 6]),
    "Index": pd.Index,
    "generator": lambda paths: (path for path in paths),
    "map": lambda paths: map(Path, paths),
    "dict values": lambda paths: dict(enumerate(paths)).values(),
    "dict keys": lambda paths: dict.fromkeys(paths).keys(),
    "bytes": lambda paths: [Path(path).read_bytes() for path in paths],
    "bytearray": lambda paths: [bytearray(Path(path).read_bytes()) for path in paths],
    "memoryview": lambda paths: [memoryview(Path(path).read_bytes()) for path in paths],
    "BytesIO": lambda paths: [io.BytesIO(Path(path).read_bytes()) for path in paths],
    "buffered files": lambda paths: [
        io.BufferedReader(io.BytesIO(Path(path).read_bytes())) for path in paths
    ],
    "dicts": lambda paths: [{"image": Image.open(path), "label": 3} for path in paths],
    "dicts of img": lambda paths: [{"img": path} for path in paths],
    "dicts of bytes": stored,
    "dicts of paths": lambda paths: [{"image": {"bytes": None, "path": path}} for path in paths],
    "bare dicts of bytes": lambda paths: [item["image"] for item in stored(paths)],
    "pairs": lambda paths: [(path, 1) for path in paths],
    "pictures and labels": lambda paths: [(Image.open(path), "cat") for path in paths],
    "torch data set": lambda paths: MapStyle([Image.open(path) for path in paths]),
    "iterable data set": Streamed,
    "ImageFolder": lambda paths: ImageFolder(os.path.dirname(os.path.dirname(paths[0]))),
    "ImageFolder of tensors": lambda paths: ImageFolder(Path(paths[0]).parents[1], transform=ToTensor()),
    "uint8 tensors": lambda paths: torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "real tensors": lambda paths: list(torch.from_numpy(PIXELS / 255).permute(0, 3, 1, 2)),
    "whole arrays": lambda paths: PIXELS,
    "crops": lambda paths: [ImageCrop(io.BytesIO(Path(path).read_bytes()), (0, 0, 32, 24)) for path in paths],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_photographs(paths, name):
    items = check_images(CONTAINERS[name](paths))
    assert len(items) == 3
    for item, pixels in zip(items, PIXELS, strict=True):
        for _ in range(2):  # a file object is not used up
            np.testing.assert_array_equal(np.asarray(read_image(item)), pixels)


@pytest.mark.parametrize("name", ["DataFrame", "column of str", "generator", "dicts of bytes", "ImageFolder"])
def test_extractors_take_them(paths, name):
    make = CONTAINERS[name]
    extractor = ConvKernelExtractor(n_channels=(8, 16), image_size=32, random_state=0).fit(make(paths))
    plain = extractor.transform(paths)
    for maps in (extractor.transform(make(paths)), extractor.fit_transform(make(paths))):
        assert len(maps) == 3
        np.testing.assert_array_equal(maps[1], plain[1])


def test_tensors_of_one_channel_are_grey():
    (item,) = check_images([torch.from_numpy(PIXELS[0, :, :, :1]).permute(2, 0, 1)])
    np.testing.assert_array_equal(item, PIXELS[0, :, :, 0])


def test_inputs_are_left_as_they_were():
    tensor = torch.rand(3, 8, 8, requires_grad=True)
    before = tensor.detach().clone()
    check_images([tensor])
    assert torch.equal(before, tensor.detach())
    array = PIXELS[0]
    assert check_images([array])[0] is array


ONE = PIXELS[0]
REFUSED = {
    "set": ({"a.jpg"}, TypeError, "a set, which has no order"),
    "frozenset": (frozenset({"a.jpg"}), TypeError, "frozenset, which has no order"),
    "dict": ({"train": ["a.jpg"], "test": []}, TypeError, "keys 'train', 'test'. Choose one"),
    "two columns": (pd.DataFrame({"p": ["a"], "q": ["b"]}), ValueError, r"2 columns \(p, q\). Choose"),
    "no column": (pd.DataFrame(index=[0]), ValueError, "0 columns"),
    "two columns of an array": (np.array([["a", "b"]]), ValueError, r"1-D sequence .* shape \(1, 2\)"),
    "three dimensions": (np.array([[["a"]]]), ValueError, "1-D sequence"),
    "one tensor": (torch.zeros(3, 8, 8), ValueError, "goes in a list"),
    "no dimension": (np.array("a.jpg"), ValueError, r"shape \(\)"),
    "open file": (io.BytesIO(b"x"), ValueError, "single open file"),
    "bytes": (b"12345", ValueError, "single one: 5 bytes"),
    "empty generator": ((path for path in ()), ValueError, "0 images"),
    "number": (3, TypeError, "got int"),
    "None": (None, TypeError, "got NoneType"),
    "None in it": (["a.jpg", None], TypeError, "Entry 1: .*a missing value"),
    "nan in it": (pd.Series(["a.jpg", np.nan]), TypeError, "Entry 1: .*a missing value"),
    "list in it": ([["a.jpg"]], TypeError, "Entry 0: .*got list"),
    "pair of paths": ([("a.jpg", "b.jpg")], TypeError, "Entry 0: .*got tuple"),
    "pair of pictures": ([(ONE, ONE)], TypeError, "Entry 0: .*got tuple"),
    "empty tuple": ([()], TypeError, "Entry 0: .*got tuple"),
    "other keys": (
        [{"photo": "a.jpg"}],
        TypeError,
        "Entry 0: .*key 'image', got a dict with the keys 'photo'",
    ),
    "text file": ([io.StringIO("x")], TypeError, "Entry 0: .*mode 'rb'"),
    "normalised": ([torch.full((3, 8, 8), -1.0)], ValueError, "Entry 0: .*between 0 and 1"),
    "not a number": ([torch.full((3, 8, 8), np.nan)], ValueError, "Entry 0: .*between 0 and 1"),
    "channels last": ([torch.zeros(8, 8, 3)], TypeError, r"Entry 0: .*\(3, H, W\)"),
    "sparse": ([torch.zeros(3, 8, 8).to_sparse()], TypeError, "Entry 0: .*dense"),
    "meta": ([torch.zeros(3, 8, 8, device="meta")], TypeError, "Entry 0: .*dense"),
    "whole numbers": ([torch.zeros(3, 8, 8, dtype=torch.int64)], TypeError, "Entry 0: .*uint8 or real"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_photograph_is_refused_in_a_sentence(name):
    X, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        check_images(X)
    assert str(caught.value).endswith(".")


def test_an_item_of_bytes_is_called_so():
    with pytest.raises(ValueError, match=r"Entry 4 \(7 bytes\): not an image file"):
        read_image(b"nothing", position=4)
