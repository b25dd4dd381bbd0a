"""Photographs that cannot be read: errors, warnings, zero maps and the list of failures."""

import warnings

import numpy as np
import pytest
from fixtures.convolution import photographs, small
from PIL import Image
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import ImageCrop
from skretrieval.pooling import GeMPooler, RMACPooler


@pytest.fixture
def folder(tmp_path):
    good = []
    for index, image in enumerate(photographs(3)):
        good.append(tmp_path / f"good{index}.png")
        Image.fromarray(image).save(good[-1])
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(good[0].read_bytes()[:2000])
    empty = tmp_path / "empty.jpg"
    empty.touch()
    return [good[0], truncated, good[1], empty, tmp_path / "missing.jpg", good[2]]


@pytest.mark.parametrize(("place", "error"), [(1, ValueError), (3, ValueError), (4, FileNotFoundError)])
def test_bad_files_raise_with_entry_and_path(folder, place, error):
    images = [folder[0], folder[place]]
    with pytest.raises(error, match=rf"Entry 1 \(.*{folder[place].name}"):
        list(small().fit_transform(images))


def test_unreadable_headers_raise_before_any_work(folder):
    with pytest.raises(ValueError, match="Entry 3"):
        small().fit_transform([folder[0]] * 3 + [folder[3]])


def test_on_error_warn_gives_zero_maps_one_warning_and_the_list(folder):
    extractor = small(on_error="warn")
    maps = extractor.fit_transform(folder)
    with pytest.warns(UserWarning, match=r"3 of 6 images could not be read") as caught:
        listed = list(maps)
    assert len(caught) == 1
    for name in ("cut.png", "empty.jpg", "missing.jpg"):
        assert name in str(caught[0].message)
    assert sorted(extractor.failed_) == sorted(maps.failed_) == [1, 3, 4]
    for index, entry in enumerate(listed):
        if index in maps.failed_:
            assert entry.shape == (10, 1, 1)
            assert not entry.any()
        else:
            assert entry.any()


def test_crops_of_one_opened_image_share_its_decoder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "big.png")
    with Image.open(tmp_path / "big.png") as opened:
        crops = [ImageCrop(opened, (10 * i, 0, 10 * i + 300, 300)) for i in range(8)]
        maps = list(small(n_jobs=8).fit_transform(crops))
    for index, entry in enumerate(maps):
        by_array = small().fit_transform([ImageCrop(noise, crops[index].box)])[0]
        np.testing.assert_allclose(entry, by_array, atol=1e-5)


def test_too_small_for_the_network_is_listed_like_unreadable(tmp_path):
    Image.fromarray(np.zeros((6, 128, 3), dtype=np.uint8)).save(tmp_path / "strip.png")
    images = [photographs(1)[0], tmp_path / "strip.png", photographs(1)[0]]
    params = {"backbone": "squeezenet1_1", "weights": None, "random_state": 0, "image_size": 96}
    with pytest.raises(ValueError, match=r"Entry 1 \(.*strip\.png\): 96x4 pixels"):
        list(small(**params).fit_transform(images))
    maps = small(**params, on_error="warn").fit_transform(images)
    with pytest.warns(UserWarning, match=r"1 of 3 images.*strip\.png"):
        listed = list(maps)
    assert not listed[1].any()
    assert listed[2].any()
    assert list(maps.failed_) == [1]


def test_one_entry_warns_and_is_listed(folder):
    maps = small(on_error="warn").fit_transform(folder)
    with pytest.warns(UserWarning, match=r"Entry 3 .*empty\.jpg"):
        assert not maps[3].any()
    assert list(maps.failed_) == [3]


def test_one_warning_however_many_passes(folder):
    maps = small(on_error="warn").fit_transform([folder[3], *folder])
    pooler = RMACPooler(whiten=True, n_components=2)
    with pytest.warns(UserWarning, match="4 of 7 images") as caught:
        descriptors = pooler.fit_transform(
            maps
        )  # a look at the first map, a pass to learn, a pass to describe
    assert len(caught) == 1
    list(maps[:3])
    assert not descriptors[[0, 2, 4, 5]].any()


def test_positions_of_failures_survive_slicing(folder):
    maps = small(on_error="warn").fit_transform(folder)[2:5]
    with pytest.warns(UserWarning, match="Entry 3"):
        list(maps)
    assert sorted(maps.failed_) == [3, 4]


def test_zero_maps_pool_to_zero(folder):
    with pytest.warns(UserWarning, match="could not be read"):
        descriptors = make_pipeline(small(on_error="warn"), GeMPooler()).fit_transform(folder)
    assert not descriptors[[1, 3, 4]].any()
    assert descriptors[[0, 2, 5]].any(axis=1).all()


def test_no_warning_when_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(small(on_error="warn").fit_transform(photographs(2)))


def test_box_outside_names_the_entry():
    with pytest.raises(ValueError, match=r"Entry 1 .*outside the image of 64x40"):
        list(small().fit_transform([photographs(1)[0], ImageCrop(photographs(1)[0], (0, 0, 65, 10))]))
