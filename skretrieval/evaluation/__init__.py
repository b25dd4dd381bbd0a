"""Figures that can be trusted: Pipelines under the published protocols, and the papers' tables beside them."""

from ._evaluate import compare, evaluate
from ._rerun import rerun
from ._results import Comparison, Evaluation
from .papers._folder_results import FolderReproduction
from .papers._on_folder import reproduce_on_folder
from .papers._reproduce import Reproduction, reproduce
from .papers._tables import PAPERS, Sweep, TableRow, paper_sweeps, paper_tables

__all__ = [
    "PAPERS",
    "Comparison",
    "Evaluation",
    "FolderReproduction",
    "Reproduction",
    "Sweep",
    "TableRow",
    "compare",
    "evaluate",
    "paper_sweeps",
    "paper_tables",
    "reproduce",
    "reproduce_on_folder",
    "rerun",
]
