"""Archives of strangers: unpacked whole, or refused with the member's name."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from skretrieval.datasets._archives import ArchiveError, DamagedArchive, Limits, extract


@pytest.fixture
def place(tmp_path):
    """A folder to unpack to, inside one whose neighbours must stay as they are."""
    (tmp_path / "neighbour").write_text("mine")
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "out"


def put(place, name, data):
    path = place.parent / name
    path.write_bytes(data)
    return [path]


def untouched(place, archive):
    """Nothing was made, next to the archive or outside."""
    assert sorted(path.name for path in place.parent.iterdir()) == [archive[0].name]
    assert [path.name for path in place.parent.parent.iterdir() if path.is_file()] == ["neighbour"]
    assert (place.parent.parent / "neighbour").read_text() == "mine"
    return True


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


MEMBERS = [("a/1.jpg", b"one"), ("./a/b/2.jpg", b"two" * 1000), ("3.txt", b"")]


@pytest.mark.parametrize("name", ["x.tgz", "x.tar.gz", "x.tar", "x.zip", "x.rar", "x.tar.xz", "x.tar.bz2"])
def test_every_kind_is_unpacked(make, place, name):
    if name.endswith((".xz", ".bz2", ".tar")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:" + name.rpartition(".")[2].replace("tar", "")) as tar:
            for member, data in MEMBERS:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        packed = buffer.getvalue()
    else:
        packed = {"zip": make.zipped, "rar": make.rar}.get(name[-3:], make.tar_gz)(MEMBERS)
    extract(put(place, name, packed), place)
    found = {
        path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }
    assert found == {"a/1.jpg": b"one", "a/b/2.jpg": b"two" * 1000, "3.txt": b""}
    assert not list(place.parent.glob(".*"))


def test_modes_and_owners_of_strangers_are_not_taken(make, place):
    info = tarfile.TarInfo("tool")
    info.mode, info.uid = 0o6777, 0
    extract(put(place, "x.tgz", make.tar_gz([info, ("folder/a", b"a")])), place)
    assert not (place / "tool").stat().st_mode & 0o7111


@pytest.mark.parametrize("kind", ["tgz", "zip", "rar"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../escaped.jpg", "leads out"),
        ("a/../../escaped.jpg", "leads out"),
        ("..", "leads out"),
        ("a\\..\\..\\escaped.jpg", "leads out"),
        ("/tmp/escaped.jpg", "absolute path"),
        ("C:/escaped.jpg", "absolute path"),
        ("C:\\escaped.jpg", "absolute path"),
    ],
)
def test_members_that_lead_out_are_refused(make, place, kind, name, why):
    pack = {"tgz": make.tar_gz, "zip": make.zipped, "rar": make.rar}[kind]
    archive = put(place, f"x.{kind}", pack([("fine.jpg", b"fine"), (name, b"evil")]))
    with pytest.raises(ArchiveError, match=rf"x\.{kind} is refused: its member .* {why}"):
        extract(archive, place)
    assert untouched(place, archive)


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (special("link.jpg", tarfile.SYMTYPE, "../../neighbour"), "a symbolic link"),
        (special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
        (special("link.jpg", tarfile.SYMTYPE, "fine.jpg"), "a symbolic link"),
        (special("link.jpg", tarfile.LNKTYPE, "../../neighbour"), "a hard link"),
        (special("link.jpg", tarfile.LNKTYPE, "fine.jpg"), "a hard link"),
        (special("null", tarfile.CHRTYPE), "a device or pipe"),
        (special("disk", tarfile.BLKTYPE), "a device or pipe"),
        (special("pipe", tarfile.FIFOTYPE), "a device or pipe"),
    ],
)
def test_links_and_devices_are_refused(make, place, member, why):
    archive = put(place, "x.tgz", make.tar_gz([("fine.jpg", b"fine"), member, ("link.jpg/evil", b"evil")]))
    with pytest.raises(ArchiveError, match=f"{member.name!r} is {why}"):
        extract(archive, place)
    assert untouched(place, archive)


def test_links_in_zip_and_rar_are_refused(make, place):
    info = zipfile.ZipInfo("link.jpg")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    archive = put(place, "x.zip", make.zipped([(info, b"../../neighbour")]))
    with pytest.raises(ArchiveError, match=r"'link\.jpg' is a link"):
        extract(archive, place)
    assert untouched(place, archive)
    archive[0].unlink()
    archive = put(place, "x.rar", make.rar([("link.jpg", b"../../neighbour", 0o120777)]))
    with pytest.raises(ArchiveError, match=r"'link\.jpg' is a link"):
        extract(archive, place)
    assert untouched(place, archive)


def test_a_bomb_is_refused_before_it_is_written(make, place):
    zeros = bytes(3 << 20)
    limits = Limits(allowance=1 << 20)
    for name, packed in (("x.tgz", make.tar_gz([("a.jpg", zeros)])), ("x.zip", None)):
        if packed is None:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr("a.jpg", zeros)
            packed = buffer.getvalue()
        assert len(packed) < 10_000
        archive = put(place, name, packed)
        with pytest.raises(ArchiveError, match=r"'a\.jpg' takes the total beyond its limit"):
            extract(archive, place, limits=limits)
        assert untouched(place, archive)
        archive[0].unlink()


@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE]
)
def test_a_bomb_of_a_name_is_refused(place, kind):
    """tarfile reads names and attributes in one piece, before anything is checked."""
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 2 << 20
    archive = put(
        place, "x.tgz", gzip.compress(header.tobuf() + bytes(2 << 20) + tarfile.TarInfo("a.jpg").tobuf())
    )
    with pytest.raises(ArchiveError, match="'long' announces a name or attributes of 2,097,152 bytes"):
        extract(archive, place)
    assert untouched(place, archive)


def test_long_names_within_reason_are_fine(make, place):
    names = ["/".join(["folder" * 20] * 4) + f"/{number}.jpg" for number in range(3)]
    extract(put(place, "x.tgz", make.tar_gz([(name, b"photograph") for name in names])), place)
    assert all((place / name).read_bytes() == b"photograph" for name in names)


def test_a_bomb_between_the_members_is_refused(place):
    """The map of a sparse member, which no size announces: counted as it is unpacked."""
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "a.jpg",
        "GNU.sparse.realsize": "1",
    }
    headers = info.tobuf(format=tarfile.PAX_FORMAT)
    archive = put(place, "x.tgz", gzip.compress(headers + b"9999999\n" + b"0\n" * (2 << 20)))
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        extract(archive, place, limits=Limits(allowance=1000))
    assert untouched(place, archive)


def test_headers_without_end_are_damage(place):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    archive = put(place, "x.tgz", gzip.compress((header.tobuf() + b"n" * 511 + b"\0") * 3000))
    with pytest.raises(DamagedArchive, match=r"x\.tgz is damaged"):
        extract(archive, place)
    assert untouched(place, archive)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(members=2), "beyond the limit of 2 members"),
        (Limits(file_size=4), "has 3,000 bytes; the limit for one is 4"),
        (Limits(growth=0, allowance=100), "beyond its limit of 100 bytes"),
    ],
)
def test_limits(make, place, limits, why):
    archive = put(place, "x.tar.gz", make.tar_gz([*MEMBERS, ("4.jpg", b"")]))
    with pytest.raises(ArchiveError, match=why):
        extract(archive, place, limits=limits)
    assert untouched(place, archive)


def test_a_zip_that_lies_about_sizes(make, place):
    honest = make.zipped([("a.jpg", b"x" * 100)])
    lying = honest.replace((100).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    archive = put(place, "x.zip", lying)
    with pytest.raises((ArchiveError, DamagedArchive)):
        extract(archive, place)
    assert untouched(place, archive)


def test_encrypted_zips_are_refused(make, place):
    data = bytearray(make.zipped([("a.jpg", b"data")]))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive = put(place, "x.zip", bytes(data))
    with pytest.raises(ArchiveError, match="is encrypted"):
        extract(archive, place)
    assert untouched(place, archive)


@pytest.mark.parametrize("kind", ["tgz", "zip", "rar"])
def test_damage_is_noticed(make, place, kind):
    data = os.urandom(50_000)
    pack = {"tgz": make.tar_gz, "zip": make.zipped, "rar": make.rar}[kind]
    packed = pack([("a.jpg", data), ("b.jpg", data[::-1])])
    flipped = bytearray(packed)
    flipped[len(packed) // 3] ^= 0xFF
    for damaged in (packed[: len(packed) // 2], bytes(flipped)):
        archive = put(place, f"x.{kind}", damaged)
        with pytest.raises(DamagedArchive, match=rf"x\.{kind} is damaged"):
            extract(archive, place)
        assert untouched(place, archive)


def test_a_checksum_at_the_very_end_is_read(make, place):
    packed = bytearray(make.tar_gz([("a.jpg", b"data")]))
    packed[-8] ^= 0xFF  # of gzip, after the last byte of tar
    archive = put(place, "x.tgz", bytes(packed))
    with pytest.raises(DamagedArchive, match="is damaged"):
        extract(archive, place)
    assert untouched(place, archive)


def test_an_empty_archive_is_damaged(make, place):
    archive = put(place, "x.tgz", make.tar_gz([]))
    with pytest.raises(DamagedArchive, match="is empty"):
        extract(archive, place)
    assert untouched(place, archive)


def test_what_an_interrupted_run_left_is_removed(make, place, monkeypatch):
    archive = put(place, "x.tgz", make.tar_gz(MEMBERS))
    replace = os.replace

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, place)
    monkeypatch.setattr(os, "replace", replace)
    assert not place.exists()
    partial = place.parent / ".out.partial"
    (partial / "of an older archive.jpg").write_bytes(b"")
    extract(archive, place)
    assert sorted(path.name for path in place.iterdir()) == ["3.txt", "a"]
    assert not partial.exists()


def test_other_kinds_are_refused(place):
    with pytest.raises(ArchiveError, match="no kind of archive"):
        extract(put(place, "x.7z", b"7z"), place)


def test_rarfile_missing_names_the_extra(make, place, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rarfile", None)
    with pytest.raises(ImportError, match=r"scikit-retrieval\[rar\]"):
        extract(put(place, "x.rar", make.rar(MEMBERS)), place)
