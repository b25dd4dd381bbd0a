"""The papers' tables as data, and their reproduction."""

from ._folder_results import FolderReproduction
from ._on_folder import reproduce_on_folder
from ._reproduce import Reproduction, reproduce
from ._tables import PAPERS, Sweep, TableRow, paper_sweeps, paper_tables

__all__ = [
    "PAPERS",
    "FolderReproduction",
    "Reproduction",
    "Sweep",
    "TableRow",
    "paper_sweeps",
    "paper_tables",
    "reproduce",
    "reproduce_on_folder",
]
