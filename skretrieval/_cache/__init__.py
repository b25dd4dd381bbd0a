"""What is cached on disk: keys, shards of descriptors, feature maps."""
