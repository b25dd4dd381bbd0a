"""What is cached on disk: keys, shards of descriptors, feature maps."""

from ._key import NamelessError, feed, pooler_key
from ._maps import as_memory, cached_arrays, folder_of, to_half
from ._shards import DescriptorReader, DescriptorWriter, Shard, descriptor_folder, hashed, reader_of

__all__ = [
    "DescriptorReader",
    "DescriptorWriter",
    "NamelessError",
    "Shard",
    "as_memory",
    "cached_arrays",
    "descriptor_folder",
    "feed",
    "folder_of",
    "hashed",
    "pooler_key",
    "reader_of",
    "to_half",
]
