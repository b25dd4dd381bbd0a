"""Looking at what a stage does: pages and pictures of its results."""

from ._cell_weights import CellWeightsDisplay
from ._cell_words import CellWordsDisplay
from ._regions import RegionsDisplay
from ._results_page import results_page

__all__ = ["CellWeightsDisplay", "CellWordsDisplay", "RegionsDisplay", "results_page"]
