"""Every form of photograph becomes the same upright RGB array; bad ones are named."""

import io

import numpy as np
import pytest
from PIL import Image

from skretrieval.extraction import ImageCrop, check_images
from skretrieval.extraction._images import (
    check_headers,
    content_digest,
    read_image,
    resize_longest,
    scaled_size,
)


@pytest.fixture
def picture(rng):
    """A smooth colour picture: survives JPEG and palettes well."""
    i, j = np.mgrid[0:40, 0:60]
    return np.stack([i * 6, j * 4, (i + j) * 2], axis=2).astype(np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def read(item):
    image = read_image(item)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_path_pil_and_array_agree(picture, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    for item in (path, str(path), Image.fromarray(picture), picture):
        assert np.array_equal(read(item), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(picture, tmp_path, orientation):
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(undo(picture))).save(path, exif=exif)
    assert np.array_equal(read(path), picture)


def test_grey_arrays_and_images_repeat_the_channel(picture):
    grey = picture[:, :, 0]
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    for item in (grey, grey[:, :, None], Image.fromarray(grey)):
        assert np.array_equal(read(item), expected)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    deep = (np.arange(16 * 20).reshape(16, 20) * 200).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    expected = np.rint(deep / 257.0)
    assert np.array_equal(read(path)[:, :, 1], expected)
    assert expected.max() > 200
    assert len(np.unique(expected)) > 100


def test_transparency_is_shown_on_white(picture):
    rgba = np.dstack([picture, np.zeros(picture.shape[:2], dtype=np.uint8)])
    rgba[:20, :, 3] = 255
    seen = read(rgba)
    assert np.array_equal(seen[:20], picture[:20])
    assert (seen[20:] == 255).all()


def test_opaque_rgba_palette_and_cmyk_keep_the_picture(picture):
    image = Image.fromarray(picture)
    assert np.array_equal(read(image.convert("RGBA")), picture)
    palette = image.quantize(256)
    assert np.array_equal(read(palette), np.asarray(palette.convert("RGB")))
    assert np.abs(read(image.convert("CMYK")).astype(int) - picture).max() <= 2


def test_palette_with_transparency(picture, tmp_path):
    path = tmp_path / "p.gif"
    Image.fromarray(picture).quantize(16).save(path, transparency=0)
    seen = read(path)
    with Image.open(path) as opened:
        alpha = np.asarray(opened.convert("RGBA"))[:, :, 3]
    assert (seen[alpha == 0] == 255).all()


def test_crop_takes_the_box_of_the_upright_image(picture, tmp_path):
    assert np.array_equal(read(ImageCrop(picture, (10, 5, 50, 35))), picture[5:35, 10:50])
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(np.rot90(picture, 1))).save(path, exif=exif)
    assert np.array_equal(read(ImageCrop(path, (10, 5, 50, 35))), picture[5:35, 10:50])


def test_crop_with_fractional_box_rounds(picture):
    assert read(ImageCrop(picture, (9.6, 5.4, 50.2, 34.9))).shape == (30, 40, 3)


@pytest.mark.parametrize("box", [(-1, 0, 10, 10), (0, 0, 61, 10), (0, 0, 10, 41), (0, -3, 10, 10)])
def test_box_outside_the_image_names_the_limit(picture, box):
    with pytest.raises(ValueError, match=r"Entry 4 .*outside the image of 60x40 pixels"):
        read_image(ImageCrop(picture, box), position=4)


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (20, 10, 10, 20), (3, 3, 4, 30)])
def test_empty_or_turned_box(picture, box):
    with pytest.raises(ValueError, match="smaller than 2x2"):
        read_image(ImageCrop(picture, box))


def test_box_needs_four_numbers(picture):
    with pytest.raises(ValueError, match=r"\(left, top, right, bottom\), got 3"):
        ImageCrop(picture, (1, 2, 3))


def write(path, data):
    path.write_bytes(data)
    return path


def jpeg(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Entry 7 \(.*gone\.jpg.*no such file"):
        read_image(tmp_path / "gone.jpg", position=7)


@pytest.mark.parametrize("data", [b"", b"this is no image at all"])
def test_empty_and_foreign_files(tmp_path, data):
    path = write(tmp_path / "odd.jpg", data)
    with pytest.raises(ValueError, match=r"Entry 2 \(.*odd\.jpg.*not an image"):
        read_image(path, position=2)


def test_truncated_file(picture, tmp_path):
    data = jpeg(picture)
    path = write(tmp_path / "cut.jpg", data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"Entry 3 \(.*cut\.jpg.*[tT]runcated"):
        read_image(path, position=3)


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"Entry 0 .*cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1)])
def test_one_pixel_images(tmp_path, shape):
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / "dot.png")
    with pytest.raises(ValueError, match=r"Entry 1 .*each side needs at least 2"):
        read_image(tmp_path / "dot.png", position=1)
    with pytest.raises(ValueError, match="each side needs at least 2"):
        read_image(np.zeros(shape, dtype=np.uint8), position=1)


def test_decompression_bomb(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match=r"Entry 5 \(.*bomb\.png.*limit of 1000 pixels"):
        read_image(tmp_path / "bomb.png", position=5)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3)), "must be uint8, got float64"),
        (np.zeros((4, 5, 2), dtype=np.uint8), r"shape \(H, W, 3\)"),
        (np.zeros(4, dtype=np.uint8), r"shape \(H, W, 3\)"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "no pixel"),
    ],
)
def test_arrays_of_other_kinds(array, message):
    with pytest.raises(ValueError, match=rf"Entry 6 .*{message}"):
        read_image(array, position=6)


def test_real_numbers_between_0_and_1_are_grey_values():
    image = Image.fromarray(np.array([[0.0, 0.5], [1.0, 0.25]], dtype=np.float32))
    np.testing.assert_array_equal(np.asarray(read_image(image))[:, :, 1], [[0, 128], [255, 64]])


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([], ValueError, "0 images"),
        ("one.jpg", ValueError, "single one"),
        (np.zeros((8, 9, 3), dtype=np.uint8), ValueError, "goes in a list"),
        (["a.jpg", 3], TypeError, "Entry 1: expected a path"),
        (5, TypeError, "sequence of images"),
    ],
)
def test_what_is_no_sequence_of_images(X, error, message):
    with pytest.raises(error, match=message):
        check_images(X)


def test_headers_are_checked_without_decoding(picture, tmp_path):
    good = write(tmp_path / "good.jpg", jpeg(picture))
    bad = write(tmp_path / "bad.jpg", b"nothing")
    check_headers([good, picture])
    with pytest.raises(ValueError, match=r"Entry 1 \(.*bad\.jpg"):
        check_headers([good, bad])


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((640, 480), 1024, (1024, 768)),
        ((480, 640), 320, (240, 320)),
        ((1000, 3), 100, (100, 1)),
        ((7, 5), None, (7, 5)),
    ],
)
def test_longest_side(size, longest, expected):
    assert scaled_size(*size, longest) == expected


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def test_resize_is_pils_bicubic(picture):
    image = Image.fromarray(picture)
    expected = np.asarray(image.resize((30, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_longest(image, 30), expected)
    assert np.array_equal(resize_longest(image, None), picture)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_large_photographs_are_resized_like_pil_but_for_rounding(mode):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1800, 1350), Image.Resampling.BICUBIC).convert(mode)
    expected = np.asarray(image.resize((700, 525), Image.Resampling.BICUBIC)).astype(int)
    found = resize_longest(image, 700)
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    difference = np.abs(found - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    with Image.open(io.BytesIO(png(image))) as lazy:  # and the same from a file
        assert np.array_equal(resize_longest(lazy, 700), found)


def test_draft_decoding_changes_large_jpegs_little(rng):
    i, j = np.mgrid[0:1200, 0:1600]
    large = np.stack([127 + 100 * np.sin(i / 40), 127 + 100 * np.cos(j / 60), (i + j) / 12], axis=2).astype(
        np.uint8
    )
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "JPEG", quality=95)
    full = resize_longest(read_image("x.jpg", data=buffer.getvalue()), 200)
    drafted = read_image("x.jpg", draft=400, data=buffer.getvalue())
    assert drafted.size == (400, 300)
    difference = np.abs(resize_longest(drafted, 200).astype(int) - full)
    assert difference.mean() < 1
    assert difference.max() <= 6


def test_digest_follows_content_not_name(picture, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(picture).save(path)
    first, data = content_digest(paths[0])
    assert first == content_digest(paths[1])[0]
    assert data == paths[0].read_bytes()
    changed = picture.copy()
    changed[0, 0, 0] += 1
    digests = {
        content_digest(item)[0]
        for item in (picture, changed, ImageCrop(picture, (0, 0, 9, 9)), ImageCrop(picture, (0, 0, 9, 8)))
    }
    assert len(digests) == 4
    assert content_digest(picture)[0] == content_digest(Image.fromarray(picture))[0]
