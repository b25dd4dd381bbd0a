"""Files of rows: only ever added to, and checked before they are mapped."""

import zlib

import numpy as np
import pytest

from skretrieval.index import IndexDamagedError
from skretrieval.index._rows import append, in_blocks, mapped, new_file


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_rows_are_added_behind_those_that_count(tmp_path, dtype):
    array = np.arange(24.0).reshape(8, 3).astype(dtype)
    rows = append(tmp_path, new_file("descriptors", array.dtype, 3), [array[:2], array[2:5]])
    append(tmp_path, rows, [array[:1]])  # by a writer that was killed before it said so
    rows = append(tmp_path, rows, [array[5:]])
    np.testing.assert_array_equal(mapped(tmp_path, rows), array)
    assert rows.checksum == zlib.crc32(array.tobytes())
    assert not mapped(tmp_path, rows).flags.writeable


def test_rows_that_do_not_fit_are_refused(tmp_path):
    rows = new_file("descriptors", np.dtype("f4"), 3)
    for block in (np.zeros((2, 4)), np.zeros(3)):
        with pytest.raises(ValueError, match="do not fit 3 columns"):
            append(tmp_path, rows, [block])


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "diary").write_bytes(b"dear")
    rows = new_file("gallery", np.dtype("f4"), 2)
    (tmp_path / rows.file).symlink_to("diary")
    with pytest.raises(IndexDamagedError, match="no regular file"):
        append(tmp_path, rows, [np.ones((1, 2), np.float32)])
    assert (tmp_path / "diary").read_bytes() == b"dear"


def test_a_file_that_went_or_shrank_is_damaged(tmp_path):
    rows = append(tmp_path, new_file("gallery", np.dtype("f4"), 2), [np.ones((4, 2), np.float32)])
    (tmp_path / rows.file).write_bytes(b"x")
    with pytest.raises(IndexDamagedError, match="cannot be read"):
        mapped(tmp_path, rows)
    (tmp_path / rows.file).unlink()
    with pytest.raises(IndexDamagedError, match="cannot be read"):
        mapped(tmp_path, rows)


def test_blocks_are_all_of_the_rows():
    array = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(np.concatenate(list(in_blocks(array))), array)
    assert list(in_blocks(array[:0])) == []
