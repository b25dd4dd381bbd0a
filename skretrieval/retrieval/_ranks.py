"""Ranks of single items in rankings of the whole gallery, without the rankings.

The rank of an item is the number of items before it, counted block by block: neither a matrix of all scores nor
a sort of the gallery is needed, and the answer is that of the exact ranking.
"""

import numpy as np

from ._exact import exact_scores, query_rows_at_a_time
from ._sparse_scores import make_scorer

# Pairs of nearly equal scores in one block above which a sort is cheaper than to compare them one by one.
_MAX_TIES = 2**22
# Scores compared with an item's own at a time.
_COMPARED = 2**22


def count_ranks(queries, gallery, query, item, *, metric, same=False, block_size=None, query_block_size=1024):
    """Ranks of given gallery items.

    Parameters
    ----------
    queries, gallery : DescriptorSet
        As :func:`~skretrieval.retrieval._exact.search` takes them.
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


def _count(scorer, query, item, ranks, block_size):
    """Add up the items before each given one; False if there are too many ties."""
    own = scorer.pairs(query, item)
    for start, stop in scorer.gallery.blocks(block_size or scorer.fine_block_size):
        scores = scorer.fine(start, stop)
        # The bounds hold for all items met so far, hence for those of this block.
        error = np.broadcast_to(scorer.fine_error()[0], (len(scores), 1))[query, 0]
        ascending = np.sort(scores, axis=1)
        lowest, highest = own - error, own + error
        above = scores.shape[1] - _bisect(ascending, query, highest, right=True)
        near = scores.shape[1] - above - _bisect(ascending, query, lowest, right=False)
        ranks += above
        near -= (item >= start) & (item < stop)  # the item itself
        tied = np.flatnonzero(near)
        if near[tied].sum() > _MAX_TIES:
            return False
        step = max(1, _COMPARED // scores.shape[1])
        for first in range(0, len(tied), step):
            pair = tied[first : first + step]
            others = scores[query[pair]]
            number, column = np.nonzero((others >= lowest[pair, None]) & (others <= highest[pair, None]))
            other = column + start
            exact = exact_scores(scorer, query[pair[number]], other, scores[query[pair[number]], column])
            reference, place = own[pair[number]], item[pair[number]]
            before = (exact > reference) | ((exact == reference) & (other < place))
            ranks[pair] += np.bincount(number, weights=before, minlength=len(pair)).astype(np.intp)
    return True


def _bisect(ascending, row, values, *, right):
    """``searchsorted`` of each value in its own row, for all at once."""
    low = np.zeros(len(row), dtype=np.intp)
    high = np.full(len(row), ascending.shape[1])
    for _ in range(ascending.shape[1].bit_length()):
        middle = (low + high) // 2
        inside = np.minimum(middle, ascending.shape[1] - 1)
        found = ascending[row, inside]
        below = ((found <= values) if right else (found < values)) & (middle < high)
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    return low
