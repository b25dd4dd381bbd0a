import numpy as np
import pytest
from PIL import Image

from skretrieval.datasets import make_photo_views
from skretrieval.extraction import ImageCrop

KINDS = ("crop", "warp", "blur", "relight", "jpeg")


@pytest.fixture
def photograph(rng):
    """A coloured picture of 120 x 90 pixels: patches with hard edges."""
    small = rng.randint(60, 220, size=(6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((120, 90), Image.Resampling.NEAREST))


@pytest.fixture
def rng():
    return np.random.RandomState(0)


def test_views_are_labelled_by_their_photograph(photograph):
    views = make_photo_views([photograph, photograph[::-1]], 3, random_state=0)
    assert views.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(views.images) == len(views.changes) == 6
    assert all(view.dtype == np.uint8 and view.ndim == 3 and view.shape[2] == 3 for view in views.images)


def test_same_seed_same_views_other_seed_others(photograph):
    first = make_photo_views([photograph], 3, random_state=3)
    second = make_photo_views([photograph], 3, random_state=3)
    other = make_photo_views([photograph], 3, random_state=4)
    for a, b in zip(first.images, second.images, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.changes == second.changes
    assert first.changes != other.changes


def test_views_of_a_photograph_do_not_depend_on_those_after_it(photograph):
    alone = make_photo_views([photograph], 2, random_state=0)
    followed = make_photo_views([photograph, photograph[:, ::-1]], 2, random_state=0)
    for a, b in zip(alone.images, followed.images[:2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_the_picture_and_says_so(photograph, kind):
    views = make_photo_views([photograph], 2, kinds=[kind], strength=1.0, random_state=0)
    words = {"crop": "crop", "warp": "warp", "blur": "blur", "relight": "gamma", "jpeg": "JPEG"}
    for view, change in zip(views.images, views.changes, strict=True):
        assert words[kind] in change
        assert view.shape != photograph.shape or not np.array_equal(view, photograph)
    assert not np.array_equal(views.images[0], views.images[1])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg"])
def test_strength_zero_leaves_the_photograph(photograph, kind):
    (view,) = make_photo_views([photograph], 1, kinds=[kind], strength=0.0, random_state=0).images
    np.testing.assert_array_equal(view, photograph)


def test_strength_grows_the_difference(photograph):
    def distance(strength):
        views = make_photo_views(
            [photograph], 8, kinds=["warp", "blur", "relight"], strength=strength, random_state=0
        )
        return np.mean([np.abs(view.astype(float) - photograph).mean() for view in views.images])

    assert distance(0.2) < distance(0.6) < distance(1.0)


def test_crop_is_a_part_of_the_photograph(photograph):
    coded = np.zeros((90, 120, 3), dtype=np.uint8)
    coded[..., 0] = np.arange(90)[:, None]
    coded[..., 1] = np.arange(120)[None, :]
    for view in make_photo_views([coded], 5, kinds=["crop"], strength=1.0, random_state=0).images:
        height, width = view.shape[:2]
        assert 0.54 * 90 <= height <= 0.91 * 90
        assert 0.54 * 120 <= width <= 0.91 * 120
        top, left = int(view[0, 0, 0]), int(view[0, 0, 1])
        np.testing.assert_array_equal(view, coded[top : top + height, left : left + width])


def test_warp_maps_the_moved_corners_to_the_corners():
    from skretrieval.datasets._views import _homography

    source = np.array([[0, 0], [40, 0], [40, 30], [0, 30]], dtype=float)
    target = source + np.array([[3, 2], [-4, 1], [-2, -5], [1, -3]])
    a, b, c, d, e, f, g, h = _homography(source, target)
    x, y = source.T
    scale = g * x + h * y + 1
    np.testing.assert_allclose(
        np.column_stack([(a * x + b * y + c), (d * x + e * y + f)]) / scale[:, None], target
    )


def test_warp_leaves_no_black_border():
    white = np.full((90, 120, 3), 255, dtype=np.uint8)
    for view in make_photo_views([white], 6, kinds=["warp"], strength=1.0, random_state=0).images:
        assert view.min() == 255


def test_takes_every_form_of_image(tmp_path, photograph):
    path = tmp_path / "photograph.png"
    Image.fromarray(photograph).save(path)
    forms = [path, str(path), Image.fromarray(photograph), photograph, photograph[:, :, 0]]
    views = make_photo_views(forms, 1, kinds=["blur"], strength=0.0, random_state=0)
    for view in views.images[:4]:
        np.testing.assert_array_equal(view, photograph)
    assert views.images[4].shape == photograph.shape
    (crop,) = make_photo_views([ImageCrop(path, (10, 20, 60, 70))], 1, kinds=["blur"], strength=0.0).images
    np.testing.assert_array_equal(crop, photograph[20:70, 10:60])


def test_image_size_reduces_and_never_enlarges(photograph):
    small, kept = (
        make_photo_views([photograph], 1, kinds=["blur"], image_size=size).images[0].shape
        for size in (60, 500)
    )
    assert small == (45, 60, 3)
    assert kept == (90, 120, 3)


def test_input_is_not_written_to(photograph):
    before = photograph.copy()
    photograph.flags.writeable = False
    make_photo_views([photograph], 2, random_state=0)
    np.testing.assert_array_equal(photograph, before)


@pytest.mark.parametrize("size", [(2, 2), (3, 50), (9, 9)])
def test_tiny_photographs(size):
    views = make_photo_views([np.full((*size, 3), 90, dtype=np.uint8)], 3, strength=1.0, random_state=0)
    assert all(min(view.shape[:2]) >= min(*size, 8) for view in views.images)


def test_bad_input_is_named(tmp_path, photograph):
    with pytest.raises(ValueError, match="kinds"):
        make_photo_views([photograph], kinds=["fog"])
    with pytest.raises(ValueError, match="kinds"):
        make_photo_views([photograph], kinds="crop")
    with pytest.raises(ValueError, match="strength"):
        make_photo_views([photograph], strength=1.5)
    with pytest.raises(ValueError, match="0 images"):
        make_photo_views([])
    with pytest.raises(FileNotFoundError, match=r"Entry 1 .*gone\.jpg"):
        make_photo_views([photograph, tmp_path / "gone.jpg"])
