"""A folder of photographs as an index that is kept up to date and searched."""

from ._changes import Report
from ._image_index import ImageIndex, IndexedImage, as_scores
from ._info import IndexInfo, index_info
from ._pipeline import DEFAULTS, make_pipeline, resolve_settings
from ._update import update_index

__all__ = [
    "DEFAULTS",
    "ImageIndex",
    "IndexInfo",
    "IndexedImage",
    "Report",
    "as_scores",
    "index_info",
    "make_pipeline",
    "resolve_settings",
    "update_index",
]
