"""Descriptors to ranked neighbours: search, query expansion and re-ranking."""

from ._diffusion import DiffusionReranker
from ._discriminative_expansion import DiscriminativeQueryExpansion
from ._expansion import QueryExpansion
from ._k_reciprocal import KReciprocalReranker
from ._neighbors import NearestNeighborsRetriever
from ._super_global import SuperGlobalReranker

__all__ = [
    "DiffusionReranker",
    "DiscriminativeQueryExpansion",
    "KReciprocalReranker",
    "NearestNeighborsRetriever",
    "QueryExpansion",
    "SuperGlobalReranker",
]
