"""Looking at what a stage does: pages and pictures of its results."""

from ._results_page import results_page

__all__ = ["results_page"]
