"""``python -m skretrieval.cli``."""

from . import main

main()
