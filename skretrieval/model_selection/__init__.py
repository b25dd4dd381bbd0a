"""Choosing parameters: splits into gallery and queries, tuning without labels, a check against leaks."""

from ._choice import SettingChoice, choose_setting
from ._evidence import Mates, candidate_pairs, mates_of, mates_of_given, verified_pairs
from ._overlap import warn_if_overlapping
from ._pseudo_queries import PseudoQueryScorer, make_pseudo_queries
from ._split import GalleryQuerySplit, WholeGallerySplit

__all__ = [
    "GalleryQuerySplit",
    "Mates",
    "PseudoQueryScorer",
    "SettingChoice",
    "WholeGallerySplit",
    "candidate_pairs",
    "choose_setting",
    "make_pseudo_queries",
    "mates_of",
    "mates_of_given",
    "verified_pairs",
    "warn_if_overlapping",
]
