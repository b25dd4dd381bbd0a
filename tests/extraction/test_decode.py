"""Photographs of every kind and with every kind of damage in their metadata, from bytes to upright RGB."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from skretrieval.extraction import _decode
from skretrieval.extraction._decode import decode, read_facts
from skretrieval.extraction._metadata import orientation

SCENE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(kind, content):
    data = encoded(SCENE, "PNG")
    return data[:33] + chunk(kind, content) + data[33:]


def with_segment(marker, content):
    data = encoded(SCENE, "JPEG")
    return data[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def exif_block(value, kind=3, order="<", form="H"):
    head = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(f"{order}{form}", value).ljust(4, b"\0")
    return head + struct.pack(f"{order}IH", 8, 1) + entry + b"\0" * 4


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "JPEG2000"])
def test_photographs_are_turned_as_exif_says(kind, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(SCENE, kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert_array_equal(np.asarray(decode(data)), np.asarray(expected))


@pytest.mark.parametrize("turned", [3, 6])
def test_orientation_in_an_old_text_chunk_of_png(turned):
    block = b"Exif\0\0" + exif_block(turned)
    text = f"\nexif\n{len(block):8d}\n{block.hex()}\n".encode()
    data = with_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert_array_equal(np.asarray(decode(data)), np.asarray(expected))


def test_orientation_in_xmp_counts_where_exif_has_none():
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(with_segment(0xE1, xmp)).size == (12, 20)


ODD_JPEG = {
    "garbage": (0xE1, b"Exif\0\0garbage!!"),
    "empty": (0xE1, b"Exif\0\0"),
    "cut_short": (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    "no_such_orientation": (0xE1, b"Exif\0\0" + exif_block(77)),
    "orientation_is_a_text": (0xE1, b"Exif\0\0" + exif_block(6, kind=2)),
    "profile_of_nothing": (0xE2, b"ICC_PROFILE\0\x01\x05"),
    "several_pictures": (0xE2, b"MPF\0II*\0garbage"),
    "photoshop": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff\xff"),
    "comment": (0xFE, b"\xff" * 60000),
}


@pytest.mark.parametrize("name", ODD_JPEG)
def test_no_segment_of_a_jpeg_stops_it(name):
    assert_array_equal(np.asarray(decode(with_segment(*ODD_JPEG[name]))), decode(encoded(SCENE, "JPEG")))


ODD_PNG = {
    "garbage": (b"eXIf", b"garbage!!!"),
    "cut_short": (b"eXIf", b"II*\0"),
    "resolution": (b"pHYs", b"\0"),
    "gamma": (b"gAMA", b"\0"),
    "profile_that_is_none": (b"iCCP", b"name\0\x07broken"),
    "huge_text": (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2**24)),
    "huge_profile": (b"iCCP", b"name\0\0" + zlib.compress(b"\0" * 2**24)),
    "text_profile": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"no numbers")),
    "moving": (b"acTL", b"\0"),
}


@pytest.mark.parametrize("name", ODD_PNG)
def test_no_chunk_of_a_png_stops_it(name):
    assert_array_equal(np.asarray(decode(with_chunk(*ODD_PNG[name]))), SCENE)


DAMAGED_EXIF = {
    "garbage": b"Exif\0\0garbage!!",
    "cut short": b"Exif\0\0II*\0",
    "no such orientation": b"Exif\0\0" + exif_block(0),
    "an orientation that is a text": b"Exif\0\0" + exif_block(6, kind=2),
    "a directory beyond its end": b"Exif\0\0II*\0\xf0\xff\xff\xff",
}


@pytest.mark.parametrize("name", DAMAGED_EXIF)
@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "HEIF", "PNG", "JPEG"])
def test_damaged_exif_says_nothing(kind, name):
    """Written with a block of the same length that is whole, and damaged in the file."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    options = {"lossless": True} if kind == "WEBP" else {}
    damaged = DAMAGED_EXIF[name].removeprefix(b"Exif\0\0")
    whole = exif_block(1).replace(b"\x12\x01", b"\x28\x01").ljust(len(damaged), b"\0")  # not an orientation
    plain = encoded(SCENE, kind, **options)
    data = encoded(SCENE, kind, exif=b"Exif\0\0" + whole, **options)
    assert data.count(whole) == 1
    place = data.index(whole)
    data = data[:place] + damaged.ljust(len(whole), b"\0") + data[place + len(whole) :]
    if kind == "PNG":
        end = place + len(whole)
        data = data[:end] + struct.pack(">I", zlib.crc32(data[place - 4 : end])) + data[end + 4 :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(np.asarray(decode(data)), np.asarray(decode(plain)))


BEYOND = 2**32 - 16
ODD_TIFF = {
    "a directory of EXIF beyond the end": {"t34665": BEYOND},
    "GPS at the beginning": {"t34853": 0},
    "no such orientation": {"t274": 0},
    "a colour profile of one number": {"t34675": 7},
    "a resolution that is none": {"t282": BEYOND, "t296": 77},
    "a description that is a number": {"t270": 5},
    "sub-directories beyond the end": {"t330": BEYOND},
    "photoshop": {"t34377": BEYOND},
    "a date that is a number": {"t306": 1},
}


@pytest.mark.parametrize("name", ODD_TIFF)
def test_no_tag_of_a_tiff_stops_it(name):
    values = SCENE[:, :, 0].copy()
    data = tiff_of(values, **ODD_TIFF[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(grey_of(decode(data)), values)
        assert read_facts(data) == (20, 12, None)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_containers_are_turned_by_their_own_word(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(np.tile(SCENE, (4, 4, 1)), kind, exif=exif.tobytes())
    opened = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert_array_equal(np.asarray(decode(data)), np.asarray(opened))
    assert opened.size == (48, 80) == read_facts(data)[:2]


def test_large_photographs_are_no_warning_without_a_name(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encoded(SCENE, "PNG")).size == (20, 12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_facts_are_those_of_the_upright_photograph(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 8
    exif[0x0132] = "2001:02:03 04:05:06"
    data = encoded(np.tile(SCENE, (4, 4, 1)), kind, exif=exif if kind == "TIFF" else exif.tobytes())
    assert read_facts(data) == (48, 80, "2001-02-03 04:05:06")
    if kind == "TIFF":  # Pillow writes no directory of EXIF into one
        return
    exif.get_ifd(0x8769)[0x9003] = "1999:12:31 23:59:59"
    data = encoded(np.tile(SCENE, (4, 4, 1)), kind, exif=exif.tobytes())
    assert read_facts(data) == (48, 80, "1999-12-31 23:59:59")


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday, I believe", "1"])
def test_a_date_that_is_none_is_none(text):
    exif = Image.Exif()
    exif[0x0132] = text
    assert read_facts(encoded(SCENE, "JPEG", exif=exif)).taken is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "form"), [(1, "B"), (3, "H"), (4, "I")])
def test_orientation_of_any_integer_type(order, kind, form):
    assert orientation(exif_block(8, kind, order, form)) == 8
    assert orientation(b"Exif\0\0" + exif_block(8, kind, order, form)) == 8


# ---------------------------------------------------------------------------------------------------- modes
GREY = np.array([[0, 1000, 65535], [257, 32768, 256]], dtype=np.uint16)


def tiff_of(values, **tags):
    """A TIFF of grey values as they are, with tags of one's own."""
    entries = {256: values.shape[1], 257: values.shape[0], 258: 8 * values.itemsize, 259: 1, 262: 1}
    entries |= {273: 0, 277: 1, 278: values.shape[0], 279: values.nbytes, 339: 1}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + b"\0" * 4 + values.tobytes()


def grey_of(image):
    array = np.asarray(image)
    assert (array == array[:, :, :1]).all()
    return array[:, :, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(kind):
    assert_array_equal(grey_of(decode(encoded(Image.fromarray(GREY), kind))), np.rint(GREY / 257))


def test_unsigned_32_bits_use_all_their_range():
    values = np.array([[0, 2**31, 2**32 - 1], [2**24, 2**30, 1]], dtype=np.uint32)
    assert_array_equal(grey_of(decode(tiff_of(values))), np.rint(values / (2**32 - 1) * 255))


def test_signed_32_bits_are_black_below_zero():
    values = np.array([[-5, 2**30], [2**31 - 1, 0]], dtype=np.int32)
    assert_array_equal(grey_of(decode(tiff_of(values, t339=2))), [[0, 128], [255, 0]])


def test_white_is_zero():
    values, expected = np.array([[0, 65535], [257, 0]], dtype=np.uint16), [[255, 0], [254, 255]]
    assert_array_equal(grey_of(decode(tiff_of(values, t262=0))), expected)
    assert_array_equal(grey_of(decode(tiff_of((values >> 8).astype(np.uint8), t262=0))), expected)


@pytest.mark.parametrize(("largest", "scale"), [(1.0, 1.0), (200.0, 255.0), (60000.0, 65535.0), (1e30, 1e30)])
def test_real_numbers_are_scaled(largest, scale):
    values = np.array([[0.0, largest, largest / 2, -1.0, np.nan, -np.inf]], dtype=np.float32)
    expected = np.rint(np.array([[0, largest, largest / 2, 0, 0, 0]]) / scale * 255)
    assert_array_equal(grey_of(decode(tiff_of(np.repeat(values, 2, axis=0), t339=3)))[:1], expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16"])
def test_a_transparent_colour_is_white(mode):
    if mode == "RGB":
        image, key = Image.fromarray(SCENE), tuple(int(value) for value in SCENE[3, 4])
    elif mode == "I;16":
        image, key = Image.fromarray(np.tile(GREY, (2, 2))), int(GREY[0, 1])
    else:
        image, key = Image.fromarray(SCENE[:, :, 0] // 64).convert(mode), 2
    decoded = np.asarray(decode(encoded(image, "PNG", transparency=key)))
    raw = np.asarray(image)
    see_through = (raw == key).all(axis=2) if mode == "RGB" else raw == key
    assert see_through.any()
    assert (decoded[see_through] == 255).all()
    plain = np.asarray(decode(encoded(image, "PNG")))
    assert_array_equal(decoded[~see_through], plain[~see_through])


def test_cmyk_of_either_sense():
    """A file of Adobe stores the inverse, another the values; Pillow takes each for one of Adobe."""
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    data = encoded(cmyk, "JPEG", quality=95)
    place = data.index(b"\xff\xee")  # the segment of Adobe
    length = struct.unpack(">H", data[place + 2 : place + 4])[0] + 2
    by_adobe = np.asarray(decode(data)).reshape(-1, 3).mean(axis=0)
    plain = np.asarray(decode(data[:place] + data[place + length :])).reshape(-1, 3).mean(axis=0)
    assert by_adobe[0] > 200 > 60 > by_adobe[1]
    assert plain[1] < 60  # black: the inverse of what is stored


# ---------------------------------------------------------------------------------------------------- what is refused
def test_postscript_never_reaches_ghostscript():
    with pytest.raises(Image.UnidentifiedImageError):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n")


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"hello"])
def test_what_is_no_image_is_an_error(data):
    with pytest.raises((OSError, SyntaxError, ValueError)):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_a_truncated_file_is_an_error(kind):
    data = encoded(np.tile(SCENE, (8, 8, 1)), kind)
    with pytest.raises((OSError, SyntaxError, ValueError)):
        decode(data[: len(data) // 2])


def test_a_file_takes_no_more_memory_than_it_has(tmp_path):
    """Twenty megabytes of room beside what is loaded: a read sets aside all that it asks for."""
    (tmp_path / "small.bin").write_bytes(b"x" * 1000)
    code = f"""
import resource
from skretrieval.extraction._decode import read_file
used = [int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith('VmData')][0]
resource.setrlimit(resource.RLIMIT_DATA, (used + (20 << 20), -1))
assert len(read_file({str(tmp_path / "small.bin")!r})) == 1000
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_grows_is_read_to_its_end(tmp_path, monkeypatch):
    path = tmp_path / "grows.bin"
    path.write_bytes(b"a" * 100)
    fstat = os.fstat

    def before(number):
        status = fstat(number)
        with open(path, "ab") as more:
            more.write(b"b" * 3000)
        return status

    monkeypatch.setattr(_decode, "_GROWTH", 1024)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", before)
        assert _decode.read_file(path) == b"a" * 100 + b"b" * 3000
        patch.setattr(_decode, "LARGEST_FILE", 4000)
        with pytest.raises(ValueError, match="grows beyond 4000 bytes"):
            _decode.read_file(path)
