"""The cost model of scale.py: pure functions in SI units (bytes, seconds, operations a second)."""

import math

import numpy as np

D = 512


def array_bytes(n, d, itemsize=4):
    """Bytes of n descriptors of d numbers."""
    return n * d * itemsize


def hnsw_bytes(n, d, links):
    """Bytes of a graph: the rows in float32, 2 x links neighbours below and links on each higher level, offsets.

    A row is on a higher level with probability 1 / links, on the next one with 1 / links**2, and so on.
    """
    return n * (4 * d + 4 * (2 * links + links / (links - 1)) + 12)


def n_cells(n):
    """Cells of an inverted file where none are asked for: about twice the root of the number of rows."""
    return max(1, min(int(2 * math.sqrt(n)), n // 39))


def ivfpq_bytes(n, d, m, nbits=8):
    """Bytes of product codes with their row numbers, of the centroids of the cells and of the codebooks."""
    return n * (m * nbits / 8 + 8) + n_cells(n) * 4 * d + 2**nbits * 4 * d


def exact_seconds(n, d, queries, bandwidth, speed, itemsize=4):
    """Least time of an exact search: the gallery is read once, and a product and a sum made for each pair."""
    return max(array_bytes(n, d, itemsize) / bandwidth, 2.0 * n * d * queries / speed)


def queries_per_read(bandwidth, speed, itemsize=4):
    """Queries in a batch from which on arithmetic takes longer than reading the gallery."""
    return speed * itemsize / (2 * bandwidth)


def line(n_1, seconds_1, n_2, seconds_2):
    """Constant and slope of the time of an exact search in the number of rows, from two measurements."""
    slope = (seconds_2 - seconds_1) / (n_2 - n_1)
    if not 0 < slope <= seconds_2 / n_2:  # noise: a search that takes no time, or less than none, for no rows
        slope = seconds_2 / n_2
    return seconds_2 - slope * n_2, slope


def shards_seconds(n, n_shards, constant, slope):
    """Time of searching the shards of n rows one after another."""
    return n_shards * constant + slope * n


def hnsw_seconds(n, measured, n_measured):
    """Time of a search in a graph, which grows as the logarithm of the number of rows."""
    return measured * math.log(n) / math.log(n_measured)


def hnsw_build_seconds(n, measured, n_measured):
    """Time of building a graph: a search for each row."""
    return measured * n * math.log(n) / (n_measured * math.log(n_measured))


def ivfpq_seconds(n, measured, n_measured):
    """Time of a search in product codes: nprobe of the 2 sqrt(n) cells are scanned, as many centroids compared."""
    return measured * math.sqrt(n / n_measured)


def ivfpq_build_operations(n, d, iterations=25, per_centroid=64):
    """Operations of learning the cells (k-means) and of putting each row into one."""
    cells = n_cells(n)
    return 2.0 * d * cells * (iterations * min(n, per_centroid * max(cells, 1024)) + n)


def extraction_seconds(n, seconds_per_image):
    """Time of one machine for n images; it takes k machines the k-th part."""
    return n * seconds_per_image


def machines(n_bytes, memory, share=0.8):
    """How many machines hold something in `share` of their memory."""
    return max(1, math.ceil(n_bytes / (share * memory)))


def sharded_seconds(shard_seconds, n_shards, n_queries, k, per_candidate=1e-7, network=1e-3):
    """Time until the slowest of equal shards has answered over the network and k n_shards candidates are sorted."""
    return shard_seconds + (network + n_queries * n_shards * k * per_candidate if n_shards > 1 else 0.0)


def disk_bytes(n, d, d_out):
    """Most that ``skretrieval index`` has on disk: descriptors, and old and new whitened rows."""
    return array_bytes(n, d + 2 * d_out)


def merge(found, starts, k):
    """The k nearest of the whole gallery from the answers of its shards.

    Parameters
    ----------
    found : list of (distances, indices)
        Each of shape (n_queries, k'), as ``kneighbors`` of a shard gives them.
    starts : sequence of int
        Position in the whole gallery of the first row of each shard.
    k : int
        How many to keep.

    Returns
    -------
    distances, indices : ndarray of shape (n_queries, k)
        Equal distances in the order of the whole gallery.
    """
    distances = np.hstack([own for own, _ in found])
    indices = np.hstack([own + start for (_, own), start in zip(found, starts, strict=True)])
    best = np.lexsort((indices, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, best, axis=1), np.take_along_axis(indices, best, axis=1)


def same_ranking(found, expected):
    """Whether distances are the same bit for bit, and items but for the order within equal distances."""
    (distances, indices), (whole, items) = found, expected
    if not np.array_equal(distances, whole):
        return False
    row, column = np.nonzero(indices != items)
    before = (distances[row, column] == distances[row, np.maximum(column - 1, 0)]) & (column > 0)
    last = distances.shape[1] - 1
    after = (distances[row, column] == distances[row, np.minimum(column + 1, last)]) & (column < last)
    return bool(np.all(before | after | (column == last)))
