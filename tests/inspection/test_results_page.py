import base64
import io
import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from skretrieval.extraction import ImageCrop
from skretrieval.inspection import results_page


@pytest.fixture
def gallery(tmp_path):
    paths = []
    for number, level in enumerate([40, 120, 200]):
        path = tmp_path / f"photograph {number}.png"
        Image.new("RGB", (60, 40), (level, level, level)).save(path)
        paths.append(str(path))
    return paths


class Page(HTMLParser):
    """The tags of a page with their attributes, and its visible text."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags, self.text = [], []
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def images(self):
        """All pictures in order, as (data URI, description)."""
        rules = dict(re.findall(r"^\.(t\d+) \{ background-image: url\((.*)\); \}$", self.html, re.MULTILINE))
        found = []
        for tag, attrs in self.tags:
            if tag == "img":
                found.append((attrs["src"], attrs["alt"]))
            elif attrs.get("class", "").startswith("thumb "):
                found.append((rules[attrs["class"].split()[1]], attrs["aria-label"]))
        return found

    def decoded(self):
        return [decode(source) for source, _ in self.images()]

    def classes(self, tag):
        return [attrs.get("class", "") for name, attrs in self.tags if name == tag]


def decode(source):
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_page_shows_the_ranking_in_order(tmp_path, gallery):
    path = results_page(
        tmp_path / "page.html", [gallery[0]], gallery, np.array([[2, 0, 1]]), [[0.9, 0.5, 0.25]]
    )
    page = Page(path)
    levels = [image.mean() for image in page.decoded()]
    np.testing.assert_allclose(levels, [40, 200, 40, 120], atol=2)
    assert [words for _, words in page.images()] == [
        "query: photograph 0.png",
        "result 1: photograph 2.png",
        "result 2: photograph 0.png",
        "result 3: photograph 1.png",
    ]
    text = " ".join(page.text)
    assert re.search(r"0\.9000.*0\.5000.*0\.2500", text, re.DOTALL)
    assert page.classes("li") == ["hit"] * 3, "no verdict without labels"


def test_page_is_self_contained(tmp_path, gallery):
    page = Page(results_page(tmp_path / "page.html", gallery[:1], gallery, [[0, 1]]))
    assert all(source.startswith("data:") for source, _ in page.images())
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "http://" not in page.html
    assert "https://" not in page.html


def test_labels_give_verdicts(tmp_path, gallery):
    path = results_page(
        tmp_path / "page.html",
        gallery[:2],
        gallery,
        [[0, 1], [1, 2]],
        query_labels=["a", "b"],
        gallery_labels=np.array(["a", "b", "b"]),
    )
    assert Page(path).classes("li") == ["hit right", "hit wrong", "hit right", "hit right"]
    assert Page(path).html.count("✓") == 3
    assert "same label as the query" in Page(path).html


def test_box_is_drawn_in_per_cent_of_the_whole_photograph(tmp_path, gallery):
    path = results_page(tmp_path / "page.html", [ImageCrop(gallery[1], (15, 10, 45, 20))], gallery, [[0]])
    page = Page(path)
    (style,) = [attrs["style"] for tag, attrs in page.tags if attrs.get("class") == "box"]
    assert style == "left:25.0%;top:25.0%;width:50.0%;height:25.0%"
    assert page.decoded()[0].shape == (40, 60, 3)


def test_gallery_crop_is_shown_as_the_crop(tmp_path, gallery):
    page = Page(
        results_page(tmp_path / "page.html", gallery[:1], [ImageCrop(gallery[1], (15, 10, 45, 20))], [[0]])
    )
    assert page.decoded()[1].shape == (10, 30, 3)
    assert "box" not in page.classes("div")


def test_everything_is_escaped(tmp_path, gallery):
    nasty = '<script>alert("1")</script>&"\'.png'
    path = tmp_path / nasty.replace("/", "_")
    Image.new("RGB", (20, 20)).save(path)
    page = Page(
        results_page(
            tmp_path / "page.html",
            [path],
            [path, gallery[0]],
            [[0, 1]],
            gallery_titles=[nasty, "x"],
            query_titles=[nasty],
            query_notes=[nasty],
            title=nasty,
            figures={nasty: nasty},
            settings={nasty: nasty},
            score_name=nasty,
        )
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(nasty) == 9, "title, heading, 2 figures, 2 settings, query, note, result"
    titles = [attrs["title"] for tag, attrs in page.tags if tag == "img"]
    assert titles == [str(path)]


def test_unreadable_files_leave_a_tile_that_says_so(tmp_path, gallery):
    page = Page(results_page(tmp_path / "page.html", [tmp_path / "gone.jpg"], gallery, [[0]]))
    assert len(page.images()) == 1
    assert "no such file" in " ".join(page.text)


def test_number_of_results_and_size_of_thumbnails(tmp_path, gallery):
    array = np.zeros((100, 300, 3), dtype=np.uint8)
    path = results_page(
        tmp_path / "page.html", [array], [array, gallery[0]], [[0, 1]], n_results=1, thumbnail_size=50
    )
    shapes = [image.shape for image in Page(path).decoded()]
    assert shapes == [(25, 75, 3), (17, 50, 3)]


def test_figures_and_settings_are_in_the_head(tmp_path, gallery):
    path = results_page(
        tmp_path / "page.html",
        gallery[:1],
        gallery,
        [[0]],
        figures={"mAP": "0.973"},
        settings={"recipe": "gsw"},
    )
    text = " ".join(Page(path).text)
    assert re.search(r"mAP\s+0\.973.*recipe\s+gsw", text, re.DOTALL)


def test_a_result_of_several_queries_is_embedded_once(tmp_path, gallery):
    page = Page(results_page(tmp_path / "page.html", gallery[:2], gallery, [[0, 1, 2], [2, 1, 0]]))
    assert len(page.images()) == 8
    assert page.html.count("data:image/jpeg") == 5


def test_ragged_rankings(tmp_path, gallery):
    page = Page(results_page(tmp_path / "page.html", gallery[:2], gallery, [[0, 1, 2], []], [[3, 2, 1], []]))
    assert len(page.images()) == 5


@pytest.mark.parametrize(
    ("indices", "options", "message"),
    [
        ([[0], [1]], {}, "2 rows for 1 queries"),
        ([[0, 3]], {}, "Query 0: index 3 is outside the gallery of 3"),
        ([[-1]], {}, "index -1"),
        ([[0]], {"scores": [[1.0, 2.0]]}, "2 scores for 1 results"),
        ([[0]], {"scores": []}, "scores has 0 rows"),
        ([[0]], {"query_labels": ["a", "b"]}, "query_labels has 2 entries, expected 1"),
        ([[0]], {"gallery_titles": ["a", "b"]}, "gallery_titles has 2 entries, expected 3"),
    ],
)
def test_lengths_that_do_not_match(tmp_path, gallery, indices, options, message):
    with pytest.raises(ValueError, match=message):
        results_page(tmp_path / "page.html", gallery[:1], gallery, indices, **options)
    assert not (tmp_path / "page.html").exists()


def test_pictures_of_files_link_to_them(tmp_path):
    """Also where a name has characters that mean something in a URL or are no text."""
    names = ["plain.png", "100% #1?.png", "grün.png", os.fsdecode(b"\xff.png")]
    files = [tmp_path / name for name in names]
    for file in files:
        Image.new("RGB", (20, 20), (90, 120, 30)).save(file)
    page = results_page(
        tmp_path / "page.html", [files[0]], [*files, np.zeros((8, 8, 3), np.uint8)], [range(5)]
    )
    html = page.read_text(encoding="utf-8")
    links = re.findall(r'<a href="file://([^"]*)">', html)
    assert [unquote_to_bytes(link) for link in links] == [os.fsencode(file) for file in files]


def test_parts_of_results_are_drawn_where_they_lie(tmp_path, gallery):
    """60 x 40 pixels in a square frame: 10 pixels of it are above the picture."""
    boxes = [[(30, 0, 60, 40), None]]
    page = Page(results_page(tmp_path / "page.html", gallery[:1], gallery[1:], [[0, 1]], boxes=boxes))
    (part,) = [attrs["style"] for _, attrs in page.tags if attrs.get("class") == "part"]
    edges = dict(re.findall(r"(\w+):([\d.]+)%", part))
    assert {name: float(value) for name, value in edges.items()} == pytest.approx(
        {"left": 50, "top": 100 / 6, "width": 50, "height": 200 / 3}, abs=1e-3
    )
    with pytest.raises(ValueError, match="Query 0: 1 boxes for 2 results"):
        results_page(tmp_path / "page.html", gallery[:1], gallery[1:], [[0, 1]], boxes=[[None]])
