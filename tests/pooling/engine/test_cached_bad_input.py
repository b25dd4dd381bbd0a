"""Photographs that cannot be read, and wrong maps, whatever of them is on disk."""

import numpy as np
import pytest
from fixtures.cached import extractor, maps_of, photographs
from PIL import Image
from references.reads import counted_reads
from torch import nn

from skretrieval.pooling import (
    GeMPooler,
)


def test_channels_are_checked_where_nothing_is_extracted(tmp_path):
    maps = maps_of(photographs(3), tmp_path)
    GeMPooler().fit_transform(maps)
    fitted = GeMPooler().fit(np.ones((2, 4, 3, 3)))
    with pytest.raises(ValueError, match="Entry 0: has 10 channels, but 4 were expected"):
        fitted.transform(maps)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path, image in zip(paths, photographs(6), strict=True):
        Image.fromarray(image).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    paths[4] = tmp_path / "missing.png"
    return paths


@pytest.mark.parametrize("keeps", ["descriptors", "both"])
def test_unreadable_photographs_are_always_told_and_never_cached(files, tmp_path, keeps):
    for read in (6, 2):
        maps = maps_of(files, tmp_path / "m", on_error="warn", memory_keeps=keeps)
        with (
            counted_reads() as n,
            pytest.warns(UserWarning, match=r"2 of 6 images.*1\.png.*missing") as caught,
        ):
            rows = GeMPooler().fit_transform(maps)
        assert len(caught) == 1
        assert sum(n) == read
        assert sorted(maps.failed_) == sorted(maps.extractor.failed_) == [1, 4]
        assert np.flatnonzero(~rows.any(axis=1)).tolist() == [1, 4]
    Image.fromarray(photographs(6)[1]).save(files[1])
    with pytest.warns(UserWarning, match="1 of 6"):
        rows = GeMPooler().fit_transform(maps_of(files, tmp_path / "m", on_error="warn"))
    assert rows[1].any()


def test_too_small_photographs_are_not_kept(tmp_path):
    images = [*photographs(2), np.zeros((2, 64, 3), np.uint8)]
    params = {"backbone": "squeezenet1_1", "weights": None, "random_state": 0, "on_error": "warn"}
    for read in (3, 1):
        with counted_reads() as n, pytest.warns(UserWarning, match="1 of 3 images.*too few"):
            rows = GeMPooler().fit_transform(maps_of(images, tmp_path, **params))
        assert sum(n) == read
        assert rows.any(axis=1).tolist() == [True, True, False]


def test_errors_name_the_entry_of_the_user_whatever_is_known(files, tmp_path):
    pooler, place = GeMPooler(), tmp_path / "m"
    good = [files[0], files[2], files[3], files[5]]
    pooler.fit_transform(maps_of(good, place))
    with pytest.raises(ValueError, match=r"Entry 3 \(.*1\.png"):
        pooler.transform(maps_of([*good[:3], files[1]], place))
    maps = extractor(place).fit(good).transform([*good, good[0], files[1]])
    with pytest.raises(ValueError, match=r"Entry 5 \(.*1\.png"):
        pooler.transform(maps[[3, 5, 1]])


class Stretch(nn.Module):
    """Pixels stretched to [0, 1], with 0 / 0 on a photograph of one colour."""

    def forward(self, images):
        low = images.amin(dim=(2, 3), keepdim=True)
        return (images - low) / (images.amax(dim=(2, 3), keepdim=True) - low)


def test_nan_names_the_place_whatever_is_known(tmp_path):
    good, grey = photographs(4), np.zeros((48, 64, 3), np.uint8)
    model = extractor(tmp_path, backbone=Stretch, weights=None).fit(good)
    GeMPooler().fit_transform(model.transform(good))
    for _ in range(2):
        with pytest.raises(ValueError, match="Entry 2: the feature map contains NaN"):
            GeMPooler().fit_transform(model.transform([*good[:2], grey, *good[2:]]))
