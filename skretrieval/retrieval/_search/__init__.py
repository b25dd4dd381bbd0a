"""Exact search: kernels, ranks, sparse histograms."""
