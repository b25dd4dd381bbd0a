"""Poolers that learn a codebook of local descriptors."""
