"""From rankings to scores."""

from .._average_precision import DISTRACTOR, METHODS, PRECISION_MODES, ap_from_relevance
from ._at_k import precision_at_k, recall_at_k
from ._average_precision import average_precision, mean_average_precision
from ._evaluate import evaluate, evaluate_rankings, ground_truth_from_labels
from ._leave_one_out import leave_one_out_map
from ._protocols import (
    evaluate_holidays,
    evaluate_labels,
    evaluate_oxford,
    evaluate_revisited,
)
from ._significance import randomization_test, standard_error
from ._ukbench import evaluate_ukbench, ukbench_score

__all__ = [
    "DISTRACTOR",
    "METHODS",
    "PRECISION_MODES",
    "ap_from_relevance",
    "average_precision",
    "evaluate",
    "evaluate_holidays",
    "evaluate_labels",
    "evaluate_oxford",
    "evaluate_rankings",
    "evaluate_revisited",
    "evaluate_ukbench",
    "ground_truth_from_labels",
    "leave_one_out_map",
    "mean_average_precision",
    "precision_at_k",
    "randomization_test",
    "recall_at_k",
    "standard_error",
    "ukbench_score",
]
