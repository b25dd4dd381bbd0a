"""How many maps an extractor hands out, from its cache or from the network."""

from contextlib import contextmanager

from skretrieval.extraction import FeatureMaps


@contextmanager
def counted_reads():
    """Yield a list that grows by the number of maps of every batch."""
    read, batches = [], FeatureMaps.batches_beside

    def counted(self, *args):
        for batch in batches(self, *args):
            if batch.maps is not None:
                read.append(len(batch.indices))
            yield batch

    FeatureMaps.batches_beside = counted
    try:
        yield read
    finally:
        FeatureMaps.batches_beside = batches
