"""The demo: photographs, changed views of them as queries, a number and a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import load_image_folder, load_sample_photographs, make_photo_views
from ..evaluation import colour_histograms, thumbnails
from ..inspection import results_page
from ..metrics import precision_at_k
from ..retrieval import NearestNeighborsRetriever
from ._settings import as_scores, make_pipeline

_VIEW_SIZE = 1024  # pixels: larger photographs make no better queries, only slower ones
_SHOWN = 10  # results of a query
_SHOWN_QUERIES = 60  # spread over all, where there are more: the page stays a page


def run_demo(
    folder: Path | None,
    html: Path,
    settings: dict[str, Any],
    *,
    views: int,
    strength: float,
    limit: int,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Index photographs, search them by views of them, print mAP and P@1 beside two baselines, write a page.

    Parameters
    ----------
    folder : Path or None
        Photographs; None for those that come with scikit-image and scikit-learn.
    html : Path
        The page to write.
    settings : dict
        As `resolve_settings` gives them.
    views : int
        Queries made from each photograph.
    strength : float
        Of :func:`~skretrieval.datasets.make_photo_views`.
    limit : int
        Photographs of `folder` that are used, at most; a random choice.
    say : callable
        Takes the lines to print.

    Returns
    -------
    figures : dict
        ``map`` and ``precision_at_1``, and the mAP of the baselines: ``map_colour_histogram`` and ``map_thumbnail``.
    """
    images, titles, labels = _gallery(folder, limit)
    queries = make_photo_views(images, views, strength=strength, image_size=_VIEW_SIZE, random_state=0)
    query_labels = labels[queries.labels]
    say(f"{len(images)} photographs of {len(set(labels.tolist()))} subjects, {len(queries.images)} queries")

    began = time.perf_counter()
    pipeline = make_pipeline(settings).fit(images, labels)
    indexing = time.perf_counter() - began
    say(f"Indexed in {indexing:.1f} s ({settings['extractor']} + {settings['recipe']})")

    began = time.perf_counter()
    descriptors = pipeline[:-1].transform(queries.images)
    retriever = pipeline.steps[-1][1]
    distances, indices = retriever.kneighbors(descriptors, n_neighbors=min(_SHOWN, len(images)))
    searching = (time.perf_counter() - began) / len(queries.images)
    mean_ap = retriever.score(descriptors, query_labels)
    positives = [np.flatnonzero(labels == label) for label in query_labels]
    precision = precision_at_k(indices, positives, k=1)
    say(f"Searched in {1000 * searching:.0f} ms per query")
    say(f"mAP {mean_ap:.4f}   P@1 {precision:.4f}")
    histogram, thumbnail = (
        NearestNeighborsRetriever()
        .fit(describe(images), labels)
        .score(describe(queries.images), query_labels)
        for describe in (colour_histograms, thumbnails)
    )
    say(f"Without a network: colour histograms {histogram:.4f}, 8 x 8 thumbnails {thumbnail:.4f} (mAP)")

    score_name, scores = as_scores(retriever, distances)
    n_queries = len(queries.images)
    shown = np.unique(np.linspace(0, n_queries - 1, min(n_queries, _SHOWN_QUERIES)).astype(int))
    page = results_page(
        html,
        [queries.images[number] for number in shown],
        images,
        indices[shown],
        scores[shown],
        query_labels=query_labels[shown],
        gallery_labels=labels,
        query_titles=[f"View of {titles[queries.labels[number]]}" for number in shown],
        gallery_titles=titles,
        query_notes=[queries.changes[number] for number in shown],
        title="skretrieval demo: photographs found by changed views of them",
        figures={
            "mAP": f"{mean_ap:.4f}",
            "P@1": f"{precision:.4f}",
            "mAP of colour histograms": f"{histogram:.4f}",
            "mAP of 8 x 8 thumbnails": f"{thumbnail:.4f}",
            "gallery": f"{len(images)} photographs",
            "queries": n_queries if len(shown) == n_queries else f"{n_queries} ({len(shown)} shown)",
            "indexing": f"{indexing:.1f} s",
            "per query": f"{1000 * searching:.0f} ms",
        },
        settings={
            **settings,
            "strength of the changes": strength,
            "pipeline": " > ".join(pipeline.named_steps),
        },
        score_name=score_name,
        mark_wrong=False,
    )
    say(f"Page: {page.resolve()}")
    say("Your own photographs: skretrieval index ~/Pictures --out pictures.index")
    return {
        "map": mean_ap,
        "precision_at_1": precision,
        "map_colour_histogram": histogram,
        "map_thumbnail": thumbnail,
    }


def _gallery(folder: Path | None, limit: int) -> tuple[list[str], list[str], np.ndarray]:
    """Return the photographs, their titles and labels; without labels each is a subject of its own."""
    if folder is None:
        photographs = load_sample_photographs()
        return photographs.images, photographs.titles, photographs.labels
    dataset = load_image_folder(folder)
    chosen = np.arange(len(dataset.images))
    if len(chosen) > limit:
        chosen = np.sort(np.random.RandomState(0).choice(chosen, limit, replace=False))
    images = [dataset.images[position] for position in chosen]
    titles = [str(Path(image).relative_to(folder)) for image in images]
    return images, titles, np.array(titles) if dataset.labels is None else dataset.labels[chosen]
