"""Descriptors to ranked neighbours: search and query expansion."""

from ._expansion import QueryExpansion
from ._neighbors import NearestNeighborsRetriever

__all__ = ["NearestNeighborsRetriever", "QueryExpansion"]
