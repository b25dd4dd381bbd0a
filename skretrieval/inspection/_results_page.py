"""One HTML file that shows queries and what was found for them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from .._version import __version__
from ..extraction import ImageCrop, read_image

_JPEG_QUALITY = 82


@dataclass(frozen=True)
class _Tile:
    """A picture on the page, of a file of `size`. `box` is (left, top, width, height) in per cent, as CSS counts."""

    title: str
    path: str
    source: str = ""
    width: int = 0
    height: int = 0
    box: tuple[float, float, float, float] | None = None
    problem: str = ""
    size: tuple[int, int] = (0, 0)

    def box_in_square(
        self, box: tuple[float, float, float, float] | None
    ) -> tuple[float, float, float, float] | None:
        """Return a part of the photograph, in its pixels, in per cent of the square that the picture is centred in."""
        if box is None or not self.source:
            return None
        longest = max(self.size)
        across, down = ((longest - side) / 2 for side in self.size)
        left, top, right, bottom = box
        sides = (left + across, top + down, right - left, bottom - top)
        return tuple(round(100 * side / longest, 3) for side in sides)  # type: ignore[return-value]

    @property
    def link(self) -> str:
        """Where a browser on this machine finds the file; empty where there is none."""
        return Path(self.path).absolute().as_uri() if self.path else ""


def results_page(
    path: str | os.PathLike,
    queries: Sequence[Any],
    gallery: Sequence[Any],
    indices: Sequence[Sequence[int]] | np.ndarray,
    scores: Sequence[Sequence[float]] | np.ndarray | None = None,
    *,
    query_labels: Sequence[Any] | np.ndarray | None = None,
    gallery_labels: Sequence[Any] | np.ndarray | None = None,
    mark_wrong: bool = True,
    query_titles: Sequence[str] | None = None,
    gallery_titles: Sequence[str] | None = None,
    query_notes: Sequence[str] | None = None,
    title: str = "Search results",
    figures: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    boxes: Sequence[Sequence[tuple[float, float, float, float] | None]] | None = None,
    score_name: str = "score",
    n_results: int = 20,
    thumbnail_size: int = 240,
) -> Path:
    """Write a page with each query, its box and its ranked results.

    The page is one file: thumbnails are embedded, nothing is loaded from elsewhere. It follows the reader's
    light or dark setting. Every text on it is escaped, so file names may hold anything.

    Parameters
    ----------
    path : path
        The file to write, replaced if it exists. Its folder must exist.

    queries, gallery : sequence of path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photographs. A query that is an :class:`~skretrieval.extraction.ImageCrop` is shown whole, with
        its box; a crop in the gallery is shown as the crop. Pictures of files
        link to them. A file that cannot be read leaves a tile that
        says so.

    indices : array-like of shape (n_queries, n_neighbors)
        For each query the gallery positions found, best first: what ``predict`` of a retriever returns.
        Rows may differ in length.

    scores : array-like of shape (n_queries, n_neighbors), default=None
        A number to print under each result.

    query_labels, gallery_labels : sequence, default=None
        What the photographs show. With both, results of the query's label get a green frame and a tick,
        others a red frame and a cross.

    mark_wrong : bool, default=True
        False leaves results of another label as they are: where only some right answers are known.

    query_titles, gallery_titles : sequence of str, default=None
        Names to print. Default: file names.

    query_notes : sequence of str, default=None
        A line to print under each query.

    title : str, default="Search results"
        Heading of the page.

    figures : mapping of str to value, default=None
        Numbers for the head of the page, such as mAP, gallery size and seconds per query.

    settings : mapping of str to value, default=None
        How the results were made; on the page it can be unfolded.

    boxes : sequence of n_queries sequences of tuple (left, top, right, bottom) or None, default=None
        For each result the part that matched, in pixels of the upright photograph; it is drawn.

    score_name : str, default="score"
        What `scores` are; shown when the pointer rests on one.

    n_results : int, default=20
        Results shown per query, at most.

    thumbnail_size : int, default=240
        Longest side of the thumbnails in pixels; queries get half as much again.

    Returns
    -------
    path : pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If lengths don't match or an index points outside the gallery.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skretrieval.inspection import results_page
    >>> images = [np.full((40, 60, 3), level, dtype=np.uint8) for level in (50, 60, 200)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = results_page(Path(folder) / "page.html", images[:1], images[1:], [[0, 1]], [[0.9, 0.2]])
    ...     page.read_text(encoding="utf-8").count("data:image/jpeg")
    3
    """
    ranked = _check_ranking(queries, gallery, indices, scores)
    for name, values, expected in [
        ("query_labels", query_labels, len(queries)),
        ("query_titles", query_titles, len(queries)),
        ("query_notes", query_notes, len(queries)),
        ("gallery_labels", gallery_labels, len(gallery)),
        ("gallery_titles", gallery_titles, len(gallery)),
        ("boxes", boxes, len(queries)),
    ]:
        if values is not None and len(values) != expected:
            raise ValueError(f"{name} has {len(values)} entries, expected {expected}.")
    for number, row in enumerate(boxes or ()):
        if len(row) != len(ranked[number]):
            raise ValueError(f"Query {number}: {len(row)} boxes for {len(ranked[number])} results.")

    judged = query_labels is not None and gallery_labels is not None
    tiles: dict[int, _Tile] = {}  # a gallery image found by several queries is read and embedded once
    searches = []
    for number, query in enumerate(queries):
        hits = []
        for rank, index in enumerate(ranked[number][:n_results]):
            if index not in tiles:
                caption = None if gallery_titles is None else gallery_titles[index]
                exact = boxes is not None
                tiles[index] = _make_tile(index, gallery[index], caption, thumbnail_size, False, exact)
            verdict = ""
            if query_labels is not None and gallery_labels is not None:
                same = gallery_labels[index] == query_labels[number]
                verdict = "right" if same else "wrong" if mark_wrong else ""
            score = None if scores is None else f"{float(scores[number][rank]):.4f}"
            box = None if boxes is None else tiles[index].box_in_square(boxes[number][rank])
            hits.append({"index": index, "score": score, "verdict": verdict, "box": box})
        notes = [] if query_notes is None else [query_notes[number]]
        heading = None if query_titles is None else query_titles[number]
        tile = _make_tile(number, query, heading, 3 * thumbnail_size // 2, whole=True, exact=False)
        searches.append({"query": tile, "hits": hits, "notes": notes})

    html = _template().render(
        title=title,
        figures=figures,
        settings=settings,
        score_name=score_name,
        judged=judged,
        mark_wrong=mark_wrong,
        searches=searches,
        gallery=tiles,
        version=__version__,
    )
    path = Path(path)
    # A file name that is no valid text shows a question mark.
    path.write_bytes(html.encode("utf-8", "replace"))
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skretrieval.inspection"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("results.html")


def _check_ranking(queries: Sequence, gallery: Sequence, indices: Any, scores: Any) -> list[list[int]]:
    """Return the indices as lists of int, after checking them and the shape of the scores."""
    if len(indices) != len(queries):
        raise ValueError(f"indices has {len(indices)} rows for {len(queries)} queries.")
    if scores is not None and len(scores) != len(queries):
        raise ValueError(f"scores has {len(scores)} rows for {len(queries)} queries.")
    ranked = [[int(index) for index in row] for row in indices]
    for number, row in enumerate(ranked):
        outside = [index for index in row if not 0 <= index < len(gallery)]
        if outside:
            raise ValueError(
                f"Query {number}: index {outside[0]} is outside the gallery of {len(gallery)} images."
            )
        if scores is not None and len(scores[number]) != len(row):
            raise ValueError(f"Query {number}: {len(scores[number])} scores for {len(row)} results.")
    return ranked


def _make_tile(index: int, item: Any, title: str | None, size: int, whole: bool, exact: bool) -> _Tile:
    """Read a photograph and embed it; `whole` shows an ImageCrop's photograph with its box, `exact` needs its size."""
    image = item.image if isinstance(item, ImageCrop) else item
    is_file = isinstance(image, str | os.PathLike)
    path = os.fspath(image) if is_file else ""
    title = title if title is not None else (Path(path).name if is_file else f"image {index}")
    boxed = isinstance(item, ImageCrop)
    try:
        # A reduced decoding would change the size that the box refers to.
        shown = read_image(image if whole else item, position=index, draft=None if boxed or exact else size)
    except (OSError, ValueError) as error:
        return _Tile(title, path, problem=str(error))
    box = None
    if boxed and whole:
        left, top, right, bottom = (float(edge) for edge in item.box)
        width, height = shown.size
        box = (
            round(100 * left / width, 3),
            round(100 * top / height, 3),
            round(100 * (right - left) / width, 3),
            round(100 * (bottom - top) / height, 3),
        )
    thumbnail = shown.copy()
    thumbnail.thumbnail((size, size), Image.Resampling.LANCZOS)
    return _Tile(title, path, _embed(thumbnail), *thumbnail.size, box=box, size=shown.size)


def _embed(image: Image.Image) -> str:
    """Encode as a JPEG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
