from fixtures.command_line import (
    draw_photograph,
    index,
    index_copy,
    network_options,
    photographs,
    run,
    shared,
    shared_index,
    shared_photographs,
)

__all__ = [
    "draw_photograph",
    "index",
    "index_copy",
    "network_options",
    "photographs",
    "run",
    "shared",
    "shared_index",
    "shared_photographs",
]
