"""A folder of photographs as a living index: updated, searched, and trusted with them."""

from .._terminal import printable
from ._encoder_file import load_encoder, save_encoder
from ._image_index import ImageIndex
from ._results import SearchResults
from ._table import IndexDamagedError
from ._update import TooManyRemovedError, UpdateReport
from ._upgrade import upgrade_index
from ._walk import EXCLUDED, passed_over_words

__all__ = [
    "EXCLUDED",
    "ImageIndex",
    "IndexDamagedError",
    "SearchResults",
    "TooManyRemovedError",
    "UpdateReport",
    "load_encoder",
    "passed_over_words",
    "printable",
    "save_encoder",
    "upgrade_index",
]
