"""Ranks of the gallery items that have the label of a query: counted where they are few, else read from rankings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._average_precision import DISTRACTOR
from .._region_sets import ragged_arange
from ._descriptors import DescriptorSet

# Where positives are at most one of so many pairs of query and item, their ranks are counted without rankings.
_COUNTED_SHARE = 64

QueriesAndRanks = tuple[NDArray[np.intp], NDArray[np.intp]]


def label_ranks(
    retriever: Any,
    queries: DescriptorSet,
    labels: NDArray[Any],
    query_labels: NDArray[Any],
    own: NDArray[np.intp] | None,
    leave_out: bool,
) -> QueriesAndRanks:
    """Ranks of the gallery items that have the label of each query.

    Parameters
    ----------
    retriever : RetrieverMixin
        Fitted.
    queries : DescriptorSet
        Checked queries.
    labels : ndarray of shape (n_samples_fit_,)
        Labels of the gallery items.
    query_labels : ndarray of shape (n_queries,)
        Labels of the queries.
    own : ndarray of int of shape (n_queries,) or None
        Gallery item that each query is, -1 for none; None where nobody uses it.
    leave_out : bool
        Whether these items are left out of the rankings.

    Returns
    -------
    query, ranks : ndarray of int of shape (n_found,)
        As :meth:`RetrieverMixin.ranks_of_label` returns them.
    """
    n_queries, n_items = queries.n_items, len(labels)
    # Small integers compare faster than strings, and 4 bytes an entry bound the memory.
    codes = np.unique(np.concatenate([labels, query_labels]), return_inverse=True)[1].astype(np.int32)
    gallery_codes, query_codes = codes[:n_items], codes[n_items:]
    counts = np.bincount(gallery_codes, minlength=codes.max() + 1)[query_codes]
    if query_labels.dtype.kind not in "US":
        counts[query_labels == DISTRACTOR] = 0
    excluded = own if leave_out else None
    if excluded is not None:
        has_label = (excluded >= 0) & (gallery_codes[excluded] == query_codes)
        counts[counts == has_label] = 0  # nothing but the query itself
    if counts.sum() * _COUNTED_SHARE <= n_queries * n_items:
        # A run of the gallery items in the order of their labels for each query.
        by_label = np.argsort(gallery_codes, kind="stable")
        first = np.searchsorted(gallery_codes[by_label], query_codes)
        query, item = np.repeat(np.arange(n_queries), counts), by_label[ragged_arange(first, counts)]
        found = _count(retriever, queries, query, item, own, excluded, n_items)
        if found is not None:
            return found
    return _rank(retriever, queries, gallery_codes, query_codes, counts > 0, own, excluded)


def _count(
    retriever: Any,
    queries: DescriptorSet,
    query: NDArray[np.intp],
    item: NDArray[np.intp],
    own: NDArray[np.intp] | None,
    excluded: NDArray[np.intp] | None,
    n_items: int,
) -> QueriesAndRanks | None:
    """Ranks of pairs, of which ``query`` ascends, without whole rankings; None where these are cheaper."""
    if excluded is not None:
        # The rank of what is left out is needed, too; mostly it is among the items of the label.
        missing = np.setdiff1d(query[excluded[query] >= 0], query[item == excluded[query]])
        if missing.size:
            query, item = np.append(query, missing), np.append(item, excluded[missing])
            order = np.argsort(query, kind="stable")
            query, item = query[order], item[order]
    ranks = retriever._ranks(queries, query, item, own)
    if ranks is None:
        return None
    if excluded is not None:
        itself = item == excluded[query]
        limit = np.full(queries.n_items, n_items)
        limit[query[itself]] = ranks[itself]
        query, ranks = query[~itself], (ranks - (ranks > limit[query]))[~itself]
    return query, ranks[np.lexsort((ranks, query))]


def _rank(
    retriever: Any,
    queries: DescriptorSet,
    gallery_codes: NDArray[np.int32],
    query_codes: NDArray[np.int32],
    wanted: NDArray[np.bool_],
    own: NDArray[np.intp] | None,
    excluded: NDArray[np.intp] | None,
) -> QueriesAndRanks:
    """Read ranks from rankings of the whole gallery, a block of queries at a time."""
    n_items = len(gallery_codes)
    found = []
    for start, stop in queries.blocks(max(1, 2**23 // n_items)):
        part = slice(start, stop)
        ranking = retriever._search(queries.slice(start, stop), n_items, None if own is None else own[part])[
            1
        ]
        relevant = gallery_codes[ranking] == query_codes[part, None]
        relevant[~wanted[part]] = False
        limit = np.full(stop - start, n_items)
        if excluded is not None:
            itself = ranking == excluded[part, None]
            relevant &= ~itself
            limit = np.where(itself.any(axis=1), itself.argmax(axis=1), n_items)
        row, ranks = np.nonzero(relevant)
        found.append((start + row, ranks - (ranks > limit[row])))
    return np.concatenate([query for query, _ in found]), np.concatenate([ranks for _, ranks in found])
