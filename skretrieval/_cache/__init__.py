"""What is cached on disk: keys, shards of descriptors, feature maps."""

from ._key import NamelessError, feed, hashed, pooler_key
from ._maps import as_memory, folder_of, host_arrays, to_half
from ._shards import DescriptorReader, DescriptorWriter, Shard, descriptor_folder, reader_of

__all__ = [
    "DescriptorReader",
    "DescriptorWriter",
    "NamelessError",
    "Shard",
    "as_memory",
    "descriptor_folder",
    "feed",
    "folder_of",
    "hashed",
    "host_arrays",
    "pooler_key",
    "reader_of",
    "to_half",
]
