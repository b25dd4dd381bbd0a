"""Evaluation under the protocols against sorting the scores and against a loop, as a table in Markdown.

    python benchmarks/evaluation.py [--repeats 5] [--million]

Rankings come from random scores, ground truth is random: 40 easy, 60 hard and 50 junk images for each query of
ROxford's size, four times as many of RParis'. "argsort" is one sort of all scores, without which there is no
ranking. "loop" finds positives and junk by ``np.isin``, level by level and query by query, which is what evaluation
programs commonly do. Times are the best of several runs, in turns. ``--million`` adds 70 queries and a million
images (2 GB of memory).
"""

import argparse
import time

import numpy as np

from skretrieval.metrics import evaluate_holidays, evaluate_revisited, ground_truth_from_labels, ukbench_score

LEVELS = {
    "easy": (["easy"], ["junk", "hard"]),
    "medium": (["easy", "hard"], ["junk"]),
    "hard": (["hard"], ["junk", "easy"]),
}


def loop(ranks, gnd):
    """All three levels, each query for itself."""
    scores = {}
    for level, (positives, junk) in LEVELS.items():
        ap = []
        for row, entry in zip(ranks, gnd, strict=True):
            good = np.concatenate([entry[key] for key in positives])
            found = np.flatnonzero(np.isin(row, good))
            skipped = np.flatnonzero(np.isin(row, np.concatenate([entry[key] for key in junk])))
            at, j = found - np.searchsorted(skipped, found), np.arange(len(found))
            before = np.where(at == 0, 1.0, j / np.maximum(at, 1))
            ap.append(np.sum(before + (j + 1) / (at + 1)) / 2 / len(good))
        scores[level] = np.array(ap)
    return scores


def best_times(functions, repeats):
    """Shortest time of each function, taken in turns."""
    times = dict.fromkeys(functions, np.inf)
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def revisited(n_gallery, scale, repeats, rng):
    """Times for 70 queries, and that the loop finds the same."""
    gnd = []
    for _ in range(70):
        easy, hard, junk, _ = np.split(rng.permutation(4993), np.cumsum(np.array([40, 60, 50]) * scale))
        gnd.append({"easy": easy, "hard": hard, "junk": junk})
    scores = rng.random((70, n_gallery), dtype=np.float32)
    np.negative(scores, out=scores)
    ranks = np.argsort(scores, axis=1)
    found, expected = evaluate_revisited(ranks, gnd), loop(ranks, gnd)
    for level in LEVELS:
        np.testing.assert_allclose(found[level]["ap"], expected[level], rtol=1e-12)
    return best_times(
        {
            "argsort": lambda: np.argsort(scores, axis=1),
            "loop": lambda: loop(ranks, gnd),
            "evaluate_revisited": lambda: evaluate_revisited(ranks, gnd),
        },
        repeats,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--million", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)

    sizes = [("ROxford5k", 4993, 1), ("RParis6k", 6322, 4)]
    if arguments.million:
        sizes.append(("RParis6k + 1M", 1_001_001, 4))
    print(
        "| gallery | images | argsort, ms | loop, ms | evaluate_revisited, ms | loop / ours | ours / argsort |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, n_gallery, scale in sizes:
        times = revisited(n_gallery, scale, arguments.repeats, rng)
        sort, slow, ours = (1000 * seconds for seconds in times.values())
        print(
            f"| {name} | {n_gallery} | {sort:.1f} | {slow:.1f} | {ours:.1f} | {slow / ours:.1f} | {ours / sort:.2f} |"
        )

    labels = np.repeat(np.arange(500), 3)[:1491]
    truth = ground_truth_from_labels(labels, queries=np.unique(labels, return_index=True)[1])
    holidays = rng.permuted(np.tile(np.arange(1491), (len(truth), 1)), axis=1)
    ukbench = np.argsort(rng.random((10200, 50)), axis=1)
    times = best_times(
        {
            "evaluate_holidays, 500 whole rankings": lambda: evaluate_holidays(holidays, truth),
            "ukbench_score, 10,200 rankings of 50": lambda: ukbench_score(ukbench),
        },
        arguments.repeats,
    )
    print()
    for name, seconds in times.items():
        print(f"* {name}: {1000 * seconds:.1f} ms")


if __name__ == "__main__":
    main()
