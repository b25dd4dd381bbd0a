"""The demo: photographs, changed views of them as queries, a number and a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import load_image_folder, load_sample_photographs, make_photo_views
from ..inspection import results_page
from ._pipeline import as_scores, make_pipeline

_VIEW_SIZE = 1024  # pixels: larger photographs make no better queries, only slower ones
_SHOWN = 10


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
    """Index photographs, search them by views of them, print mAP and P@1, write a page.

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
        ``map`` and ``precision_at_1``.
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
    precision = float(np.mean(labels[indices[:, 0]] == query_labels))
    say(f"Searched in {1000 * searching:.0f} ms per query")
    say(f"mAP {mean_ap:.4f}   P@1 {precision:.4f}")

    score_name, scores = as_scores(retriever, distances)
    page = results_page(
        html,
        queries.images,
        images,
        indices,
        scores,
        query_labels=query_labels,
        gallery_labels=labels,
        query_titles=[f"View of {titles[source]}" for source in queries.labels],
        gallery_titles=titles,
        query_notes=queries.changes,
        title="skretrieval demo: photographs found by changed views of them",
        figures={
            "mAP": f"{mean_ap:.4f}",
            "P@1": f"{precision:.4f}",
            "gallery": f"{len(images)} photographs",
            "queries": len(queries.images),
            "indexing": f"{indexing:.1f} s",
            "per query": f"{1000 * searching:.0f} ms",
        },
        settings={
            **settings,
            "strength of the changes": strength,
            "pipeline": " > ".join(pipeline.named_steps),
        },
        score_name=score_name,
    )
    say(f"Page: {page}")
    return {"map": mean_ap, "precision_at_1": precision}


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
