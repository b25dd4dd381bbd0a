"""Choosing parameters: splits into gallery and queries, tuning without labels, a check against leaks."""

from ._overlap import warn_if_overlapping
from ._pseudo_queries import PseudoQueryScorer, make_pseudo_queries
from ._split import GalleryQuerySplit, WholeGallerySplit

__all__ = [
    "GalleryQuerySplit",
    "PseudoQueryScorer",
    "WholeGallerySplit",
    "make_pseudo_queries",
    "warn_if_overlapping",
]
