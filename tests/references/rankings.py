"""Scores of one ranking, one image at a time: average precision, precision and recall at k, with junk."""


def oxford_loop(ranking, positives, junk):
    """Area under the precision-recall curve, one ranked image at a time, as the Oxford program walks it."""
    old_recall, old_precision, area, hits, seen = 0.0, 1.0, 0.0, 0, 0
    for item in ranking:
        if item in junk:
            continue
        hits += item in positives
        recall, precision = hits / len(positives), hits / (seen + 1.0)
        area += (recall - old_recall) * (old_precision + precision) / 2.0
        old_recall, old_precision = recall, precision
        seen += 1
    return area


def finite_loop(ranking, positives, junk):
    kept = [item for item in ranking if item not in junk]
    return sum(
        sum(other in positives for other in kept[: rank + 1]) / (rank + 1)
        for rank, item in enumerate(kept)
        if item in positives
    ) / len(positives)


def printed_loop(ranking, positives, junk):
    kept = [item for item in ranking if item not in junk]
    m = len(positives)
    return sum(sum(item in positives for item in kept[:b]) / b for b in range(1, m + 1)) / m


AP_LOOPS = {"trapezoid": oxford_loop, "finite": finite_loop, "printed": printed_loop}


def standard_precision_loop(ranking, positives, junk, k):
    kept = [item for item in ranking if item not in junk]
    return sum(item in positives for item in kept[:k]) / k


def revisitop_precision_loop(ranking, positives, junk, k):
    """Divided by the place of the last positive found where that comes before k."""
    kept = [item for item in ranking if item not in junk]
    places = [place for place, item in enumerate(kept, start=1) if item in positives]
    if not places:
        return 0.0
    kq = min(max(places), k)
    return sum(place <= kq for place in places) / kq


PRECISION_LOOPS = {"standard": standard_precision_loop, "revisitop": revisitop_precision_loop}


def recall_loop(ranking, positives, junk, k):
    kept = [item for item in ranking if item not in junk]
    return sum(item in positives for item in kept[:k]) / len(positives)
