"""Files that were cut short: padded where asked and where the format allows it, else one clear sentence."""

import io
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, features

from skretrieval.extraction import read_image
from skretrieval.extraction._formats import registered_formats

PATCHES = np.random.default_rng(1).integers(0, 256, (12, 20, 3), dtype=np.uint8)
SCENE = Image.fromarray(PATCHES).resize((160, 96), Image.Resampling.NEAREST)

# How much of the photograph's rows is right where so much of the file is left; None: no photograph is made of it.
FORMATS = {
    "JPEG": ({}, 0.5),
    "PNG": ({}, 0.5),
    "GIF": ({"interlace": 0}, 0.5),
    "BMP": ({}, 0),  # bottom row first
    "PPM": ({}, 0.5),
    "PCX": ({}, 0.5),
    "WEBP": ({}, 0.3),
    "HEIF": ({}, 0),
    "TIFF": ({}, 0),
    "compressed TIFF": ({"compression": "tiff_lzw"}, None),
    "JPEG2000": ({}, None),
    "QOI": ({}, None),
}


def encoded(name):
    kind = name.rpartition(" ")[2]
    if kind not in registered_formats() or (kind not in Image.SAVE and kind not in Image.SAVE_ALL):
        pytest.skip(f"no encoder of {kind}")
    if "lzw" in str(FORMATS[name]) and not features.check("libtiff"):
        pytest.skip("no libtiff")
    stream = io.BytesIO()
    SCENE.save(stream, kind, **FORMATS[name][0])
    return stream.getvalue()


@pytest.mark.parametrize("left", [0.6, 0.9])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_is_padded_where_asked(name, left):
    data, share = encoded(name), FORMATS[name][1]
    whole = np.asarray(read_image(data))
    cut = data[: int(len(data) * left)]
    if share is None:
        with pytest.raises(ValueError, match=r"^Entry 0 .* cannot be read as an image: .*\.$"):
            read_image(cut, truncated="pad")
    else:
        padded = np.asarray(read_image(cut, truncated="pad"))
        assert padded.shape == whole.shape
        rows = int(len(whole) * left * share)
        assert_array_equal(padded[:rows], whole[:rows])
    assert_array_equal(np.asarray(read_image(data, truncated="pad")), whole)
    with pytest.raises(ValueError, match=r"^Entry 0 .* cannot be read as an image: .*\.$"):
        read_image(cut)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("n_bytes", [0, 2, 8, 12, 20, 40, 60])
def test_of_a_beginning_no_photograph_is_made(name, n_bytes):
    with pytest.raises(ValueError, match=r"^Entry 0 .*\.$"):
        read_image(encoded(name)[:n_bytes], truncated="pad")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("name", ["WEBP", "HEIF"])
def test_a_stated_length_that_cannot_be_is_not_believed(name, size):
    data = bytearray(encoded(name))
    data[4:8] = size.to_bytes(4, "little") if name == "WEBP" else data[4:8]
    if name == "HEIF":
        data[:4] = size.to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"^Entry 0 .*\.$"):
        read_image(bytes(data[: len(data) // 2]), truncated="pad")


WITHOUT_PLUGIN = """
import sys
from pathlib import Path
sys.modules["pillow_heif"] = None
from skretrieval.extraction import read_image, readable_suffixes
assert not {".heic", ".heif"} & readable_suffixes()
try:
    read_image(sys.argv[1])
except ValueError as error:
    print(error)
from skretrieval.cli._app import app
sys.argv[1:] = ["index", sys.argv[2], "--out", sys.argv[3], "--dry-run"]
app()
"""


def test_without_the_plugin_heic_names_its_extra(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)
    (folder / "2.heif").write_bytes(b"")
    (folder / "3.mov").write_bytes(b"")
    SCENE.save(folder / "4.png")
    command = [sys.executable, "-c", WITHOUT_PLUGIN, folder / "1.HEIC", folder, tmp_path / "index"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert 'it is HEIC, which takes the extra heif: pip install "scikit-retrieval[heif]".' in done.stdout
    assert '1 .HEIC, 1 .heif, 1 .mov not read: install "scikit-retrieval[heif]"' in done.stderr
