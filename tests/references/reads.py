"""How many maps an extractor hands out, from its cache or from the network."""

from contextlib import contextmanager

from skretrieval.extraction import FeatureMaps


@contextmanager
def counted_reads():
    """Yield a list that grows by the number of maps of every batch."""
    read, batches = [], FeatureMaps._batches

    def counted(self, *args):
        for indices, maps in batches(self, *args):
            read.append(len(indices))
            yield indices, maps

    FeatureMaps._batches = counted
    try:
        yield read
    finally:
        FeatureMaps._batches = batches
