"""How many maps an extractor hands out, from its cache or from the network."""

from contextlib import contextmanager

from skretrieval.extraction._base import BaseExtractor


@contextmanager
def counted_reads():
    """Yield a list that grows by the number of maps of every batch."""
    read, batches = [], BaseExtractor._map_batches

    def counted(self, *args):
        for batch in batches(self, *args):
            read.append(0 if batch.maps is None else len(batch.indices))
            yield batch

    BaseExtractor._map_batches = counted
    try:
        yield read
    finally:
        BaseExtractor._map_batches = batches
