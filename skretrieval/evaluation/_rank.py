"""Rankings of a collection, scored by its protocol, a block of queries at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..metrics import evaluate_rankings, standard_error
from ._photo_set import PhotoSet

_BLOCK = 2**22  # ranks held at a time: 32 MB of indices, and as much again while they are scored
_UKBENCH_DEPTH = 4
KAPPAS = (1, 5, 10)


def rank(
    index: Any, queries: Any, photographs: PhotoSet, params: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Rank the gallery for each query and score, a block of queries at a time.

    Returns
    -------
    metrics : dict of dict
        For each figure its ``mean``, and ``standard_error`` and ``n_queries`` where it is a mean of average
        precisions (or of N-S).
    per_query : dict of ndarray of shape (n_queries,)
        The figures of each query, NaN where it has no positive.
    """
    n, protocol = index.n_samples_fit_, photographs.protocol
    depth, step = n, max(1, _BLOCK // n)
    truth = photographs.ground_truth
    own = photographs.query_indices if photographs.queries is None else None
    n_queries = photographs.n_queries
    if protocol == "ukbench":
        depth, step = min(n, _UKBENCH_DEPTH), n_queries
        params.setdefault("queries", "all" if n_queries == len(truth) else "first")
    else:
        params.setdefault("kappas", KAPPAS)
    blocks: list[tuple[int, dict[str, dict[str, Any]]]] = []
    for start in range(0, n_queries, step):
        stop = min(start + step, n_queries)
        part_own = None if own is None else own[start:stop]
        ranks = _search(index, take(queries, slice(start, stop)), depth, part_own)
        part = truth if protocol == "ukbench" else truth[start:stop]
        blocks.append((stop - start, evaluate_rankings(ranks, part, protocol, **params)))
    return _joined([figures for _, figures in blocks], protocol, params)


def _joined(
    blocks: list[dict[str, dict[str, Any]]], protocol: str, params: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Put the figures of all blocks together."""
    metrics: dict[str, dict[str, Any]] = {}
    per_query: dict[str, np.ndarray] = {}
    for level in blocks[0]:
        prefix = f"{level}_" if protocol == "revisited" else ""
        name = f"{level}_map" if protocol == "revisited" else level
        values = np.concatenate([np.asarray(block[level]["per_query"], dtype=float) for block in blocks])
        per_query[name] = values
        defined = values[~np.isnan(values)]
        metrics[name] = {
            "mean": float(defined.mean()) if defined.size else float("nan"),
            "standard_error": standard_error(values),
            "n_queries": int(defined.size),
        }
        counts = np.array([block[level]["n_queries"] for block in blocks])
        used = counts > 0
        for place, kappa in enumerate(params.get("kappas", ()) if protocol != "ukbench" else ()):
            means = np.array([block[level]["precision_at"][place] for block in blocks])
            mean = np.average(means[used], weights=counts[used]) if used.any() else np.nan
            metrics[f"{prefix}p@{kappa}"] = {"mean": float(mean), "n_queries": int(defined.size)}
    return metrics, per_query


def _search(index: Any, queries: Any, depth: int, own: np.ndarray | None) -> np.ndarray:
    """Rank the gallery; `own` is the gallery item that each query is, which expansion may want to leave out.

    It stays in the ranking: the protocols skip it.
    """
    if own is None or not hasattr(index, "search"):  # a retriever of another package
        return index.kneighbors(queries, n_neighbors=depth, return_distance=False)
    return index.search(queries, depth, own=own)[1]


def take(descriptors: Any, which: Any) -> Any:
    """Return the descriptors at some positions, of an array or of a list of region sets."""
    if isinstance(which, slice) or not isinstance(descriptors, list | tuple):
        return descriptors[which]
    return [descriptors[i] for i in which]
