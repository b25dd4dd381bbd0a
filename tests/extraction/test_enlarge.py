"""enlarge=False: no photograph, and no box of one, is scaled above its own pixels."""

import numpy as np
import pytest
from fixtures.convolution import by_hand, small
from numpy.testing import assert_array_equal
from references.networks import counting_network

from skretrieval.extraction import ConvKernelExtractor, ImageCrop, scaled_size


def photograph(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((60, 40), 96, (60, 40)),
        ((60, 40), 60, (60, 40)),
        ((60, 40), 30, (30, 20)),
        ((60, 40), None, (60, 40)),
    ],
)
def test_scaled_size(size, longest, expected):
    assert scaled_size(*size, longest, enlarge=False) == expected


def test_small_photographs_keep_their_pixels_large_ones_do_not():
    images = [photograph(40, 56), photograph(80, 160)]
    first, second = small(image_size=96, enlarge=False).fit_transform(images)
    assert_array_equal(first, small(image_size=None).fit_transform(images)[0])
    assert_array_equal(second, small(image_size=96).fit_transform(images)[1])
    np.testing.assert_allclose(first, by_hand(counting_network(), images[0], 56), atol=1e-5)


def test_a_box_is_a_photograph_of_its_own():
    image = photograph(200, 300)
    crop = ImageCrop(image, (10, 20, 66, 60))
    (maps,) = small(image_size=96, enlarge=False).fit_transform([crop])
    assert_array_equal(maps, small(image_size=None).fit_transform([image[20:60, 10:66]])[0])


@pytest.mark.parametrize("how", ["stack", "sum"])
def test_each_of_several_sizes_is_capped(how):
    image = photograph(64, 80)
    params = {"multi_resolution": how}
    found = small(image_size=[160, 96, 48], enlarge=False, **params).fit_transform([image])[0]
    expected = small(image_size=[80, 80, 48], **params).fit_transform([image])[0]
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)


def test_nothing_is_enlarged_without_a_size():
    image = photograph(40, 56)
    maps = [small(image_size=None, enlarge=e).fit_transform([image])[0] for e in (True, False)]
    assert_array_equal(*maps)


def test_the_cache_knows(tmp_path):
    image = photograph(40, 56)
    large, own = (
        small(image_size=96, enlarge=e, memory=tmp_path).fit_transform([image])[0] for e in (True, False)
    )
    assert large.shape != own.shape
    for enlarge, expected in ((True, large), (False, own)):
        again = small(image_size=96, enlarge=enlarge, memory=tmp_path).fit_transform([image])[0]
        assert_array_equal(again, expected)


def test_extractors_saved_before_the_choice_enlarge():
    extractor = small(image_size=96).fit([photograph(40, 56)])
    del extractor.__dict__["enlarge"]
    assert extractor.transform([photograph(40, 56)])[0].shape[2] == 12
    assert extractor.get_params()["enlarge"] is True


def test_kernel_networks_learn_from_what_they_describe():
    images = [photograph(40, 56, seed) for seed in range(3)]
    params = {"n_patches": 300, "random_state": 0}
    capped = ConvKernelExtractor((4, 8), image_size=96, enlarge=False, **params).fit(images)
    plain = ConvKernelExtractor((4, 8), image_size=None, **params).fit(images)
    assert capped.fingerprint_ == plain.fingerprint_
    assert_array_equal(capped.transform(images)[0], plain.transform(images)[0])
