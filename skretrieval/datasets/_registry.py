"""What the published data sets consist of: files, where they lie, who made them.

None of the publishers gives a checksum, so every `sha256` here is None: the first download of a file writes its
hash into ``manifest.json`` beside it, and later ones are held against that. Sizes are those reported by public
code; a download that grows well beyond them is ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: its name, its addresses in the order to try them, and what is known of it."""

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """The files to download: itself."""
        return (self,)


@dataclass(frozen=True)
class Archive:
    """A folder that comes packed in one file, or in the volumes of one.

    `by_hand` names files that are unpacked in its place where somebody has put one.
    """

    folder: str
    files: tuple[RemoteFile, ...]
    by_hand: tuple[str, ...] = ()


Piece = RemoteFile | Archive


@dataclass(frozen=True)
class DataSet:
    """A data set: the folder below the data home, its pieces, and the words of `DESCR`."""

    name: str
    folder: str
    pieces: tuple[Piece, ...]
    descr: str

    def files(self) -> Iterator[RemoteFile]:
        """All files to download."""
        for piece in self.pieces:
            yield from piece.files


_OXFORD_HOSTS = (
    "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/",
    "https://thor.robots.ox.ac.uk/oxbuildings/",
    "https://thor.robots.ox.ac.uk/datasets/oxford-buildings/",
)
_PARIS_HOSTS = (
    "https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/",
    "https://thor.robots.ox.ac.uk/parisbuildings/",
    "https://thor.robots.ox.ac.uk/datasets/paris-buildings/",
)
_HOLIDAYS_HOSTS = (
    "http://pascal.inrialpes.fr/data2/holidays/",
    "http://pascal.inrialpes.fr/data/holidays/",
    "ftp://ftp.inrialpes.fr/pub/lear/douze/data/",
)
_R1M_HOST = "http://ptak.felk.cvut.cz/revisitop/revisitop1m/"
_MULTIGRAIN = (
    "https://raw.githubusercontent.com/facebookresearch/multigrain/"
    "53c5ccf39e936a996691f0f278f43abd5b81acce/multigrain/datasets/"
)

_PINNED = """
Integrity: the publishers give no checksums. The SHA-256 of each file is written to manifest.json beside it when it
is first fetched, and files are held against it afterwards. Over http and ftp, compare it with a colleague's.
"""

_FLICKR_TERMS = """
Licence: the photographs come from Flickr and their use must respect Flickr's terms of use; the Visual Geometry
Group's terms of access apply as well. They may not be redistributed with this package, and are not.
"""


def _at(hosts: tuple[str, ...], name: str, size: int | None = None) -> RemoteFile:
    return RemoteFile(name, tuple(host + name for host in hosts), size)


_OXFORD_IMAGES = Archive(
    "oxbuild_images-v1",
    (_at(_OXFORD_HOSTS, "oxbuild_images-v1.tgz", 1_938_238_004),),
    by_hand=("oxbuild_images.tgz",),  # the archive's former name
)
_PARIS_IMAGES = tuple(
    Archive(f"paris_{part}-v1", (_at(_PARIS_HOSTS, f"paris_{part}-v1.tgz"),), by_hand=(f"paris_{part}.tgz",))
    for part in (1, 2)
)


def _revisited_gnd(name: str) -> RemoteFile:
    file = f"gnd_{name}.pkl"
    return RemoteFile(
        file,
        (
            f"https://cmp.felk.cvut.cz/revisitop/data/datasets/{name}/{file}",
            f"http://cmp.felk.cvut.cz/revisitop/data/datasets/{name}/{file}",
            f"http://cmp.felk.cvut.cz/cnnimageretrieval/data/test/{name}/{file}",
        ),
    )


OXFORD5K = DataSet(
    "oxford5k",
    "oxbuildings",
    (
        _OXFORD_IMAGES,
        Archive("gt_files_170407", (_at(_OXFORD_HOSTS, "gt_files_170407.tgz", 8_174),)),
    ),
    """Oxford Buildings (Oxford5k)
---------------------------
Published: 5,063 photographs of Oxford (the web page says 5,062), 11 landmarks with 5 queries each.
Protocol: each query is a box of a photograph that stays in the gallery and counts as a positive; good and ok are
positives, junk is removed from the ranking before ranks are counted.

J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, Object retrieval with large vocabularies and fast spatial
matching, CVPR 2007. https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/
"""
    + _FLICKR_TERMS
    + _PINNED,
)

PARIS6K = DataSet(
    "paris6k",
    "parisbuildings",
    (*_PARIS_IMAGES, Archive("paris_120310", (_at(_PARIS_HOSTS, "paris_120310.tgz"),))),
    """Paris Buildings (Paris6k)
-------------------------
Published: 6,412 photographs of Paris, 20 of them corrupt (the publisher's corrupt.txt; they hold a web page in
place of a photograph), 11 landmarks with 5 queries each.
Protocol: as Oxford5k.

J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, Lost in quantization: improving particular object retrieval
in large scale image databases, CVPR 2008. https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/
"""
    + _FLICKR_TERMS
    + _PINNED,
)

_REVISITED = """
Protocol: queries are boxes of photographs that are not in the gallery. Easy: easy are positives, hard and junk are
ignored. Medium: easy and hard are positives, junk is ignored. Hard: hard are positives, easy and junk are ignored.

F. Radenović, A. Iscen, G. Tolias, Y. Avrithis and O. Chum, Revisiting Oxford and Paris: large-scale image retrieval
benchmarking, CVPR 2018. http://cmp.felk.cvut.cz/revisitop/
The annotation file states no licence.
"""

ROXFORD5K = DataSet(
    "roxford5k",
    "oxbuildings",
    (_OXFORD_IMAGES, _revisited_gnd("roxford5k")),
    """Revisited Oxford (ROxford5k)
----------------------------
Published: 4,993 photographs and 70 queries, out of the 5,063 of Oxford5k, annotated anew.
"""
    + _REVISITED
    + _FLICKR_TERMS
    + _PINNED,
)

RPARIS6K = DataSet(
    "rparis6k",
    "parisbuildings",
    (*_PARIS_IMAGES, _revisited_gnd("rparis6k")),
    """Revisited Paris (RParis6k)
--------------------------
Published: 6,322 photographs and 70 queries, out of the 6,392 of Paris6k that can be read, annotated anew.
"""
    + _REVISITED
    + _FLICKR_TERMS
    + _PINNED,
)

HOLIDAYS = DataSet(
    "holidays",
    "holidays",
    (
        # 1,115,072 and 1,661,496 KiB in the listing of the FTP server
        Archive("jpg1", (_at(_HOLIDAYS_HOSTS, "jpg1.tar.gz", 1_115_072 * 1024),)),
        Archive("jpg2", (_at(_HOLIDAYS_HOSTS, "jpg2.tar.gz", 1_661_496 * 1024),)),
    ),
    """INRIA Holidays
--------------
Published: 1,491 personal holiday photographs of 500 scenes.
Protocol: the first photograph of each scene (number divisible by 100) is its query; it is ignored in its own ranking.
database="all" searches all 1,491; "non_queries" only the 991 others, whose scores are higher and not comparable.

H. Jégou, M. Douze and C. Schmid, Hamming embedding and weak geometric consistency for large scale image search,
ECCV 2008. https://lear.inrialpes.fr/~jegou/data.php (the server has moved several times; the FTP server is slow)

Licence: the publisher states none beyond the request to cite.
"""
    + _PINNED,
)

HOLIDAYS_UPRIGHT = DataSet(
    "holidays_upright",
    "holidays",
    (*HOLIDAYS.pieces, _at((_MULTIGRAIN,), "holidays-rotate.yaml", 4_135)),
    HOLIDAYS.descr
    + """
Upright: the published photographs with the rotations of M. Berman et al., MultiGrain: a unified image embedding for
classes and instances, arXiv:1902.05509 (CC BY-NC 4.0, facebookresearch/multigrain), written into the EXIF orientation
of copies; their pixels are not encoded anew. Other groups rotated by hand, and not always the same photographs.
""",
)

UKBENCH = DataSet(
    "ukbench",
    "ukbench",
    (Archive("ukbench", (_at(("https://archive.org/download/ukbench/",), "ukbench.zip"),)),),
    """University of Kentucky benchmark (UKBench)
------------------------------------------
Published: 10,200 photographs of 2,550 objects, 4 of each, one after the other.
Protocol: N-S, the mean number of photographs of the query's object among the first 4, the query included; 4 is
perfect. queries="all" asks with all 10,200, "first" with the first of each object.

D. Nistér and H. Stewénius, Scalable recognition with a vocabulary tree, CVPR 2006. https://archive.org/details/ukbench
(the authors' own page is gone)

Licence: the publisher states none beyond the request to cite.
"""
    + _PINNED,
)

FLICKR100K = DataSet(
    "flickr100k",
    "flickr100k",
    (
        Archive(
            "oxc1_100k",
            tuple(
                _at(
                    (
                        "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/ox100k/",
                        "http://www.robots.ox.ac.uk/~vgg/data/oxbuildings/ox100k/",
                    ),
                    f"oxc1_100k.part{part:02d}.rar",
                )
                for part in range(1, 41)
            ),
            by_hand=("oxc1_100k.tgz", "oxc1_100k.tar.gz", "oxc1_100k.tar", "oxc1_100k.zip"),
        ),
    ),
    """Flickr100k distractors
----------------------
Published: about 100,000 photographs (100,071 in the literature) of Flickr's most popular tags, none of them of the
buildings of Oxford or Paris on purpose.

J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, Object retrieval with large vocabularies and fast spatial
matching, CVPR 2007. https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/flickr100k.html
"""
    + _FLICKR_TERMS
    + _PINNED,
)

REVISITOP1M = DataSet(
    "revisitop1m",
    "revisitop1m",
    (
        _at((_R1M_HOST,), "revisitop1m.txt"),
        *(
            Archive(f"revisitop1m.{part}", (_at((_R1M_HOST + "jpg/",), f"revisitop1m.{part}.tar.gz"),))
            for part in range(1, 101)
        ),
    ),
    """R1M distractors of the revisited benchmarks
-------------------------------------------
Published: 1,001,001 photographs in 100 archives, chosen from YFCC100M to be hard to tell from the landmarks.

F. Radenović, A. Iscen, G. Tolias, Y. Avrithis and O. Chum, Revisiting Oxford and Paris: large-scale image retrieval
benchmarking, CVPR 2018. http://cmp.felk.cvut.cz/revisitop/

Licence: photographs of YFCC100M under the Creative Commons licences that their authors chose.
"""
    + _PINNED,
)
