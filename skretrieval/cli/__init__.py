"""The command line: ``skretrieval demo``, ``index``, ``search`` and ``info``."""

from ._app import app, main

__all__ = ["app", "main"]
