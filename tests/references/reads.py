"""How many maps an extractor hands out, from its cache or from the network."""

from contextlib import contextmanager

from skretrieval.extraction._base import BaseExtractor


@contextmanager
def counted_reads():
    """Yield a list that grows by the number of maps of every batch."""
    read, batches = [], BaseExtractor._map_batches

    def counted(self, *args):
        for indices, maps in batches(self, *args):
            read.append(len(indices))
            yield indices, maps

    BaseExtractor._map_batches = counted
    try:
        yield read
    finally:
        BaseExtractor._map_batches = batches
