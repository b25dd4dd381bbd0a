"""From rankings to scores."""

from ._at_k import precision_at_k, recall_at_k
from ._average_precision import average_precision, mean_average_precision
from ._leave_one_out import leave_one_out_map

__all__ = [
    "average_precision",
    "leave_one_out_map",
    "mean_average_precision",
    "precision_at_k",
    "recall_at_k",
]
