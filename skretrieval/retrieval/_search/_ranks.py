"""Ranks of single items in rankings of the whole gallery, without the rankings.

The rank of an item is the number of items before it, counted block by block: neither a matrix of all scores nor
a sort of the gallery is needed, and the answer is that of the exact ranking. The scores are those of the fast coarse
product; the few items so near the item in question that its rounding could hide the order are compared exactly.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._descriptors import DescriptorSet
from ._exact import exact_scores, make_scorer, query_rows_at_a_time
from ._region_pairs import chunks
from ._scorer import Scorer

# Pairs of nearly equal scores in one block above which a sort is cheaper than to compare them one by one.
_MAX_TIES = 2**22
# Such pairs for each item of a block that cost about as much as the block in float64, which leaves hardly any.
_EXACT_PAIRS = 4
# Pairs compared at a time.
_COMPARED = 2**18
# Scores for each item of a query up to which they are sorted, rather than compared with one item after another.
_SORTED = 512


def count_ranks(
    queries: DescriptorSet,
    gallery: DescriptorSet,
    query: NDArray[np.intp],
    item: NDArray[np.intp],
    *,
    metric: str,
    same: bool = False,
    block_size: int | None = None,
    query_block_size: int = 1024,
) -> NDArray[np.intp] | None:
    """Ranks of given gallery items.

    Parameters
    ----------
    queries, gallery : DescriptorSet
        As :func:`~skretrieval.retrieval._search._exact.search` takes them.
    query, item : ndarray of shape (n_pairs,)
        Numbers of queries, ascending, and of the gallery items whose ranks are wanted.
    metric, same, block_size, query_block_size
        As for the search.

    Returns
    -------
    ranks : ndarray of shape (n_pairs,) or None
        0-based ranks among all gallery items, equally distant ones in the order of the gallery. None where the
        gallery has so many ties that it should be sorted.
    """
    ranks = np.zeros(len(query), dtype=np.intp)
    for start, stop in queries.blocks(query_rows_at_a_time(query_block_size, gallery)):
        low, high = np.searchsorted(query, [start, stop])
        if low == high:
            continue
        scorer = make_scorer(metric, queries.slice(start, stop), gallery, same)
        part = slice(low, high)
        if not _count(scorer, query[part] - start, item[part], ranks[part], block_size):
            return None
    return ranks


def _count(
    scorer: Scorer,
    query: NDArray[np.intp],
    item: NDArray[np.intp],
    ranks: NDArray[np.intp],
    block_size: int | None,
) -> bool:
    """Add up the items before each given one; False if there are too many ties."""
    own = scorer.pairs(query, item)
    coarse = True
    for start, stop in scorer.gallery.blocks(block_size or scorer.block_size):
        if coarse:
            scores = scorer.coarse(start, stop)
            error = -scorer.loosen(np.zeros(len(scores))) / 2
            most = min(_MAX_TIES, (stop - start) * int(_EXACT_PAIRS * (1 + len(scores) / 256)))
            coarse = _count_block(scorer, scores, start, error, query, item, own, ranks, most)
        if coarse:
            continue
        # Rounding hides too much here, and so it will in the blocks that follow.
        for low, high in scorer.gallery.slice(start, stop).blocks(block_size or scorer.fine_block_size):
            scores = scorer.fine(start + low, start + high)
            error = np.broadcast_to(scorer.fine_error()[0], (len(scores), 1))[:, 0]
            if not _count_block(scorer, scores, start + low, error, query, item, own, ranks, _MAX_TIES):
                return False
    return True


def _count_block(
    scorer: Scorer,
    scores: NDArray[Any],
    start: int,
    error: NDArray[Any],
    query: NDArray[np.intp],
    item: NDArray[np.intp],
    own: NDArray[np.float64],
    ranks: NDArray[np.intp],
    most: int,
) -> bool:
    """Add up the items of one block, the first of which is ``start``.

    ``error`` is the bound of each query for all items met so far, hence for those of this block. Items that it
    cannot part from the given one are compared exactly; if they are more than ``most``, nothing is added and False
    returned.
    """
    # Strictly outside of what rounding reaches, also where the scores have fewer digits.
    lowest = np.nextafter((own - error[query]).astype(scores.dtype), scores.dtype.type(-np.inf))
    highest = np.nextafter((own + error[query]).astype(scores.dtype), scores.dtype.type(np.inf))
    reaching, above = _count_above(scores, query, np.stack([lowest, highest]))
    near = reaching - above
    near -= (item >= start) & (item < start + scores.shape[1])  # the item itself
    if near.sum() > most:
        return False
    ranks += above
    tied = np.flatnonzero(near)
    for first, last in chunks(near[tied], _COMPARED):
        pairs = tied[first:last]
        rows = [scores[query[pair]] for pair in pairs]
        columns = [
            np.flatnonzero((row > lowest[pair]) & (row <= highest[pair])) for row, pair in zip(rows, pairs)
        ]
        number = np.repeat(np.arange(len(pairs)), [len(part) for part in columns])
        pair, column = pairs[number], np.concatenate(columns)
        exact = exact_scores(scorer, query[pair], column + start, scores[query[pair], column])
        before = (exact > own[pair]) | ((exact == own[pair]) & (column + start < item[pair]))
        ranks[pairs] += np.bincount(number, weights=before, minlength=len(pairs)).astype(np.intp)
    return True


def _count_above(scores: NDArray[Any], row: NDArray[np.intp], limits: NDArray[Any]) -> NDArray[np.intp]:
    """Numbers of scores above limits in the given rows, which ascend; both of shape (2, n_pairs)."""
    counts = np.empty(limits.shape, dtype=np.intp)
    ends = np.searchsorted(row, np.arange(len(scores) + 1))
    for one, first, last in zip(scores, ends, ends[1:]):
        part = limits[:, first:last]
        top = one[one > part.min(initial=np.inf)]  # most of a gallery is far below what is asked for
        if len(top) <= _SORTED * (last - first):
            top.sort()
            counts[:, first:last] = len(top) - np.searchsorted(top, part, side="right")
        else:
            counts[:, first:last] = [[np.count_nonzero(top > limit) for limit in line] for line in part]
    return counts
