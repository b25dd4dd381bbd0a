"""Linear algebra that several stages share: principal axes, unit length, powers."""

from ._axes import PrincipalAxes, WhiteningAxes, check_rank, flip_signs
from ._powers import power, power_mean, root, signed_power, without_rounding
from ._principal_axes import StreamedAxes, principal_axes
from ._rows import l2_normalize, project, row_blocks, unit_rows
from ._shrinkage import WhiteningWarning, ledoit_wolf, mean_for_size, shrinkage_for_size, warn_if_thin
from ._tensors import l2, lengths, out_of_range, tensor_of
from ._threads import is_forked, limit_forked_threads

__all__ = [
    "PrincipalAxes",
    "StreamedAxes",
    "WhiteningAxes",
    "WhiteningWarning",
    "check_rank",
    "flip_signs",
    "is_forked",
    "l2",
    "l2_normalize",
    "ledoit_wolf",
    "lengths",
    "limit_forked_threads",
    "mean_for_size",
    "out_of_range",
    "power",
    "power_mean",
    "principal_axes",
    "project",
    "root",
    "row_blocks",
    "shrinkage_for_size",
    "signed_power",
    "tensor_of",
    "unit_rows",
    "warn_if_thin",
    "without_rounding",
]
