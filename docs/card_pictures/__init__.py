"""The pictures of the method cards, by what they show; ``docs/pictures.py`` makes them."""

from . import cells, regions, words
from .scene import PICTURES, SHOWN, Scene

__all__ = ["PICTURES", "SHOWN", "Scene", "cells", "regions", "words"]
