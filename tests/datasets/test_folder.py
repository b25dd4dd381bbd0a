import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from skretrieval.datasets import load_image_folder
from skretrieval.extraction import ImageCrop


def save(folder, *names, size=(20, 10), **options):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 30)).save(path, **options)


def write(folder, text):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_sub_folders_are_labels(tmp_path):
    save(tmp_path, "dog/b.jpg", "cat/z.png", "cat/deep/er/a.JPG", ".hidden/x.png", "cat/.x.png")
    (tmp_path / "cat" / "notes.txt").write_text("not a photograph")
    dataset = load_image_folder(tmp_path)
    names = [path[len(str(tmp_path)) + 1 :] for path in dataset.images]
    assert names == ["cat/deep/er/a.JPG", "cat/z.png", "dog/b.jpg"]
    assert all(isinstance(path, str) for path in dataset.images)
    assert dataset.labels.tolist() == ["cat", "cat", "dog"]
    assert dataset.target.tolist() == [0, 0, 1]
    assert dataset.target_names.tolist() == ["cat", "dog"]
    assert dataset.queries == []
    assert dataset.query_target.shape == (0,)
    assert "3 gallery images" in dataset.DESCR


def test_flat_folder_has_no_labels(tmp_path):
    save(tmp_path, "b.png", "a.png")
    dataset = load_image_folder(str(tmp_path))
    assert [path.rsplit("/", 1)[1] for path in dataset.images] == ["a.png", "b.png"]
    assert dataset.labels is None
    assert dataset.target is None
    assert dataset.query_target is None


def test_extensions(tmp_path):
    save(tmp_path, "a.png", "b.jpg")
    assert len(load_image_folder(tmp_path, extensions=[".PNG"]).images) == 1


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(ValueError, match="No images in"):
        load_image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone"):
        load_image_folder(tmp_path / "gone")


def test_mixed_folder_is_refused(tmp_path):
    save(tmp_path, "a.png", "cat/b.png")
    with pytest.raises(ValueError, match=r"1 of 2 images lie in .* itself \(a.png"):
        load_image_folder(tmp_path)


def test_table(tmp_path):
    save(tmp_path, "a.png", "b.png", "q.png")
    table = write(
        tmp_path,
        "path,label,role,box\n"
        "b.png,dog,gallery,\n"
        "a.png,cat,,\n"
        "q.png,cat,query,1 2 19 9\n"
        'q.png,dog,query,"0,0,20,10"\n'
        "q.png,ant,query,0.5 0 20 10\n",
    )
    dataset = load_image_folder(tmp_path, csv=table)
    assert dataset.images == [str(tmp_path / "b.png"), str(tmp_path / "a.png")]
    assert dataset.target_names.tolist() == ["ant", "cat", "dog"]
    assert dataset.target.tolist() == [2, 1]
    assert dataset.query_target.tolist() == [1, 2, 0]
    assert all(isinstance(query, ImageCrop) for query in dataset.queries)
    assert [query.box for query in dataset.queries] == [(1, 2, 19, 9), (0, 0, 20, 10), (0.5, 0, 20, 10)]
    assert dataset.queries[0].image == str(tmp_path / "q.png")


def test_table_with_paths_alone_and_a_byte_order_mark(tmp_path):
    save(tmp_path, "a.png")
    path = tmp_path / "table.csv"
    path.write_text(f"path\n{tmp_path / 'a.png'}\n", encoding="utf-8-sig")
    dataset = load_image_folder(tmp_path, csv=path)
    assert dataset.images == [str(tmp_path / "a.png")]
    assert dataset.labels is None
    assert dataset.queries == []


def test_box_counts_pixels_of_the_upright_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: shown, it is 10 wide and 20 high
    save(tmp_path, "a.jpg", "q.jpg", exif=exif)
    rows = "path,role,box\na.jpg,gallery,\nq.jpg,query,{}\n"
    dataset = load_image_folder(tmp_path, csv=write(tmp_path, rows.format("0 0 10 20")))
    assert dataset.queries[0].box == (0, 0, 10, 20)
    with pytest.raises(ValueError, match=r"row 3: .*10x20 pixels"):
        load_image_folder(tmp_path, csv=write(tmp_path, rows.format("0 0 20 10")))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file,label\na.png,cat\n", ValueError, "no column 'path'.*file"),
        ("", ValueError, "no column 'path'"),
        ("path,label\n", ValueError, "no rows"),
        ("path,label\na.png,cat\ngone.png,cat\n", FileNotFoundError, "row 3: no such file: .*gone.png"),
        ("path,label\na.png,cat\n ,cat\n", ValueError, "row 3: the path is empty"),
        ("path,role\na.png,gallery\na.png,junk\n", ValueError, "row 3: role must be.*junk"),
        ("path,label\na.png,cat\na.png,\n", ValueError, "row 3: no label"),
        ("path,role\na.png,query\n", ValueError, "no row of role gallery"),
        ("path,role,box\na.png,gallery,1 2 x 4\n", ValueError, "row 2: box must be four numbers.*1 2 x 4"),
        ("path,role,box\na.png,gallery,1 2 3\n", ValueError, "row 2: box must be four numbers.*got 3"),
        ("path,role,box\na.png,gallery,5 2 5 4\n", ValueError, "row 2: box .*20x10"),
        ("path,role,box\na.png,gallery,0 0 21 4\n", ValueError, "row 2: box .*20x10"),
        ("path,role,box\na.png,gallery,0 nan 20 4\n", ValueError, "row 2: box .*20x10"),
        ("path,role,box\nbroken.png,gallery,0 0 9 4\n", ValueError, "row 2: .*cannot be read as an image"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, error, message):
    save(tmp_path, "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(error, match=message):
        load_image_folder(tmp_path, csv=write(tmp_path, text))


def test_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table\.csv"):
        load_image_folder(tmp_path, csv=tmp_path / "table.csv")


def test_subset_by_labels_works_with_arrays(tmp_path):
    save(tmp_path, "cat/a.png", "dog/b.png", "dog/c.png")
    dataset = load_image_folder(tmp_path)
    assert np.flatnonzero(dataset.labels == "dog").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-8", "Café.png"), ("utf-8-sig", "Café.png"), ("utf-16", "Café.png")]
)
def test_tables_of_spreadsheets_are_read(tmp_path, encoding, name):
    save(tmp_path, name)
    path = tmp_path / "table.csv"
    path.write_text(f"path,label\r\n{name},früh\r\n", encoding=encoding, newline="")
    dataset = load_image_folder(tmp_path, csv=path)
    assert dataset.images == [str(tmp_path / name)]
    assert dataset.labels.tolist() == ["früh"]


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman", "cp850"])
def test_a_table_of_a_code_page_is_refused_with_its_line(tmp_path, encoding):
    save(tmp_path, "a.png")
    path = tmp_path / "table.csv"
    path.write_text("path,label\na.png,x\na.png,Café\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"table\.csv, line 3: .*not UTF-8 .*Save the table as CSV UTF-8\."):
        load_image_folder(tmp_path, csv=path)


def test_a_table_with_a_huge_field_is_refused_with_its_line(tmp_path):
    path = write(tmp_path, "path,label\n" + "x" * 200_000 + ",y\n")
    with pytest.raises(ValueError, match=r"table\.csv, line 2: no table: field larger"):
        load_image_folder(tmp_path, csv=path)


def bomb():
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data", [bomb(), b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", b"\xff\xd8\xff"]
)
def test_a_box_in_a_bad_photograph_names_it(tmp_path, data):
    (tmp_path / "odd.jpg").write_bytes(data)
    path = write(tmp_path, "path,box\nodd.jpg,0 0 5 5\n")
    with pytest.raises(ValueError, match=r"table\.csv, row 2: .*odd\.jpg cannot be read as an image: .*\."):
        load_image_folder(tmp_path, csv=path)


def test_a_box_in_a_photograph_with_damaged_exif_counts(tmp_path):
    save(tmp_path, "a.png", exif=b"Exif\0\0garbage!!")
    dataset = load_image_folder(tmp_path, csv=write(tmp_path, "path,box\na.png,0 0 5 5\n"))
    assert dataset.images[0].box == (0, 0, 5, 5)
