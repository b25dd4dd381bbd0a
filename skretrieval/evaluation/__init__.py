"""Figures that can be trusted: Pipelines under the published protocols, and the papers' tables beside them."""

from ._evaluate import compare, evaluate
from ._rerun import rerun
from ._results import Comparison, Evaluation
from ._tables import PAPERS, Sweep, TableRow, paper_sweeps, paper_tables

__all__ = [
    "PAPERS",
    "Comparison",
    "Evaluation",
    "Sweep",
    "TableRow",
    "compare",
    "evaluate",
    "paper_sweeps",
    "paper_tables",
    "rerun",
]
