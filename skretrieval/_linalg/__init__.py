"""Linear algebra that several stages share."""

from ._axes import PrincipalAxes, flip_signs, l2_normalize, principal_axes, project, row_blocks

__all__ = ["PrincipalAxes", "flip_signs", "l2_normalize", "principal_axes", "project", "row_blocks"]
