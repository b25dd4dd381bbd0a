"""Evaluation of Pipelines under the published protocols, and reproduction of the papers' tables."""

from ._baselines import colour_histograms, thumbnails
from ._encoders import stand_in
from ._evaluate import compare, evaluate
from ._rerun import rerun
from ._results import Comparison, Evaluation, read_records
from ._tune import Tuning, tune
from ._tuning_grid import Setting
from .papers import (
    PAPERS,
    FolderReproduction,
    Reproduction,
    Sweep,
    TableRow,
    paper_sweeps,
    paper_tables,
    reproduce,
    reproduce_on_folder,
)

__all__ = [
    "PAPERS",
    "Comparison",
    "Evaluation",
    "FolderReproduction",
    "Reproduction",
    "Setting",
    "Sweep",
    "TableRow",
    "Tuning",
    "colour_histograms",
    "compare",
    "evaluate",
    "paper_sweeps",
    "paper_tables",
    "read_records",
    "reproduce",
    "reproduce_on_folder",
    "rerun",
    "stand_in",
    "thumbnails",
    "tune",
]
