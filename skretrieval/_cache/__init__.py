"""What is cached on disk: keys, shards of descriptors, feature maps."""

from ._maps import as_memory, cached_arrays, folder_of, to_half

__all__ = ["as_memory", "cached_arrays", "folder_of", "to_half"]
